//! What can be done with the group of one sandbox, from birth to removal?

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};

use super::files::{CallLimits, File, LimitFiles};
use super::format::{counter, field};
use super::handover::{Controller, Handover};
use super::nodes;
use crate::watch::readiness;

/// Page cache and slabs that the dead leave behind, of which the next sandbox may be given no more than this.
const KEPT_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// What went wrong inside a group since it was made: the evidence that outcomes are decided from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incidents {
    /// Periods in which the CPU quota was used up.
    pub throttled_count: u64,
    /// Forks refused by a pids limit, an ancestor's included.
    pub pids_denied_count: u64,
    /// Processes the kernel killed for want of memory, an ancestor's limit included.
    pub oom_kills: u64,
    /// Times the sandbox's *own* memory limit was met (v1, page cache reclaim included) or led to the OOM killer (v2).
    /// An OOM kill with none of these is an ancestor's doing and not the function's.
    pub memory_limit_hits: u64,
}

/// What the sandbox held when it was parked, below which no call's limit may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub memory_bytes: u64,
    pub tasks: u64,
}

/// The open descriptors of a new group, as each cgroup version provides them.
#[derive(Debug, Default)]
pub(super) struct Fittings {
    pub files: LimitFiles,
    /// The v2 directory that clone3 takes: moving there later costs milliseconds.
    pub into_cgroup: Option<OwnedFd>,
    /// v1 `tasks` files, opened by sandboxd because the kernel checks the opener.
    pub attach: Vec<OwnedFd>,
    pub oom_events: Option<OwnedFd>,
}

/// The group of one sandbox. Dropping it closes descriptors and leaves the group in place: `remove` is explicit,
/// because it can fail while processes remain.
#[derive(Debug)]
pub struct Leaf {
    nodes: Arc<Handover>,
    path: String,
    fittings: Fittings,
    /// What earlier sandboxes counted here.
    before: Incidents,
    /// The eventfd told of a kill.
    has_met_oom: bool,
}

impl Leaf {
    pub(super) fn new(nodes: Arc<Handover>, path: String, fittings: Fittings) -> Leaf {
        Leaf { nodes, path, fittings, before: Incidents::default(), has_met_oom: false }
    }

    /// Makes the group of a dead sandbox fit for the next one, with its function's limits and a peak that starts again.
    /// Counters that only rise go on; `incidents`, its last reading, is what they are counted from.
    ///
    /// # Errors
    /// Somebody or much memory is in it still, or the kernel cannot reset the peak (v2 below Linux 6.12): remove it.
    pub fn make_new(&mut self, limits: &CallLimits, incidents: &Incidents) -> io::Result<()> {
        // Afterwards it is what is held now.
        self.files().reset_memory_peak()?;
        let held = self.held()?;
        if held.tasks > 0 || held.memory_bytes > KEPT_BYTES_MAX {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        self.files().restore(limits)?;
        self.hear_oom();
        self.has_met_oom = false;
        self.before = Incidents {
            oom_kills: self.before.oom_kills + incidents.oom_kills,
            memory_limit_hits: self.before.memory_limit_hits + incidents.memory_limit_hits,
            ..*incidents
        };
        Ok(())
    }

    /// What earlier sandboxes counted here. `incidents` leaves out their part of what only a death tells, and no other.
    #[must_use]
    pub fn before(&self) -> Incidents {
        self.before
    }

    /// To apply limits and read usage.
    #[must_use]
    pub fn files(&self) -> &LimitFiles {
        &self.fittings.files
    }

    /// For `CLONE_INTO_CGROUP`.
    #[must_use]
    pub fn into_cgroup(&self) -> Option<BorrowedFd<'_>> {
        self.fittings.into_cgroup.as_ref().map(AsFd::as_fd)
    }

    /// The files into which the sandbox's first process writes "0", before it takes another uid and before it
    /// unshares its cgroup namespace.
    pub fn attach(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.fittings.attach.iter().map(AsFd::as_fd)
    }

    /// What the addon needs to apply limits and read usage.
    pub fn hand_out(&self) -> Vec<(File, BorrowedFd<'_>)> {
        self.fittings.files.iter().collect()
    }

    /// An eventfd that becomes readable on an OOM kill in this group or an ancestor (v1, which cannot kill a whole
    /// group by itself). `None` on v2, where memory.oom.group does.
    #[must_use]
    pub fn oom_events(&self) -> Option<BorrowedFd<'_>> {
        self.fittings.oom_events.as_ref().map(AsFd::as_fd)
    }

    /// Takes what `oom_events` tells.
    pub fn hear_oom(&mut self) {
        let Some(events) = self.oom_events() else { return };
        self.has_met_oom |= rustix::io::read(events, &mut [0u8; 8]).is_ok();
    }

    /// The peak stands for the memory where the kernel tells it: a parked sandbox holds about what its build took, and the
    /// file is open.
    pub fn held(&self) -> io::Result<Held> {
        let peak = self.files().memory_peak_bytes()?;
        let memory_bytes = if peak > 0 { peak } else { self.number(Controller::Memory, "memory.current")? };
        Ok(Held { memory_bytes, tasks: self.files().tasks()? })
    }

    /// Read after the last process died and before `remove` or `make_new`.
    pub fn incidents(&self) -> io::Result<Incidents> {
        let (oom_kills, memory_limit_hits) = self.memory_incidents()?;
        Ok(Incidents {
            throttled_count: self.files().throttled_count()?,
            pids_denied_count: self.files().pids_denied_count()?,
            oom_kills: oom_kills.saturating_sub(self.before.oom_kills),
            memory_limit_hits: memory_limit_hits.saturating_sub(self.before.memory_limit_hits),
        })
    }

    fn memory_incidents(&self) -> io::Result<(u64, u64)> {
        let Some(events) = self.oom_events() else {
            let events = self.read(Controller::Memory, "memory.events")?;
            return Ok((field_or_zero(&events, b"oom_kill"), field_or_zero(&events, b"oom")));
        };
        // v1 tells of every kill, so that without one there is nothing to read.
        if !self.has_met_oom && !readiness(events).contains(PollFlags::IN) {
            return Ok((self.before.oom_kills, self.before.memory_limit_hits));
        }
        let oom = self.read(Controller::Memory, "memory.oom_control")?;
        Ok((field_or_zero(&oom, b"oom_kill"), self.number(Controller::Memory, "memory.failcnt")?))
    }

    /// The processes inside, as the caller's pid namespace numbers them.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        nodes::processes(&self.nodes, &self.path)
    }

    /// The threads inside, as the caller's pid namespace numbers them.
    pub fn threads(&self) -> io::Result<Vec<u32>> {
        nodes::threads(&self.nodes, &self.path)
    }

    /// Removes the group. EBUSY means that processes are still being reaped: try again later; repeating is harmless.
    pub fn remove(&self) -> io::Result<()> {
        nodes::remove(&self.nodes, &self.path)
    }

    fn read(&self, controller: Controller, file: &str) -> io::Result<Vec<u8>> {
        self.nodes.dir(controller).map_or(Ok(Vec::new()), |dir| nodes::read(dir, &self.path, file))
    }

    /// 0 where there is no such file.
    fn number(&self, controller: Controller, file: &str) -> io::Result<u64> {
        let text = self.read(controller, file)?;
        if text.is_empty() { Ok(0) } else { counter(&text) }
    }
}

/// Absent lines belong to kernels or controllers that do not count this.
fn field_or_zero(text: &[u8], key: &[u8]) -> u64 {
    field(text, key).unwrap_or(0)
}
