//! The sandbox's root: an overlay of the image's layers under a size-limited tmpfs, a narrow /proc, a /dev of exactly
//! what a program may expect. Everything is attached by descriptor; no path of a tenant's is resolved, and the mount
//! points are directories of ours in the upper layer, which hide whatever an image has of that name.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount,
    open_tree,
};

use super::{IMAGE_OWNER_ID, writable};
use crate::ablate::{Ablation, Layer};
use crate::protocol::Spec;
use crate::stage::{At, SetupError, Stage};

/// Where M's root has an empty directory for the slot's tmpfs, in the builder's own mount namespace.
const SLOT: &str = "/s";
/// The /dev that the launcher prepared once for all sandboxes, read-only.
const GUEST_DEV: &str = "/dev-guest";

/// What of a root is the same for every function, and so can be made before anybody asks: attached to nothing yet.
#[derive(Debug)]
pub struct Bare {
    /// The tmpfs that holds all a function can write, and our skeleton.
    slot: OwnedFd,
    dev: OwnedFd,
}

impl Bare {
    /// # Errors
    /// The stage that failed.
    pub fn make(ablation: Ablation) -> Result<Self, SetupError> {
        let slot = slot_tmpfs(ablation).at(Stage::Tmpfs)?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let dev = open_tree(CWD, GUEST_DEV, clone).at(Stage::Dev)?;
        Ok(Self { slot, dev })
    }

    pub(super) fn descriptors(&self) -> [&OwnedFd; 2] {
        [&self.slot, &self.dev]
    }
}

/// Completes the root and makes it ours; `lap` is called after each stage.
pub fn enter(spec: &Spec, bare: Bare, copies_writable: bool, lap: &mut dyn FnMut(Stage)) -> Result<(), SetupError> {
    let Bare { slot, dev } = bare;
    attach_slot(spec, slot.as_fd()).at(Stage::Tmpfs)?;
    lap(Stage::Tmpfs);
    let root = overlay(spec, !copies_writable).at(Stage::Overlay)?;
    lap(Stage::Overlay);
    proc(root.as_fd(), spec.ablation).at(Stage::Proc)?;
    lap(Stage::Proc);
    attach_dev(root.as_fd(), slot.as_fd(), dev.as_fd()).at(Stage::Dev)?;
    lap(Stage::Dev);
    if copies_writable {
        writable::copy_writable(spec, root.as_fd(), slot.as_fd()).at(Stage::Writable)?;
        lap(Stage::Writable);
    }
    drop((slot, dev));
    pivot(root).at(Stage::PivotRoot)?;
    lap(Stage::PivotRoot);
    Ok(())
}

fn slot_tmpfs(ablation: Ablation) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if ablation.keeps(Layer::TmpfsSize) {
        // Until the function's are known; the kernel limits no tmpfs afterwards that had no limit.
        fsconfig_set_string(&context, "size", "64k")?;
        fsconfig_set_string(&context, "nr_inodes", "64")?;
    }
    fsconfig_set_string(&context, "mode", "0755")?;
    fsconfig_create(&context)?;
    let slot = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(ablation))?;
    for (path, mode) in SKELETON {
        rustix::fs::mkdirat(&slot, path, Mode::from_raw_mode(0o755))?;
        own(slot.as_fd(), path)?;
        if mode != 0o755 {
            rustix::fs::chmodat(&slot, path, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
    }
    Ok(slot)
}

/// Gives the tmpfs the function's limits and a place; it becomes the current directory, so that the overlay's options,
/// which mountinfo shows, are names that say nothing.
fn attach_slot(spec: &Spec, slot: BorrowedFd<'_>) -> io::Result<()> {
    if spec.ablation.keeps(Layer::TmpfsSize) {
        let context = fspick(slot, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)?;
        fsconfig_set_string(&context, "size", spec.tmp_bytes.to_string())?;
        fsconfig_set_string(&context, "nr_inodes", (spec.tmp_files + skeleton_inodes(spec)).to_string())?;
        fsconfig_reconfigure(&context)?;
    }
    move_mount(slot, "", CWD, SLOT, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(slot)?;
    for (index, digest) in spec.layers.iter().enumerate() {
        if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        rustix::fs::symlinkat(format!("/layers/{digest}"), slot, format!("l{index}"))?;
    }
    Ok(())
}

/// u and w are the overlay's upper and work directory, r its mount point; u's directories are mount points and /tmp.
const SKELETON: [(&str, u32); 7] =
    [("u", 0o755), ("w", 0o755), ("r", 0o755), ("u/proc", 0o755), ("u/dev", 0o755), ("u/tmp", 0o1777), ("shm", 0o1777)];

/// Ours are not to count against the function's: the root, the skeleton, a link per layer, overlay's own work/work.
fn skeleton_inodes(spec: &Spec) -> u64 {
    (1 + SKELETON.len() + spec.layers.len() + 1) as u64
}

fn own(directory: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(IMAGE_OWNER_ID), Gid::from_raw(IMAGE_OWNER_ID));
    Ok(rustix::fs::chownat(directory, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn attributes(ablation: Ablation) -> MountAttrFlags {
    let mut flags = MountAttrFlags::empty();
    flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, ablation.keeps(Layer::Nosuid));
    flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, ablation.keeps(Layer::Nodev));
    flags
}

fn overlay(spec: &Spec, has_user_xattrs: bool) -> io::Result<OwnedFd> {
    let mut lower = String::new();
    // Overlay wants the topmost first.
    for index in (0..spec.layers.len()).rev() {
        let separator = if lower.is_empty() { "" } else { ":" };
        let _ = write!(lower, "{separator}l{index}");
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "lowerdir", lower)?;
    fsconfig_set_string(&context, "upperdir", "u")?;
    fsconfig_set_string(&context, "workdir", "w")?;
    if has_user_xattrs {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_create(&context)?;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(spec.ablation))?;
    // pivot_root wants its new root to be a mount point of this namespace.
    move_mount(&root, "", CWD, "r", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(root)
}

/// Only processes, and only one's own. M must keep one fully visible proc, or the kernel refuses this.
fn proc(root: BorrowedFd<'_>, ablation: Ablation) -> io::Result<()> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if ablation.keeps(Layer::ProcOptions) {
        fsconfig_set_string(&context, "subset", "pid")?;
        fsconfig_set_string(&context, "hidepid", "invisible")?;
    }
    fsconfig_create(&context)?;
    let flags =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    Ok(move_mount(&proc, "", root, "proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn attach_dev(root: BorrowedFd<'_>, slot: BorrowedFd<'_>, dev: BorrowedFd<'_>) -> io::Result<()> {
    move_mount(dev, "", root, "dev", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let shm = open_tree(slot, "shm", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    Ok(move_mount(&shm, "", dev, "shm", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// pivot_root(".", ".") stacks the old root under the new one, where it is detached: pivot_root(2), NOTES.
fn pivot(root: OwnedFd) -> io::Result<()> {
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Opens a directory below `root` with no symlink on the way.
pub(super) fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    use rustix::fs::ResolveFlags;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(root, path, flags, Mode::empty(), how)?)
}
