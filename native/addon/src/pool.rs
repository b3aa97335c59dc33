//! The slots and their descriptors: leases a sandbox to a call, reads what comes back, and asks sandboxd for the rest.
//!
//! Runs on the JavaScript thread only and calls no JavaScript: what happened is returned as `Happening`s, which lib.rs
//! delivers when no borrow of the pool is alive. Policy (which slot, how many) is TypeScript's.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mayfly_core::board::{Board, Clocks, NEVER, Verdict, now_ns};
use mayfly_core::cgroup::{CallLimits, Incidents, LimitFiles, Usage};
use mayfly_core::packet;
use mayfly_core::protocol::{Contract, Failure, Request, ToCall};
use mayfly_core::watch::{EventFlags, Token, Watch};

use crate::affinity::Affinity;
use crate::slot::{Call, Counters, Evidence, Logs, Sandbox, Slot, Streams};
use mayfly_core::link;

/// Which descriptor of a slot is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    Sandboxd,
    Call,
    /// The link socket or stdout.
    Answer,
    Stdin,
    Log,
}

impl Source {
    const ALL: [Source; 5] = [Source::Sandboxd, Source::Call, Source::Answer, Source::Stdin, Source::Log];
}

/// A function's part in the hot path.
#[derive(Debug, Clone)]
pub struct Function {
    pub contract: Contract,
    pub is_reusable: bool,
    pub limits: CallLimits,
    /// The limits of a call that names none.
    pub wanted: Wanted,
    pub log_bytes: u32,
}

/// The limits of one call, already checked against the function's.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub limits: CallLimits,
    pub wall_ms: u32,
    pub cpu_ms: u32,
    pub output_bytes: u32,
}

