// A hostile function, or a curious one: tries what the first line of its payload names and answers with what it saw.
//
//   probe                serves the `link` contract on descriptor 3
//   probe stdio          one row from stdin (to its end), the answer on stdout
//   probe row NAME ...   one row from the arguments, the answer on stdout
//   probe early HOW      misbehaves before any call, then serves `link`
//
// It judges nothing: the tests know what a row must see. Where a row is expected to be killed, it simply never answers.
#include "probe.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

const unsigned char *body;
size_t body_length;

static char answer[1 << 20];
static size_t answer_length;
static const unsigned char *raw_answer;
static size_t raw_length;
static enum { OBJECT, BYTES, NOTHING } form;

static void put(const char *format, ...) {
  va_list list;
  va_start(list, format);
  size_t room = sizeof answer - answer_length;
  int wrote = vsnprintf(answer + answer_length, room, format, list);
  va_end(list);
  if (wrote < 0 || (size_t)wrote >= room) _exit(98);
  answer_length += (size_t)wrote;
}

static void put_text(const char *value, size_t length) {
  put("\"");
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)value[i];
    if (c < 0x20 || c == '"' || c == '\\' || c >= 0x7f) put("\\u%04x", c);
    else put("%c", c);
  }
  put("\"");
}

static void put_key(const char *key) {
  char last = answer_length > 0 ? answer[answer_length - 1] : '{';
  if (last != '{' && last != '[') put(",");
  if (key == NULL) return;
  put_text(key, strlen(key));
  put(":");
}

void number(const char *key, long long value) {
  put_key(key);
  put("%lld", value);
}

void text_of(const char *key, const char *value, size_t length) {
  put_key(key);
  put_text(value, length);
}

void text(const char *key, const char *value) { text_of(key, value, strlen(value)); }

void result(const char *key, long value) {
  if (value >= 0) number(key, value);
  else text(key, strerrorname_np(errno));
}

void open_list(const char *key) {
  put_key(key);
  put("[");
}
void open_object(const char *key) {
  put_key(key);
  put("{");
}
void close_list(void) { put("]"); }
void close_object(void) { put("}"); }

void answer_bytes(const unsigned char *bytes, size_t length) {
  form = BYTES;
  raw_answer = bytes;
  raw_length = length;
}
void answer_nothing(void) { form = NOTHING; }

long argument(int argc, char **argv, int at, long otherwise) { return at < argc ? strtol(argv[at], NULL, 0) : otherwise; }

char *file_text(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return NULL;
  size_t size = 1 << 16, length = 0;
  char *content = malloc(size);
  for (ssize_t n; (n = read(fd, content + length, size - length - 1)) > 0;) length += (size_t)n;
  close(fd);
  content[length] = 0;
  return content;
}

void lines_of(const char *key, const char *path) {
  char *content = file_text(path);
  open_list(key);
  for (char *line = content == NULL ? NULL : strtok(content, "\n"); line != NULL; line = strtok(NULL, "\n"))
    text(NULL, line);
  close_list();
  free(content);
}

static const struct row *find_row(const char *name) {
  const struct row *tables[] = {file_rows,    id_rows,      link_rows,   memory_rows,
                                network_rows, process_rows, syscall_rows};
  for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
    for (const struct row *row = tables[t]; row->name != NULL; row++)
      if (strcmp(row->name, name) == 0) return row;
  return NULL;
}

static void run_row(int argc, char **argv) {
  const struct row *row = argc > 0 ? find_row(argv[0]) : NULL;
  form = OBJECT;
  answer_length = 0;
  put("{");
  text("row", argc > 0 ? argv[0] : "");
  if (row == NULL) text("error", "no such row");
  else row->run(argc, argv);
  put("}");
}

// Splits the first line at its spaces; what follows it is the body.
static void run_payload(unsigned char *payload, size_t length) {
  char *argv[16];
  int argc = 0;
  unsigned char *end = memchr(payload, '\n', length);
  size_t line = end == NULL ? length : (size_t)(end - payload);
  payload[line] = 0;
  body = payload + line + (end != NULL);
  body_length = length - line - (end != NULL);
  for (char *word = strtok((char *)payload, " "); word != NULL && argc < 16; word = strtok(NULL, " ")) argv[argc++] = word;
  run_row(argc, argv);
}

