//! Where are the worker's cgroup nodes, and who may do what in them?
//!
//! `plan` decides without changing anything, so that the record can be written first; `build` makes the nodes. Root
//! makes them below the mounts and gives them to M's root; an ordinary user makes them where systemd, or whoever,
//! delegated a v2 subtree. v1 knows no delegation.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use mayfly_core::cgroup::{Controller, Handover, Hierarchy, Mode, probe};
use rustix::fs::{Access, Gid, Mode as Permission, OFlags, Uid, access, chown};
use rustix::process::geteuid;

use crate::failure::{At, Code, Failure, Stage};
use crate::ids::Ids;
use crate::options::{CgroupChoice, Options};

/// The node that persists, with one child per life; one for each id that sandboxd can be, since who owns it may remove
/// what is in it.
#[must_use]
pub fn family(owner: u32) -> String {
    format!("mayfly-{owner}")
}

/// Where sandboxd itself lives, beside the functions' nodes.
const SANDBOXD: &str = "sandboxd";
/// Where processes go that sit in the group a user was given: a v2 group with controllers may not hold any itself.
const SUPERVISOR: &str = "supervisor";

pub const DELEGATE: &str = "start as root, or in a delegated group: \
     systemd-run --user --scope -p Delegate=yes npm start";

#[derive(Debug)]
pub struct Plan {
    pub mode: Mode,
    nodes: Vec<Node>,
    /// Limits that nothing here enforces.
    pub missing: Vec<Controller>,
}

#[derive(Debug)]
struct Node {
    /// Exists already; we add `family` to it.
    base: PathBuf,
    family: PathBuf,
    path: PathBuf,
    controllers: Vec<Controller>,
    is_v2: bool,
}

/// What the launch goes on with.
#[derive(Debug)]
pub struct Groups {
    pub handover: Handover,
    /// The `cgroup.procs` files by which sandboxd-to-be enters its own node in each hierarchy.
    pub entrances: Vec<OwnedFd>,
}

/// Finds the places, or says what the host lacks.
pub fn plan(options: &Options) -> Result<Plan, Failure> {
    let plan = match find(options) {
        Err(failure) if options.is_degraded_allowed => {
            eprintln!("launcher: no limits: {}", failure.message);
            Plan { mode: Mode::None, nodes: Vec::new(), missing: Controller::LIMITING.to_vec() }
        }
        other => other?,
    };
    if !plan.missing.is_empty() && !options.is_degraded_allowed {
        let names: Vec<_> = plan.missing.iter().map(|controller| controller.name()).collect();
        return Err(Failure::host_unfit(
            Stage::Cgroup,
            format!("nothing here limits {} of a sandbox", names.join(", ")),
            format!("{DELEGATE}; to serve without these limits, start with --allow-degraded"),
        ));
    }
    Ok(plan)
}

/// Looks for the places, whether they are enough or not.
pub fn find(options: &Options) -> Result<Plan, Failure> {
    let none = || Plan { mode: Mode::None, nodes: Vec::new(), missing: Controller::LIMITING.to_vec() };
    let offer = probe().at(Stage::Cgroup, "reading /proc/self/mountinfo")?;
    if options.cgroup == CgroupChoice::None || offer.mode == Mode::None {
        return Ok(none());
    }
    let is_root = geteuid().is_root();
    if !is_root && offer.mode != Mode::V2 {
        return Err(Failure::host_unfit(
            Stage::Cgroup,
            format!("the limits of this host are cgroup {}, which cannot be delegated to a user", offer.mode.name()),
            "start as root, or boot with systemd.unified_cgroup_hierarchy=1",
        ));
    }
    let mut nodes = Vec::new();
    for hierarchy in &offer.hierarchies {
        let base = match &options.cgroup {
            CgroupChoice::Below(path) => hierarchy.mount.join(path.strip_prefix("/").unwrap_or(path)),
            _ if is_root => hierarchy.mount.clone(),
            _ => delegated(&hierarchy.mount)
                .at(Stage::Cgroup, "looking for a delegated group")?
                .ok_or_else(|| Failure::host_unfit(Stage::Cgroup, "no cgroup was delegated to this user", DELEGATE))?,
        };
        // Read-only in most containers, absent where the operator named it wrongly.
        access(&base, Access::WRITE_OK)
            .at(Stage::Cgroup, format!("writing to {}", base.display()))
            .map_err(|failure| Failure { code: Code::HostUnfit, ..failure.with_remedy(DELEGATE) })?;
        let owner = if is_root { options.uid_base } else { geteuid().as_raw() };
        nodes.push(node(hierarchy, base, owner, &options.instance));
    }
    let offered = |one: &Controller| nodes.iter().any(|node| node.controllers.contains(one));
    let missing = Controller::LIMITING.into_iter().filter(|one| !offered(one)).collect();
    Ok(Plan { mode: offer.mode, nodes, missing })
}

fn node(hierarchy: &Hierarchy, base: PathBuf, owner: u32, instance: &str) -> Node {
    let family = base.join(family(owner));
    let path = family.join(instance);
    let is_v2 = hierarchy.is_v2();
    let mut controllers = hierarchy.controllers.clone();
    if is_v2 {
        // Deeper down there may be fewer than the mount has.
        let here = controllers_of(&base);
        controllers.retain(|one| *one == Controller::Unified || here.contains(one));
    }
    Node { base, family, path, controllers, is_v2 }
}

fn controllers_of(group: &Path) -> Vec<Controller> {
    let names = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    Controller::LIMITING.into_iter().filter(|one| names.split_whitespace().any(|name| name == one.name())).collect()
}

