/*
 * What starting a program costs without Node and without isolation: for each payload on descriptor 3, starts the
 * program of its arguments (posix_spawn, which is vfork and exec), gives it the payload on stdin and takes its stdout
 * until the end and its exit. Answers there with the nanoseconds that took and what the program wrote.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINK_FD = 3, PAYLOAD_BYTES = 256 };

extern char **environ;

struct answer {
    uint64_t ns;
    char output[PAYLOAD_BYTES];
};

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Whether the program took the payload, wrote as much and ended well. */
static int run(char **argv, const char *payload, char *output) {
    int to[2], from[2], status;
    pid_t pid;
    posix_spawn_file_actions_t actions;
    if (pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0) return 0;
    if (posix_spawn_file_actions_init(&actions) != 0 || posix_spawn_file_actions_adddup2(&actions, to[0], 0) != 0 ||
        posix_spawn_file_actions_adddup2(&actions, from[1], 1) != 0)
        return 0;
    int error = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(to[0]);
    close(from[1]);
    if (error != 0 || write(to[1], payload, PAYLOAD_BYTES) != PAYLOAD_BYTES) return 0;
    close(to[1]);
    size_t filled = 0;
    for (ssize_t got; filled < PAYLOAD_BYTES; filled += (size_t)got) {
        if ((got = read(from[0], output + filled, PAYLOAD_BYTES - filled)) <= 0) break;
    }
    char more;
    int is_all = filled == PAYLOAD_BYTES && read(from[0], &more, 1) == 0;
    close(from[0]);
    return waitpid(pid, &status, 0) == pid && is_all && status == 0;
}

int main(int argc, char **argv) {
    char payload[PAYLOAD_BYTES];
    struct answer answer;
    if (argc < 2 || fcntl(LINK_FD, F_SETFD, FD_CLOEXEC) < 0) return 1;
    while (read(LINK_FD, payload, sizeof payload) == sizeof payload) {
        uint64_t started = now_ns();
        if (!run(argv + 1, payload, answer.output)) return 1;
        answer.ns = now_ns() - started;
        if (write(LINK_FD, &answer, sizeof answer) != sizeof answer) return 1;
    }
    return 0;
}
