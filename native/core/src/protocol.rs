//! What the worker and sandboxd say to each other, sandboxd and the nursery, and sandboxd and each sandbox's init.
//!
//! Both speak one message per SEQPACKET packet, so a packet is a frame and its length is the kernel's word. Worker and
//! sandboxd are of one build: `Hello` carries the version and anything else is refused. init is sandboxd's own fork.
//!
//! ```text
//! worker                         sandboxd                        init (builder until it forks the function)
//!   │ ◄─ Hello + board, timer ─────│
//!   │ ── Define + spec ───────────►│
//!   │ ◄─ Defined ──────────────────│
//!   │ ── Build ───────────────────►│ ── Order ─► nursery ── clone3 ─►│
//!   │                              │ ◄─ Birth ── nursery             │
//!   │                              │ ◄─ NeedMap ─────────────────────│
//!   │                              │ ── Mapped ─────────────────────►│
//!   │                              │ ◄─ Built + call, streams, listener
//!   │ ◄─ Ready + all descriptors ──│
//!   │ ◄──────────── Exit, over the call channel, at any time ────────│
//!   │ ── Destroy ─────────────────►│ ── SIGKILL ────────────────────►×
//!   │ ◄─ Gone ─────────────────────│
//! ```

use serde::{Deserialize, Serialize};

use crate::ablate::Ablation;
use crate::board::Verdict;
use crate::cgroup::{CallLimits, Incidents, Usage};
use crate::stage::Stage;

/// Worker and sandboxd must agree on it to the bit.
pub const VERSION: u32 = 1;

/// The longest packet of either protocol.
pub const PACKET_BYTES_MAX: usize = 4096;

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// With one descriptor: a sealed memfd holding a `Spec`, which sandboxd does not read.
    Define {
        function: u32,
        limits: CallLimits,
        ablation: Ablation,
    },
    Undefine {
        function: u32,
    },
    /// `is_awaited`: a call waits for it, so it is ready as soon as its program is started. `known_leaf`: the group
    /// whose files the worker still has, of the slot's last sandbox.
    Build {
        slot: u32,
        generation: u32,
        function: u32,
        is_awaited: bool,
        known_leaf: Option<u32>,
    },
    /// Ends the sandbox whatever it does. Answered by `Gone`.
    Destroy {
        slot: u32,
        generation: u32,
    },
    /// With one descriptor: a layer's tar. Unpacked as `layers/<digest>`, at once visible and never half.
    Unpack {
        token: u32,
        digest: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// With two descriptors: the board's memory and the shared timer.
    Hello {
        version: u32,
        slots: u32,
        cgroup_mode: String,
        copies_writable: bool,
    },
    Defined {
        function: u32,
        errno: i32,
    },
    /// With the descriptors `Streams` and `files` name, in that order.
    /// Its sender speaks about the function's pid, or init's where there is no function yet. `held` is what it holds
    /// parked, below which no limit may go. `is_quiet_guess`: it rests, but not in the read that was hoped for.
    /// `leaf` names its group: the generation for which it was made. `files` is none where the worker has them.
    Ready {
        slot: u32,
        generation: u32,
        streams: Streams,
        leaf: u32,
        files: Option<Vec<u8>>,
        stage_ns: Vec<u32>,
        is_quiet_guess: bool,
        held_memory_bytes: u64,
        held_tasks: u64,
        /// What earlier sandboxes counted in the same group.
        before: Incidents,
    },
    /// No sandbox came of a `Build`; the slot is empty again.
    Failed {
        slot: u32,
        generation: u32,
        failure: Failure,
    },
    /// The sandbox is gone, kernel objects included; the slot is empty again. `verdict` is the board's when a call was
    /// running, and otherwise says why sandboxd ended it, if it was sandboxd's doing.
    Gone {
        slot: u32,
        generation: u32,
        verdict: Option<Verdict>,
        detail: u64,
        remains: Remains,
    },
    Unpacked {
        token: u32,
        errno: i32,
        message: String,
    },
}

/// What a sandbox leaves: what it used, what happened to it, and how long its end took.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Remains {
    pub usage: Usage,
    pub incidents: Incidents,
    /// From SIGKILL until its last process was reaped.
    pub exit_ns: u32,
    /// Making its group as new, or removing it.
    pub cgroup_ns: u32,
    /// The group waits for the slot's next sandbox.
    pub is_leaf_kept: bool,
}

