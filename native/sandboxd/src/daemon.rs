//! The loop: requests of the worker in, events out, and between them every sandbox's life (lifecycle.rs).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mayfly_core::ablate::Ablation;
use mayfly_core::board::{Board, Clocks, NEVER, Verdict, now_ns};
use mayfly_core::cgroup::{CallLimits, Cgroups, NodeLimits};
use mayfly_core::packet;
use mayfly_core::protocol::{Event, Failure, Request, VERSION};
use mayfly_core::sandbox::{FIRST_ID, TimeOffsets};
use mayfly_core::stage::Stage;
use mayfly_core::sys;
use mayfly_core::watch::{EventFlags, Token, Watch};
use rustix::net::RecvFlags;
use rustix::process::Pid;
use rustix::thread::CpuSet;
use rustix::time::{TimerfdClockId, TimerfdFlags};

use crate::Options;
use crate::lifecycle::REMOVE_AGAIN_NS;
use crate::nursery::Nursery;
use crate::slot::{Ending, Group, Slot};
use crate::unpack::Unpacker;
use crate::watch::Source;

/// How often a call's CPU time is read at most, when it is near its end.
const CPU_CHECK_MIN_NS: u64 = 1_000_000;

pub struct Function {
    pub limits: CallLimits,
    pub ablation: Ablation,
    /// Not ours to read.
    pub spec: OwnedFd,
}

pub struct Daemon {
    control: OwnedFd,
    /// Held, not used: main.rs says why.
    _lock: Option<OwnedFd>,
    is_ablation_allowed: bool,
    pub watch: Watch,
    pub cgroups: Box<dyn Cgroups>,
    pub board: Board,
    board_memory: OwnedFd,
    pub slots: Vec<Slot>,
    pub functions: HashMap<u32, Function>,
    pub unpackers: HashMap<u32, Unpacker>,
    pub nursery: Nursery,
    pub ids: Ids,
    /// Slots to be cloned, in that order, and how many the nursery has been asked for.
    pub orders: VecDeque<u32>,
    pub ordered: usize,
    /// Groups of dead sandboxes, for the next one of the same slot and function.
    pub kept_groups: HashMap<u32, Group>,
    /// When the next build could be stuck, or `NEVER`.
    pub stuck_at_ns: u64,
    /// Below Linux 6.6, where tmpfs has no user xattrs.
    copies_writable: bool,
    /// Slots whose program is being watched until it rests, and dead ones whose group was still busy.
    pub parking: Vec<u32>,
    pub unburied: Vec<u32>,
    pub remove_again_ns: u64,
    cpus: u64,
    all_processors: CpuSet,
    /// Events that the worker's full socket did not take yet, oldest first.
    unsent: VecDeque<Unsent>,
    room: Option<OwnedFd>,
}

/// M's ids of functions: one for each sandbox, and the one that the nursery has made the next user namespace for.
#[derive(Debug)]
pub struct Ids {
    free: Vec<u32>,
    pub next: u32,
}

impl Ids {
    fn new(first: u32, count: u32) -> Self {
        Self { free: (first + 1..first + count).rev().collect(), next: first }
    }

    /// The next one, and the one after it.
    pub fn take(&mut self) -> (u32, u32) {
        let id = self.next;
        self.next = self.free.pop().expect("one more than there are slots");
        (id, self.next)
    }

    pub fn give_back(&mut self, id: u32) {
        self.free.push(id);
    }
}

struct Unsent {
    event: Event,
    descriptors: Vec<OwnedFd>,
    about: Option<Pid>,
}

pub fn run(options: Options) -> io::Result<()> {
    sys::process::reset_signals();
    if options.slots.saturating_add(FIRST_ID) >= options.ids {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more slots than ids"));
    }
    Daemon::open(options)?.serve()
}

impl Daemon {
    fn open(options: Options) -> io::Result<Self> {
        let copies_writable = !tmpfs_has_user_xattrs()?;
        let ids = Ids::new(FIRST_ID, options.slots + 1);
        let nursery =
            Nursery::start(TimeOffsets::since_boot(), copies_writable, options.is_ablation_allowed, ids.next)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let board_memory = Board::create_memory(options.slots)?;
        let board = Board::map(board_memory.as_fd(), options.slots, timer)?;
        let watch = Watch::new()?;
        Source::Worker.watch_for(&watch, &options.control, EventFlags::IN)?;
        Source::Timer.watch_for(&watch, board.timer(), EventFlags::IN)?;
        Source::Nursery.watch_for(&watch, nursery.socket(), EventFlags::IN)?;
        Ok(Self {
            control: options.control,
            _lock: options.lock,
            is_ablation_allowed: options.is_ablation_allowed,
            watch,
            cgroups: mayfly_core::cgroup::open(options.cgroup),
            board,
            board_memory,
            slots: (0..options.slots).map(|_| Slot::Empty).collect(),
            functions: HashMap::new(),
            unpackers: HashMap::new(),
            nursery,
            ids,
            orders: VecDeque::new(),
            ordered: 0,
            kept_groups: HashMap::new(),
            stuck_at_ns: NEVER,
            copies_writable,
            parking: Vec::new(),
            unburied: Vec::new(),
            remove_again_ns: REMOVE_AGAIN_NS,
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            all_processors: rustix::thread::sched_getaffinity(None)?,
            unsent: VecDeque::new(),
            room: None,
        })
    }

