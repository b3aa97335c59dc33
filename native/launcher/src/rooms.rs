//! What does M see of the host's files? A root of its own, in memory and read-only, with a fresh /proc, five devices,
//! the layers, and the /dev that every sandbox gets a copy of. The host's tree is gone afterwards.
//!
//! ```text
//! /proc       whole, so that the kernel allows a sandbox its own narrower one
//! /dev        null zero full random urandom
//! /dev-guest  the same five, fd, stdin, stdout, stderr, and shm to mount on; the image owner's, read-only
//! /layers     <home>/layers, writable: sandboxd unpacks into it
//! /s          empty: where a builder mounts its slot's tmpfs, in its own mount namespace
//! ```

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use mayfly_core::sandbox::{DEVICES, IMAGE_OWNER_ID};
use mayfly_core::sys::house::set_mount_flags;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, mkdirat, openat, symlinkat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree, unmount,
};

use crate::failure::{At, Failure, Stage};

const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// What an interrupted unpacking is called until it is whole (sandboxd's `unpack`).
const STAGING: &str = ".staging-";

/// How the layers get into M.
#[derive(Debug)]
pub enum Layers {
    /// A detached mount, made by root, because M's root may not walk the path.
    Detached(OwnedFd),
    /// Found by path, by M's root, who is the user that owns it.
    Path(PathBuf),
}

/// Makes the root and enters it. The caller is root of M and PID 1 of M's pid namespace, in a mount namespace of M's.
pub fn enter(layers: Layers) -> Result<(), Failure> {
    // Before anything is mounted, or the host would see it.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(Stage::Root, "private mounts")?;
    let layers = match layers {
        Layers::Detached(mount) => mount,
        Layers::Path(path) => open_tree(CWD, path, CLONE).at(Stage::Layers, "cloning the layers' mount")?,
    };
    let devices = devices().at(Stage::Devices, "cloning the host's devices")?;
    let guest_devices = self::devices().at(Stage::Devices, "cloning the host's devices")?;
    let root = tmpfs(&[("size", "64k"), ("nr_inodes", "64"), ("mode", "0755")], nosuid()).at(Stage::Root, "tmpfs")?;
    // On top of the host's root, where every host has a directory; our root stays below until the pivot.
    move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(Stage::Root, "mounting the root")?;
    for name in ["proc", "dev", "dev-guest", "layers", "s"] {
        mkdirat(&root, name, Mode::from_raw_mode(0o755)).at(Stage::Root, name)?;
    }
    // While the host's proc is still visible: the kernel grants a new one only to who sees a whole one.
    proc(root.as_fd()).at(Stage::Proc, "mounting /proc")?;
    set_mount_flags(layers.as_fd(), nosuid() | MountAttrFlags::MOUNT_ATTR_NODEV).at(Stage::Layers, "layers: nosuid")?;
    attach(layers.as_fd(), root.as_fd(), "layers").at(Stage::Layers, "mounting the layers")?;
    let dev = openat(&root, "dev", DIRECTORY, Mode::empty()).at(Stage::Devices, "/dev")?;
    place(&devices, dev.as_fd()).at(Stage::Devices, "/dev")?;
    guest_dev(root.as_fd(), &guest_devices).at(Stage::Devices, "/dev-guest")?;
    set_mount_flags(root.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY).at(Stage::Root, "read-only root")?;
    pivot(root).at(Stage::PivotRoot, "leaving the host's tree")?;
    remove_staging()
        .at(Stage::Staging, "removing interrupted unpackings")
        .map_err(|failure| failure.with_remedy("remove layers/.staging-* of MAYFLY_HOME as who owns them"))
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

fn nosuid() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID
}

/// The layers as root of the host: see `Layers::Detached`.
pub fn detach_layers(layers: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(open_tree(layers, "", CLONE | OpenTreeFlags::AT_EMPTY_PATH)?)
}

pub fn tmpfs(options: &[(&str, &str)], flags: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

fn proc(root: BorrowedFd<'_>) -> io::Result<()> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let flags = nosuid() | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    attach(proc.as_fd(), root, "proc")
}

fn attach(mount: BorrowedFd<'_>, root: BorrowedFd<'_>, place: &str) -> io::Result<()> {
    Ok(move_mount(mount, "", root, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Detached mounts of the host's device nodes: M could not make nodes that work.
fn devices() -> io::Result<Vec<(&'static str, OwnedFd)>> {
    DEVICES.into_iter().map(|name| Ok((name, open_tree(CWD, format!("/dev/{name}"), CLONE)?))).collect()
}

fn place(devices: &[(&'static str, OwnedFd)], directory: BorrowedFd<'_>) -> io::Result<()> {
    for (name, device) in devices {
        openat(directory, *name, OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))?;
        attach(device.as_fd(), directory, name)?;
    }
    Ok(())
}

fn guest_dev(root: BorrowedFd<'_>, devices: &[(&'static str, OwnedFd)]) -> io::Result<()> {
    let owner = IMAGE_OWNER_ID.to_string();
    let options = [("size", "16k"), ("nr_inodes", "16"), ("mode", "0755"), ("uid", &owner), ("gid", &owner)];
    let dev = tmpfs(&options, nosuid() | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    attach(dev.as_fd(), root, "dev-guest")?;
    place(devices, dev.as_fd())?;
    for (name, target) in LINKS {
        symlinkat(target, &dev, name)?;
        own(dev.as_fd(), name)?;
    }
    mkdirat(&dev, "shm", Mode::from_raw_mode(0o755))?;
    own(dev.as_fd(), "shm")?;
    set_mount_flags(dev.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY)
}

fn own(directory: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(IMAGE_OWNER_ID), Gid::from_raw(IMAGE_OWNER_ID));
    Ok(chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// pivot_root(".", ".") stacks the old root upon the new one, where it is detached: pivot_root(2), NOTES.
pub fn pivot(root: OwnedFd) -> io::Result<()> {
    let here: &CStr = c".";
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(here, here)?;
    unmount(here, UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Done in here because the files in them belong to M's ids, of which an ordinary user outside is only one.
fn remove_staging() -> io::Result<()> {
    for entry in fs::read_dir("/layers")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(STAGING) {
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
    }
    Ok(())
}
