//! The native profile on a real kernel: every class of call, provoked in a forked child under the installed filter and,
//! to show that it is the filter that answers, in one without.

#![cfg(test)]

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use mayfly_core::seccomp::{self, Action, Profile, Program, syscall_number};
use mayfly_core::sys::seccomp::{install, notif_recv, notif_sizes};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, WaitOptions};
use rustix::process::{pidfd_getfd, pidfd_open, pidfd_send_signal, waitpid};

const NATIVE: &str = include_str!("../../../images/profiles/native.json");

/// What became of a child that makes one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The call came back: its value, or the errno below zero.
    Returned(i64),
    /// It blocked, the listener named it, and the child was killed.
    Denied(&'static str),
    Signaled(i32),
}

fn native() -> (Profile, Program) {
    let profile = Profile::parse(NATIVE).unwrap();
    let program = seccomp::compile(&profile).unwrap();
    (profile, program)
}

/// `call` in a child of its own, under the filter or without one.
fn in_child(program: Option<&Program>, call: impl FnOnce() -> i64) -> Ended {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let child = raw::fork();
    let Some(child) = Pid::from_raw(child) else { run_child(program, theirs, call) };
    drop(theirs);
    let pidfd = pidfd_open(child, PidfdFlags::empty()).unwrap();
    let listener = program.map(|_| {
        let mut number = [0; 4];
        ours.read_exact(&mut number).unwrap();
        let listener = pidfd_getfd(&pidfd, i32::from_ne_bytes(number), PidfdGetfdFlags::empty()).unwrap();
        ours.write_all(&[0]).unwrap();
        listener
    });

    // The pidfd and not the end of the stream tells of its death: children of other tests hold copies of the stream.
    let mut waited = vec![PollFd::new(&ours, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
    waited.extend(listener.as_ref().map(|listener| PollFd::new(listener, PollFlags::IN)));
    poll(&mut waited, None).unwrap();
    let is_notified = waited.get(2).is_some_and(|fd| fd.revents().contains(PollFlags::IN));
    let named = is_notified.then(|| notif_recv(listener.as_ref().unwrap().as_fd()).unwrap());
    if let Some(notification) = named {
        assert_eq!(
            (notification.pid, notification.arch),
            (child.as_raw_nonzero().get().cast_unsigned(), seccomp::AUDIT_ARCH)
        );
        pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
    }
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
    if let Some(notification) = named {
        assert_eq!(status.terminating_signal(), Some(libc::SIGKILL));
        return Ended::Denied(seccomp::syscall_name(notification.nr).unwrap());
    }
    if let Some(signal) = status.terminating_signal() {
        return Ended::Signaled(signal);
    }
    let mut value = [0; 8];
    ours.read_exact(&mut value).unwrap();
    Ended::Returned(i64::from_ne_bytes(value))
}

/// The child's side. After the filter stands, it only uses what the filter allows.
fn run_child(program: Option<&Program>, mut parent: UnixStream, call: impl FnOnce() -> i64) -> ! {
    if let Some(program) = program {
        rustix::thread::set_no_new_privs(true).unwrap();
        let listener = install(program.instructions(), true).unwrap().unwrap();
        parent.write_all(&listener.as_raw_fd().to_ne_bytes()).unwrap();
        parent.read_exact(&mut [0]).unwrap();
    }
    let value = call();
    parent.write_all(&value.to_ne_bytes()).unwrap();
    raw::exit(0)
}

/// The calls with `action` that carry no condition, by name and number.
fn unconditional(profile: &Profile, action: impl Fn(Action) -> bool) -> Vec<(String, i64)> {
    let entries = profile.entries().filter(|(entry, of)| entry.when.is_empty() && action(*of));
    entries.filter_map(|(entry, _)| Some((entry.name.clone(), syscall_number(&entry.name)?.into()))).collect()
}

/// Arguments no call accepts: bad pointers, bad descriptors, unknown flags, so that nothing happens without the filter.
const NONSENSE: [i64; 6] = [-1; 6];

#[test]
fn forbidden_calls_are_named_and_their_process_is_killed() {
    let (profile, program) = native();
    let forbidden = unconditional(&profile, |action| action == Action::Notify);
    assert!(forbidden.len() >= 50, "{forbidden:?}");
    for (name, nr) in forbidden {
        let ended = in_child(Some(&program), || raw::syscall(nr, NONSENSE));
        assert!(matches!(ended, Ended::Denied(named) if named == name), "{name}: {ended:?}");
        // vhangup takes no argument to refuse, and would hang up a developer's terminal.
        if name != "vhangup" {
            let free = in_child(None, || raw::syscall(nr, NONSENSE));
            assert!(matches!(free, Ended::Returned(_)), "{name} without the filter: {free:?}");
        }
    }
}

#[test]
fn refused_calls_return_the_error_of_their_group() {
    let (profile, program) = native();
    for errno in [libc::EPERM, libc::ENOSYS, libc::EOPNOTSUPP] {
        let refused = unconditional(&profile, |action| action == Action::Errno(u16::try_from(errno).unwrap()));
        assert!(!refused.is_empty());
        for (name, nr) in refused {
            let ended = in_child(Some(&program), || raw::syscall(nr, NONSENSE));
            if ["uretprobe", "uprobe"].contains(&name.as_str()) {
                // Past every filter since Linux 6.14 (seccomp_uprobe_exception): only the kernel's trampoline gets anything from them.
                assert!(!matches!(ended, Ended::Returned(0..)), "{name}: {ended:?}");
                continue;
            }
            assert_eq!(ended, Ended::Returned(-i64::from(errno)), "{name}");
        }
    }
    for (name, without) in [("io_uring_setup", -libc::EFAULT), ("mlockall", -libc::EINVAL), ("getxattr", -libc::EFAULT)]
    {
        let nr = syscall_number(name).unwrap().into();
        assert_eq!(in_child(None, || raw::syscall(nr, NONSENSE)), Ended::Returned(without.into()), "{name}");
    }
}

#[test]
fn numbers_newer_than_this_build_do_not_exist() {
    let (_, program) = native();
    let newest = i64::from(seccomp::syscalls().last().unwrap().1);
    for nr in [newest + 1, newest + 1000, 0x3fff_ffff] {
        assert_eq!(in_child(Some(&program), || raw::syscall(nr, NONSENSE)), Ended::Returned(-i64::from(libc::ENOSYS)));
    }
}

#[test]
fn arguments_decide_where_the_profile_looks_at_them() {
    const NULL: i64 = 0;
    /// One that every file understands, so that it is the filter and not /dev/null that knows nothing of it.
    const FIOASYNC: i32 = 0x5452;
    let (_, program) = native();
    let errno = |errno: i32| Ended::Returned(-i64::from(errno));
    let vsock = i64::from(libc::AF_VSOCK);
    let stream = i64::from(libc::SOCK_STREAM);
    // name, arguments, under the filter, without
    let cases: [(&str, [i64; 6], Ended, Ended); 14] = [
        ("socket", [vsock, stream, 0, 0, 0, 0], errno(libc::EAFNOSUPPORT), Ended::Returned(3)),
        ("socket", [16, 3, 0, 0, 0, 0], errno(libc::EAFNOSUPPORT), Ended::Returned(3)),
        // The kernel reads a family as an int: a dirty upper half does not turn an allowed one into another.
        ("socket", [vsock | 1 << 32, stream, 0, 0, 0, 0], errno(libc::EAFNOSUPPORT), Ended::Returned(3)),
        (
            "clone",
            [i64::from(libc::CLONE_NEWUTS | libc::CLONE_THREAD), 0, 0, 0, 0, 0],
            errno(libc::EPERM),
            errno(libc::EINVAL),
        ),
        ("fcntl", [1, i64::from(libc::F_SETPIPE_SZ), 0, 0, 0, 0], errno(libc::EPERM), errno(libc::EBADF)),
        ("fcntl", [1, i64::from(libc::F_SETOWN), 0, 0, 0, 0], errno(libc::EPERM), Ended::Returned(0)),
        ("ioctl", [1, i64::from(FIOASYNC), 1, 0, 0, 0], errno(libc::ENOTTY), errno(libc::EFAULT)),
        ("prlimit64", [0, 7, 1, NULL, 0, 0], errno(libc::EPERM), errno(libc::EFAULT)),
        ("prlimit64", [0, 7, NULL, NULL, 0, 0], Ended::Returned(0), Ended::Returned(0)),
        ("prctl", [i64::from(libc::PR_SET_DUMPABLE), 1, 0, 0, 0, 0], errno(libc::EINVAL), Ended::Returned(0)),
        ("prctl", [i64::from(libc::PR_GET_DUMPABLE), 0, 0, 0, 0, 0], Ended::Returned(1), Ended::Returned(1)),
        ("kill", [1, 0, 0, 0, 0, 0], errno(libc::EPERM), Ended::Returned(0)),
        ("kill", [i64::from(i32::MIN + 1), 0, 0, 0, 0, 0], errno(libc::EPERM), errno(libc::ESRCH)),
        ("madvise", [0, 0, i64::from(libc::MADV_MERGEABLE), 0, 0, 0], errno(libc::EPERM), Ended::Returned(0)),
    ];
    for (name, args, filtered, free) in cases {
        // A vacant 3, and a 1 that no test runner made a terminal or a pipe of.
        let call = |name: &str| {
            let nr = syscall_number(name).unwrap().into();
            raw::syscall(nr, args)
        };
        let quiet = || {
            raw::stand_in_descriptors();
            call(name)
        };
        assert_eq!(comparable(in_child(Some(&program), quiet)), comparable(filtered), "{name} {args:x?} filtered");
        assert_eq!(comparable(in_child(None, quiet)), comparable(free), "{name} {args:x?} free");
    }
}

/// Descriptors are numbered by whatever else is open here.
fn comparable(ended: Ended) -> Ended {
    match ended {
        Ended::Returned(value) if value > 2 => Ended::Returned(3),
        other => other,
    }
}

#[test]
fn what_a_program_needs_is_untouched() {
    let (_, program) = native();
    let socket = || raw::syscall(libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_STREAM.into(), 0, 0, 0, 0]).min(0);
    assert_eq!(in_child(Some(&program), socket), Ended::Returned(0));
    let fork = || match raw::fork() {
        0 => raw::exit(7),
        child => waitpid(Pid::from_raw(child), WaitOptions::empty()).unwrap().unwrap().1.exit_status().unwrap().into(),
    };
    assert_eq!(in_child(Some(&program), fork), Ended::Returned(7));
    let thread = || std::thread::spawn(|| 42).join().unwrap();
    assert_eq!(in_child(Some(&program), thread), Ended::Returned(42));
    let abort = || -> i64 { std::process::abort() };
    // raise() checks the sender's pid against the range for one process, which the test's own pid is in.
    assert_eq!(in_child(Some(&program), abort), Ended::Signaled(libc::SIGABRT));
}

#[test]
fn a_shell_with_pipes_runs_under_the_filter() {
    let (_, program) = native();
    let run = || {
        let script = "cd / && ls | wc -l > /dev/null && x=$(echo 4) && exit $((x + 1))";
        let error = Command::new("/bin/sh").args(["-c", script]).exec();
        -i64::from(error.raw_os_error().unwrap())
    };
    // exec replaces the child that would have reported, so the shell's own end is asked.
    let status = raw::fork();
    let Some(child) = Pid::from_raw(status) else {
        rustix::thread::set_no_new_privs(true).unwrap();
        install(program.instructions(), false).unwrap();
        raw::exit(i32::try_from(run()).unwrap())
    };
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(5), "{status:?}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn foreign_system_call_tables_kill_at_once() {
    let (_, program) = native();
    // getpid is 20 on i386 and 39 on x86_64.
    let i386 = || raw::int80(20);
    assert_eq!(in_child(Some(&program), i386), Ended::Signaled(libc::SIGSYS));
    assert!(matches!(in_child(None, i386), Ended::Returned(pid) if pid > 0), "this kernel has no i386 calls to refuse");
    let x32 = || raw::syscall(0x4000_0000 + libc::SYS_getpid, [0; 6]);
    assert_eq!(in_child(Some(&program), x32), Ended::Signaled(libc::SIGSYS));
    assert!(matches!(in_child(None, x32), Ended::Returned(_)));
}

#[test]
fn without_a_listener_a_forbidden_call_does_nothing() {
    let (_, program) = native();
    let child = raw::fork();
    let Some(child) = Pid::from_raw(child) else {
        rustix::thread::set_no_new_privs(true).unwrap();
        assert!(install(program.instructions(), false).unwrap().is_none());
        raw::exit(i32::try_from(-raw::syscall(libc::SYS_unshare, [0; 6])).unwrap())
    };
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(libc::ENOSYS), "{status:?}");
}

