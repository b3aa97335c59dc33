/* Answers every invocation with its own payload. */
#define _GNU_SOURCE
#include "mayfly_link.h"

int main(void) {
    mayfly_message message;
    int received;
    while ((received = mayfly_receive(&message)) > 0) {
        if (mayfly_reply(message.data, message.size) < 0) return 1;
        mayfly_release(&message);
    }
    return received == 0 ? 0 : 1;
}
