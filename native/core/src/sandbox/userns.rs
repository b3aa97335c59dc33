//! A sandbox's user namespace, made by the nursery before anybody asks: with its map, which only M can write, so that a
//! build need not wait for it, and with no room for a nested one.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::{IMAGE_OWNER_ID, write_all};
use crate::sys;

/// As which uid and gid a function sees itself unless its image says otherwise (contract/function.ts).
pub const USUAL_ID: u32 = 1000;

/// The namespace in which the image owner is root and `id`, as M numbers it, is the usual function.
///
/// # Errors
/// clone(2), and what the kernel says to each file's write.
pub fn make(id: u32) -> io::Result<OwnedFd> {
    let (ready, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut first = First { ready };
    let spawned = sys::process::Spawned::in_user_namespace(enter, &mut first)?;
    let made = write_maps(spawned.pid(), USUAL_ID, USUAL_ID, id).and_then(|()| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(format!("/proc/{}/ns/user", spawned.pid().as_raw_nonzero()), flags, Mode::empty())?)
    });
    // It waits for this byte, and ends without it too: nobody else holds the pipe's end.
    let _ = rustix::io::write(&tell, &[u8::from(made.is_ok())]);
    drop(tell);
    let status = waitpid(Some(spawned.pid()), WaitOptions::empty())?;
    drop(spawned);
    let namespace = made?;
    match status.and_then(|(_, status)| status.exit_status()) {
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

/// The first process of the namespace, whose caps there end with it.
struct First {
    ready: OwnedFd,
}

/// Shares the nursery's memory and descriptors, and runs beside it: allocates nothing, and closes what it opens.
extern "C" fn enter(argument: *mut c_void) -> c_int {
    let first = sys::process::argument_of::<First>(argument);
    let mut word = [0];
    let is_wanted = rustix::io::read(&first.ready, &mut word) == Ok(1) && word == [1];
    let result = if is_wanted { forbid_nested() } else { Ok(()) };
    sys::process::exit_now(result.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0))
}

/// The name is looked up for whoever asks: M's /proc gives our namespace's limit. One kind is enough: without a nested
/// user namespace no other kind can be made either, for want of a capability.
fn forbid_nested() -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, c"/proc/sys/user/max_user_namespaces", flags, Mode::empty())?;
    write_all(file.as_fd(), b"0")
}
