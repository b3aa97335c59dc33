//! What a life writes down before it makes anything the kernel would keep, so that the next one can remove it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fsync, openat, renameat, unlinkat};
use serde::{Deserialize, Serialize};

use crate::home::{Home, new_file};

const SUFFIX: &str = ".json";
const DRAFT_SUFFIX: &str = ".draft";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub instance: String,
    /// Kernel objects and process numbers of another boot are gone.
    pub boot_id: String,
    /// The launcher; sandboxd once it runs.
    pub process: Process,
    /// The worker's nodes, one per hierarchy, as paths of the host.
    pub cgroups: Vec<PathBuf>,
}

/// A process by its number and its start, because numbers come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub pid: u32,
    /// In clock ticks since boot.
    pub start_time: u64,
}

impl Process {
    pub fn of(pid: u32) -> io::Result<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in parentheses, can hold anything: count from its end. Field 22 of proc_pid_stat(5).
        let start_time = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)?.parse().ok());
        let start_time = start_time.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Process { pid, start_time })
    }
}

pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

impl Record {
    /// Puts the record on disk, whole or not at all, in place of an earlier one of this instance.
    pub fn write(&self, home: &Home) -> io::Result<()> {
        let (name, draft) = (format!("{}{SUFFIX}", self.instance), format!("{}{DRAFT_SUFFIX}", self.instance));
        remove_if_present(home.run(), &draft)?;
        let mut file = fs::File::from(new_file(home.run(), &draft, home.owner)?);
        file.write_all(serde_json::to_string(self)?.as_bytes())?;
        file.sync_all()?;
        renameat(home.run(), draft.as_str(), home.run(), name.as_str())?;
        fsync(home.run())?;
        Ok(())
    }

    pub fn remove(&self, home: &Home) -> io::Result<()> {
        remove_if_present(home.run(), &format!("{}{SUFFIX}", self.instance))
    }

    /// Every record in the home. One that cannot be read as such, and a draft, which was written before anything was
    /// made, tells nothing and is removed.
    pub fn all(home: &Home) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for name in names(home.run())? {
            if name.ends_with(DRAFT_SUFFIX) {
                remove_if_present(home.run(), &name)?;
            }
            let Some(instance) = name.strip_suffix(SUFFIX) else { continue };
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mut text = String::new();
            let read = openat(home.run(), name.as_str(), flags, Mode::empty())
                .map_err(io::Error::from)
                .and_then(|file| fs::File::from(file).take(64 * 1024).read_to_string(&mut text));
            match read.ok().and_then(|_| serde_json::from_str::<Record>(&text).ok()) {
                Some(record) if record.instance == instance => records.push(record),
                _ => remove_if_present(home.run(), &name)?,
            }
        }
        Ok(records)
    }
}

/// The names in a folder, `.` and `..` left out.
pub fn names(folder: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder.as_fd())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn remove_if_present(folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        other => other.map_err(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Owner;

    #[test]
    fn a_process_is_told_from_a_later_one_by_its_start() {
        let own = std::process::id();
        assert_eq!(Process::of(own).unwrap(), Process::of(own).unwrap());
        assert!(Process::of(u32::MAX).is_err());
        assert_ne!(Process::of(1).unwrap().start_time, Process::of(own).unwrap().start_time);
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_nonsense_is_removed() {
        let path = std::env::temp_dir().join(format!("mayfly-record-{}", std::process::id()));
        let owner = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let home = Home::open(&path, owner).unwrap();
        let process = Process::of(std::process::id()).unwrap();
        let cgroups = vec![PathBuf::from("/sys/fs/cgroup/mayfly/a-1")];
        let record = Record { instance: "a-1".to_owned(), boot_id: boot_id().unwrap(), process, cgroups };
        record.write(&home).unwrap();
        record.write(&home).unwrap();
        fs::write(path.join("run/torn.json"), "{").unwrap();
        fs::write(path.join("run/renamed.json"), serde_json::to_string(&record).unwrap()).unwrap();
        fs::write(path.join("run/a-2.draft"), "").unwrap();
        assert_eq!(Record::all(&home).unwrap(), std::slice::from_ref(&record));
        record.remove(&home).unwrap();
        assert_eq!(names(home.run()).unwrap(), ["lock"]);
        fs::remove_dir_all(path).unwrap();
    }
}
