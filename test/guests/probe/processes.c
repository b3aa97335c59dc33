// Ends, children, signals, and what a process can do to its init.
#include "probe.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void exit_with(int argc, char **argv) { _exit((int)argument(argc, argv, 1, 0)); }

// By kill(2) on itself, so that SIGKILL and SIGSYS come from the function and from nobody else.
static void raise_signal(int argc, char **argv) {
  kill(getpid(), (int)argument(argc, argv, 1, SIGTERM));
  pause();
}

static void fault(int argc, char **argv) {
  (void)argc, (void)argv;
  volatile int *volatile nowhere = NULL;
  *nowhere = 1;
}

// Forks children that sleep until one is refused or there are so many; they outlive the answer.
static void fork_children(int argc, char **argv) {
  long wanted = argument(argc, argv, 1, 1), made = 0;
  pid_t child = 1;
  while (made < wanted && (child = fork()) > 0) made++;
  if (child == 0)
    for (;;) pause();
  result("last", child < 0 ? -1 : 0);
  number("made", made);
}

// Forks for ever, from every child too, and answers never.
static void bomb(int argc, char **argv) {
  (void)argc, (void)argv;
  for (;;) (void)!fork();
}

// E14: init's memory, environment and descriptors.
static void attack_init(int argc, char **argv) {
  (void)argc, (void)argv;
  int mem = open("/proc/1/mem", O_RDWR | O_CLOEXEC);
  result("mem", mem < 0 ? -1 : 0);
  int environment = open("/proc/1/environ", O_RDONLY | O_CLOEXEC);
  char byte;
  result("environ", environment < 0 ? -1 : read(environment, &byte, 1));
  int directory = open("/proc/1/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  result("fd", directory < 0 ? -1 : 0);
  int executable = open("/proc/1/exe", O_WRONLY | O_CLOEXEC);
  result("exe", executable < 0 ? -1 : 0);
}

// E28: signals at init, at everybody, and whether a child survives them.
static void signal_others(int argc, char **argv) {
  (void)argc, (void)argv;
  pid_t child = fork();
  if (child == 0)
    for (;;) pause();
  result("init_kill", kill(1, SIGKILL));
  result("init_term", kill(1, SIGTERM));
  result("init_stop", kill(1, SIGSTOP));
  result("group", kill(0, 0));
  result("everybody", kill(-1, SIGKILL));
  result("beyond", kill(4000000, SIGKILL));
  int status;
  usleep(20000);
  number("child_died", waitpid(child, &status, WNOHANG) == child);
  result("child_kill", kill(child, SIGKILL));
}

// E32: a daemon that holds stdin, opened again the other way, and every descriptor; its parent ends at once.
static void hold_streams(int argc, char **argv) {
  (void)argc, (void)argv;
  int again = open("/proc/self/fd/0", O_WRONLY | O_CLOEXEC);
  result("stdin_for_writing", again < 0 ? -1 : 0);
  int ready[2];
  (void)!pipe(ready);
  if (fork() == 0) {
    setsid();
    for (int signal_number = 1; signal_number < 32; signal_number++) signal(signal_number, SIG_IGN);
    (void)!write(ready[1], "", 1);
    for (;;) pause();
  }
  char byte;
  (void)!read(ready[0], &byte, 1);
}

const struct row process_rows[] = {
    {"exit", exit_with},           {"raise", raise_signal},         {"fault", fault},
    {"fork", fork_children},       {"bomb", bomb},                  {"attack_init", attack_init},
    {"signal_others", signal_others}, {"hold_streams", hold_streams}, {NULL, NULL},
};
