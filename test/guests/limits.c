/*
 * A function that does what its payload says, so that a test can drive any limit and any outcome with one image.
 *
 * The payload is one command a line, `NAME ARGUMENT…`; the answer is one line each. `echo` answers with the bytes after
 * it, newlines included. A command that fails answers with the name of its errno. The program speaks `link`, or `stdio`
 * when its first argument says so; `early-exit` and `early-output` misbehave before any call.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <time.h>

#include "../../examples/echo/mayfly_link.h"

enum { PAYLOAD_MAX = 6 * 1024 * 1024, ARGUMENT_MAX = 4096, CHUNK = 64 * 1024 };

/* The answer in the making. In .bss: pages that are not written cost nothing. */
static unsigned char answer[PAYLOAD_MAX + 1024 * 1024];
static size_t answered;
static char said_failure[256];
static int is_link;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf((char *)answer + answered, sizeof answer - answered, format, arguments);
    va_end(arguments);
    if (length > 0 && answered + (size_t)length < sizeof answer) answered += (size_t)length;
}

static void say_result(long result) {
    if (result < 0) say("%s\n", strerrorname_np(errno));
    else say("ok\n");
}

/* Ways to end. */

static void do_exit(const char *argument) { exit(atoi(argument)); }

static void do_raise(const char *argument) {
    signal(atoi(argument), SIG_DFL);
    kill(getpid(), atoi(argument));
}

static void do_segv(const char *argument) {
    (void)argument;
    *(volatile int *)0 = 1;
}

static void do_fail(const char *argument) { snprintf(said_failure, sizeof said_failure, "%s", argument); }

static void do_spin(const char *argument) {
    (void)argument;
    for (volatile unsigned long turns = 0;; turns++) {}
}

static void do_sleep(const char *argument) {
    long ms = atol(argument);
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
    say("slept\n");
}

static void do_ptrace(const char *argument) {
    (void)argument;
    say_result(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
}

/* Not a frame: link.md says that this ends the call as failed. */
static void do_garbage(const char *argument) {
    (void)argument;
    send(MAYFLY_FD, "garbage", 7, MSG_NOSIGNAL);
    pause();
}

/* Use of what is limited. */

static void do_alloc(const char *argument) {
    size_t size = strtoul(argument, NULL, 10);
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return say_result(-1);
    for (size_t at = 0; at < size; at += 4096) memory[at] = 1;
    say("allocated\n");
}

static long fork_sleepers(long wanted) {
    for (long made = 0; made < wanted; made++) {
        pid_t child = fork();
        if (child < 0) return made;
        if (child == 0) {
            pause();
            _exit(0);
        }
    }
    return wanted;
}

static void do_forks(const char *argument) { say("%ld\n", fork_sleepers(atol(argument))); }

/* Ends badly when it could not have all it wanted. */
static void do_forks_or_fail(const char *argument) {
    if (fork_sleepers(atol(argument)) < atol(argument)) exit(1);
    say("ok\n");
}

/* A child that outlives the answer and holds every descriptor open. */
static void do_orphan(const char *argument) {
    (void)argument;
    fork_sleepers(1);
    say("left\n");
}

static void do_output(const char *argument) {
    size_t size = strtoul(argument, NULL, 10);
    static char block[CHUNK];
    memset(block, 'x', sizeof block);
    if (is_link && size > PAYLOAD_MAX) {
        /* Asking is enough: the host refuses before a byte is written. */
        mayfly_send(MAYFLY_NEED_BUFFER, 0, size, NULL, 0);
        pause();
    }
    if (size <= PAYLOAD_MAX) {
        memset(answer + answered, 'x', size);
        answered += size;
        return;
    }
    for (size_t done = 0; done < size; done += sizeof block)
        if (write(STDOUT_FILENO, block, sizeof block) < 0) return;
}

static void do_log(const char *argument) {
    static char block[CHUNK];
    memset(block, 'l', sizeof block);
    for (size_t left = strtoul(argument, NULL, 10); left > 0;) {
        size_t bytes = left < sizeof block ? left : sizeof block;
        ssize_t written = write(STDERR_FILENO, block, bytes);
        if (written < 0) return say_result(-1);
        left -= (size_t)written;
    }
    say("logged\n");
}

/* Bytes written to one file of /tmp, and what stopped it. */
static void do_write(const char *argument) {
    static char block[CHUNK];
    size_t size = strtoul(argument, NULL, 10), done = 0;
    int fd = open("/tmp/written", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return say_result(-1);
    while (done < size) {
        ssize_t written = write(fd, block, sizeof block);
        if (written < 0) break;
        done += (size_t)written;
    }
    say("%zu %s\n", done, done < size ? strerrorname_np(errno) : "ok");
    close(fd);
}

static void do_files(const char *argument) {
    long wanted = atol(argument), made = 0;
    for (; made < wanted; made++) {
        char path[64];
        snprintf(path, sizeof path, "/tmp/file-%ld", made);
        int fd = open(path, O_WRONLY | O_CREAT, 0600);
        if (fd < 0) break;
        close(fd);
    }
    say("%ld %s\n", made, made < wanted ? strerrorname_np(errno) : "ok");
}

static void do_descriptors(const char *argument) {
    long wanted = atol(argument), opened = 0;
    while (opened < wanted && open("/dev/null", O_RDONLY) >= 0) opened++;
    say("%ld %s\n", opened, opened < wanted ? strerrorname_np(errno) : "ok");
}

/* What the sandbox looks like from inside. */

static void do_ids(const char *argument) {
    (void)argument;
    say("uid=%d gid=%d pid=%d ppid=%d\n", getuid(), getgid(), getpid(), getppid());
}

static void do_read(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, answer + answered, CHUNK);
    if (got < 0) say_result(-1);
    else answered += (size_t)got;
    if (fd >= 0) close(fd);
}

static int by_name(const struct dirent **left, const struct dirent **right) { return strcmp((*left)->d_name, (*right)->d_name); }

static void do_list(const char *path) {
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, by_name);
    if (count < 0) return say_result(-1);
    for (int at = 0; at < count; at++) say("%s ", entries[at]->d_name);
    say("\n");
}

