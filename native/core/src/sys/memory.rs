//! Memory shared with another process through a sealed memfd.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags};

/// Maps `count` words of `memfd`, shared, for the rest of this process's life.
///
/// # Errors
/// mmap(2); EINVAL when the memfd is shorter than that or not sealed against shrinking, because a mapping whose file
/// shrinks is a SIGBUS.
pub fn map_words(memfd: BorrowedFd<'_>, count: usize) -> io::Result<&'static [AtomicU64]> {
    let length = count * size_of::<AtomicU64>();
    let size = rustix::fs::fstat(memfd)?.st_size;
    let seals = rustix::fs::fcntl_get_seals(memfd)?;
    if usize::try_from(size).unwrap_or(0) < length || !seals.contains(rustix::fs::SealFlags::SHRINK) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: a fresh shared mapping aliases no Rust object of this process, is page-aligned, cannot shrink (checked
    // above) and is never unmapped, so 'static holds; other processes write it, hence atomics.
    unsafe {
        let start = rustix::mm::mmap(
            std::ptr::null_mut(),
            length,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            memfd,
            0,
        )?;
        Ok(std::slice::from_raw_parts(start.cast::<AtomicU64>(), count))
    }
}