#[test]
fn this_kernels_notification_is_the_one_that_is_read() {
    assert_eq!(usize::from(notif_sizes().unwrap()), mayfly_core::sys::seccomp::NOTIFICATION_SIZE);
}

/// What the probes need below every wrapper.
mod raw {
    /// A negative errno, as the kernel returns it.
    pub fn syscall(nr: i64, [a, b, c, d, e, f]: [i64; 6]) -> i64 {
        // SAFETY: the callers pass no pointer to memory of ours, only null, small numbers and -1, which is never mapped.
        let rc = unsafe { libc::syscall(nr, a, b, c, d, e, f) };
        if rc == -1 { -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { rc }
    }

    pub fn fork() -> i32 {
        // SAFETY: the child only runs a probe and leaves by exec or _exit; glibc keeps its allocator usable across fork.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
        child
    }

    pub fn exit(code: i32) -> ! {
        // SAFETY: _exit runs no destructor of the state this child shares with its parent's copy.
        unsafe { libc::_exit(code) }
    }

    /// Makes descriptor 1 /dev/null, which is neither a terminal nor a pipe.
    pub fn stand_in_descriptors() {
        // SAFETY: the path is a C string, and nothing of this child uses descriptor 1 as something else.
        unsafe { libc::dup2(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR), 1) };
    }

    /// A system call without arguments through the 32-bit gate.
    #[cfg(target_arch = "x86_64")]
    pub fn int80(nr: i64) -> i64 {
        let value: i64;
        // SAFETY: the kernel reads the number from rax and answers there; it clobbers r8 to r11 on the way.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("rax") nr => value, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        };
        value
    }
}
