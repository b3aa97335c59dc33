//! A slot of the pool, as the worker sees it: in exactly one state, holding only what exists in that state.
//!
//! ```text
//!  Cold ──build──► Warming ──ready──► Ready ──call──► Leased ──answer, reuse──► Resetting ──ok──► Ready
//!   ▲                 │ failed         │  retire         │ every other end         │ not clean
//!   │                 ▼                ▼                 ▼                         ▼
//!   └──── gone ── (Cold)            Retired          Poisoned ◄────────────────────┘
//!   └──── gone ─────────────────────────┴────────────────┘
//! ```
//!
//! | state     | guarantee                                                                             |
//! |-----------|---------------------------------------------------------------------------------------|
//! | Cold      | no kernel object of this slot exists; its generation's number is never used again      |
//! | Warming   | sandboxd builds; nothing is held here                                                  |
//! | Ready     | never leased since it was built or reset; limits are the function's                    |
//! | Leased    | one call owns it; the board decides how that call ends                                 |
//! | Resetting | answered; must be found clean before anyone may have it                                |
//! | Poisoned  | sandboxd was told to destroy it; a call may still wait for its last evidence           |
//! | Retired   | the same, of a sandbox that was never leased                                           |

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mayfly_core::cgroup::{CallLimits, Incidents, LimitFiles};
use mayfly_core::protocol::{Contract, End};
use rustix::process::Pid;

#[derive(Debug)]
pub enum Slot {
    Cold,
    Warming {
        function: u32,
    },
    Ready {
        sandbox: Sandbox,
    },
    Leased {
        sandbox: Sandbox,
        call: Call,
    },
    Resetting {
        sandbox: Sandbox,
    },
    /// With what its call still waits for. Its channels stay open until it is gone: closing them would only wake
    /// processes that are about to be killed.
    Poisoned {
        sandbox: Sandbox,
        call: Option<Evidence>,
    },
    Retired {
        sandbox: Option<Sandbox>,
    },
}

impl Slot {
    pub const fn name(&self) -> &'static str {
        match self {
            Slot::Cold => "cold",
            Slot::Warming { .. } => "warming",
            Slot::Ready { .. } => "ready",
            Slot::Leased { .. } => "leased",
            Slot::Resetting { .. } => "resetting",
            Slot::Poisoned { .. } => "poisoned",
            Slot::Retired { .. } => "retired",
        }
    }

    pub const fn sandbox_mut(&mut self) -> Option<&mut Sandbox> {
        match self {
            Slot::Ready { sandbox } | Slot::Leased { sandbox, .. } | Slot::Resetting { sandbox } => Some(sandbox),
            _ => None,
        }
    }

    /// The sandbox of a slot that is only waiting to be gone.
    pub const fn doomed(&self) -> Option<&Sandbox> {
        match self {
            Slot::Poisoned { sandbox, .. } | Slot::Retired { sandbox: Some(sandbox) } => Some(sandbox),
            _ => None,
        }
    }
}

/// The worker's ends of one sandbox.
#[derive(Debug)]
pub struct Sandbox {
    pub function: u32,
    pub contract: Contract,
    /// To its init.
    pub call: OwnedFd,
    /// None until a `start: lazy` program is started.
    pub streams: Option<Streams>,
    /// Which group it is in, as sandboxd names it, and that group's files.
    pub leaf: u32,
    pub files: LimitFiles,
    /// What the cgroup has now, and what it held when it was parked: no limit goes below that.
    pub limits: CallLimits,
    pub held_memory_bytes: u64,
    pub held_tasks: u64,
    /// What the cgroup had counted before the call, which is not the call's.
    pub before: Counters,
    pub is_used: bool,
    /// As the host numbers them: those that a call wakes.
    pub processes: Vec<Pid>,
    /// They were given this one.
    pub processor: Option<usize>,
    pub logs: Logs,
}

/// A build takes no more CPU time than this in one period of a quota.
const BUILD_CPU_US_MAX: u32 = 20_000;

/// Counters of a cgroup that only rise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    pub cpu_ns: u64,
    pub throttled_count: u64,
    pub pids_denied_count: u64,
}

impl Counters {
    /// Of a sandbox that was built in a group where others counted `before`. A file that was once read holds 4 KiB of the
    /// kernel's until it is closed, so only those are read that a build can have changed.
    pub fn of_parked(files: &LimitFiles, limits: &CallLimits, before: &Incidents) -> std::io::Result<Self> {
        let is_throttled = limits.cpu_quota_us < BUILD_CPU_US_MAX;
        Ok(Self {
            cpu_ns: files.cpu_ns()?,
            throttled_count: if is_throttled { files.throttled_count()? } else { before.throttled_count },
            pids_denied_count: before.pids_denied_count,
        })
    }

    pub fn read(files: &LimitFiles) -> std::io::Result<Self> {
        Ok(Self {
            cpu_ns: files.cpu_ns()?,
            throttled_count: files.throttled_count()?,
            pids_denied_count: files.pids_denied_count()?,
        })
    }
}

#[derive(Debug)]
pub enum Streams {
    Link { socket: OwnedFd, log: OwnedFd },
    Stdio { stdin: Option<OwnedFd>, stdout: OwnedFd, log: OwnedFd },
}

impl Streams {
    /// The worker's ends in the order init sends them.
    pub fn from_descriptors(contract: Contract, descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut next = descriptors.into_iter();
        let streams = match contract {
            Contract::Link => Streams::Link { socket: next.next()?, log: next.next()? },
            Contract::Stdio => Streams::Stdio { stdin: Some(next.next()?), stdout: next.next()?, log: next.next()? },
        };
        next.next().is_none().then_some(streams)
    }

    pub fn log(&self) -> BorrowedFd<'_> {
        match self {
            Streams::Link { log, .. } | Streams::Stdio { log, .. } => log.as_fd(),
        }
    }
}

/// The first bytes of what a program said, and whether there was more.
#[derive(Debug, Default)]
pub struct Logs {
    pub kept: Vec<u8>,
    pub max: usize,
    pub is_cut: bool,
}

impl Logs {
    pub fn push(&mut self, bytes: &[u8]) {
        let room = self.max.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.is_cut |= bytes.len() > room;
    }

    pub fn take(&mut self) -> Self {
        let empty = Logs { kept: Vec::new(), max: self.max, is_cut: false };
        std::mem::replace(self, empty)
    }
}

/// One invocation in a sandbox.
#[derive(Debug)]
pub struct Call {
    pub started_ns: u64,
    pub output_bytes_max: usize,
    /// `stdio`: what is still to be written to stdin.
    pub pending: Option<(Vec<u8>, usize)>,
    /// `stdio`: the result so far.
    pub output: Vec<u8>,
    /// `link`: the buffer handed over for a large result.
    pub buffer: Option<OwnedFd>,
}

/// What is known of a call's end before sandboxd's `Gone` brings the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// The function's process ended by itself, as far as we know.
    Ended(End),
    Failed(Vec<u8>),
    Malformed(&'static str),
    OutputLimit,
    Cancelled,
    /// It could not be started at the lease.
    NotStarted {
        stage: &'static str,
        errno: i32,
    },
    /// sandboxd's verdict is on its way.
    Judged,
}
