/*
 * The program that benchmarks call. `once` answers one invocation with its own payload and ends; `spin` takes one and
 * never answers. Speaks `link` on descriptor 3, which may be a stream socket too.
 */
#define _GNU_SOURCE
#include "../../examples/echo/mayfly_link.h"

int main(int argc, char **argv) {
    mayfly_message message;
    if (argc != 2 || mayfly_receive(&message) != 1) return 1;
    if (strcmp(argv[1], "spin") == 0) {
        for (volatile unsigned long turns = 0;; turns++) {}
    }
    return mayfly_reply(message.data, message.size) < 0;
}
