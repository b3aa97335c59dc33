// What a function can reach of the file system: its root, the mounts, /proc, /dev, and how much it can fill.
#include "probe.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

// E02: which descriptors are open, and where it stands.
static void fds(int argc, char **argv) {
  (void)argc, (void)argv;
  open_list("open_fds");
  for (int fd = 0; fd < 4096; fd++)
    if (fcntl(fd, F_GETFD) >= 0) number(NULL, fd);
  close_list();
  char cwd[4096];
  text("cwd", getcwd(cwd, sizeof cwd) == NULL ? strerrorname_np(errno) : cwd);
}

static void names_in(const char *key, const char *path) {
  DIR *directory = opendir(path);
  if (directory == NULL) {
    text(key, strerrorname_np(errno));
    return;
  }
  open_list(key);
  for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) text(NULL, entry->d_name);
  close_list();
  closedir(directory);
}

static void list(int argc, char **argv) { names_in("names", argc > 1 ? argv[1] : "/"); }

// Any small file, as its lines.
static void lines(int argc, char **argv) {
  const char *path = argc > 1 ? argv[1] : "/proc/self/mountinfo";
  lines_of("lines", path);
}

// Opens for reading or writing and says how that went.
static void open_file(int argc, char **argv) {
  if (argc < 3) return;
  int flags = strcmp(argv[2], "rw") == 0 ? O_RDWR : strcmp(argv[2], "w") == 0 ? O_WRONLY : O_RDONLY;
  int fd = open(argv[1], flags | O_CLOEXEC);
  result("opened", fd < 0 ? -1 : 0);
  if (fd >= 0) close(fd);
}

static void dev(int argc, char **argv) {
  (void)argc, (void)argv;
  names_in("names", "/dev");
  open_object("devices");
  DIR *directory = opendir("/dev");
  for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
    struct stat is;
    if (fstatat(dirfd(directory), entry->d_name, &is, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISCHR(is.st_mode)) continue;
    char device[64];
    snprintf(device, sizeof device, "%u:%u", major(is.st_rdev), minor(is.st_rdev));
    text(entry->d_name, device);
  }
  close_object();
}

// E26: climbs from the root and through every open descriptor, and says where it came to.
static void walk(int argc, char **argv) {
  (void)argc, (void)argv;
  struct stat root, here;
  stat("/", &root);
  long climbed = 0;
  while (climbed < 64 && chdir("..") == 0) climbed++;
  number("climbed", climbed);
  stat(".", &here);
  number("is_root", root.st_dev == here.st_dev && root.st_ino == here.st_ino);
  open_list("left_by_fd");
  for (int fd = 0; fd < 4096; fd++)
    if (fcntl(fd, F_GETFD) >= 0 && fchdir(fd) == 0) number(NULL, fd);
  close_list();
  for (int i = 0; i < 64; i++) (void)!chdir("..");
  names_in("names", ".");
  struct statx mount;
  open_list("mount_ids");
  const char *paths[] = {"/", "/proc", "/dev", "/dev/shm", "/tmp", "."};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
    if (statx(AT_FDCWD, paths[i], 0, STATX_MNT_ID, &mount) == 0) number(NULL, (long long)mount.stx_mnt_id);
  close_list();
  (void)!chdir("/");
}

static int agents_found;
static int look_for_agent(const char *path, const struct stat *is, int kind, struct FTW *where) {
  (void)is, (void)kind;
  agents_found += strcmp(path + where->base, "release_agent") == 0;
  return 0;
}

// E08: any release_agent below the root.
static void release_agent(int argc, char **argv) {
  (void)argc, (void)argv;
  agents_found = 0;
  nftw("/", look_for_agent, 32, FTW_PHYS);
  number("release_agents", agents_found);
  struct stat is;
  result("sys", stat("/sys", &is));
}

