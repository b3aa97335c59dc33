//! A layer's tar becomes a folder: read and written by a throw-away child that is nobody in particular.
//!
//! The child belongs to the image owner's id, so that what it writes is root's as sandboxes see it, and has nothing
//! else: its root is the staging folder, it holds no capability and no descriptor but the archive and its report. An
//! archive that outwits the reader therefore writes into its own layer. sandboxd renames the folder when all is on disk,
//! so that a layer is there whole or not at all. Whiteouts, hard links and special files are refused: no builder of ours
//! makes them.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use mayfly_core::protocol::Event;
use mayfly_core::sandbox::IMAGE_OWNER_ID;
use mayfly_core::sys;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::process::{Gid, Resource, Rlimit, Uid, WaitId, WaitIdOptions};

use crate::daemon::Daemon;
use crate::watch::Source;

const LAYERS: &str = "/layers";
/// Bounds of one layer (row T11). Chosen: twice what the largest images of language runtimes hold.
const ENTRIES_MAX: usize = 1_000_000;
const BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
const DEPTH_MAX: usize = 60;
const CPU_SECONDS_MAX: u64 = 900;

#[derive(Debug)]
pub struct Unpacker {
    digest: String,
    pidfd: OwnedFd,
    /// The list of world-writable folders, or the error.
    report: OwnedFd,
}

impl Daemon {
    pub fn unpack(&mut self, token: u32, digest: String, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        match start(token, digest, descriptors) {
            Ok(unpacker) => {
                Source::Unpacker.watch(&self.watch, &unpacker.pidfd, token, 0)?;
                self.unpackers.insert(token, unpacker);
                Ok(())
            }
            Err(error) => self.tell_unpacked(token, &error),
        }
    }

    fn tell_unpacked(&mut self, token: u32, error: &io::Error) -> io::Result<()> {
        let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
        self.tell(Event::Unpacked { token, errno, message: error.to_string() })
    }

    /// The child of this unpacking is dead.
    pub fn unpacked(&mut self, token: u32) -> io::Result<()> {
        let Some(unpacker) = self.unpackers.remove(&token) else { return Ok(()) };
        let status = rustix::process::waitid(WaitId::PidFd(unpacker.pidfd.as_fd()), WaitIdOptions::EXITED)?;
        let is_whole = status.and_then(|status| status.exit_status()) == Some(0);
        match finish(token, &unpacker, is_whole) {
            Ok(()) => self.tell(Event::Unpacked { token, errno: 0, message: String::new() }),
            Err(error) => self.tell_unpacked(token, &error),
        }
    }
}

fn staging(token: u32) -> String {
    format!("{LAYERS}/.staging-{token}")
}

fn start(token: u32, digest: String, descriptors: Vec<OwnedFd>) -> io::Result<Unpacker> {
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    let archive = descriptors.into_iter().next().filter(|_| is_digest).ok_or(io::ErrorKind::InvalidInput)?;
    let folder = staging(token);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder)?;
    std::os::unix::fs::chown(&folder, Some(IMAGE_OWNER_ID), Some(IMAGE_OWNER_ID))?;
    // A file and not a pipe: the child must never wait for us.
    let report = rustix::fs::memfd_create("mayfly-unpack", rustix::fs::MemfdFlags::CLOEXEC)?;
    match sys::process::clone3(0, None)? {
        sys::process::Cloned::Parent { pidfd, .. } => Ok(Unpacker { digest, pidfd, report }),
        sys::process::Cloned::Child => {
            let keep = [&archive, &report].map(|fd| fd.as_raw_fd().unsigned_abs()).to_vec();
            let result =
                sys::process::close_all_but(keep).and_then(|()| confine(&folder)).and_then(|()| extract(archive));
            let (text, code) = match result {
                Ok(writable) => (writable, 0),
                Err(error) => (error.to_string().into_bytes(), 1),
            };
            let written = rustix::io::write(&report, &text).is_ok_and(|count| count == text.len());
            sys::process::exit_now(if written { code } else { 1 })
        }
    }
}

