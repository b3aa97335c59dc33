// Using up: memory, processor, output, time.
#include "probe.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static void echo(int argc, char **argv) {
  (void)argc, (void)argv;
  answer_bytes(body, body_length);
}

// Touches so many MiB, keeps them, and answers.
static void allocate(int argc, char **argv) {
  size_t size = (size_t)argument(argc, argv, 1, 1) << 20;
  char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    text("mapped", strerrorname_np(errno));
    return;
  }
  for (size_t at = 0; at < size; at += 4096) memory[at] = 1;
  number("touched", (long long)size);
}

static void *spin_for_ever(void *unused) {
  (void)unused;
  for (;;) {
  }
  return NULL;
}

// Spins for so many milliseconds of wall time (for ever without), in so many threads.
static void spin(int argc, char **argv) {
  long ms = argument(argc, argv, 1, -1), threads = argument(argc, argv, 2, 1);
  pthread_t thread;
  for (long i = 1; i < threads; i++) pthread_create(&thread, NULL, spin_for_ever, NULL);
  struct timespec start, now;
  clock_gettime(CLOCK_MONOTONIC, &start);
  do clock_gettime(CLOCK_MONOTONIC, &now);
  while (ms < 0 || (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < ms);
  number("spun_ms", ms);
}

// Sleeps, deaf to every signal that can be ignored if asked to be.
static void sleep_for(int argc, char **argv) {
  long ms = argument(argc, argv, 1, 1000);
  if (argc > 2 && strcmp(argv[2], "deaf") == 0)
    for (int signal_number = 1; signal_number < 32; signal_number++) signal(signal_number, SIG_IGN);
  struct timespec left = {ms / 1000, ms % 1000 * 1000000};
  while (nanosleep(&left, &left) < 0 && errno == EINTR) {
  }
  number("slept_ms", ms);
}

// A result of so many bytes.
static void output(int argc, char **argv) {
  size_t size = (size_t)argument(argc, argv, 1, 1);
  unsigned char *bytes = malloc(size + 1);
  memset(bytes, 'o', size);
  answer_bytes(bytes, size);
}

// So many bytes to stderr first.
static void log_bytes(int argc, char **argv) {
  long long left = argument(argc, argv, 1, 1);
  static char block[4096];
  memset(block, 'l', sizeof block);
  while (left > 0) {
    ssize_t n = write(2, block, left < 4096 ? (size_t)left : sizeof block);
    if (n <= 0) break;
    left -= n;
  }
  number("left", left);
}

const struct row memory_rows[] = {
    {"echo", echo},   {"allocate", allocate}, {"spin", spin}, {"sleep", sleep_for},
    {"output", output}, {"log", log_bytes},   {NULL, NULL},
};
