// Who the function is: ids, groups, capabilities, names, namespaces, environment, limits, clocks.
#include "probe.h"

#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// The lines of /proc/self/status that say what a process may do, by name.
static void status(int argc, char **argv) {
  (void)argc, (void)argv;
  static const char *names[] = {"Uid",    "Gid",    "Groups", "NSpid",      "CapInh",  "CapPrm",         "CapEff",
                                "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Speculation_Store_Bypass"};
  char *content = file_text("/proc/self/status");
  for (char *line = content == NULL ? NULL : strtok(content, "\n"); line != NULL; line = strtok(NULL, "\n")) {
    char *colon = strchr(line, ':');
    if (colon == NULL) continue;
    *colon = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
      if (strcmp(line, names[i]) == 0) text(line, colon[1] == '\t' ? colon + 2 : colon + 1);
  }
}

static void ids(int argc, char **argv) {
  (void)argc, (void)argv;
  uid_t real, effective, saved;
  getresuid(&real, &effective, &saved);
  number("uid", real);
  number("euid", effective);
  number("suid", saved);
  gid_t rgid, egid, sgid;
  getresgid(&rgid, &egid, &sgid);
  number("gid", rgid);
  number("egid", egid);
  number("sgid", sgid);
  gid_t groups[64];
  number("groups", getgroups(64, groups));
  number("pid", getpid());
  number("ppid", getppid());
  result("securebits", prctl(PR_GET_SECUREBITS));
  result("become_root", setresuid(0, 0, 0));
  result("become_root_group", setresgid(0, 0, 0));
  result("take_groups", setgroups(1, (gid_t[]){0}));
}

static void hostname(int argc, char **argv) {
  (void)argc, (void)argv;
  char name[256];
  gethostname(name, sizeof name);
  text("hostname", name);
}

static void namespaces(int argc, char **argv) {
  (void)argc, (void)argv;
  static const char *kinds[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    char path[64], link[128];
    snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
    ssize_t length = readlink(path, link, sizeof link);
    if (length < 0) text(kinds[i], strerrorname_np(errno));
    else text_of(kinds[i], link, (size_t)length);
  }
}

extern char **environ;
static void environment(int argc, char **argv) {
  (void)argc, (void)argv;
  open_list("env");
  for (char **entry = environ; *entry != NULL; entry++) text(NULL, *entry);
  close_list();
}

static void limits(int argc, char **argv) {
  (void)argc, (void)argv;
  static const struct {
    const char *name;
    int number;
  } resources[] = {{"core", RLIMIT_CORE},       {"nofile", RLIMIT_NOFILE},         {"fsize", RLIMIT_FSIZE},
                   {"memlock", RLIMIT_MEMLOCK}, {"sigpending", RLIMIT_SIGPENDING}, {"msgqueue", RLIMIT_MSGQUEUE},
                   {"stack", RLIMIT_STACK}};
  for (size_t i = 0; i < sizeof resources / sizeof *resources; i++) {
    struct rlimit is;
    getrlimit(resources[i].number, &is);
    open_list(resources[i].name);
    number(NULL, (long long)is.rlim_cur);
    number(NULL, (long long)is.rlim_max);
    close_list();
  }
  result("raise", setrlimit(RLIMIT_NOFILE, &(struct rlimit){1 << 20, 1 << 20}));
}

static void clocks(int argc, char **argv) {
  (void)argc, (void)argv;
  struct timespec is;
  clock_gettime(CLOCK_MONOTONIC, &is);
  number("monotonic_ms", is.tv_sec * 1000 + is.tv_nsec / 1000000);
  clock_gettime(CLOCK_BOOTTIME, &is);
  number("boottime_ms", is.tv_sec * 1000 + is.tv_nsec / 1000000);
}

// E11: another program of the image, perhaps a set-id one, as a child; its answer is part of ours.
static void run(int argc, char **argv) {
  if (argc < 3) return;
  int out[2];
  if (pipe(out) < 0) return;
  pid_t child = fork();
  if (child == 0) {
    dup2(out[1], 1);
    execl(argv[1], argv[1], "row", argv[2], NULL);
    printf("%s", strerrorname_np(errno));
    fflush(stdout);
    _exit(127);
  }
  close(out[1]);
  static char answer[65536];
  size_t length = 0;
  for (ssize_t n; (n = read(out[0], answer + length, sizeof answer - length)) > 0;) length += (size_t)n;
  int status;
  waitpid(child, &status, 0);
  number("status", status);
  text_of("answer", answer, length);
}

const struct row id_rows[] = {
    {"status", status},   {"ids", ids},       {"hostname", hostname}, {"namespaces", namespaces}, {"env", environment},
    {"limits", limits},   {"clocks", clocks}, {"run", run},     {NULL, NULL},
};
