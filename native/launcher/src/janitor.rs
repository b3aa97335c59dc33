//! What did an earlier life leave, and is it all gone? The only clean-up there is: start, close and failed launches go
//! through here.
//!
//! The order is kill, empty, rmdir, forget. The records lie in a folder of a less privileged id, so that they are
//! believed only as far as that id could have done the same: groups and processes that are its own.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use mayfly_core::cgroup;
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};

use crate::failure::{At, Failure, Stage};
use crate::groups;
use crate::home::Home;
use crate::record::{Process, Record, boot_id};

/// A thousand sandboxes are empty some 15 ms after their kill; a host that takes this long has another problem.
const EMPTY_WAIT: Duration = Duration::from_secs(10);

/// Removes everything of every recorded life. The caller holds the home's lock, so that none of them is alive.
pub fn clean(home: &Home) -> Result<(), Failure> {
    for record in Record::all(home).at(Stage::Janitor, "reading the records of earlier lives")? {
        clean_life(home, &record)?;
    }
    Ok(())
}

fn clean_life(home: &Home, record: &Record) -> Result<(), Failure> {
    let what = |step: &str| format!("{step} what {} left", record.instance);
    if boot_id().at(Stage::Janitor, what("dating"))? == record.boot_id {
        // First of all PID 1 of its pid namespace: the kernel takes everything in there with it.
        kill_recorded(record.process, home.owner.uid).at(Stage::Janitor, what("killing"))?;
        let mounts = cgroup::probe().at(Stage::Janitor, what("finding"))?.hierarchies;
        for node in &record.cgroups {
            let is_cgroup = mounts.iter().any(|hierarchy| node.starts_with(&hierarchy.mount));
            if is_cgroup && is_of(node, &record.instance, home.owner.uid) {
                sweep(node).at(Stage::Janitor, what("removing"))?;
            }
        }
    }
    record.remove(home).at(Stage::Janitor, what("forgetting"))
}

/// Whether the path is plain, named after the life, and the owner's; or still ours, by a launcher that died between
/// making and giving. Links need not be thought of: cgroup file systems have none.
fn is_of(node: &Path, instance: &str, uid: u32) -> bool {
    let is_plain = node.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let is_named = node.file_name().is_some_and(|name| name == instance);
    let is_half_made = node.parent().is_some_and(|parent| parent.ends_with(groups::family(uid)));
    let is_owned = |owner| owner == uid || (is_half_made && owner == geteuid().as_raw());
    is_plain && is_named && fs::metadata(node).is_ok_and(|found| found.is_dir() && is_owned(found.uid()))
}

fn kill_recorded(process: Process, uid: u32) -> io::Result<()> {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    // With the pidfd open the number cannot be another's any more; only now is it worth looking who it is.
    let is_it = Process::of(process.pid).is_ok_and(|found| found == process);
    if is_it && uid_of(process.pid)? == Some(uid) && process.pid != std::process::id() {
        signal(&pidfd)?;
    }
    Ok(())
}

/// The real uid. The owner of /proc/PID would not do: it is root's for a process that may not be dumped.
fn uid_of(pid: u32) -> io::Result<Option<u32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok()))
}

fn signal(pidfd: impl std::os::fd::AsFd) -> io::Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Kills all in a group and below, waits until it is empty, removes it.
fn sweep(node: &Path) -> io::Result<()> {
    let groups = depth_first(node)?;
    for group in &groups {
        lift_quota(group)?;
    }
    // v2 kills a whole subtree at once. Not on every kernel, and on v1 not at all, so that the loop below does not
    // rely on it.
    write_if_present(&node.join("cgroup.kill"), "1")?;
    let deadline = Instant::now() + EMPTY_WAIT;
    for group in &groups {
        while let Err(error) = fs::remove_dir(group) {
            match error.kind() {
                ErrorKind::NotFound => break,
                ErrorKind::ResourceBusy if Instant::now() < deadline => {
                    kill_members(group)?;
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => return Err(error),
            }
        }
    }
    Ok(())
}

/// A group's descendants, each after its own, then the group.
fn depth_first(group: &Path) -> io::Result<Vec<PathBuf>> {
    let mut groups = Vec::new();
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            groups.extend(depth_first(&entry.path())?);
        }
    }
    groups.push(group.to_owned());
    Ok(groups)
}

/// A throttled process takes up to seconds to die.
fn lift_quota(group: &Path) -> io::Result<()> {
    write_if_present(&group.join("cpu.cfs_quota_us"), "-1")?;
    write_if_present(&group.join("cpu.max"), "max")
}

fn kill_members(group: &Path) -> io::Result<()> {
    let members = |group: &Path| -> io::Result<Vec<i32>> {
        let text = fs::read_to_string(group.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    };
    let held: Vec<_> = members(group)?
        .into_iter()
        .filter_map(|number| Some((number, pidfd_open(Pid::from_raw(number)?, PidfdFlags::empty()).ok()?)))
        .collect();
    // A number read again is a member that our descriptor holds, and not somebody who got a dead one's number.
    let still = members(group)?;
    held.iter().filter(|(number, _)| still.contains(number)).try_for_each(|(_, pidfd)| signal(pidfd))
}

/// The file may be of another cgroup version, of a newer kernel, or root's: each has another way in `sweep`.
fn write_if_present(file: &Path, value: &str) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).open(file) {
        Ok(mut file) => io::Write::write_all(&mut file, value.as_bytes()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_path_named_after_the_life_and_owned_by_it_is_believed() {
        let folder = std::env::temp_dir().join(format!("mayfly-janitor-{}", std::process::id()));
        let node = folder.join("a-1");
        fs::create_dir_all(&node).unwrap();
        let uid = geteuid().as_raw();
        assert!(is_of(&node, "a-1", uid));
        assert!(!is_of(&node, "a-2", uid));
        assert!(!is_of(&node, "a-1", uid + 1));
        assert!(!is_of(&folder.join("a-1/../a-1"), "a-1", uid));
        assert!(!is_of(&folder.join("a-3"), "a-3", uid));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_recorded_process_that_is_another_by_now_is_left_alone() {
        let mut other = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let uid = geteuid().as_raw();
        let process = Process::of(other.id()).unwrap();
        kill_recorded(Process { start_time: process.start_time + 1, ..process }, uid).unwrap();
        kill_recorded(process, uid + 1).unwrap();
        assert!(other.try_wait().unwrap().is_none());
        kill_recorded(process, uid).unwrap();
        assert!(!other.wait().unwrap().success());
    }
}
