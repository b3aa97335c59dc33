//! How are groups made, found and removed below the worker's nodes?
//!
//! Everything is relative to directory descriptors: sandboxd sees no cgroup mount. Writes no limit by itself.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode as Permission, OFlags, mkdirat, openat, unlinkat};
use rustix::io::{Errno, pread, pwrite};

use super::handover::{Controller, Handover};

/// Group files hold at most one line per counter.
const FILE_BYTES: usize = 4096;

pub(super) fn function_path(function: u32) -> String {
    format!("f{function}")
}

pub(super) fn leaf_path(function: u32, slot: u32) -> String {
    format!("f{function}/s{slot}")
}

/// Makes the group in every hierarchy, or in none.
pub(super) fn create(nodes: &Handover, path: &str) -> io::Result<()> {
    for (made, dir) in nodes.hierarchies().enumerate() {
        if let Err(error) = mkdirat(dir, path, Permission::from_raw_mode(0o755)) {
            for dir in nodes.hierarchies().take(made) {
                // Best effort: the error that matters is the one above, and the janitor removes whatever stays.
                let _ = unlinkat(dir, path, AtFlags::REMOVEDIR);
            }
            return Err(error.into());
        }
    }
    Ok(())
}

/// Removes the group from every hierarchy. Can be repeated after EBUSY (processes that are not reaped yet): what is
/// gone counts as removed.
pub(super) fn remove(nodes: &Handover, path: &str) -> io::Result<()> {
    let mut result = Ok(());
    for dir in nodes.hierarchies() {
        match unlinkat(dir, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => result = Err(error.into()),
        }
    }
    result
}

pub(super) fn open(dir: BorrowedFd<'_>, path: &str, file: &str, access: OFlags) -> io::Result<OwnedFd> {
    let path = format!("{path}/{file}");
    openat(dir, path.as_str(), access | OFlags::CLOEXEC, Permission::empty()).map_err(Into::into)
}

/// The same, but a kernel without that file is no error.
pub(super) fn open_if_present(
    dir: BorrowedFd<'_>,
    path: &str,
    file: &str,
    access: OFlags,
) -> io::Result<Option<OwnedFd>> {
    match open(dir, path, file, access) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

pub(super) fn open_directory(dir: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let access = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(dir, path, access, Permission::empty()).map_err(Into::into)
}

pub(super) fn write(dir: BorrowedFd<'_>, path: &str, file: &str, value: &str) -> io::Result<()> {
    let fd = open(dir, path, file, OFlags::WRONLY)?;
    pwrite(fd, value.as_bytes(), 0)?;
    Ok(())
}

/// The whole text of a small file; empty where the kernel has no such file.
pub(super) fn read(dir: BorrowedFd<'_>, path: &str, file: &str) -> io::Result<Vec<u8>> {
    let Some(fd) = open_if_present(dir, path, file, OFlags::RDONLY)? else { return Ok(Vec::new()) };
    let mut text = vec![0; FILE_BYTES];
    let length = pread(fd, &mut text, 0)?;
    text.truncate(length);
    Ok(text)
}

/// The processes of the group, as the caller's pid namespace numbers them.
pub(super) fn processes(nodes: &Handover, path: &str) -> io::Result<Vec<u32>> {
    numbers(nodes, path, "cgroup.procs")
}

pub(super) fn threads(nodes: &Handover, path: &str) -> io::Result<Vec<u32>> {
    let file = if nodes.dir(Controller::Unified).is_some() { "cgroup.threads" } else { "tasks" };
    numbers(nodes, path, file)
}

fn numbers(nodes: &Handover, path: &str, file: &str) -> io::Result<Vec<u32>> {
    let any = [Controller::Unified, Controller::Pids, Controller::Memory, Controller::Cpu];
    let Some(dir) = any.into_iter().find_map(|controller| nodes.dir(controller)) else { return Ok(Vec::new()) };
    let fd = open(dir, path, file, OFlags::RDONLY)?;
    let text = io::read_to_string(std::fs::File::from(fd))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}
