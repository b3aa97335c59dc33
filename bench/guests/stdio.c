/*
 * Answers by exiting: reads all of its stdin, writes it to stdout. A static program of a few pages, so that what a call
 * to it takes is what starting, feeding and burying a process takes.
 */
#include <unistd.h>

enum { CHUNK_BYTES = 65536 };

static char chunk[CHUNK_BYTES];

int main(void) {
    ssize_t got;
    while ((got = read(0, chunk, sizeof chunk)) > 0) {
        for (ssize_t sent = 0; sent < got;) {
            ssize_t wrote = write(1, chunk + sent, (size_t)(got - sent));
            if (wrote < 0) return 1;
            sent += wrote;
        }
    }
    return got < 0;
}
