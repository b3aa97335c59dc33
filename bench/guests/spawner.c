/*
 * Starts the program of its arguments once for each byte on descriptor 4, and answers there with a byte when it has
 * ended: 0 for a good end. The program inherits descriptor 3, over which whoever measures speaks to it directly.
 *
 * It is there so that no peer pays for a fork of Node, which is large: sandboxd, which builds our sandboxes, is small.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CONTROL_FD = 4 };

extern char **environ;

int main(int argc, char **argv) {
    unsigned char byte;
    if (argc < 2 || fcntl(CONTROL_FD, F_SETFD, FD_CLOEXEC) < 0) return 1;
    while (read(CONTROL_FD, &byte, 1) == 1) {
        pid_t pid;
        int status = -1;
        if (posix_spawn(&pid, argv[1], NULL, NULL, argv + 1, environ) == 0) waitpid(pid, &status, 0);
        byte = status != 0;
        if (write(CONTROL_FD, &byte, 1) != 1) return 1;
    }
    return 0;
}