    /// Until the worker's socket closes. What is left then, the kernel clears: we are PID 1 of M.
    fn serve(mut self) -> io::Result<()> {
        match self.serve_worker() {
            // The other ways of a socket to say that the worker is gone.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => Ok(()),
            other => other,
        }
    }

    fn serve_worker(&mut self) -> io::Result<()> {
        let hello = Event::Hello {
            version: VERSION,
            slots: self.board.slots(),
            cgroup_mode: self.cgroups.mode().name().to_owned(),
            copies_writable: self.copies_writable,
        };
        packet::send(&self.control, &hello, &[self.board_memory.as_fd(), self.board.timer()], None)?;
        rustix::io::ioctl_fionbio(&self.control, true)?;
        loop {
            for token in self.watch.wait(self.next_look_ns())? {
                if !self.handle(token)? {
                    return Ok(());
                }
            }
            self.look_at_parking();
            self.bury_the_rest();
        }
    }

    /// False when the worker is gone.
    fn handle(&mut self, token: Token) -> io::Result<bool> {
        let slot = token.index;
        let is_current = self.slots.get(slot as usize).and_then(Slot::generation).is_some_and(|now| token.is_of(now));
        match Source::from_u8(token.source) {
            Some(Source::Worker) => return self.obey(),
            Some(Source::Room) => self.send_unsent()?,
            Some(Source::Timer) => self.check_deadlines()?,
            Some(Source::Nursery) => self.hear_nursery()?,
            Some(Source::Unpacker) => self.unpacked(slot)?,
            Some(source) if is_current => {
                let handled = self.handle_slot(source, slot);
                self.contain(slot, handled);
            }
            _ => {}
        }
        Ok(true)
    }

    /// What fails for one sandbox, perhaps by its own doing, is that sandbox's end and not ours.
    pub fn contain(&mut self, slot: u32, result: io::Result<()>) {
        if let Err(error) = result {
            crate::complain(&format!("slot {slot}: {error}"));
            let early = Failure::Stage { stage: Stage::Park, errno: error.raw_os_error().unwrap_or(libc::EIO) };
            self.end_sandbox(slot, Verdict::Lost, 0, early);
        }
    }

