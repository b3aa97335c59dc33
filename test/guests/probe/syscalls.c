// System calls below every wrapper: the forbidden ones with arguments that would do something, the foreign gates.
#include "probe.h"

#include <fcntl.h>
#include <linux/keyctl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

static long mount_tmpfs(void) { return mount("none", "/tmp", "tmpfs", 0, NULL); }
static long mount_cgroup(void) { return mount("none", "/tmp", "cgroup", 0, "memory"); }
static long umount_proc(void) { return umount2("/proc", MNT_DETACH); }
static long unshare_user(void) { return unshare(CLONE_NEWUSER); }
static long setns_self(void) { return setns(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), 0); }
static long chroot_tmp(void) { return chroot("/tmp"); }
static long pivot(void) { return syscall(SYS_pivot_root, "/tmp", "/tmp"); }
static long attach_init(void) { return ptrace(PTRACE_ATTACH, 1, NULL, NULL); }
static long trace_me(void) { return ptrace(PTRACE_TRACEME, 0, NULL, NULL); }
static long read_init(void) { return syscall(SYS_process_vm_readv, 1, NULL, 0, NULL, 0, 0); }
static long key_add(void) { return syscall(SYS_add_key, "user", "mayfly", "x", 1, KEY_SPEC_USER_KEYRING); }
static long key_ask(void) { return syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 1); }
static long bpf_probe(void) { return syscall(SYS_bpf, 0, NULL, 0); }
static long perf_probe(void) { return syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0); }
static long fsopen_tmpfs(void) { return syscall(SYS_fsopen, "tmpfs", 0); }
static long open_tree_root(void) { return syscall(SYS_open_tree, AT_FDCWD, "/", 1); }
static long by_handle(void) {
  struct {
    struct file_handle handle;
    unsigned char data[8];
  } root = {{.handle_bytes = 8, .handle_type = 1}, {2}};
  return syscall(SYS_open_by_handle_at, AT_FDCWD, &root, O_RDONLY);
}
static long kernel_log(void) { return syscall(SYS_syslog, 10, NULL, 0); }
static long kexec(void) { return syscall(SYS_kexec_load, 0, 0, NULL, 0xffff); }
static long module(void) { return syscall(SYS_delete_module, "", 0); }
static long rename_host(void) { return syscall(SYS_sethostname, "other", 5); }

static const struct {
  const char *name;
  long (*make)(void);
} calls[] = {
    {"mount", mount_tmpfs},       {"mount_cgroup", mount_cgroup}, {"umount2", umount_proc},
    {"unshare", unshare_user},    {"setns", setns_self},          {"chroot", chroot_tmp},
    {"pivot_root", pivot},        {"ptrace", attach_init},        {"ptrace_self", trace_me},
    {"process_vm_readv", read_init}, {"add_key", key_add},        {"keyctl", key_ask},
    {"bpf", bpf_probe},           {"perf_event_open", perf_probe}, {"fsopen", fsopen_tmpfs},
    {"open_tree", open_tree_root}, {"open_by_handle_at", by_handle}, {"syslog", kernel_log},
    {"kexec_load", kexec},        {"delete_module", module},      {"sethostname", rename_host},
};

// One call by its name; its result, if it lives to tell.
static void call(int argc, char **argv) {
  for (size_t i = 0; argc > 1 && i < sizeof calls / sizeof *calls; i++)
    if (strcmp(calls[i].name, argv[1]) == 0) result("returned", calls[i].make());
}

static void wake(int signal_number) { (void)signal_number; }

static void *forbidden_for_ever(void *unused) {
  for (;;) (void)!unshare_user();
  return unused;
}

// Forbidden calls again and again from many threads, each interrupted by a signal before anyone may have looked at it.
static void restless(int argc, char **argv) {
  sigaction(SIGALRM, &(struct sigaction){.sa_handler = wake}, NULL);
  pthread_t threads[16];
  long count = argument(argc, argv, 1, 4);
  for (long i = 0; i < count && i < 16; i++) pthread_create(&threads[i], NULL, forbidden_for_ever, NULL);
  for (long i = 0;; i = (i + 1) % count) pthread_kill(threads[i], SIGALRM);
}

// Each number without arguments, so that it fails by itself where the filter lets it through.
static void numbers(int argc, char **argv) {
  open_list("returned");
  for (int i = 1; i < argc; i++) result(NULL, syscall(argument(argc, argv, i, 0), -1L, -1L, -1L, -1L, -1L, -1L));
  close_list();
}

// E10 without its filter: every kind of nested namespace.
static void nest(int argc, char **argv) {
  (void)argc, (void)argv;
  result("mnt", unshare(CLONE_NEWNS));
  result("net", unshare(CLONE_NEWNET));
  result("pid", unshare(CLONE_NEWPID));
  result("user", unshare(CLONE_NEWUSER));
}

// E23: getpid by the i386 gate, and under its x32 number.
static void i386(int argc, char **argv) {
  (void)argc, (void)argv;
#ifdef __x86_64__
  long value;
  __asm__ volatile("int $0x80" : "=a"(value) : "a"(20L) : "r8", "r9", "r10", "r11", "memory");
  number("pid", value);
#endif
}

static void x32(int argc, char **argv) {
  (void)argc, (void)argv;
  result("pid", syscall(0x40000000 + SYS_getpid));
}

// The filter of every thread, as the kernel tells it.
static void filters(int argc, char **argv) {
  (void)argc, (void)argv;
  open_list("threads");
  char path[64];
  for (int tid = 2; tid < 64; tid++) {
    snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
    char *content = file_text(path);
    char *line = content == NULL ? NULL : strstr(content, "\nSeccomp:\t");
    if (line != NULL) text_of(NULL, line + 10, 1);
  }
  close_list();
}

const struct row syscall_rows[] = {
    {"call", call}, {"restless", restless}, {"numbers", numbers}, {"nest", nest},       {"i386", i386},
    {"x32", x32},   {"filters", filters}, {NULL, NULL},
};
