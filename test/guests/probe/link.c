// Answers that break the `link` contract, each in its own way. The host must neither believe nor hang on one.
#include "probe.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct frame a_result(uint64_t length) { return (struct frame){1, RESULT, 0, 0, length}; }

static void wrong_kind(void) { send_frame((struct frame){1, 77, 0, 0, 2}, "no", 2); }
static void wrong_version(void) { send_frame((struct frame){9, RESULT, 0, 0, 2}, "no", 2); }
static void hosts_kind(void) { send_frame((struct frame){1, INVOKE, 0, 0, 2}, "no", 2); }
static void reserved_set(void) { send_frame((struct frame){1, RESULT, 0, 7, 2}, "no", 2); }
static void unknown_flags(void) { send_frame((struct frame){1, RESULT, 0x8000, 0, 2}, "no", 2); }
static void length_above(void) { send_frame(a_result(1000), "no", 2); }
static void length_below(void) { send_frame(a_result(1), "no", 2); }
static void length_huge(void) { send_frame(a_result(UINT64_MAX), "no", 2); }
static void half_header(void) { (void)!send(LINK_FD, "\1\2\0", 3, MSG_NOSIGNAL); }
static void nothing_at_all(void) { (void)!send(LINK_FD, "", 0, MSG_NOSIGNAL); }
static void memfd_unasked(void) { send_frame((struct frame){1, RESULT, IN_MEMFD, 0, 1 << 20}, NULL, 0); }
static void buffer_huge(void) { send_frame((struct frame){1, NEED_BUFFER, 0, 0, UINT64_MAX}, NULL, 0); }
static void buffer_over_limit(void) { send_frame((struct frame){1, NEED_BUFFER, 0, 0, 7 << 20}, NULL, 0); }
static void buffer_with_payload(void) { send_frame((struct frame){1, NEED_BUFFER, 0, 0, 1 << 20}, "no", 2); }

static void memfd_longer_than_buffer(void) {
  struct frame reply;
  int memfd;
  send_frame((struct frame){1, NEED_BUFFER, 0, 0, 1 << 18}, NULL, 0);
  receive_frame(&reply, NULL, 0, &memfd);
  send_frame((struct frame){1, RESULT, IN_MEMFD, 0, 1 << 20}, NULL, 0);
}

static void buffer_twice(void) {
  struct frame reply;
  int memfd;
  for (int i = 0; i < 2; i++) {
    send_frame((struct frame){1, NEED_BUFFER, 0, 0, 1 << 18}, NULL, 0);
    if (receive_frame(&reply, NULL, 0, &memfd) <= 0) return;
  }
  send_frame((struct frame){1, RESULT, IN_MEMFD, 0, 1 << 18}, NULL, 0);
}

static void ends_channel(void) { shutdown(LINK_FD, SHUT_RDWR); }
static void closes_channel(void) { close(LINK_FD); }

static const struct {
  const char *name;
  void (*send)(void);
} lies[] = {
    {"wrong_kind", wrong_kind},         {"wrong_version", wrong_version},
    {"hosts_kind", hosts_kind},         {"reserved_set", reserved_set},
    {"unknown_flags", unknown_flags},   {"length_above", length_above},
    {"length_below", length_below},     {"length_huge", length_huge},
    {"half_header", half_header},       {"nothing_at_all", nothing_at_all},
    {"memfd_unasked", memfd_unasked},   {"buffer_huge", buffer_huge},
    {"buffer_over_limit", buffer_over_limit}, {"buffer_with_payload", buffer_with_payload},
    {"memfd_longer_than_buffer", memfd_longer_than_buffer}, {"buffer_twice", buffer_twice},
    {"ends_channel", ends_channel},     {"closes_channel", closes_channel},
};

// Sends one lie and then waits, so that only the host's own judgement can end the call.
static void lie(int argc, char **argv) {
  answer_nothing();
  for (size_t i = 0; argc > 1 && i < sizeof lies / sizeof *lies; i++) {
    if (strcmp(lies[i].name, argv[1]) != 0) continue;
    lies[i].send();
    for (;;) pause();
  }
}

// Right once, and then so many more answers that nobody asked for.
static void answer_again(int argc, char **argv) {
  answer_nothing();
  for (long i = argument(argc, argv, 1, 3); i >= 0; i--) {
    const char *answer = i == argument(argc, argv, 1, 3) ? "right" : "wrong";
    send_frame(a_result(5), answer, 5);
  }
}

// Says that it failed, in its own words.
static void fail(int argc, char **argv) {
  (void)argc, (void)argv;
  answer_nothing();
  send_frame((struct frame){1, FAILED, 0, 0, body_length}, body, body_length);
}

const struct row link_rows[] = {{"lie", lie}, {"answer_again", answer_again}, {"fail", fail}, {NULL, NULL}};