    fn handle_slot(&mut self, source: Source, slot: u32) -> io::Result<()> {
        match source {
            Source::Control => self.hear_init(slot),
            Source::Init => self.reap_init(slot),
            Source::Listener => {
                self.hear_listener(slot);
                Ok(())
            }
            Source::OutOfMemory => {
                self.check_memory(slot);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn obey(&mut self) -> io::Result<bool> {
        let packet = match packet::receive::<Request>(&self.control, RecvFlags::DONTWAIT) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        match packet.message {
            Request::Define { function, limits, ablation } => {
                let errno = errno_of(&self.define(function, limits, ablation, packet.descriptors));
                self.tell(Event::Defined { function, errno })?;
            }
            Request::Undefine { function } => {
                self.functions.remove(&function);
                self.forget_groups(function);
                // The worker has waited for all its sandboxes; a failure leaves an empty group to the janitor.
                let _ = self.cgroups.remove_function(function);
            }
            Request::Build { slot, generation, function, is_awaited, known_leaf } => {
                self.build(slot, generation, function, is_awaited, known_leaf)?;
            }
            Request::Destroy { slot, generation } => {
                if let Some(state) = self.slots.get_mut(slot as usize)
                    && state.generation() == Some(generation)
                {
                    state.kill(Ending::Gone { verdict: None, detail: 0 });
                }
            }
            Request::Unpack { token, digest } => self.unpack(token, digest, packet.descriptors)?,
        }
        Ok(true)
    }

    fn define(&mut self, id: u32, limits: CallLimits, ablation: Ablation, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let refused = || io::Error::from_raw_os_error(libc::EPERM);
        if !(ablation.is_none() || self.is_ablation_allowed) {
            return Err(refused());
        }
        let spec = descriptors.into_iter().next().ok_or_else(refused)?;
        self.cgroups.create_function(id, &NodeLimits::default())?;
        self.functions.insert(id, Function { limits, ablation, spec });
        Ok(())
    }

    /// Wall time and CPU time, by our own clock and the leaf's; and who may use more than one processor from now on.
    fn check_deadlines(&mut self) -> io::Result<()> {
        let _ = rustix::io::read(self.board.timer(), &mut [0u8; 8]);
        let now = now_ns();
        let (slots, cpus) = (&self.slots, self.cpus);
        let mut due = Vec::new();
        self.board.scan(now, |slot, generation, clocks| {
            let state = &slots[slot as usize];
            if now >= clocks.widen_at {
                self.board.widened(slot);
                self.widen(state);
            }
            match overdue(state, clocks, now, cpus) {
                Ok(next) => Some(next),
                Err(verdict) => {
                    due.push((slot, generation, verdict));
                    None
                }
            }
        })?;
        for (slot, generation, verdict) in due {
            self.end_call(slot, generation, verdict);
        }
        Ok(())
    }

    /// Lets everything in the sandbox run on every processor.
    fn widen(&self, state: &Slot) {
        let Some(sandbox) = state.sandbox() else { return };
        // Once more for what was forked meanwhile by somebody who was not let loose yet.
        for _ in 0..2 {
            let threads = sandbox.group.leaf.threads().unwrap_or_default();
            for thread in threads.into_iter().filter_map(|thread| Pid::from_raw(i32::try_from(thread).ok()?)) {
                let _ = rustix::thread::sched_setaffinity(Some(thread), &self.all_processors);
            }
        }
    }

    /// Ends the running call of this generation for that reason, unless its answer came first.
    fn end_call(&mut self, slot: u32, generation: u32, verdict: Verdict) {
        if self.board.judge(slot, generation, verdict, 0) {
            self.slots[slot as usize].kill(Ending::Gone { verdict: Some(verdict), detail: 0 });
        }
    }

    /// Ends a sandbox that is not to be trusted any more, and the call it serves, if any. Before it was ready there is
    /// no call and nothing to be gone: its build failed, as `early` says.
    pub fn end_sandbox(&mut self, slot: u32, verdict: Verdict, detail: u64, early: Failure) {
        let state = &mut self.slots[slot as usize];
        let end = match state {
            Slot::Serving { sandbox } => {
                self.board.judge(slot, sandbox.generation, verdict, detail);
                Ending::Gone { verdict: Some(verdict), detail }
            }
            _ => Ending::Failed(early),
        };
        state.kill(end);
    }

    pub fn tell(&mut self, event: Event) -> io::Result<()> {
        self.tell_with(event, Vec::new(), None)
    }

    /// Never blocks: a worker whose event loop stands still must not stretch the deadlines of its calls.
    pub fn tell_with(&mut self, event: Event, descriptors: Vec<OwnedFd>, about: Option<Pid>) -> io::Result<()> {
        self.unsent.push_back(Unsent { event, descriptors, about });
        self.send_unsent()
    }

    fn send_unsent(&mut self) -> io::Result<()> {
        while let Some(Unsent { event, descriptors, about }) = self.unsent.front() {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            match packet::send(&self.control, event, &borrowed, *about) {
                Ok(()) => drop(self.unsent.pop_front()),
                // The process spoken about has died: the event holds without it, and its own end follows.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) && about.is_some() => {
                    if let Some(first) = self.unsent.front_mut() {
                        first.about = None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.wait_for_room(true),
                Err(error) => return Err(error),
            }
        }
        self.wait_for_room(false)
    }

    /// Has the loop told when the worker's socket takes more.
    fn wait_for_room(&mut self, is_wanted: bool) -> io::Result<()> {
        match (is_wanted, self.room.take()) {
            (true, Some(room)) => self.room = Some(room),
            (true, None) => {
                // A duplicate, because one descriptor is in an epoll set once, and this one is in it for reading.
                let room = self.control.try_clone()?;
                Source::Room.watch_for(&self.watch, &room, EventFlags::OUT)?;
                self.room = Some(room);
            }
            (false, Some(room)) => self.watch.remove(&room)?,
            (false, None) => {}
        }
        Ok(())
    }
}

/// When to look at this call again, or why it is over.
fn overdue(slot: &Slot, clocks: Clocks, now: u64, cpus: u64) -> Result<u64, Verdict> {
    if now >= clocks.wall_deadline {
        return Err(Verdict::WallTime);
    }
    let widen_at = if clocks.widen_at > now { clocks.widen_at } else { NEVER };
    let deadline = clocks.wall_deadline.min(widen_at);
    let Some(sandbox) = slot.sandbox().filter(|_| clocks.cpu_end != NEVER) else { return Ok(deadline) };
    let used = sandbox.group.leaf.files().cpu_ns().unwrap_or(0);
    if used >= clocks.cpu_end {
        return Err(Verdict::CpuTime);
    }
    // It cannot use it up faster than on every CPU at once.
    let soonest = (clocks.cpu_end - used) / cpus;
    Ok(deadline.min(now + soonest.max(CPU_CHECK_MIN_NS)))
}

pub fn errno_of(result: &io::Result<()>) -> i32 {
    result.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// Asked of a tmpfs like a slot's, made inside M and never attached.
fn tmpfs_has_user_xattrs() -> io::Result<bool> {
    use rustix::fs::{Mode, OFlags, XattrFlags, openat};
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let root = openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::fs::fsetxattr(&root, "user.mayfly", b"", XattrFlags::empty()) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