static void do_stat(const char *path) {
    struct stat about;
    if (lstat(path, &about) < 0) return say_result(-1);
    say("%d:%d %o\n", about.st_uid, about.st_gid, about.st_mode);
}

static void do_unshare_user(const char *argument) {
    (void)argument;
    say_result(unshare(CLONE_NEWUSER));
}

/* Files. */

static int remove_tree(int parent, const char *name) {
    if (unlinkat(parent, name, 0) == 0) return 0;
    if (errno != EISDIR) return -1;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (folder == NULL) return -1;
    int result = 0;
    for (struct dirent *entry; result == 0 && (entry = readdir(folder)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) result = remove_tree(fd, entry->d_name);
    int error = errno;
    closedir(folder);
    errno = error;
    return result < 0 ? -1 : unlinkat(parent, name, AT_REMOVEDIR);
}

static void do_rmtree(const char *path) { say_result(remove_tree(AT_FDCWD, path)); }

static void do_mkdir(const char *path) { say_result(mkdir(path, 0755)); }

static void do_touch(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    say_result(fd < 0 ? -1 : close(fd));
}

static void do_rename(const char *argument) {
    char from[ARGUMENT_MAX], to[ARGUMENT_MAX];
    if (sscanf(argument, "%4095s %4095s", from, to) != 2) return say("EINVAL\n");
    say_result(rename(from, to));
}

static const struct {
    const char *name;
    void (*run)(const char *argument);
} COMMANDS[] = {
    {"exit", do_exit},         {"raise", do_raise},
    {"segv", do_segv},         {"fail", do_fail},
    {"spin", do_spin},         {"sleep", do_sleep},
    {"ptrace", do_ptrace},     {"garbage", do_garbage},
    {"alloc", do_alloc},       {"forks", do_forks},
    {"forks-or-fail", do_forks_or_fail},
    {"orphan", do_orphan},     {"output", do_output},
    {"log", do_log},           {"write", do_write},
    {"files", do_files},       {"descriptors", do_descriptors},
    {"ids", do_ids},           {"read", do_read},
    {"list", do_list},         {"stat", do_stat},
    {"unshare-user", do_unshare_user},
    {"rmtree", do_rmtree},     {"mkdir", do_mkdir},
    {"touch", do_touch},       {"rename", do_rename},
};

static void run_line(char *line) {
    char *space = strchr(line, ' ');
    const char *argument = space == NULL ? "" : space + 1;
    if (space != NULL) *space = 0;
    for (size_t at = 0; at < sizeof COMMANDS / sizeof COMMANDS[0]; at++)
        if (strcmp(line, COMMANDS[at].name) == 0) return COMMANDS[at].run(argument);
    say("unknown command: %s\n", line);
}

static void run_payload(const void *payload, size_t size) {
    answered = 0;
    said_failure[0] = 0;
    if (size >= 5 && memcmp(payload, "echo ", 5) == 0) {
        answered = size - 5;
        memcpy(answer, (const char *)payload + 5, answered);
        return;
    }
    char *lines = strndup(payload, size);
    for (char *line = strtok(lines, "\n"); line != NULL; line = strtok(NULL, "\n")) run_line(line);
    free(lines);
}

static int serve_link(void) {
    mayfly_message message;
    int received;
    is_link = 1;
    while ((received = mayfly_receive(&message)) > 0) {
        run_payload(message.data, message.size);
        mayfly_release(&message);
        if (said_failure[0] != 0) mayfly_fail(said_failure);
        else if (mayfly_reply(answer, answered) < 0) return 1;
    }
    return received == 0 ? 0 : 1;
}

static int serve_stdio(void) {
    static unsigned char payload[PAYLOAD_MAX];
    size_t size = 0;
    for (ssize_t got; (got = read(STDIN_FILENO, payload + size, sizeof payload - size)) > 0;) size += (size_t)got;
    run_payload(payload, size);
    for (size_t done = 0; done < answered;) {
        ssize_t written = write(STDOUT_FILENO, answer + done, answered - done);
        if (written < 0) return 1;
        done += (size_t)written;
    }
    return said_failure[0] == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "link";
    if (strcmp(mode, "early-exit") == 0) return 7;
    if (strcmp(mode, "early-output") == 0) {
        say("too soon\n");
        if (write(STDOUT_FILENO, answer, answered) < 0) return 1;
        pause();
    }
    return strcmp(mode, "stdio") == 0 ? serve_stdio() : serve_link();
}
