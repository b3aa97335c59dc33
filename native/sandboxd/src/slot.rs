//! One place for a sandbox, and which state it is in.
//!
//! ```text
//!            Build             Built            at rest
//!  Empty ───────────► Building ──────► Parking ─────────► Serving
//!    ▲                    │               │                  │  Destroy, or a verdict of ours
//!    │                    └───────────────┴──────────────────┤
//!    │   init reaped, group removed                          ▼
//!    └──────────────────────────────────────────────────── Dying
//! ```
//!
//! Ready and leased are both `Serving` here: which of the two is the worker's knowledge, and the board's.

use std::os::fd::OwnedFd;

use mayfly_core::board::Verdict;
use mayfly_core::cgroup::Leaf;
use mayfly_core::protocol::{Contract, Failure, Streams};
use rustix::process::Pid;

#[derive(Debug)]
pub enum Slot {
    Empty,
    Building {
        sandbox: Sandbox,
        since_ns: u64,
        is_awaited: bool,
    },
    Parking {
        sandbox: Sandbox,
        offer: Offer,
        rest: Rest,
    },
    Serving {
        sandbox: Sandbox,
    },
    /// Killed or dead. `end` is what the worker will be told.
    Dying {
        sandbox: Sandbox,
        end: Ending,
        is_reaped: bool,
    },
}

#[derive(Debug)]
pub enum Ending {
    /// It was never ready.
    Failed(Failure),
    /// It was. With why sandboxd ended it, where it was sandboxd.
    Gone { verdict: Option<Verdict>, detail: u64 },
}

/// The kernel objects of one sandbox.
#[derive(Debug)]
pub struct Sandbox {
    pub generation: u32,
    pub init: Pid,
    pub pidfd: OwnedFd,
    pub control: OwnedFd,
    /// Where the kernel names forbidden calls; replaced when the program is started again.
    pub listener: Option<OwnedFd>,
    pub leaf: Leaf,
    pub stage_ns: Vec<u32>,
}

/// What a parked sandbox will be handed to the worker with.
#[derive(Debug)]
pub struct Offer {
    pub streams: Streams,
    pub contract: Contract,
    /// The call channel first, then the streams.
    pub descriptors: Vec<OwnedFd>,
    /// As M numbers it; none for `start: lazy`.
    pub function: Option<Pid>,
    /// It had ended before it could be looked at.
    pub is_gone_already: bool,
}

/// How long a program has been seen at rest.
#[derive(Debug)]
pub struct Rest {
    pub since_ns: u64,
    pub next_look_ns: u64,
    /// Since when it has been in the same blocking call, which is not the one we hope for.
    pub quiet_since_ns: Option<u64>,
}

impl Slot {
    pub fn sandbox(&self) -> Option<&Sandbox> {
        match self {
            Slot::Empty => None,
            Slot::Building { sandbox, .. }
            | Slot::Parking { sandbox, .. }
            | Slot::Serving { sandbox }
            | Slot::Dying { sandbox, .. } => Some(sandbox),
        }
    }

    pub fn generation(&self) -> Option<u32> {
        self.sandbox().map(|sandbox| sandbox.generation)
    }

    /// Kills the sandbox and notes what the worker is to be told; one that is dying already keeps its reason.
    pub fn kill(&mut self, end: Ending) {
        let sandbox = match std::mem::replace(self, Slot::Empty) {
            Slot::Building { sandbox, .. } | Slot::Parking { sandbox, .. } | Slot::Serving { sandbox } => sandbox,
            other => {
                *self = other;
                return;
            }
        };
        // A throttled sandbox would take many periods to die (PITFALLS: 72 ms at 5 %, 0.5 with the quota lifted).
        let _ = sandbox.leaf.files().lift_cpu_quota();
        // The only error is ESRCH, of one that is dead and waits to be reaped.
        let _ = rustix::process::pidfd_send_signal(&sandbox.pidfd, rustix::process::Signal::KILL);
        *self = Slot::Dying { sandbox, end, is_reaped: false };
    }
}
