//! Loading a seccomp filter and hearing which call it stopped. There is no wrapper for an answer to a notification:
//! what the filter notifies of is killed, and continuing a call is a race its caller always wins (seccomp(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{nothing, owned_fd};

/// One instruction of classic BPF, as the kernel reads it.
pub type SockFilter = libc::sock_filter;

/// The call a filtered thread is blocked in, read from its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// Names this notification to the kernel, unique for the life of the listener.
    pub id: u64,
    /// The blocked thread, in the reader's pid namespace; 0 if it is not visible there.
    pub pid: u32,
    pub nr: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

/// seccomp(2), SECCOMP_SET_MODE_FILTER: puts `program` on the calling thread for good. The caller has set
/// no_new_privs. With `new_listener` the descriptor of the program's USER_NOTIF actions comes back, close-on-exec.
///
/// Allocates nothing and takes no lock, so that it may run between vfork and exec. SECCOMP_FILTER_FLAG_SPEC_ALLOW is
/// not passed: it would switch the mitigation of speculative store bypass off for the thread.
pub fn install(program: &[SockFilter], new_listener: bool) -> io::Result<Option<OwnedFd>> {
    let Ok(len) = u16::try_from(program.len()) else { return Err(io::Error::from_raw_os_error(libc::EINVAL)) };
    // The kernel only reads the instructions; `filter` is mutable in C's type alone.
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let flags = if new_listener { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    // SAFETY: `fprog` and the `len` instructions it points at outlive the call, which copies them and keeps no pointer.
    let rc = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) };
    nothing(rc)?;
    // With NEW_LISTENER what came back is a descriptor, otherwise 0.
    if new_listener { owned_fd(i32::try_from(rc).unwrap_or(-1)).map(Some) } else { Ok(None) }
}

/// seccomp(2), SECCOMP_GET_NOTIF_SIZES: the size of this kernel's notification. One that differs from
/// [`NOTIFICATION_SIZE`] makes [`notif_recv`] fail with EINVAL, since the size is part of the ioctl's number.
pub fn notif_sizes() -> io::Result<u16> {
    let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    // SAFETY: the kernel writes one `seccomp_notif_sizes` through the pointer, which is valid for exactly that.
    let rc = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) };
    nothing(rc).map(|()| sizes.seccomp_notif)
}

/// The size of a notification as this file reads it.
pub const NOTIFICATION_SIZE: usize = size_of::<libc::seccomp_notif>();

/// SECCOMP_IOCTL_NOTIF_RECV: the next call that waits on `listener`; blocks while none does, so poll first.
/// ENOENT means that the caller was killed, or interrupted by a signal, in between: it will call again or is gone.
pub fn notif_recv(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // SAFETY: a `seccomp_notif` is integers throughout, for which all zeroes is a value, and the one the kernel demands.
    let mut notif: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the ioctl's number carries `size_of::<seccomp_notif>()`, so the kernel writes exactly into `notif` or refuses.
    let rc = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notif) };
    nothing(rc.into())?;
    let data = notif.data;
    Ok(Notification { id: notif.id, pid: notif.pid, nr: data.nr.cast_unsigned(), arch: data.arch, args: data.args })
}