/// How a process ended, of wait(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    Exited(i32),
    Signaled(i32),
}

/// Which descriptors a ready sandbox comes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Streams {
    /// call, link socket, log pipe.
    Link,
    /// call, stdin, stdout, log pipe.
    Stdio,
    /// call: the program is started, and its streams come, at the lease.
    Lazy,
}

impl Streams {
    pub const fn count(self) -> usize {
        match self {
            Streams::Link => 3,
            Streams::Stdio => 4,
            Streams::Lazy => 1,
        }
    }
}

/// Why there is no sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub enum Failure {
    /// A stage of ours, or the exec of the program, failed.
    Stage {
        stage: Stage,
        errno: i32,
    },
    /// The program ended before any call; `output` is the start of what it wrote to its log.
    EndedEarly {
        end: End,
        output: Vec<u8>,
    },
    /// It wrote to its stdout before any call.
    SpokeEarly {
        output: Vec<u8>,
    },
    /// It made a forbidden system call before any call.
    DeniedEarly {
        syscall: u64,
    },
    OutOfMemoryEarly,
    /// It did not come to rest in time.
    NeverParked,
    /// The build itself took too long.
    TimedOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Contract {
    Link,
    Stdio,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    Eager,
    Lazy,
}

/// All that a sandbox needs to know of its function. Written by the worker, read only by the builder, inside the
/// process that is about to become the sandbox: sandboxd maps no tenant's data.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spec {
    pub contract: Contract,
    pub start: Start,
    pub argv: Vec<Vec<u8>>,
    pub env: Vec<Vec<u8>>,
    pub cwd: Vec<u8>,
    pub hostname: Vec<u8>,
    pub uid: u32,
    pub gid: u32,
    /// Hex digests of the layers, lowest first.
    pub layers: Vec<String>,
    pub tmp_bytes: u64,
    pub tmp_files: u64,
    pub open_files: u64,
    /// `sock_filter`s, 8 bytes each in host order.
    pub filter: Vec<u8>,
    pub ablation: Ablation,
}

/// sandboxd to the nursery: clone this sandbox. With the descriptors of its control socket, its spec, `attach_count`
/// files to attach by, and the cgroup to be born into where `has_cgroup`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub slot: u32,
    /// M's id of the sandbox, which the function runs as, and that of the sandbox to be ordered next.
    pub id: u32,
    pub next_id: u32,
    pub has_pid_namespace: bool,
    pub attach_count: usize,
    pub has_cgroup: bool,
}

/// The nursery to sandboxd, one for each `Order`.
#[derive(Debug, Serialize, Deserialize)]
pub enum Birth {
    /// With a pidfd; `pid` as M numbers it.
    Born {
        slot: u32,
        pid: i32,
    },
    Failed {
        slot: u32,
        stage: Stage,
        errno: i32,
    },
}

/// init (and the builder before it) to sandboxd.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromInit {
    /// The user namespace is made; its maps are to be written. `uid` and `gid` are how the function sees itself.
    NeedMap {
        uid: u32,
        gid: u32,
    },
    /// Ready but for parking. With the descriptors of `streams`, then the listener where `has_listener`.
    Built {
        streams: Streams,
        contract: Contract,
        has_listener: bool,
        stage_ns: Vec<u32>,
    },
    Failed {
        stage: Stage,
        errno: i32,
    },
    /// The program was started at the lease, or again: with the new listener.
    Listener,
}

/// sandboxd to the builder.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToInit {
    Mapped,
}

/// init to the worker, over the call channel.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromCall {
    /// The function's own process ended; nothing of it is left.
    Ended(End),
    /// The program was started on `Go` or after `Reset`: with stdin, stdout and log pipe.
    Started,
    /// It could not be started.
    Failed { stage: Stage, errno: i32 },
    /// Nothing of the last call is left and the program waits anew, with new streams as for `Started`.
    IsReset,
}

/// The worker to init, over the call channel.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToCall {
    /// `start: lazy`: start the program.
    Go,
    /// `reuse: function` of a `stdio` program: end what the last call left running, and start it again.
    Reset,
}
