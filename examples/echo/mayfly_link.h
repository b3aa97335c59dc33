/*
 * The `link` contract of Mayfly for C, in one header and without dependencies: native/link.md in code.
 *
 *     mayfly_message message;
 *     while (mayfly_receive(&message) > 0) {
 *         mayfly_reply(message.data, message.size);
 *         mayfly_release(&message);
 *     }
 *
 * Include it in one file of a program. Needs Linux and _GNU_SOURCE.
 */
#ifndef MAYFLY_LINK_H
#define MAYFLY_LINK_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE before including mayfly_link.h"
#endif

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "frames are little-endian"
#endif

enum { MAYFLY_FD = 3, MAYFLY_VERSION = 1, MAYFLY_INLINE_MAX = 131072 };

enum mayfly_kind { MAYFLY_INVOKE = 1, MAYFLY_RESULT, MAYFLY_FAILED, MAYFLY_NEED_BUFFER, MAYFLY_BUFFER };

/* The payload is in a memfd, not in the frame. */
enum { MAYFLY_IN_MEMFD = 1 };

typedef struct {
    uint8_t version;
    uint8_t kind;
    uint16_t flags;
    uint32_t reserved;
    uint64_t length;
} mayfly_header;

_Static_assert(sizeof(mayfly_header) == 16, "the header has 16 bytes");

typedef struct {
    const void *data;
    size_t size;
    int is_mapped;
} mayfly_message;

/* Every inline payload is read into this one: a message is valid until the next is received. */
static unsigned char mayfly_inline[MAYFLY_INLINE_MAX];

/* Sends header and payload as one packet. 0, or -1 with errno. */
static int mayfly_send(enum mayfly_kind kind, uint16_t flags, uint64_t length, const void *payload, size_t bytes) {
    mayfly_header header = {MAYFLY_VERSION, (uint8_t)kind, flags, 0, length};
    struct iovec parts[2] = {{&header, sizeof header}, {(void *)(uintptr_t)payload, bytes}};
    struct msghdr packet = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t sent;
    do sent = sendmsg(MAYFLY_FD, &packet, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -1 : 0;
}

/* Receives one packet and the descriptor that came with it (or -1). Its payload's bytes, 0 at the end, or -1. */
static ssize_t mayfly_receive_packet(mayfly_header *header, int *memfd) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec parts[2] = {{header, sizeof *header}, {mayfly_inline, sizeof mayfly_inline}};
    struct msghdr packet = {
        .msg_iov = parts, .msg_iovlen = 2, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t got;
    do got = recvmsg(MAYFLY_FD, &packet, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    *memfd = -1;
    if (got <= 0) return got;
    struct cmsghdr *passed = CMSG_FIRSTHDR(&packet);
    if (passed && passed->cmsg_level == SOL_SOCKET && passed->cmsg_type == SCM_RIGHTS)
        memcpy(memfd, CMSG_DATA(passed), sizeof(int));
    if (got < (ssize_t)sizeof *header || header->version != MAYFLY_VERSION || (packet.msg_flags & MSG_TRUNC)) {
        if (*memfd >= 0) close(*memfd);
        errno = EPROTO;
        return -1;
    }
    return got;
}

/* Waits for the next invocation. 1: there is one in *message; 0: there will be no more; -1: errno says why. */
static int mayfly_receive(mayfly_message *message) {
    mayfly_header header;
    int memfd;
    ssize_t got = mayfly_receive_packet(&header, &memfd);
    if (got <= 0) return (int)got;
    *message = (mayfly_message){mayfly_inline, (size_t)got - sizeof header, 0};
    int is_valid = header.kind == MAYFLY_INVOKE && (header.flags & MAYFLY_IN_MEMFD ? memfd >= 0 && header.length > 0
                                                                                : header.length == message->size);
    if (is_valid && memfd >= 0) {
        /* Private: the host has sealed it against writing. */
        void *data = mmap(NULL, header.length, PROT_READ, MAP_PRIVATE, memfd, 0);
        is_valid = data != MAP_FAILED;
        *message = (mayfly_message){data, header.length, 1};
    }
    if (memfd >= 0) close(memfd);
    if (is_valid) return 1;
    errno = EPROTO;
    return -1;
}

/* Gives back what a large message takes. */
static inline void mayfly_release(mayfly_message *message) {
    if (message->is_mapped) munmap((void *)(uintptr_t)message->data, message->size);
    *message = (mayfly_message){NULL, 0, 0};
}

static int mayfly_write_all(int fd, const unsigned char *data, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t written = pwrite(fd, data + done, size - done, (off_t)done);
        if (written < 0 && errno != EINTR) return -1;
        if (written > 0) done += (size_t)written;
    }
    return 0;
}

/* A result that does not fit into a frame: ask the host for a buffer of its size, fill it, say so. */
static int mayfly_reply_large(const void *data, size_t size) {
    mayfly_header header;
    int memfd;
    if (mayfly_send(MAYFLY_NEED_BUFFER, 0, size, NULL, 0) < 0) return -1;
    if (mayfly_receive_packet(&header, &memfd) <= 0) return -1;
    int is_ours = header.kind == MAYFLY_BUFFER && memfd >= 0 && header.length == size;
    int failed = !is_ours || mayfly_write_all(memfd, data, size) < 0;
    if (memfd >= 0) close(memfd);
    if (!is_ours) errno = EPROTO;
    return failed ? -1 : mayfly_send(MAYFLY_RESULT, MAYFLY_IN_MEMFD, size, NULL, 0);
}

/* Answers the invocation. `data` may be the message's own. 0, or -1 with errno. */
static inline int mayfly_reply(const void *data, size_t size) {
    if (size > MAYFLY_INLINE_MAX) return mayfly_reply_large(data, size);
    return mayfly_send(MAYFLY_RESULT, 0, size, data, size);
}

/* Answers that the function failed, with a UTF-8 text for the caller. */
static inline int mayfly_fail(const char *text) {
    size_t size = strlen(text);
    if (size > MAYFLY_INLINE_MAX) size = MAYFLY_INLINE_MAX;
    return mayfly_send(MAYFLY_FAILED, 0, size, text, size);
}

#endif
