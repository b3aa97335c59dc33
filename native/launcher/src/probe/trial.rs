//! What the kernel lets M do, found out by doing it in a child in a user namespace of its own.

use std::fs;
use std::io::{self, Read, Write};

use mayfly_core::sys::house::fork;
use mayfly_core::sys::process::{exit_now, unshare_namespaces};
use rustix::fs::{CWD, XattrFlags, mkdirat, setxattr};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
};
use rustix::process::{DumpableBehavior, WaitOptions, getegid, geteuid, set_dumpable_behavior, waitpid};

use super::Check;
use super::host::setting;
use crate::house::become_service;
use crate::options::Options;
use crate::rooms::tmpfs;

const NAMESPACES: [(&str, i32); 7] = [
    ("namespace_mount", libc::CLONE_NEWNS),
    ("namespace_pid", libc::CLONE_NEWPID),
    ("namespace_net", libc::CLONE_NEWNET),
    ("namespace_ipc", libc::CLONE_NEWIPC),
    ("namespace_uts", libc::CLONE_NEWUTS),
    ("namespace_cgroup", libc::CLONE_NEWCGROUP),
    ("namespace_time", CLONE_NEWTIME),
];
/// linux/sched.h; libc has it for some targets only.
const CLONE_NEWTIME: i32 = 0x80;

/// The user namespace first, because the others are made in one.
pub(super) fn namespaces(options: &Options) -> Vec<Check> {
    let base = options.uid_base;
    let user = match attempt(|| in_user_namespace(base)) {
        Ok(()) => Check::on("namespace_user", "root of it is nobody outside"),
        Err(error) => Check::missing("namespace_user", error.to_string(), user_namespace_remedy()),
    };
    let others = NAMESPACES.into_iter().map(|(name, flag)| {
        let tried = attempt(|| {
            in_user_namespace(base)?;
            unshare_namespaces(flag)
        });
        match tried {
            Ok(()) => Check::on(name, "can be made in a user namespace"),
            Err(error) => Check::missing(name, error.to_string(), "see namespace_user; else a kernel built with it"),
        }
    });
    std::iter::once(user).chain(others).collect()
}

/// The switches that distributions know.
fn user_namespace_remedy() -> String {
    let is = |path, value: &str| setting(path).is_some_and(|text| text == value);
    if is("kernel/unprivileged_userns_clone", "0") {
        return "sysctl kernel.unprivileged_userns_clone=1, or start as root".to_owned();
    }
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "sysctl kernel.apparmor_restrict_unprivileged_userns=0, an AppArmor profile with userns for \
             mayfly-launcher, or start as root"
            .to_owned();
    }
    "sysctl user.max_user_namespaces=10000; in a container: allow unshare in its seccomp profile".to_owned()
}

pub(super) fn proc_subset(options: &Options) -> Check {
    let name = "proc_subset";
    let tried = attempt(|| {
        in_user_namespace(options.uid_base)?;
        unshare_namespaces(libc::CLONE_NEWNS | libc::CLONE_NEWPID)?;
        // A proc is that of its mounter's pid namespace, which a child enters first.
        attempt(|| {
            let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(&context, "subset", "pid")?;
            fsconfig_set_string(&context, "hidepid", "invisible")?;
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
            Ok(())
        })
    });
    match tried {
        Ok(()) => Check::on(name, "subset=pid,hidepid=invisible"),
        Err(error) => {
            Check::missing(name, error.to_string(), "in a container: do not mask /proc (systempaths=unconfined)")
        }
    }
}

/// Whether functions may remove and replace their image's folders.
pub(super) fn overlay(options: &Options) -> Check {
    let name = "overlay";
    match attempt(|| overlay_in_memory(options.uid_base)) {
        Ok(()) => Check::on(name, "whole, on tmpfs"),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => Check::degraded(
            name,
            "this tmpfs has no user xattrs: folders a function may write to are copied instead",
            "Linux 6.6 or newer",
        ),
        Err(error) => Check::missing(name, error.to_string(), "modprobe overlay; Linux 5.11 or newer"),
    }
}

fn overlay_in_memory(base: u32) -> io::Result<()> {
    in_user_namespace(base)?;
    unshare_namespaces(libc::CLONE_NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let memory = tmpfs(&[("size", "1m"), ("mode", "0755")], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    move_mount(&memory, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(&memory)?;
    for folder in ["lower", "lower/folder", "upper", "work", "merged"] {
        mkdirat(CWD, folder, rustix::fs::Mode::from_raw_mode(0o755))?;
    }
    fs::write("lower/folder/file", "")?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_set_flag(&context, "userxattr")?;
    fsconfig_create(&context)?;
    let merged = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    // Last, so that a kernel without overlay is not taken for one whose tmpfs lacks something.
    setxattr("upper", "user.mayfly", b"", XattrFlags::empty())?;
    move_mount(&merged, "", CWD, "merged", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    fs::remove_dir_all("merged/folder")?;
    fs::create_dir("merged/folder")?;
    fs::rename("merged/folder", "merged/renamed")
}

/// Into a user namespace as the launcher makes M's, with nothing but its root mapped.
fn in_user_namespace(base: u32) -> io::Result<()> {
    if geteuid().is_root() {
        become_service(base)?;
        // The change of ids took /proc/self, with the maps in it, from us.
        set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare_namespaces(libc::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// Runs `body` in a child and brings its errno back.
fn attempt(body: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let Some(child) = fork()? else {
        let errno = body().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
        // A reader that is gone takes no answer.
        let _ = fs::File::from(writer).write_all(&errno.to_ne_bytes());
        exit_now(0);
    };
    drop(writer);
    let mut errno = [0; 4];
    let read = fs::File::from(reader).read_exact(&mut errno);
    waitpid(Some(child), WaitOptions::empty())?;
    read?;
    match i32::from_ne_bytes(errno) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}
