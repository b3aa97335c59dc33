//! One place for a sandbox, and which state it is in.
//!
//! ```text
//!          Build           born            Built            at rest
//!  Empty ────────► Ordered ──────► Building ──────► Parking ─────────► Serving
//!    ▲                │                │               │                  │  Destroy, or a verdict of ours
//!    │  never born    │                └───────────────┴──────────────────┤
//!    ├────────────────┘                                                   │
//!    │   init reaped, group kept or removed                               ▼
//!    └───────────────────────────────────────────────────────────────── Dying
//! ```
//!
//! Ready and leased are both `Serving` here: which of the two is the worker's knowledge, and the board's.

use std::os::fd::OwnedFd;

use mayfly_core::board::{Verdict, now_ns};
use mayfly_core::cgroup::Leaf;
use mayfly_core::protocol::{Contract, Failure, Streams};
use rustix::process::Pid;

#[derive(Debug)]
pub enum Slot {
    Empty,
    /// To be cloned by the nursery.
    Ordered {
        order: Unborn,
        since_ns: u64,
    },
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
        since_ns: u64,
        /// How long its processes took to end, once init is reaped.
        exit_ns: Option<u32>,
    },
}

#[derive(Debug)]
pub enum Ending {
    /// It was never ready.
    Failed(Failure),
    /// It was. With why sandboxd ended it, where it was sandboxd.
    Gone { verdict: Option<Verdict>, detail: u64 },
}

/// Where a sandbox is limited and counted, and the next one of its slot and function may be.
#[derive(Debug)]
pub struct Group {
    pub function: u32,
    pub leaf: Leaf,
    /// The generation for which it was made.
    pub leaf_of: u32,
}

/// What a sandbox has before it is a process.
#[derive(Debug)]
pub struct Unborn {
    pub generation: u32,
    pub control: OwnedFd,
    /// The child's end of `control`, until the nursery has it.
    pub control_of_child: Option<OwnedFd>,
    pub group: Group,
    /// The worker has its files.
    pub is_leaf_known: bool,
    pub stage_ns: Vec<u32>,
    pub is_awaited: bool,
    /// M's id of its function, once it is ordered.
    pub id: Option<u32>,
    /// It is not wanted any more: to be killed at birth.
    pub doom: Option<Ending>,
}

/// The kernel objects of one sandbox.
#[derive(Debug)]
pub struct Sandbox {
    pub generation: u32,
    /// M's id of its function.
    pub id: u32,
    pub init: Pid,
    pub pidfd: OwnedFd,
    pub control: OwnedFd,
    /// Where the kernel names forbidden calls; replaced when the program is started again.
    pub listener: Option<OwnedFd>,
    pub group: Group,
    /// The worker has its files.
    pub is_leaf_known: bool,
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
            Slot::Empty | Slot::Ordered { .. } => None,
            Slot::Building { sandbox, .. }
            | Slot::Parking { sandbox, .. }
            | Slot::Serving { sandbox }
            | Slot::Dying { sandbox, .. } => Some(sandbox),
        }
    }

    pub fn sandbox_mut(&mut self) -> Option<&mut Sandbox> {
        match self {
            Slot::Empty | Slot::Ordered { .. } => None,
            Slot::Building { sandbox, .. }
            | Slot::Parking { sandbox, .. }
            | Slot::Serving { sandbox }
            | Slot::Dying { sandbox, .. } => Some(sandbox),
        }
    }

    pub fn generation(&self) -> Option<u32> {
        match self {
            Slot::Ordered { order, .. } => Some(order.generation),
            _ => self.sandbox().map(|sandbox| sandbox.generation),
        }
    }

    /// Kills the sandbox and notes what the worker is to be told; one that is dying already keeps its reason.
    pub fn kill(&mut self, end: Ending) {
        if let Slot::Ordered { order, .. } = self {
            order.doom.get_or_insert(end);
            return;
        }
        let sandbox = match std::mem::replace(self, Slot::Empty) {
            Slot::Building { sandbox, .. } | Slot::Parking { sandbox, .. } | Slot::Serving { sandbox } => sandbox,
            other => {
                *self = other;
                return;
            }
        };
        let since_ns = now_ns();
        // A throttled sandbox would take many periods to die (PITFALLS: 72 ms at 5 %, 0.5 with the quota lifted).
        let _ = sandbox.group.leaf.files().lift_cpu_quota();
        // The only error is ESRCH, of one that is dead and waits to be reaped.
        let _ = rustix::process::pidfd_send_signal(&sandbox.pidfd, rustix::process::Signal::KILL);
        *self = Slot::Dying { sandbox, end, since_ns, exit_ns: None };
    }
}
