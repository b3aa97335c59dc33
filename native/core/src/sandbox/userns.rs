//! A sandbox's user namespace, made by the nursery before anybody asks: with its map, which only M can write, so that a
//! build need not wait for it, and with no room for a nested one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::{IMAGE_OWNER_ID, write_all};
use crate::sys::{self, process::Cloned};

/// As which uid and gid a function sees itself unless its image says otherwise (contract/function.ts).
pub const USUAL_ID: u32 = 1000;

/// The namespace in which the image owner is root and `id`, as M numbers it, is the usual function.
///
/// # Errors
/// clone(2), and what the kernel says to each file's write.
pub fn make(id: u32) -> io::Result<OwnedFd> {
    let (ready, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // Not sharing our memory, which would be half the work: on Linux 6.1 that is EINVAL for a process whose children are
    // to be in another time namespace, as ours are.
    let (first, pidfd) = match sys::process::clone3(u64::from(libc::CLONE_NEWUSER.unsigned_abs()), None)? {
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
        Cloned::Child => {
            drop(tell);
            let code = first_process(&ready).map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0);
            sys::process::exit_now(code)
        }
    };
    let made = write_maps(first, USUAL_ID, USUAL_ID, id).and_then(|()| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(format!("/proc/{}/ns/user", first.as_raw_nonzero()), flags, Mode::empty())?)
    });
    if made.is_ok() {
        rustix::io::write(&tell, &[0])?;
    }
    drop(tell);
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    let namespace = made?;
    match status.and_then(|status| status.exit_status()) {
        Some(0) => Ok(namespace),
        code => Err(io::Error::from_raw_os_error(code.unwrap_or(libc::EIO))),
    }
}

/// The sandbox's root is the image owner, its function `id`; nothing else exists there.
///
/// # Errors
/// open(2), write(2).
pub fn write_maps(process: Pid, uid: u32, gid: u32, id: u32) -> io::Result<()> {
    let process = format!("/proc/{}", process.as_raw_nonzero());
    std::fs::write(format!("{process}/uid_map"), format!("0 {IMAGE_OWNER_ID} 1\n{uid} {id} 1\n"))?;
    std::fs::write(format!("{process}/setgroups"), "deny")?;
    std::fs::write(format!("{process}/gid_map"), format!("0 {IMAGE_OWNER_ID} 1\n{gid} {id} 1\n"))
}

/// Its only one until a sandbox joins, and gone by then.
fn first_process(ready: &OwnedFd) -> io::Result<()> {
    // Ends without a byte when the maps could not be written.
    if rustix::io::read(ready, &mut [0])? == 1 { forbid_nested() } else { Ok(()) }
}

/// The name is looked up for whoever asks: M's /proc gives our namespace's limit. One kind is enough: without a nested
/// user namespace no other kind can be made either, for want of a capability.
fn forbid_nested() -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, c"/proc/sys/user/max_user_namespaces", flags, Mode::empty())?;
    write_all(file.as_fd(), b"0")
}
