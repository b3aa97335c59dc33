//! How does a v2 host limit a sandbox? One group for everything, into which the first process is born.

use std::io;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::files::{CallLimits, File};
use super::handover::{Controller, Handover};
use super::leaf::{Fittings, Leaf};
use super::{Cgroups, Mode, NodeLimits, build_leaf, nodes};

#[derive(Debug)]
pub(super) struct V2 {
    pub nodes: Arc<Handover>,
}

impl Cgroups for V2 {
    fn mode(&self) -> Mode {
        Mode::V2
    }

    fn create_function(&self, function: u32, limits: &NodeLimits) -> io::Result<()> {
        let path = nodes::function_path(function);
        nodes::create(&self.nodes, &path)?;
        if let (Some(bytes), Some(dir)) = (limits.memory_bytes, self.nodes.dir(Controller::Memory)) {
            nodes::write(dir, &path, File::MemoryMax.name(), &bytes.to_string())?;
        }
        if let (Some(pids), Some(dir)) = (limits.pids, self.nodes.dir(Controller::Pids)) {
            nodes::write(dir, &path, File::PidsMax.name(), &pids.to_string())?;
        }
        // The leaves get only the controllers that their parent switches on.
        for controller in Controller::LIMITING {
            if let Some(dir) = self.nodes.dir(controller) {
                nodes::write(dir, &path, "cgroup.subtree_control", &format!("+{}", controller.name()))?;
            }
        }
        Ok(())
    }

    fn remove_function(&self, function: u32) -> io::Result<()> {
        nodes::remove(&self.nodes, &nodes::function_path(function))
    }

    fn create_leaf(&self, function: u32, slot: u32, limits: Option<&CallLimits>) -> io::Result<Leaf> {
        build_leaf(&self.nodes, nodes::leaf_path(function, slot), limits, fit)
    }
}

fn fit(nodes: &Handover, path: &str) -> io::Result<Fittings> {
    let mut fittings = entrance(nodes, path)?;
    if let Some(dir) = nodes.dir(Controller::Cpu) {
        for file in [File::CpuMax, File::CpuWeight] {
            fittings.files.insert(file, nodes::open(dir, path, file.name(), OFlags::WRONLY)?);
        }
    }
    if let Some(dir) = nodes.dir(Controller::Memory) {
        fittings.files.insert(File::MemoryMax, nodes::open(dir, path, File::MemoryMax.name(), OFlags::WRONLY)?);
        if let Some(peak) = open_peak(nodes, path)? {
            fittings.files.insert(File::MemoryPeak, peak);
        }
        // Over its limit the whole sandbox dies, never a part of it; and swap would only postpone that.
        nodes::write(dir, path, "memory.oom.group", "1")?;
        if nodes::open_if_present(dir, path, "memory.swap.max", OFlags::WRONLY)?.is_some() {
            nodes::write(dir, path, "memory.swap.max", "0")?;
        }
    }
    if let Some(dir) = nodes.dir(Controller::Pids) {
        fittings.files.insert(File::PidsMax, nodes::open(dir, path, File::PidsMax.name(), OFlags::WRONLY)?);
        for file in [File::PidsCurrent, File::PidsEvents] {
            fittings.files.insert(file, nodes::open(dir, path, file.name(), OFlags::RDONLY)?);
        }
    }
    Ok(fittings)
}

/// The v2 leaf itself, controllers or not: where to be born, and the CPU time.
pub(super) fn entrance(nodes: &Handover, path: &str) -> io::Result<Fittings> {
    let dir = nodes.dir(Controller::Unified).ok_or(io::ErrorKind::Unsupported)?;
    let mut fittings = Fittings { into_cgroup: Some(nodes::open_directory(dir, path)?), ..Fittings::default() };
    fittings.files.insert(File::CpuStat, nodes::open(dir, path, File::CpuStat.name(), OFlags::RDONLY)?);
    Ok(fittings)
}

/// Absent before Linux 5.19; writable, so that it can be reset, since 6.12.
fn open_peak(nodes: &Handover, path: &str) -> io::Result<Option<std::os::fd::OwnedFd>> {
    let Some(dir) = nodes.dir(Controller::Memory) else { return Ok(None) };
    let name = File::MemoryPeak.name();
    match nodes::open_if_present(dir, path, name, OFlags::RDWR) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            nodes::open_if_present(dir, path, name, OFlags::RDONLY)
        }
        other => other,
    }
}