static void write_all(int fd, const void *bytes, size_t length) {
  for (const char *at = bytes; length > 0;) {
    ssize_t wrote = write(fd, at, length);
    if (wrote < 0) _exit(97);
    at += wrote;
    length -= (size_t)wrote;
  }
}

static void print_answer(void) {
  if (form == OBJECT) write_all(1, answer, answer_length);
  if (form == BYTES) write_all(1, raw_answer, raw_length);
}

long send_frame(struct frame frame, const void *payload, size_t length) {
  struct iovec parts[2] = {{&frame, sizeof frame}, {(void *)payload, length}};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
  return sendmsg(LINK_FD, &message, MSG_NOSIGNAL);
}

long receive_frame(struct frame *frame, unsigned char *bytes, size_t size, int *memfd) {
  union {
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control;
  struct iovec parts[2] = {{frame, sizeof *frame}, {bytes, size}};
  struct msghdr message = {
      .msg_iov = parts, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t got = recvmsg(LINK_FD, &message, MSG_CMSG_CLOEXEC);
  *memfd = -1;
  struct cmsghdr *first = CMSG_FIRSTHDR(&message);
  if (got > 0 && first != NULL && first->cmsg_type == SCM_RIGHTS) memcpy(memfd, CMSG_DATA(first), sizeof(int));
  return got;
}

long send_result(const unsigned char *bytes, size_t length) {
  if (length <= INLINE_MAX) return send_frame((struct frame){1, RESULT, 0, 0, length}, bytes, length);
  struct frame reply;
  int memfd;
  if (send_frame((struct frame){1, NEED_BUFFER, 0, 0, length}, NULL, 0) < 0) return -1;
  if (receive_frame(&reply, NULL, 0, &memfd) <= 0 || reply.kind != BUFFER || memfd < 0) return -1;
  for (size_t at = 0; at < length;) {
    ssize_t wrote = pwrite(memfd, bytes + at, length - at, (off_t)at);
    if (wrote <= 0) return -1;
    at += (size_t)wrote;
  }
  close(memfd);
  return send_frame((struct frame){1, RESULT, IN_MEMFD, 0, length}, NULL, 0);
}

static int serve_link(void) {
  static unsigned char inline_payload[INLINE_MAX + 1];
  for (;;) {
    struct frame invoke;
    int memfd;
    if (receive_frame(&invoke, inline_payload, INLINE_MAX, &memfd) <= 0) return 0;
    unsigned char *payload = inline_payload;
    if (invoke.flags & IN_MEMFD) {
      // Private, so that the line can be cut where the payload is not to be written.
      payload = mmap(NULL, invoke.length + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, memfd, 0);
      if (payload == MAP_FAILED) return 96;
      close(memfd);
    }
    run_payload(payload, invoke.length);
    if (form == OBJECT) send_result((unsigned char *)answer, answer_length);
    if (form == BYTES) send_result(raw_answer, raw_length);
    if (payload != inline_payload) munmap(payload, invoke.length + 1);
  }
}

static int serve_stdio(void) {
  size_t size = 8 << 20, length = 0;
  unsigned char *payload = malloc(size);
  for (ssize_t n; (n = read(0, payload + length, size - length - 1)) > 0;) length += (size_t)n;
  run_payload(payload, length);
  print_answer();
  return 0;
}

// What a program may do wrong between its exec and its first call.
static void misbehave_early(const char *how) {
  if (strcmp(how, "exit") == 0) _exit(3);
  if (strcmp(how, "answer") == 0) send_frame((struct frame){1, RESULT, 0, 0, 5}, "early", 5);
  if (strcmp(how, "speak") == 0) write_all(1, "early\n", 6);
  if (strcmp(how, "denied") == 0) find_row("call")->run(2, (char *[]){"call", "unshare"});
  if (strcmp(how, "spin") == 0) for (;;) {}
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "link";
  if (strcmp(mode, "stdio") == 0) return serve_stdio();
  if (strcmp(mode, "row") == 0) {
    run_row(argc - 2, argv + 2);
    print_answer();
    return 0;
  }
  if (strcmp(mode, "early") == 0 && argc > 2) misbehave_early(argv[2]);
  return serve_link();
}
