//! What the host says of itself: versions, settings, accounts, cgroups.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use mayfly_core::cgroup::{Controller, Mode};
use mayfly_core::sys::house::landlock_abi;
use mayfly_core::sys::process::{clone3, exit_now};
use rustix::fs::{CWD, Mode as Permission, OFlags, openat};
use rustix::process::{PidfdFlags, WaitOptions, geteuid, getpid, pidfd_open, waitpid};

use super::Check;
use crate::groups::{self, Plan};
use crate::idmap;
use crate::ids::Ids;
use crate::options::Options;

/// The newest call without which nothing works is mount_setattr of 5.12; cgroup.kill is of 5.14.
const KERNEL_MIN: (u32, u32) = (5, 14);
/// The oldest that the tests run on.
const KERNEL_TESTED: (u32, u32) = (6, 1);

pub(super) fn kernel() -> Check {
    let name = "kernel";
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < KERNEL_MIN {
        return Check::missing(name, format!("Linux {release} is too old"), "Linux 6.1 or newer");
    }
    if version < KERNEL_TESTED {
        return Check::degraded(name, format!("Linux {release}; tested from 6.1 on"), "Linux 6.1 or newer");
    }
    Check::on(name, format!("Linux {release}"))
}

pub(super) fn ids(options: &Options) -> Check {
    match Ids::choose(options.uid_base, 1) {
        Ok(Ids::Service { base }) => Check::on("ids", format!("root; the service id {base} and 65535 above it")),
        Ok(ids) => Check::on("ids", format!("user {}; {} subordinate ids", ids.root_uid(), ids.width() - 1)),
        Err(failure) => Check::missing("ids", failure.message, failure.remedy),
    }
}

/// Only an ordinary user needs them.
pub(super) fn helpers() -> Vec<Check> {
    if geteuid().is_root() {
        return Vec::new();
    }
    let check = |name: &'static str| match idmap::find(name) {
        Some(path) => Check::on(name, path.display().to_string()),
        None => Check::missing(name, "not installed", "install the package uidmap, or start as root"),
    };
    vec![check("newuidmap"), check("newgidmap")]
}

pub(super) fn cgroup(options: &Options) -> Vec<Check> {
    let plan = match groups::find(options) {
        Ok(plan) => plan,
        Err(failure) => return vec![Check::missing("cgroup", failure.message, failure.remedy)],
    };
    let mut checks = Vec::new();
    if plan.mode == Mode::None {
        checks.push(Check::missing("cgroup", "none", "mount cgroup2 on /sys/fs/cgroup"));
    } else {
        let paths: Vec<_> = plan.bases().map(|base| base.display().to_string()).collect();
        checks.push(Check::on("cgroup", format!("{} below {}", plan.mode.name(), paths.join(", "))));
    }
    for controller in Controller::LIMITING {
        let name = match controller {
            Controller::Cpu => "cgroup_cpu",
            Controller::Memory => "cgroup_memory",
            _ => "cgroup_pids",
        };
        checks.push(if plan.missing.contains(&controller) {
            Check::missing(name, "no such controller where the nodes would be", groups::DELEGATE)
        } else {
            Check::on(name, "limits and counts")
        });
    }
    checks.push(into_cgroup(&plan));
    checks
}

/// Tried in a group that is removed again. Its v2 features speed things up; v1 does without.
fn into_cgroup(plan: &Plan) -> Check {
    let name = "clone_into_cgroup";
    let Some(base) = plan.v2_base() else {
        return Check::degraded(name, "no v2 mount: processes move in", "mount cgroup2 beside the v1 mounts")
            .optional();
    };
    let group = base.join(format!("mayfly-probe-{}", std::process::id()));
    let born = fs::create_dir(&group).and_then(|()| born_inside(&group));
    // It was made a moment ago, if at all, and its only process is gone.
    let _ = fs::remove_dir(&group);
    match born {
        Ok(true) => Check::on(name, "and cgroup.kill").optional(),
        Ok(false) => Check::degraded(name, "without cgroup.kill", "Linux 5.14 or newer").optional(),
        Err(error) => Check::missing(name, error.to_string(), groups::DELEGATE).optional(),
    }
}

fn born_inside(group: &Path) -> io::Result<bool> {
    let dir = openat(CWD, group, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Permission::empty())?;
    match clone3(0, Some(dir.as_fd()))? {
        mayfly_core::sys::process::Cloned::Child => exit_now(0),
        mayfly_core::sys::process::Cloned::Parent { pid, .. } => {
            waitpid(Some(pid), WaitOptions::empty())?;
        }
    }
    Ok(group.join("cgroup.kill").exists())
}

pub(super) fn user_namespaces_max() -> Check {
    let name = "user_namespaces_max";
    let max = setting("user/max_user_namespaces").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let detail = format!("{max} at once, one for each sandbox");
    if max < 100 {
        return Check::missing(name, detail, "sysctl user.max_user_namespaces=10000");
    }
    Check::on(name, detail)
}

pub(super) fn seccomp() -> Vec<Check> {
    let actions = setting("kernel/seccomp/actions_avail").unwrap_or_default();
    let has = |wanted: &str| actions.split_whitespace().any(|action| action == wanted);
    let remedy = "a kernel built with CONFIG_SECCOMP_FILTER, 5.0 or newer";
    let check = |name, action, detail: &str| {
        if has(action) { Check::on(name, detail) } else { Check::missing(name, format!("no {action}"), remedy) }
    };
    vec![
        check("seccomp", "kill_process", "an allow-list of calls"),
        check("seccomp_user_notif", "user_notif", "forbidden calls are named"),
    ]
}

pub(super) fn pidfd() -> Check {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Check::on("pidfd", "processes are killed by descriptor"),
        Err(error) => Check::missing("pidfd", error.to_string(), "Linux 5.4 or newer"),
    }
}

pub(super) fn landlock() -> Check {
    match landlock_abi() {
        Ok(abi) => Check::on("landlock", format!("ABI {abi}, in reserve: no layer needs it yet")).optional(),
        Err(error) => {
            let remedy = "boot with lsm=landlock,… on a kernel with CONFIG_SECURITY_LANDLOCK";
            Check::missing("landlock", error.to_string(), remedy).optional()
        }
    }
}

/// A file below /proc/sys.
pub(super) fn setting(path: &str) -> Option<String> {
    Some(fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?.trim().to_owned())
}