// E17: device nodes by mknod.
static void make_nodes(int argc, char **argv) {
  (void)argc, (void)argv;
  result("memory", mknod("/tmp/memory", S_IFCHR | 0666, makedev(1, 1)));
  result("disk", mknod("/tmp/disk", S_IFBLK | 0666, makedev(254, 0)));
  result("null", mknod("/tmp/null", S_IFCHR | 0666, makedev(1, 3)));
}

static void owner(int argc, char **argv) {
  struct stat is;
  if (argc < 2) return;
  int rc = lstat(argv[1], &is);
  result("stat", rc);
  if (rc < 0) return;
  number("uid", is.st_uid);
  number("gid", is.st_gid);
  number("mode", is.st_mode & 07777);
  text("kind", S_ISDIR(is.st_mode) ? "directory" : S_ISLNK(is.st_mode) ? "link" : S_ISREG(is.st_mode) ? "file" : "other");
}

static int remove_entry(const char *path, const struct stat *is, int kind, struct FTW *where) {
  (void)is, (void)where;
  return kind == FTW_DP || kind == FTW_D ? rmdir(path) : unlink(path);
}

// Removes a folder of the image with all in it, and makes a new one in its place: both pass through the overlay.
static void replace_folder(int argc, char **argv) {
  if (argc < 2) return;
  result("removed", nftw(argv[1], remove_entry, 32, FTW_DEPTH | FTW_PHYS));
  struct stat is;
  result("after_remove", stat(argv[1], &is));
  result("made", mkdir(argv[1], 0755));
  names_in("names", argv[1]);
}

// Writes `argv[1]` until it is refused or `argv[2]` MiB are in it.
static void fill_bytes(int argc, char **argv) {
  if (argc < 3) return;
  // Beyond the largest size of a file, an error and not a death.
  signal(SIGXFSZ, SIG_IGN);
  static char block[1 << 16];
  memset(block, 'x', sizeof block);
  int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  result("opened", fd < 0 ? -1 : 0);
  long long wrote = 0, wanted = argument(argc, argv, 2, 1) << 20;
  ssize_t n = 0;
  while (wrote < wanted && (n = write(fd, block, sizeof block)) > 0) wrote += n;
  result("last", n < 0 ? -1 : 0);
  number("wrote", wrote);
}

// Creates empty files below `argv[1]` until that is refused or there are `argv[2]`.
static void fill_inodes(int argc, char **argv) {
  if (argc < 3) return;
  long made = 0, wanted = argument(argc, argv, 2, 1);
  int fd = 0;
  for (; made < wanted && fd >= 0; made += fd >= 0) {
    char path[256];
    snprintf(path, sizeof path, "%s/i%ld", argv[1], made);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) close(fd);
  }
  result("last", fd < 0 ? -1 : 0);
  number("made", made);
}

// Something for the next one to find: a file, and the answer whether one was there.
static void leave(int argc, char **argv) {
  if (argc < 2) return;
  number("was_there", access(argv[1], F_OK) == 0);
  int fd = open(argv[1], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  result("left", fd < 0 ? -1 : 0);
  if (fd >= 0) close(fd);
}

static void space(int argc, char **argv) {
  struct statvfs of;
  if (argc < 2 || statvfs(argv[1], &of) < 0) return;
  number("bytes", (long long)(of.f_blocks * of.f_frsize));
  number("free_bytes", (long long)(of.f_bfree * of.f_frsize));
  number("inodes", (long long)of.f_files);
  number("flags", (long long)of.f_flag);
}

const struct row file_rows[] = {
    {"fds", fds},
    {"list", list},
    {"lines", lines},
    {"open", open_file},
    {"dev", dev},
    {"walk", walk},
    {"release_agent", release_agent},
    {"make_nodes", make_nodes},
    {"owner", owner},
    {"replace_folder", replace_folder},
    {"fill_bytes", fill_bytes},
    {"fill_inodes", fill_inodes},
    {"leave", leave},
    {"space", space},
    {NULL, NULL},
};
