// The families a function may open, the network it is in, and what it can do to whoever shares a socket with it.
#include "probe.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

// E19: each family by its number.
static void sockets(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    int fd = socket((int)argument(argc, argv, i, 0), i == 1 ? SOCK_STREAM : SOCK_DGRAM, 0);
    if (fd < 0) fd = socket((int)argument(argc, argv, i, 0), SOCK_SEQPACKET, 0);
    result(argv[i], fd < 0 ? -1 : 0);
    if (fd >= 0) close(fd);
  }
}

// A server and a client of its own on 127.0.0.1, and one byte through them.
static void loopback(int argc, char **argv) {
  (void)argc, (void)argv;
  int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  result("bind", bind(server, (struct sockaddr *)&address, size));
  result("listen", listen(server, 1));
  getsockname(server, (struct sockaddr *)&address, &size);
  long connected = connect(client, (struct sockaddr *)&address, size);
  result("connect", connected);
  if (connected < 0) return;
  int accepted = accept4(server, NULL, NULL, SOCK_CLOEXEC);
  char byte = 0;
  if (write(client, "!", 1) == 1 && read(accepted, &byte, 1) == 1) number("byte", byte);
  close(accepted), close(client), close(server);
  lines_of("interfaces", "/proc/self/net/dev");
}

// What listens on the host: a port of 127.0.0.1, and an abstract name.
static void reach_host(int argc, char **argv) {
  if (argc < 3) return;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in port = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)argument(argc, argv, 1, 0)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  result("port", connect(fd, (struct sockaddr *)&port, sizeof port));
  close(fd);
  fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  size_t length = strnlen(argv[2], sizeof name.sun_path - 2);
  memcpy(name.sun_path + 1, argv[2], length);
  result("abstract", connect(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)));
  close(fd);
}

// E30: 253 descriptors, the most one message carries, twenty times over every descriptor it has.
static void flood_descriptors(int argc, char **argv) {
  (void)argc, (void)argv;
  enum { COUNT = 253 };
  union {
    char space[CMSG_SPACE(COUNT * sizeof(int))];
    struct cmsghdr align;
  } control;
  memset(&control, 0, sizeof control);
  control.align = (struct cmsghdr){CMSG_LEN(COUNT * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
  for (int i = 0; i < COUNT; i++) memcpy(CMSG_DATA(&control.align) + i * sizeof(int), &(int){2}, sizeof(int));
  // A frame that no host expects, so that it is the frame's descriptors and not its answer that count.
  struct frame frame = {1, INVOKE, 0, 0, 0};
  struct iovec part = {&frame, sizeof frame};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.space};
  open_object("last");
  for (int fd = 0; fd < 64; fd++) {
    if (fcntl(fd, F_GETFD) < 0) continue;
    long rc = 0;
    for (int i = 0; i < 20 && rc >= 0; i++) rc = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    char name[16];
    snprintf(name, sizeof name, "%d", fd);
    result(name, rc);
  }
  close_object();
}

// E31: makes every description it has non-blocking and appending, for whoever else has it.
static void flip_flags(int argc, char **argv) {
  (void)argc, (void)argv;
  open_object("set");
  for (int fd = 0; fd < 64; fd++) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) continue;
    char name[16];
    snprintf(name, sizeof name, "%d", fd);
    result(name, fcntl(fd, F_SETFL, flags | O_NONBLOCK | O_APPEND));
  }
  close_object();
}

const struct row network_rows[] = {
    {"sockets", sockets},
    {"loopback", loopback},
    {"reach_host", reach_host},
    {"flood_descriptors", flood_descriptors},
    {"flip_flags", flip_flags},
    {NULL, NULL},
};