fn finish(token: u32, unpacker: &Unpacker, is_whole: bool) -> io::Result<()> {
    let folder = staging(token);
    let result = read_report(&unpacker.report).and_then(|report| {
        if !is_whole {
            let message = String::from_utf8_lossy(&report).into_owned();
            let message = if message.is_empty() { "the unpacker died".to_owned() } else { message };
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        publish(&folder, &unpacker.digest, &report)
    });
    if result.is_err() {
        let _ = std::fs::remove_dir_all(&folder);
    }
    result
}

fn read_report(memfd: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::from(memfd.try_clone()?);
    let mut report = Vec::new();
    io::Seek::rewind(&mut file)?;
    file.read_to_end(&mut report)?;
    Ok(report)
}

/// The list first: a layer that is there has one.
fn publish(folder: &str, digest: &str, writable: &[u8]) -> io::Result<()> {
    let target = format!("{LAYERS}/{digest}");
    let list = format!("{folder}.writable");
    std::fs::write(&list, writable)?;
    std::fs::rename(&list, format!("{target}.writable"))?;
    let directory = rustix::fs::open(LAYERS, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::syncfs(&directory)?;
    match rustix::fs::renameat_with(CWD, folder, CWD, &target, rustix::fs::RenameFlags::NOREPLACE) {
        // Another unpacking of the same digest was first, and wrote the same.
        Err(rustix::io::Errno::EXIST) => std::fs::remove_dir_all(folder)?,
        other => other?,
    }
    Ok(rustix::fs::fsync(&directory)?)
}

/// Leaves the child with the staging folder and nothing else.
fn confine(folder: &str) -> io::Result<()> {
    sys::process::unshare_namespaces(libc::CLONE_NEWNS)?;
    rustix::process::chroot(folder)?;
    rustix::process::chdir("/")?;
    for (resource, limit) in [(Resource::Cpu, CPU_SECONDS_MAX), (Resource::Fsize, BYTES_MAX), (Resource::Core, 0)] {
        rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    let (uid, gid) = (Uid::from_raw(IMAGE_OWNER_ID), Gid::from_raw(IMAGE_OWNER_ID));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    // From root to nobody: the kernel empties the capability sets with it.
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::umask(Mode::empty());
    Ok(())
}

/// Writes the archive's entries below `/`; returns the NUL-ended paths of folders that everyone may write.
fn extract(archive: OwnedFd) -> io::Result<Vec<u8>> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut archive = tar::Archive::new(io::BufReader::new(std::fs::File::from(archive)));
    let mut folders = Vec::new();
    let mut bytes_left = BYTES_MAX;
    for (index, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        if index >= ENTRIES_MAX || entry.size() > bytes_left {
            return Err(refusal("the layer is too large", Path::new("")));
        }
        bytes_left -= entry.size();
        let path = entry.path()?.into_owned();
        if let Some(folder) = write_entry(root.as_fd(), &mut entry, &path)? {
            folders.push(folder);
        }
    }
    finish_folders(root.as_fd(), &folders)
}

/// Gives folders their modes once all is in them: one that its owner may not write could take no file before. The last
/// entry of a name wins. Returns the NUL-ended paths of those that everyone may write.
fn finish_folders(root: BorrowedFd<'_>, folders: &[(std::path::PathBuf, Mode)]) -> io::Result<Vec<u8>> {
    let modes: std::collections::BTreeMap<_, _> = folders.iter().map(|(path, mode)| (path, *mode)).collect();
    let mut writable = Vec::new();
    // Deepest first: a folder's own mode may close the way to those below.
    for (path, mode) in modes.into_iter().rev() {
        rustix::fs::fchmod(open_folder(root, path)?, mode)?;
        if mode.bits() & 0o002 != 0 {
            writable.extend(path.as_os_str().as_bytes());
            writable.push(0);
        }
    }
    Ok(writable)
}

/// Writes one entry; a folder is returned with the mode it is to have.
fn write_entry(
    root: BorrowedFd<'_>,
    entry: &mut tar::Entry<'_, impl Read>,
    path: &Path,
) -> io::Result<Option<(std::path::PathBuf, Mode)>> {
    let path = normal(path)?;
    let kind = entry.header().entry_type();
    // Set-id bits would do nothing under no_new_privs and nosuid; they are not kept either.
    let mode = Mode::from_raw_mode(entry.header().mode()? & 0o1777);
    let Some(name) = path.file_name() else {
        // The root itself: its mode is ours.
        return if kind.is_dir() { Ok(None) } else { Err(refusal("the root is no folder", &path)) };
    };
    let parent = open_folder(root, path.parent().unwrap_or(Path::new("")))?;
    if name.as_bytes().starts_with(b".wh.") {
        return Err(refusal("whiteouts are not supported", &path));
    }
    match kind {
        tar::EntryType::Directory => {
            match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            // Also refuses a name that is something else.
            open_folder(parent.as_fd(), Path::new(name))?;
            return Ok(Some((path, mode)));
        }
        tar::EntryType::Regular => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            remove_earlier(parent.as_fd(), name)?;
            let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))?;
            let mut file = std::fs::File::from(file);
            io::copy(entry, &mut file)?;
            rustix::fs::fchmod(&file, mode)?;
            rustix::fs::futimens(&file, &modified(entry.header().mtime()?))?;
        }
        tar::EntryType::Symlink => {
            let target = entry.link_name_bytes().ok_or_else(|| refusal("a link to nowhere", &path))?;
            remove_earlier(parent.as_fd(), name)?;
            rustix::fs::symlinkat(&*target, &parent, name)?;
        }
        _ => return Err(refusal("only files, folders and symbolic links are supported", &path)),
    }
    Ok(None)
}

/// A later entry of the same name wins, but not over a folder.
fn remove_earlier(parent: BorrowedFd<'_>, name: &std::ffi::OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a folder below `root`; a symbolic link of the archive on the way stays inside.
fn open_folder(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), how) {
        Err(rustix::io::Errno::NOENT) => Err(refusal("its folder is not in the archive before it", path)),
        other => Ok(other?),
    }
}

/// The path without `./` and slashes at its ends; refuses what leads upwards, is empty or too deep.
fn normal(path: &Path) -> io::Result<std::path::PathBuf> {
    let mut parts = std::path::PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name),
            Component::CurDir => {}
            _ => return Err(refusal("the path leads out of the layer", path)),
        }
    }
    if parts.components().count() > DEPTH_MAX {
        return Err(refusal("the path is too deep", path));
    }
    Ok(parts)
}

fn modified(seconds: u64) -> Timestamps {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn refusal(why: &str, path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}
