//! Which cgroup hierarchies does this host offer, and where?
//!
//! Read from /proc/self/mountinfo and cgroup.controllers; changes nothing. Does not know whether we may write there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::handover::Controller;

/// How limits are enforced here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Controllers on v1 mounts and no v2 mount at all.
    V1,
    /// Everything on the one v2 mount.
    V2,
    /// Controllers on v1 mounts, and a v2 mount for birth, death and CPU time.
    Hybrid,
    /// No controller that limits anything.
    None,
}

impl Mode {
    const ALL: [Mode; 4] = [Mode::V1, Mode::V2, Mode::Hybrid, Mode::None];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::V1 => "v1",
            Mode::V2 => "v2",
            Mode::Hybrid => "hybrid",
            Mode::None => "none",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// One mounted hierarchy with the controllers of ours that live on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount: PathBuf,
    pub controllers: Vec<Controller>,
}

impl Hierarchy {
    #[must_use]
    pub fn is_v2(&self) -> bool {
        self.controllers.contains(&Controller::Unified)
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub mode: Mode,
    /// Only those that a node of ours is needed in.
    pub hierarchies: Vec<Hierarchy>,
    /// The limits that cannot be enforced, empty on a fit host.
    pub missing: Vec<Controller>,
}

/// What the host of the calling process offers.
pub fn probe() -> io::Result<Offer> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(offer(&mountinfo, |mount| fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()))
}

fn offer(mountinfo: &str, v2_controllers: impl Fn(&Path) -> String) -> Offer {
    let mut v1: Vec<Hierarchy> = Vec::new();
    let mut v2: Option<Hierarchy> = None;
    for (mount, fs_type, options) in mountinfo.lines().filter_map(mount_of_line) {
        match fs_type {
            "cgroup" => {
                let controllers = ours(options.split(','));
                // The same hierarchy can be mounted at several places; the first one serves.
                let known = v1.iter().any(|other| other.controllers == controllers);
                if !controllers.is_empty() && !known {
                    v1.push(Hierarchy { mount, controllers });
                }
            }
            "cgroup2" if v2.is_none() => {
                let mut controllers = ours(v2_controllers(&mount).split_whitespace());
                controllers.push(Controller::Unified);
                v2 = Some(Hierarchy { mount, controllers });
            }
            _ => {}
        }
    }
    choose(v1, v2)
}

/// v1 controllers win where both exist: a controller is on one hierarchy only, so a v1 mount of any of ours means that
/// the v2 mount cannot limit.
fn choose(mut v1: Vec<Hierarchy>, v2: Option<Hierarchy>) -> Offer {
    let limits = |hierarchy: &Hierarchy| hierarchy.controllers.iter().any(|one| Controller::LIMITING.contains(one));
    let (mode, hierarchies) = match v2 {
        Some(v2) if v1.iter().any(limits) => {
            // The CPU time of a v2 leaf equals that of a cpuacct leaf, so that one is not made.
            for hierarchy in &mut v1 {
                hierarchy.controllers.retain(|&one| one != Controller::Cpuacct);
            }
            v1.retain(limits);
            v1.push(Hierarchy { controllers: vec![Controller::Unified], ..v2 });
            (Mode::Hybrid, v1)
        }
        Some(v2) if limits(&v2) => (Mode::V2, vec![v2]),
        None if v1.iter().any(limits) => (Mode::V1, v1),
        _ => (Mode::None, Vec::new()),
    };
    let offered =
        |one: &Controller| hierarchies.iter().any(|hierarchy: &Hierarchy| hierarchy.controllers.contains(one));
    let missing = Controller::LIMITING.into_iter().filter(|one| !offered(one)).collect();
    Offer { mode, hierarchies, missing }
}

fn ours<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Controller> {
    let mut found: Vec<Controller> = names.filter_map(Controller::from_name).collect();
    found.retain(|&one| one != Controller::Unified);
    found.sort_unstable();
    found
}

/// Mount point, file system type and super options of one mountinfo line (proc_pid_mountinfo(5)): the optional fields
/// before the `-` vary in number.
fn mount_of_line(line: &str) -> Option<(PathBuf, &str, &str)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mount = mount.split(' ').nth(4)?;
    let mut file_system = file_system.split(' ');
    let fs_type = file_system.next()?;
    Some((PathBuf::from(unescape(mount)), fs_type, file_system.nth(1)?))
}

/// The kernel writes space, tab, newline and backslash of a path as three octal digits.
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (code, plain)| path.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
";
    const V2: &str = "41 31 0:38 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn v1_alone_keeps_cpuacct_and_knows_shared_mounts() {
        let offer = offer(V1, |_| String::new());
        assert_eq!(offer.mode, Mode::V1);
        assert_eq!(offer.missing, []);
        assert_eq!(offer.hierarchies.len(), 3);
        assert_eq!(offer.hierarchies[0].mount, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(offer.hierarchies[0].controllers, [Controller::Cpu, Controller::Cpuacct]);
    }

    #[test]
    fn v1_with_a_bare_v2_mount_is_hybrid_and_needs_no_cpuacct() {
        let offer = offer(&format!("{V1}{V2}"), |_| "hugetlb\n".to_owned());
        assert_eq!(offer.mode, Mode::Hybrid);
        assert_eq!(offer.hierarchies[0].controllers, [Controller::Cpu]);
        assert!(offer.hierarchies[3].is_v2());
    }

    #[test]
    fn v2_alone_reports_what_it_lacks() {
        let offer = offer(V2, |_| "cpuset cpu io memory\n".to_owned());
        assert_eq!(offer.mode, Mode::V2);
        assert_eq!(offer.missing, [Controller::Pids]);
    }

    #[test]
    fn no_limiting_controller_is_none() {
        assert_eq!(offer("", |_| String::new()).mode, Mode::None);
        assert_eq!(offer(V2, |_| "hugetlb\n".to_owned()).mode, Mode::None);
        assert_eq!(offer("", |_| String::new()).missing, Controller::LIMITING);
    }

    #[test]
    fn a_space_in_a_mount_point_is_read_back() {
        let line = "41 31 0:38 / /mnt/my\\040groups rw - cgroup2 cgroup2 rw\n";
        assert_eq!(offer(line, |_| "memory".to_owned()).hierarchies[0].mount, Path::new("/mnt/my groups"));
    }
}
