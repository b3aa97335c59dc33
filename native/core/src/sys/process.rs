//! Processes: clone3, the vfork-like spawn, exec and exit.
//!
//! Everything here is a single kernel call. Callers are single-threaded, which is what makes it sound to go on in Rust
//! after a raw clone.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// What clone3 returned, and where.
#[derive(Debug)]
pub enum Cloned {
    Parent { pid: Pid, pidfd: OwnedFd },
    Child,
}

/// clone3(2) of the calling process, with a pidfd, into new namespaces `flags` and, on cgroup v2, directly into a
/// cgroup. The child's copy of memory is its own (no CLONE_VM).
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers; all-zero is its documented "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | cast_flag(libc::CLONE_PIDFD);
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    // A sibling (CLONE_PARENT) dies with our own signal, and asking for one is EINVAL.
    if flags & cast_flag(libc::CLONE_PARENT) == 0 {
        args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    }
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(fd.as_raw_fd().unsigned_abs());
    }
    // SAFETY: without CLONE_VM the child runs on a copy of this stack; args and the pidfd it names outlive the call.
    let rc = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&args), size_of::<libc::clone_args>()) };
    match rc {
        0 => Ok(Cloned::Child),
        1.. => {
            let raw = i32::try_from(rc).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
            let pid = Pid::from_raw(raw).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
            // SAFETY: CLONE_PIDFD stored a new descriptor in `pidfd` before clone3 returned in the parent.
            Ok(Cloned::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// `CLONE_INTO_CGROUP` of linux/sched.h, since Linux 5.7; libc has it as a value that overflows c_int.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

const fn cast_flag(flag: c_int) -> u64 {
    flag.unsigned_abs() as u64
}

/// Runs `body(argument)` in a child that shares this process's memory and descriptor table, on a stack of its own, and
/// returns its pid once it has called exec or `_exit`: vfork(2) with the table shared, so that a descriptor the child
/// makes (the seccomp listener) is ours too. exec gives the child a private table without the close-on-exec ones.
///
/// # Errors
/// mmap(2); clone(2): EAGAIN at a pids limit, ENOMEM when the pid namespace's init is dead.
pub fn spawn_sharing<T>(body: extern "C" fn(*mut c_void) -> c_int, argument: &mut T) -> io::Result<Pid> {
    let stack = Stack::map()?;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: the stack's top is the page-aligned end of a live mapping nobody else uses; CLONE_VFORK keeps this thread
    // from running, and thus `stack` and `argument` alive, until the child is done with them.
    let rc = unsafe { libc::clone(body, stack.top(), flags, std::ptr::from_mut(argument).cast()) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Pid::from_raw(rc).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// Mapped and given back, where a vector would leave its pages with the heap of every sandbox's init.
struct Stack(*mut c_void);

impl Stack {
    /// The child's few frames and the kernel's exec need a fraction of it.
    const BYTES: usize = 64 * 1024;

    fn map() -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private mapping aliases nothing.
        Ok(Self(unsafe { mmap_anonymous(std::ptr::null_mut(), Self::BYTES, access, MapFlags::PRIVATE)? }))
    }

    const fn top(&self) -> *mut c_void {
        self.0.wrapping_byte_add(Self::BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size, and the child that ran on it has left it.
        let _ = unsafe { rustix::mm::munmap(self.0, Self::BYTES) };
    }
}

/// execve(2). Returns only on failure, with the reason.
///
/// `argv` and `envp` are arrays of pointers to NUL-ended strings, ended by a null pointer; they are built before the
/// spawn because the child must not allocate.
pub fn execve(path: &CStr, argv: &PointerList, envp: &PointerList) -> io::Error {
    // SAFETY: a PointerList ends with null and its strings live as long as it does; execve only reads them.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Strings in the form execve wants them.
#[derive(Debug)]
pub struct PointerList {
    // Owns what `pointers` point to; a CString's heap block does not move with the vector.
    _strings: Vec<std::ffi::CString>,
    pointers: Vec<*const c_char>,
}

impl PointerList {
    pub fn new(strings: Vec<std::ffi::CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// `_exit(2)`: ends the process with no destructor, no flush and no handler, which is what a copied or shared address
/// space needs.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any code and does not return.
    unsafe { libc::_exit(code) }
}

/// Sets every signal back to its default and unblocks all: what a program may expect at exec, across which ignored
/// signals and the mask survive. Rust's own start-up ignores SIGPIPE; whoever calls this sends with MSG_NOSIGNAL.
pub fn reset_signals() {
    // SAFETY: sigaction with SIG_DFL installs no code; an invalid number only returns EINVAL.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    set_signal_mask(&[]);
}

/// Blocks exactly `signals`.
pub fn set_signal_mask(signals: &[c_int]) {
    let set = signal_set(signals);
    // SAFETY: `set` is initialised; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

/// signalfd(2) for `signals`, which must be blocked.
pub fn signalfd(signals: &[c_int]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: `set` is initialised; -1 asks for a new descriptor.
    let rc = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    super::owned_fd(rc)
}

fn signal_set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the whole set; sigaddset of a bad number returns EINVAL and changes nothing.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Marks all descriptors from `first` on close-on-exec: close_range(2), since Linux 5.11 with this flag.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: only sets a flag on descriptors; none is closed.
    let rc = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    super::nothing(rc)
}

/// Closes the descriptors `first` to `last`, those that are open.
///
/// The caller must own none of them through an `OwnedFd` that will be dropped later: used right after clone, where the
/// parent's owners exist in this copy but never run their destructors (the child ends by exec or `_exit`).
pub fn close_range(first: u32, last: u32) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: see above: no destructor of a closed descriptor's owner runs in this process.
    let rc = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    super::nothing(rc)
}

/// Closes every descriptor but those in `keep`, which must not be empty. The caller's duty is `close_range`'s.
pub fn close_all_but(mut keep: Vec<u32>) -> io::Result<()> {
    keep.sort_unstable();
    for pair in keep.windows(2) {
        close_range(pair[0] + 1, pair[1].saturating_sub(1))?;
    }
    if keep[0] > 0 {
        close_range(0, keep[0] - 1)?;
    }
    close_range(keep[keep.len() - 1] + 1, u32::MAX)
}

/// setns(2) into a namespace of type `kind`.
pub fn setns(namespace: BorrowedFd<'_>, kind: c_int) -> io::Result<()> {
    // SAFETY: setns reads a descriptor and a flag.
    let rc = unsafe { libc::setns(namespace.as_raw_fd(), kind) };
    super::nothing(rc.into())
}

/// unshare(2) of namespaces; never of the descriptor table, which is what could surprise Rust's owners.
pub fn unshare_namespaces(flags: c_int) -> io::Result<()> {
    assert_eq!(flags & (libc::CLONE_FILES | libc::CLONE_VM | libc::CLONE_THREAD), 0, "namespaces only");
    // SAFETY: namespace flags change what later calls see, not memory or descriptors.
    let rc = unsafe { libc::unshare(flags) };
    super::nothing(rc.into())
}

/// Brings the loopback interface up: SIOCSIFFLAGS with IFF_UP, see netdevice(7). `socket` is any inet socket of the
/// network namespace.
pub fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: ifreq is plain data; all-zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = IFF_UP;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives on this stack.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    super::nothing(rc.into())
}

/// IFF_UP of linux/if.h, in ifreq's width.
const IFF_UP: libc::c_short = 1;

/// dup2(2) onto a fixed number, which becomes inheritable across exec.
///
/// Whatever `number` was is closed; the caller must own it by no `OwnedFd` (init keeps 0 to 9 free of its own).
pub fn duplicate_onto(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: see above: no owner in this process refers to `number`.
    let rc = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes ownership of a descriptor that a child sharing our table made, checking that it is open.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the child made it in the shared table, gave up its own claim (`into_raw_fd`) and has since left the table.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The argument of `spawn_sharing`, back as what it was.
///
/// Only for the `body` of a `spawn_sharing::<T>` call, on its argument.
pub fn argument_of<'a, T>(argument: *mut c_void) -> &'a mut T {
    // SAFETY: `spawn_sharing` passes the address of a live, exclusively borrowed T, and its thread is stopped
    // (CLONE_VFORK) for as long as the child, the only caller, runs.
    unsafe { &mut *argument.cast::<T>() }
}

/// getcwd(2) without allocating: the path's bytes without NUL. One outside the root starts with "(unreachable)".
pub fn getcwd(buffer: &mut [u8]) -> io::Result<&[u8]> {
    // SAFETY: the kernel writes at most `len` bytes into the buffer and returns how many, NUL included.
    let rc = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    super::nothing(rc)?;
    let length = usize::try_from(rc).unwrap_or(0).saturating_sub(1);
    Ok(&buffer[..length.min(buffer.len())])
}

/// kill(-1, SIGKILL): every process this one may signal but itself, and for PID 1 of a pid namespace those are all.
pub fn kill_all_others() -> io::Result<()> {
    // SAFETY: a signal is sent; no memory is involved.
    let rc = unsafe { libc::kill(-1, libc::SIGKILL) };
    super::nothing(rc.into())
}