/// How a call ended, as evidence; what it means is decided in TypeScript (native/index.ts).
#[derive(Debug)]
pub enum Done {
    Result(Vec<u8>),
    Failed(Vec<u8>),
    Malformed(&'static str),
    OutputLimit,
    Exited(i32),
    Signaled(i32),
    Cancelled,
    NotStarted { stage: &'static str, errno: i32 },
    Judged { verdict: Verdict, detail: u64 },
}

/// What the worker's JavaScript is told.
pub enum Happening {
    Hello {
        cgroup_mode: String,
        copies_writable: bool,
    },
    Defined {
        function: u32,
        errno: i32,
    },
    Ready {
        slot: u32,
        function: u32,
        pid: i32,
        is_quiet_guess: bool,
    },
    /// Clean again after a call.
    Again {
        slot: u32,
        function: u32,
    },
    BuildFailed {
        slot: u32,
        function: u32,
        failure: Failure,
    },
    Done {
        slot: u32,
        done: Done,
        logs: Logs,
        usage: Usage,
        incidents: Incidents,
    },
    /// A sandbox that waited ended by itself; `what` says how.
    Broken {
        slot: u32,
        function: u32,
        what: String,
    },
    /// The slot is cold again.
    Gone {
        slot: u32,
    },
    Unpacked {
        token: u32,
        errno: i32,
        message: String,
    },
    /// sandboxd is gone, and every sandbox with it.
    Lost {
        why: String,
    },
}

/// The files of a group, for the next sandbox that is in it.
#[derive(Debug)]
pub struct KnownFiles {
    pub function: u32,
    pub leaf: u32,
    pub files: LimitFiles,
}

#[derive(Debug)]
pub struct Pool {
    pub(crate) control: OwnedFd,
    pub watch: Watch,
    pub(crate) board: Option<Board>,
    pub(crate) slots: Vec<Slot>,
    generations: Vec<u32>,
    /// Of each slot's last sandbox, whose group sandboxd may have kept for the next one.
    pub(crate) known_files: Vec<Option<KnownFiles>>,
    /// How long each stage of each slot's last build took, and of the last end of one that had become ready.
    pub(crate) build_ns: Vec<Vec<u32>>,
    pub(crate) end_ns: Vec<[(&'static str, u32); 2]>,
    pub(crate) functions: HashMap<u32, Function>,
    /// Requests that sandboxd's full socket did not take yet, oldest first.
    unsent: VecDeque<(Request, Option<OwnedFd>)>,
    /// Answered and not yet destroyed: an answer waits for no tear-down.
    to_destroy: Vec<u32>,
    pub(crate) cpus: u64,
    pub(crate) affinity: Affinity,
    pub(crate) packet: Vec<u8>,
    pub(crate) is_lost: bool,
}

/// How long a call keeps to the caller's processor. A guess between what a short call takes and what anybody would notice
/// of two programs sharing a processor while another one is idle.
pub(crate) const PINNED_NS: u64 = 2_000_000;

impl Pool {
    pub fn new(control: OwnedFd, slots: u32) -> io::Result<Self> {
        let watch = Watch::new()?;
        let token = Token { index: 0, generation: 0, source: Source::Sandboxd as u8 };
        watch.add(&control, token, EventFlags::IN)?;
        rustix::net::sockopt::set_socket_passcred(&control, true)?;
        rustix::io::ioctl_fionbio(&control, true)?;
        Ok(Self {
            control,
            watch,
            board: None,
            slots: (0..slots).map(|_| Slot::Cold).collect(),
            generations: vec![0; slots as usize],
            known_files: (0..slots).map(|_| None).collect(),
            build_ns: vec![Vec::new(); slots as usize],
            end_ns: vec![[("exit", 0), ("cgroup", 0)]; slots as usize],
            functions: HashMap::new(),
            unsent: VecDeque::new(),
            to_destroy: Vec::new(),
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            affinity: Affinity::of_this_process(),
            packet: vec![0; link::PACKET_BYTES_MAX],
            is_lost: false,
        })
    }

    pub fn generation(&self, slot: u32) -> u32 {
        self.generations[slot as usize]
    }

    pub fn state(&self, slot: u32) -> &Slot {
        &self.slots[slot as usize]
    }

    // What TypeScript asks for.

    pub fn define(&mut self, id: u32, function: Function, spec: OwnedFd, ablation: mayfly_core::ablate::Ablation) {
        let request = Request::Define { function: id, limits: function.limits, ablation };
        self.functions.insert(id, function);
        self.ask(request, Some(spec));
    }

    pub fn undefine(&mut self, id: u32) {
        self.functions.remove(&id);
        for known in &mut self.known_files {
            let _ = known.take_if(|known| known.function == id);
        }
        self.ask(Request::Undefine { function: id }, None);
    }

    pub fn unpack(&mut self, token: u32, digest: String, archive: OwnedFd) {
        self.ask(Request::Unpack { token, digest }, Some(archive));
    }

    /// Cold -> Warming.
    pub fn build(&mut self, slot: u32, function: u32, is_awaited: bool) {
        let state = &mut self.slots[slot as usize];
        assert!(matches!(state, Slot::Cold), "build of a slot that is {}", state.name());
        *state = Slot::Warming { function };
        // Wraps after four thousand million sandboxes of one slot.
        let generation = &mut self.generations[slot as usize];
        *generation = generation.wrapping_add(1);
        let generation = *generation;
        let known = &mut self.known_files[slot as usize];
        let _ = known.take_if(|known| known.function != function);
        let known_leaf = known.as_ref().map(|known| known.leaf);
        self.ask(Request::Build { slot, generation, function, is_awaited, known_leaf }, None);
    }

    /// Ready -> Retired, Warming too: sandboxd destroys whatever stage it is in.
    pub fn retire(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        assert!(
            matches!(state, Slot::Ready { .. } | Slot::Warming { .. } | Slot::Resetting { .. }),
            "retire of a slot that is {}",
            state.name()
        );
        let sandbox = match std::mem::replace(state, Slot::Cold) {
            Slot::Ready { sandbox } | Slot::Resetting { sandbox } => Some(sandbox),
            _ => None,
        };
        *state = Slot::Retired { sandbox };
        self.destroy(slot);
    }

    /// Ready -> Leased: limits, deadline, message. On the hot path; three or four system calls.
    ///
    /// # Errors
    /// What the kernel refused; the sandbox is then being destroyed and the call was not made.
    pub fn call(&mut self, slot: u32, payload: &[u8], is_alone: bool, wanted: Option<Wanted>) -> io::Result<()> {
        let state = std::mem::replace(&mut self.slots[slot as usize], Slot::Cold);
        let Slot::Ready { mut sandbox } = state else { unreachable!("lease of a slot that is {}", state.name()) };
        let wanted = wanted.or_else(|| self.functions.get(&sandbox.function).map(|function| function.wanted));
        let wanted = &wanted.expect("a function outlives its sandboxes");
        let mut call = Call {
            output_bytes_max: wanted.output_bytes as usize,
            pending: None,
            output: Vec::new(),
            buffer: None,
            started_ns: 0,
        };
        if is_alone {
            sandbox.processor = self.affinity.pin(&sandbox.processes, sandbox.processor);
        } else if sandbox.processor.take().is_some() {
            self.affinity.widen(&sandbox.processes);
        }
        let sent = self.start_call(slot, &mut sandbox, &mut call, payload, wanted);
        sandbox.is_used = true;
        if let Err(error) = sent {
            // The board first: sandboxd must not judge a call that was never made.
            let _ = self.board().end(slot, self.generation(slot));
            self.slots[slot as usize] = Slot::Retired { sandbox: Some(sandbox) };
            self.destroy(slot);
            return Err(error);
        }
        self.slots[slot as usize] = Slot::Leased { sandbox, call };
        Ok(())
    }

    fn start_call(
        &self,
        slot: u32,
        sandbox: &mut Sandbox,
        call: &mut Call,
        payload: &[u8],
        wanted: &Wanted,
    ) -> io::Result<()> {
        if sandbox.limits != wanted.limits {
            sandbox.files.apply(&sandbox.limits, &wanted.limits)?;
            sandbox.limits = wanted.limits;
        }
        if sandbox.is_used && sandbox.contract == Contract::Stdio {
            // Starting the program again was the reset's doing and not this call's.
            sandbox.before = Counters::read(&sandbox.files)?;
        }
        let now = now_ns();
        call.started_ns = now;
        let wall_deadline = now + u64::from(wanted.wall_ms) * 1_000_000;
        let cpu_ns = u64::from(wanted.cpu_ms) * 1_000_000;
        let (cpu_end, first_check) = match cpu_ns {
            0 => (NEVER, wall_deadline),
            // The CPU time cannot run out sooner than if every CPU ran it.
            limit => (sandbox.before.cpu_ns + limit, wall_deadline.min(now + limit / self.cpus)),
        };
        let widen_at = if sandbox.processor.is_some() { now + PINNED_NS } else { NEVER };
        let clocks = Clocks { wall_deadline, cpu_end, widen_at, check_at: first_check.min(widen_at) };
        self.board().start(slot, self.generation(slot), clocks)?;
        match &mut sandbox.streams {
            Some(Streams::Link { socket, .. }) => link::send_invoke(socket.as_fd(), payload),
            Some(Streams::Stdio { .. }) => {
                call.pending = Some((payload.to_vec(), 0));
                self.write_stdin(slot, sandbox, call)
            }
            None => {
                call.pending = Some((payload.to_vec(), 0));
                packet::send(&sandbox.call, &ToCall::Go, &[], None)
            }
        }
    }

    /// Memory bytes and tasks of a ready sandbox.
    pub fn held(&mut self, slot: u32) -> (u64, u64) {
        self.slots[slot as usize]
            .sandbox_mut()
            .map_or((0, 0), |sandbox| (sandbox.held_memory_bytes, sandbox.held_tasks))
    }

    /// Ends a call as cancelled; false when it has ended already.
    pub fn cancel(&mut self, slot: u32, generation: u32) -> bool {
        if generation != self.generation(slot) || !matches!(self.slots[slot as usize], Slot::Leased { .. }) {
            return false;
        }
        if self.board().end(slot, generation) {
            self.poison(slot, Evidence::Cancelled);
        }
        true
    }

    /// Destroys the sandboxes whose calls were answered since the last time.
    pub fn flush(&mut self) {
        for slot in std::mem::take(&mut self.to_destroy) {
            self.destroy(slot);
        }
    }

    // What descriptors tell.

    /// Everything that is ready now.
    pub fn drain(&mut self) -> Vec<Happening> {
        let mut out = Vec::new();
        let tokens = self.watch.wait(Some(0)).unwrap_or_default();
        for token in tokens {
            let Some(source) = Source::ALL.get(usize::from(token.source)) else { continue };
            if *source == Source::Sandboxd {
                self.hear_sandboxd(&mut out);
                continue;
            }
            if !token.is_of(self.generation(token.index)) {
                continue;
            }
            if let Some(sandbox) = self.slots[token.index as usize].doomed() {
                // Whatever it still says is heard by nobody, and would wake us until it is gone.
                self.unwatch(sandbox);
                continue;
            }
            match source {
                Source::Call => self.hear_init(token.index, &mut out),
                Source::Answer => self.hear_answer(token.index, &mut out),
                Source::Stdin => self.go_on_writing(token.index),
                Source::Log => self.hear_log(token.index),
                Source::Sandboxd => {}
            }
        }
        out
    }

    pub(crate) fn watch_streams(&self, slot: u32, sandbox: &Sandbox) -> io::Result<()> {
        let Some(streams) = &sandbox.streams else { return Ok(()) };
        rustix::io::ioctl_fionbio(streams.log(), true)?;
        self.watch_fd(streams.log(), slot, Source::Log, EventFlags::IN)?;
        match streams {
            Streams::Link { socket, .. } => self.watch_fd(socket, slot, Source::Answer, EventFlags::IN),
            Streams::Stdio { stdin, stdout, .. } => {
                rustix::io::ioctl_fionbio(stdout, true)?;
                if let Some(stdin) = stdin {
                    rustix::io::ioctl_fionbio(stdin, true)?;
                }
                self.watch_fd(stdout, slot, Source::Answer, EventFlags::IN)
            }
        }
    }

    fn unwatch(&self, sandbox: &Sandbox) {
        let _ = self.watch.remove(&sandbox.call);
        match &sandbox.streams {
            Some(Streams::Link { socket, log }) => {
                let _ = (self.watch.remove(socket), self.watch.remove(log));
            }
            Some(Streams::Stdio { stdin, stdout, log }) => {
                let _ = (self.watch.remove(stdout), self.watch.remove(log));
                let _ = stdin.as_ref().map(|stdin| self.watch.remove(stdin));
            }
            None => {}
        }
    }

    pub(crate) fn watch_fd(&self, fd: impl AsFd, slot: u32, source: Source, flags: EventFlags) -> io::Result<()> {
        let token = Token { index: slot, generation: self.generation(slot), source: source as u8 };
        self.watch.add(fd, token, flags)
    }

    pub(crate) fn board(&self) -> &Board {
        self.board.as_ref().expect("no slot is ready before sandboxd's hello")
    }

    // Requests to sandboxd.

    pub(crate) fn destroy(&mut self, slot: u32) {
        let generation = self.generation(slot);
        self.ask(Request::Destroy { slot, generation }, None);
    }

    /// After an answer: the reply goes first, and `flush` says when the rest may follow.
    pub(crate) fn destroy_later(&mut self, slot: u32) {
        self.to_destroy.push(slot);
    }

    fn ask(&mut self, request: Request, descriptor: Option<OwnedFd>) {
        self.unsent.push_back((request, descriptor));
        self.send_unsent();
    }

    /// A full socket means that sandboxd is busy; the rest goes out with its next event.
    pub(crate) fn send_unsent(&mut self) {
        while let Some((request, descriptor)) = self.unsent.front() {
            let descriptors: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
            match packet::send(&self.control, request, &descriptors, None) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Sent; or sandboxd is gone, which its socket's end tells.
                _ => drop(self.unsent.pop_front()),
            }
        }
    }
}