/// The nearest group from our own upwards that is ours to divide and has every controller, else the nearest that is
/// ours at all. Nearest, because systemd thinks the groups further up its own to arrange.
fn delegated(mount: &Path) -> io::Result<Option<PathBuf>> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let mut group = mount.join(own);
    if group.file_name().is_some_and(|name| name == SUPERVISOR) {
        // An earlier start put us there; dividing that again would nest ever deeper.
        group.pop();
    }
    let ours: Vec<&Path> =
        group.ancestors().take_while(|one| one.starts_with(mount)).filter(|one| is_ours(one)).collect();
    let whole = ours.iter().find(|one| controllers_of(one).len() == Controller::LIMITING.len());
    Ok(whole.or(ours.first()).map(|one| one.to_path_buf()))
}

fn is_ours(group: &Path) -> bool {
    let is_writable = |file: &str| access(group.join(file), Access::WRITE_OK).is_ok();
    access(group, Access::WRITE_OK).is_ok() && is_writable("cgroup.procs") && is_writable("cgroup.subtree_control")
}

impl Plan {
    /// For the record: what the janitor has to remove.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(|node| node.path.clone()).collect()
    }

    /// The groups that the nodes would be made below.
    pub fn bases(&self) -> impl Iterator<Item = &Path> {
        self.nodes.iter().map(|node| node.base.as_path())
    }

    #[must_use]
    pub fn v2_base(&self) -> Option<&Path> {
        self.nodes.iter().find(|node| node.is_v2).map(|node| node.base.as_path())
    }

    /// Makes the nodes, limits them as a whole and gives them to M's root.
    pub fn build(&self, ids: &Ids, options: &Options) -> Result<Groups, Failure> {
        let mut groups = Groups { handover: Handover::new(self.mode), entrances: Vec::new() };
        for node in &self.nodes {
            let what = format!("making {}", node.path.display());
            node.make(ids).at(Stage::Cgroup, &what)?;
            node.limit(options).at(Stage::Cgroup, format!("limiting {}", node.path.display()))?;
            groups.entrances.push(node.entrance().at(Stage::Cgroup, &what)?);
            groups.handover.add(&node.controllers, directory(&node.path).at(Stage::Cgroup, &what)?);
        }
        Ok(groups)
    }
}

impl Node {
    fn make(&self, ids: &Ids) -> io::Result<()> {
        let family = &self.family;
        for group in [family, &self.path, &self.path.join(SANDBOXD)] {
            match fs::create_dir(group) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && group == family => {}
                other => other?,
            }
        }
        if self.is_v2 {
            for group in [&self.base, family, &self.path] {
                self.enable_controllers(group)?;
            }
        }
        if geteuid().is_root() {
            // The folder is what lets M's root make and remove groups in it; the two files let it place processes
            // and pass controllers on. The limits of the node itself stay root's.
            let files: &[&str] = if self.is_v2 { &["cgroup.procs", "cgroup.subtree_control"] } else { &[] };
            give(family, ids)?;
            give(&self.path, ids)?;
            files.iter().try_for_each(|file| give(&self.path.join(file), ids))?;
        }
        Ok(())
    }

    fn enable_controllers(&self, group: &Path) -> io::Result<()> {
        let wanted: Vec<_> = self.controllers.iter().filter(|one| **one != Controller::Unified).collect();
        let line = wanted.iter().map(|one| format!("+{}", one.name())).collect::<Vec<_>>().join(" ");
        if line.is_empty() {
            return Ok(());
        }
        let file = group.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&file)?;
        if wanted.iter().all(|one| enabled.split_whitespace().any(|name| name == one.name())) {
            return Ok(());
        }
        match fs::write(&file, &line) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                make_room(group)?;
                fs::write(&file, &line)
            }
            other => other,
        }
    }

    fn limit(&self, options: &Options) -> io::Result<()> {
        if self.controllers.contains(&Controller::Memory) {
            let file = if self.is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
            let bytes = options.memory_budget.map_or_else(|| Ok(host_memory_bytes()? / 10 * 9), io::Result::Ok)?;
            fs::write(self.path.join(file), bytes.to_string())?;
        }
        if self.controllers.contains(&Controller::Pids) {
            let tasks = options.pids_budget.map_or_else(|| Ok(host_pids()? / 4 * 3), io::Result::Ok)?;
            fs::write(self.path.join("pids.max"), tasks.to_string())?;
        }
        Ok(())
    }

    fn entrance(&self) -> io::Result<OwnedFd> {
        let file = self.path.join(SANDBOXD).join("cgroup.procs");
        Ok(fs::OpenOptions::new().write(true).open(file)?.into())
    }
}

/// Moves the processes of a v2 group into a child of it. One may fork meanwhile, hence the loop.
fn make_room(group: &Path) -> io::Result<()> {
    let supervisor = group.join(SUPERVISOR);
    match fs::create_dir(&supervisor) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        other => other?,
    }
    loop {
        let members = fs::read_to_string(group.join("cgroup.procs"))?;
        if members.is_empty() {
            return Ok(());
        }
        for pid in members.lines() {
            match fs::write(supervisor.join("cgroup.procs"), pid) {
                // ESRCH: it ended by itself.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
                other => other?,
            }
        }
    }
}

fn give(path: &Path, ids: &Ids) -> io::Result<()> {
    chown(path, Some(Uid::from_raw(ids.root_uid())), Some(Gid::from_raw(ids.root_gid())))?;
    Ok(())
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Permission::empty())?)
}

fn host_memory_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    kib.map(|kib: u64| kib * 1024).ok_or_else(|| ErrorKind::InvalidData.into())
}

fn host_pids() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/sys/kernel/pid_max")?;
    text.trim().parse().map_err(|_| ErrorKind::InvalidData.into())
}
