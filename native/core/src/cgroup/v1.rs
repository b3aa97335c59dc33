//! How does a v1-only host limit a sandbox? One group per controller, entered by writing to each cgroup.procs.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;

use super::files::{CallLimits, File};
use super::handover::{Controller, Handover};
use super::leaf::{Fittings, Leaf};
use super::{Cgroups, Mode, NodeLimits, build_leaf, nodes};

#[derive(Debug)]
pub(super) struct V1 {
    pub nodes: Arc<Handover>,
}

impl Cgroups for V1 {
    fn mode(&self) -> Mode {
        Mode::V1
    }

    fn create_function(&self, function: u32, limits: &NodeLimits) -> io::Result<()> {
        create_function(&self.nodes, function, limits)
    }

    fn remove_function(&self, function: u32) -> io::Result<()> {
        nodes::remove(&self.nodes, &nodes::function_path(function))
    }

    fn create_leaf(&self, function: u32, slot: u32, limits: Option<&CallLimits>) -> io::Result<Leaf> {
        build_leaf(&self.nodes, nodes::leaf_path(function, slot), limits, fit)
    }
}

/// For hybrid hosts too, whose limits are v1's.
pub(super) fn create_function(nodes: &Handover, function: u32, limits: &NodeLimits) -> io::Result<()> {
    let path = nodes::function_path(function);
    nodes::create(nodes, &path)?;
    if let (Some(bytes), Some(dir)) = (limits.memory_bytes, nodes.dir(Controller::Memory)) {
        nodes::write(dir, &path, File::MemoryLimit.name(), &bytes.to_string())?;
    }
    if let (Some(pids), Some(dir)) = (limits.pids, nodes.dir(Controller::Pids)) {
        nodes::write(dir, &path, File::PidsMax.name(), &pids.to_string())?;
    }
    Ok(())
}

/// Opens what the v1 controllers of the handover offer in the new group.
pub(super) fn fit(nodes: &Handover, path: &str) -> io::Result<Fittings> {
    let mut fittings = Fittings::default();
    if let Some(dir) = nodes.dir(Controller::Cpu) {
        for file in [File::CpuCfsQuota, File::CpuShares] {
            fittings.files.insert(file, nodes::open(dir, path, file.name(), OFlags::WRONLY)?);
        }
        let throttling = File::CpuThrottling;
        fittings.files.insert(throttling, nodes::open(dir, path, throttling.name(), OFlags::RDONLY)?);
    }
    if let Some(dir) = nodes.dir(Controller::Memory) {
        fittings.files.insert(File::MemoryLimit, nodes::open(dir, path, File::MemoryLimit.name(), OFlags::WRONLY)?);
        let peak = File::MemoryMaxUsage;
        fittings.files.insert(peak, nodes::open(dir, path, peak.name(), OFlags::RDWR)?);
        if let Some(swap) = nodes::open_if_present(dir, path, File::MemorySwapLimit.name(), OFlags::WRONLY)? {
            fittings.files.insert(File::MemorySwapLimit, swap);
        }
        // Nearest to "no swap" where the kernel does not account it.
        nodes::write(dir, path, "memory.swappiness", "0")?;
        fittings.oom_events = Some(watch_oom(nodes, path)?);
    }
    if let Some(dir) = nodes.dir(Controller::Pids) {
        fittings.files.insert(File::PidsMax, nodes::open(dir, path, File::PidsMax.name(), OFlags::WRONLY)?);
        for file in [File::PidsCurrent, File::PidsEvents] {
            fittings.files.insert(file, nodes::open(dir, path, file.name(), OFlags::RDONLY)?);
        }
    }
    if let Some(dir) = nodes.dir(Controller::Cpuacct) {
        fittings.files.insert(File::CpuacctUsage, nodes::open(dir, path, File::CpuacctUsage.name(), OFlags::RDONLY)?);
    }
    let unified = nodes.dir(Controller::Unified).map(|dir| dir.as_raw_fd());
    for dir in nodes.hierarchies().filter(|dir| Some(dir.as_raw_fd()) != unified) {
        // Not cgroup.procs: a whole process is moved under a global lock that waits for an RCU grace period, a thread
        // that moves itself is not (kernel/cgroup/cgroup.c, cgroup_procs_write_start; since 5.5). The builder has one
        // thread. Three attaches, 20 ms after the last ones: p90 16 ms against 0.7, p99 120 against 5.
        fittings.attach.push(nodes::open(dir, path, "tasks", OFlags::WRONLY)?);
    }
    Ok(fittings)
}

/// Registers an eventfd for OOM kills; the registration lives as long as the eventfd and the group do.
fn watch_oom(nodes: &Handover, path: &str) -> io::Result<OwnedFd> {
    let dir = nodes.dir(Controller::Memory).ok_or(io::ErrorKind::Unsupported)?;
    let events = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = nodes::open(dir, path, "memory.oom_control", OFlags::RDONLY)?;
    let registration = format!("{} {}", events.as_raw_fd(), control.as_raw_fd());
    nodes::write(dir, path, "cgroup.event_control", &registration)?;
    Ok(events)
}
