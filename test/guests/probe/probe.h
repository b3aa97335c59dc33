// What the rows of the probe share: how they are called and how they answer.
#ifndef PROBE_H
#define PROBE_H
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A row tries one thing and says what it saw. argv[0] is the row's name.
typedef void row_function(int argc, char **argv);
struct row {
  const char *name;
  row_function *run;
};
extern const struct row file_rows[], id_rows[], link_rows[], memory_rows[], network_rows[], process_rows[],
    syscall_rows[];

// What follows the first line of the payload.
extern const unsigned char *body;
extern size_t body_length;

// The answer, a JSON object, built key by key. A null key is for items of a list.
void number(const char *key, long long value);
void text(const char *key, const char *value);
void text_of(const char *key, const char *value, size_t length);
// 0 or a positive value as a number, a failure as the name of its errno.
void result(const char *key, long value);
void open_list(const char *key);
void open_object(const char *key);
void close_list(void);
void close_object(void);

// The answer is these bytes and no object.
void answer_bytes(const unsigned char *bytes, size_t length);
// The row has answered, or will not: nothing is to be sent.
void answer_nothing(void);

long argument(int argc, char **argv, int at, long otherwise);
// A whole small file in memory that lives on, NUL at its end; null if it cannot be read.
char *file_text(const char *path);
// The lines of a file as a list.
void lines_of(const char *key, const char *path);

// The `link` frame.
struct frame {
  uint8_t version, kind;
  uint16_t flags;
  uint32_t reserved;
  uint64_t length;
};
enum { INVOKE = 1, RESULT = 2, FAILED = 3, NEED_BUFFER = 4, BUFFER = 5 };
enum { LINK_FD = 3, IN_MEMFD = 1, INLINE_MAX = 131072 };
long send_frame(struct frame frame, const void *payload, size_t length);
long send_result(const unsigned char *bytes, size_t length);
// Waits for one frame; its payload inline in `bytes`, or the memfd that came with it in `memfd`.
long receive_frame(struct frame *frame, unsigned char *bytes, size_t size, int *memfd);

#endif
