//! The kernel calls that rustix does not wrap; the only module with `unsafe` in it.
//!
//! Each function is one call: borrowed descriptors in, owned ones out, `io::Result` back. What a sequence of calls
//! means is written elsewhere.

pub mod house;
pub mod memory;
pub mod process;
pub mod seccomp;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Turns a syscall's return value into the descriptor it created.
fn owned_fd(rc: libc::c_int) -> io::Result<OwnedFd> {
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a non-negative return of a call that creates a descriptor is one that nobody else owns yet.
    Ok(unsafe { OwnedFd::from_raw_fd(rc) })
}

/// Turns a syscall's return value into success or errno.
fn nothing(rc: libc::c_long) -> io::Result<()> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
