//! MAYFLY_HOME as the launcher sees it: whose it is, who lives in it, and the folders it needs.
//!
//! As root we work in folders that belong to a less privileged id, so below the home no symbolic link is followed and
//! nothing is given away that was not made here.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, FlockOperation, Gid, Mode, OFlags, Uid, fchown, flock, fstat, mkdirat, openat};
use rustix::io::{Errno, pread, pwrite};
use rustix::process::geteuid;

use crate::failure::{At, Code, Failure, Stage};

/// How long a worker that is just dying may keep the lock: sandboxd ends within milliseconds of its worker.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// The host's ids that everything in MAYFLY_HOME belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug)]
pub struct Home {
    pub path: PathBuf,
    pub owner: Owner,
    run: OwnedFd,
    layers: OwnedFd,
    lock: OwnedFd,
}

impl Home {
    /// Makes what is missing and takes the lock, which lives as long as any copy of its descriptor.
    pub fn open(path: &Path, owner: Owner) -> Result<Home, Failure> {
        let what = format!("opening {}", path.display());
        let is_new = !path.exists();
        DirBuilder::new().recursive(true).mode(0o700).create(path).at(Stage::Home, &what)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let home = openat(CWD, path, flags, Mode::empty()).at(Stage::Home, &what)?;
        if is_new {
            give(home.as_fd(), owner).at(Stage::Home, &what)?;
        }
        let run = folder(home.as_fd(), "run", owner)?;
        let layers = folder(home.as_fd(), "layers", owner)?;
        let lock = lock(run.as_fd(), path, owner)?;
        Ok(Home { path: path.to_owned(), owner, run, layers, lock })
    }

    /// Where the records of lives are.
    #[must_use]
    pub fn run(&self) -> BorrowedFd<'_> {
        self.run.as_fd()
    }

    #[must_use]
    pub fn layers(&self) -> BorrowedFd<'_> {
        self.layers.as_fd()
    }

    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Writes down who holds the lock, for the message of the next who wants it.
    pub fn name_holder(&self, pid: u32) -> io::Result<()> {
        rustix::fs::ftruncate(&self.lock, 0)?;
        pwrite(&self.lock, pid.to_string().as_bytes(), 0)?;
        Ok(())
    }
}

fn folder(home: BorrowedFd<'_>, name: &str, owner: Owner) -> Result<OwnedFd, Failure> {
    let what = format!("opening the folder {name} of the home");
    match mkdirat(home, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).at(Stage::Home, &what),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(home, name, flags, Mode::empty()).at(Stage::Home, &what)?;
    let found = fstat(&folder).at(Stage::Home, &what)?.st_uid;
    if found == owner.uid {
        return Ok(folder);
    }
    // Made by us a moment ago, or by root at an earlier time; an id without privilege cannot have put it here.
    if found == geteuid().as_raw() {
        give(folder.as_fd(), owner).at(Stage::Home, &what)?;
        return Ok(folder);
    }
    let message = format!("the folder {name} of the home belongs to the id {found}, not to {}", owner.uid);
    let remedy = format!("remove {name}: it is made again; or start as who owns it");
    Err(Failure::host_unfit(Stage::Home, message, remedy))
}

fn give(file: BorrowedFd<'_>, owner: Owner) -> io::Result<()> {
    fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
    Ok(())
}

/// A new file in a folder that others may write to: never an existing one, never through a link.
pub fn new_file(folder: BorrowedFd<'_>, name: &str, owner: Owner) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::from_raw_mode(0o644))?;
    give(file.as_fd(), owner)?;
    Ok(file)
}

fn lock(run: BorrowedFd<'_>, home: &Path, owner: Owner) -> Result<OwnedFd, Failure> {
    let what = "opening the lock";
    let lock = match new_file(run, "lock", owner) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            openat(run, "lock", OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .at(Stage::Lock, what)?
        }
        other => other.at(Stage::Lock, what)?,
    };
    let stat = fstat(&lock).at(Stage::Lock, what)?;
    if stat.st_uid != owner.uid || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Failure::host_unfit(Stage::Lock, "run/lock is not ours", "remove it: it is made again"));
    }
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Err(Errno::WOULDBLOCK) => return Err(busy(lock.as_fd(), home)),
            Err(error) => return Err(error).at(Stage::Lock, "flock"),
        }
    }
}

fn busy(lock: BorrowedFd<'_>, home: &Path) -> Failure {
    let mut text = [0; 16];
    let length = pread(lock, &mut text, 0).unwrap_or(0);
    let holder = String::from_utf8_lossy(&text[..length]);
    Failure {
        code: Code::HomeBusy,
        stage: Stage::Lock,
        errno: Errno::WOULDBLOCK.raw_os_error(),
        message: format!("another worker (process {holder}) lives in {}", home.display()),
        remedy: "stop it, or give this one a MAYFLY_HOME of its own".to_owned(),
    }
}
