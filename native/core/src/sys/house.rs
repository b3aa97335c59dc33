//! What making the house takes: two forks, the exec of a descriptor, and asking for what a kernel can do.

use std::ffi::{CString, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::mount::MountAttrFlags;
use rustix::process::Pid;

/// fork(2): `None` in the child.
///
/// # Errors
/// fork(2); also `Unsupported` where the process has other threads: their locks would stay taken in the child, which
/// goes on as an ordinary program here.
pub fn fork() -> io::Result<Option<Pid>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "fork of a process with threads"));
    }
    // SAFETY: this process has one thread, so that no lock is held by anyone who does not exist in the child.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// execveat(2) of an open file, with an empty environment. Returns only on failure, with the reason.
pub fn exec_descriptor(program: BorrowedFd<'_>, argv: &[CString]) -> io::Error {
    let arguments: Vec<_> = argv.iter().map(|argument| argument.as_ptr()).chain([std::ptr::null()]).collect();
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: both lists end in null and `argv` owns the strings pointed to; all outlive the call, which only reads
    // them. The empty path with AT_EMPTY_PATH makes the kernel use the descriptor alone.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// mount_setattr(2): sets flags of one mount and leaves its others as they are, which a remount cannot (and which a
/// mount inherited into a user namespace insists on). Since Linux 5.12.
pub fn set_mount_flags(mount: BorrowedFd<'_>, flags: MountAttrFlags) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: u64::from(flags.bits()), attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the kernel reads `size` bytes of the attributes, which live across the call.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    super::nothing(rc)
}

/// Landlock's ABI version: landlock_create_ruleset(2) with the version flag, which creates nothing.
///
/// # Errors
/// ENOSYS where it is not built in, EOPNOTSUPP where it is switched off at boot.
pub fn landlock_abi() -> io::Result<c_int> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel demands a null attribute of size 0 and reads no memory.
    let rc =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, LANDLOCK_CREATE_RULESET_VERSION) };
    super::nothing(rc)?;
    c_int::try_from(rc).map_err(io::Error::other)
}
