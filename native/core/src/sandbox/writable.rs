//! What an image lets the function write, copied: the remedy below Linux 6.6, where an overlay made inside a user
//! namespace over a tmpfs cannot remove or replace a directory of a lower layer.
//!
//! Every file of an image belongs to root there and no process is root, so a function can change an image's folder
//! only where its mode lets others write. Each topmost such folder is copied into the slot's tmpfs and mounted over the
//! overlay's: below it there is no overlay and nothing is crippled, and its own parent is not the function's to change.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::{IMAGE_OWNER_ID, rootfs};
use crate::protocol::Spec;

/// Deeper trees than this are refused rather than followed; the unpacker allows no deeper path either.
const DEPTH_MAX: usize = 64;

pub fn copy_writable(spec: &Spec, root: BorrowedFd<'_>, slot: BorrowedFd<'_>) -> io::Result<()> {
    for (index, path) in topmost(listed(spec)?).iter().enumerate() {
        let source = match rootfs::open_directory(root, path) {
            Ok(source) => source,
            // A later layer made it something else.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => continue,
            Err(error) => return Err(error),
        };
        let name = format!("c{index}");
        copy_tree(source.as_fd(), slot, name.as_bytes(), DEPTH_MAX)?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let copy = open_tree(slot, name, clone)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&copy, "", &source, "", flags)?;
    }
    Ok(())
}

/// The world-writable folders of all layers, as the unpacker listed them beside each.
fn listed(spec: &Spec) -> io::Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    for digest in &spec.layers {
        let file =
            rustix::fs::open(format!("/layers/{digest}.writable"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut content = Vec::new();
        io::Read::read_to_end(&mut std::fs::File::from(file), &mut content)?;
        paths.extend(content.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec));
    }
    Ok(paths)
}

/// Without those that lie below another one.
fn topmost(mut paths: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    paths.sort();
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for path in paths {
        let is_below =
            kept.iter().any(|top| path == *top || path.strip_prefix(&top[..]).is_some_and(|rest| rest[0] == b'/'));
        if !is_below {
            kept.push(path);
        }
    }
    kept
}

fn copy_tree(source: BorrowedFd<'_>, into: BorrowedFd<'_>, name: &[u8], depth: usize) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    rustix::fs::mkdirat(into, name, Mode::from_raw_mode(0o700))?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(into, name, flags, Mode::empty())?;
    for entry in Dir::read_from(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes() == b"." || name.to_bytes() == b".." {
            continue;
        }
        let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let below = rustix::fs::openat(source, name, flags | OFlags::DIRECTORY, Mode::empty())?;
                copy_tree(below.as_fd(), target.as_fd(), name.to_bytes(), depth - 1)?;
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(source, name, Vec::new())?;
                rustix::fs::symlinkat(&link, &target, name)?;
            }
            FileType::RegularFile => {
                let from = rustix::fs::openat(source, name, flags, Mode::empty())?;
                let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let to = rustix::fs::openat(&target, name, create, Mode::from_raw_mode(0o600))?;
                io::copy(&mut std::fs::File::from(from), &mut std::fs::File::from(to.try_clone()?))?;
                give(to, stat.st_mode)?;
            }
            // A layer has nothing else: the unpacker refuses it.
            _ => {}
        }
    }
    give(target, rustix::fs::fstat(source)?.st_mode)
}

fn give(file: OwnedFd, mode: u32) -> io::Result<()> {
    rustix::fs::fchown(&file, Some(Uid::from_raw(IMAGE_OWNER_ID)), Some(Gid::from_raw(IMAGE_OWNER_ID)))?;
    Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o1777))?)
}

#[cfg(test)]
mod tests {
    use super::topmost;

    #[test]
    fn keeps_only_the_topmost_folders() {
        let paths = ["a/b", "a", "ab", "c/d", "c/d", "c/d/e"].map(|path| path.as_bytes().to_vec()).to_vec();
        assert_eq!(topmost(paths), ["a", "ab", "c/d"].map(|path| path.as_bytes().to_vec()));
    }
}
