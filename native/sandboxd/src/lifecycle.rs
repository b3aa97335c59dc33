//! From a request to build to the last removed group: what happens to one slot.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mayfly_core::ablate::Layer;
use mayfly_core::board::{NEVER, Verdict, now_ns};
use mayfly_core::cgroup::Leaf;
use mayfly_core::packet;
use mayfly_core::protocol::{Birth, Contract, Event, Failure, FromInit, Order, Remains, Streams, ToInit};
use mayfly_core::sandbox::{FIRST_SLOT_ID, IMAGE_OWNER_ID};
use mayfly_core::stage::{At, SetupError, Stage};
use mayfly_core::sys;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::RecvFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions};

use crate::daemon::{Daemon, Function, KeptLeaf};
use crate::parking::{self, Seen};
use crate::slot::{Ending, Offer, Rest, Sandbox, Slot, Unborn};
use crate::watch::Source;

/// A build takes milliseconds; one that takes this long is stuck and gives its slot back.
const BUILD_WITHIN_NS: u64 = 20_000_000_000;
/// A group whose last process was reaped a moment ago may still be busy (row P03); one whose process hangs in the
/// kernel may be for long (P04).
pub const REMOVE_AGAIN_NS: u64 = 1_000_000;
const REMOVE_AGAIN_MAX_NS: u64 = 100_000_000;

/// How many orders the nursery has at once: it makes one sandbox at a time, and what is sent cannot be overtaken.
const ORDERS_AHEAD: usize = 2;
/// Kept groups are a few dozen kilobytes of the kernel's each. Guess.
const KEPT_LEAVES_MAX: usize = 256;

impl Daemon {
    pub fn build(
        &mut self,
        slot: u32,
        generation: u32,
        function: u32,
        is_awaited: bool,
        known_leaf: Option<u32>,
    ) -> io::Result<()> {
        if !matches!(self.slots.get(slot as usize), Some(Slot::Empty)) {
            // The worker built where it must not: tell it, and touch nothing.
            return self.fail(
                slot,
                generation,
                &SetupError { stage: Stage::Clone, source: io::ErrorKind::ResourceBusy.into() },
            );
        }
        self.board.clear(slot);
        let since_ns = now_ns();
        match self.prepare(slot, generation, function) {
            Ok(order) => {
                let order = Unborn { is_awaited, is_leaf_known: known_leaf == Some(order.leaf_of), ..order };
                self.slots[slot as usize] = Slot::Ordered { order, since_ns };
            }
            Err(error) => return self.fail(slot, generation, &error),
        }
        self.stuck_at_ns = self.stuck_at_ns.min(since_ns + BUILD_WITHIN_NS);
        // A call that waits goes before what is only to be kept ready.
        if is_awaited {
            self.orders.push_front(slot)
        } else {
            self.orders.push_back(slot)
        }
        self.send_orders()
    }

    fn fail(&mut self, slot: u32, generation: u32, error: &SetupError) -> io::Result<()> {
        let errno = error.source.raw_os_error().unwrap_or(libc::EIO);
        let failure = Failure::Stage { stage: error.stage, errno };
        self.tell(Event::Failed { slot, generation, failure })
    }

    fn prepare(&mut self, slot: u32, generation: u32, id: u32) -> Result<Unborn, SetupError> {
        let missing = || SetupError { stage: Stage::Spec, source: io::ErrorKind::NotFound.into() };
        let started = now_ns();
        let (leaf, leaf_of) = self.leaf_for(slot, generation, id).ok_or_else(missing)?.at(Stage::Cgroup)?;
        let mut stage_ns = vec![0; Stage::COUNT];
        stage_ns[Stage::Cgroup as usize] = u32::try_from(now_ns() - started).unwrap_or(u32::MAX);
        let (control, theirs) = packet::pair().at(Stage::Clone)?;
        let control_of_child = Some(theirs);
        Ok(Unborn {
            generation,
            function: id,
            control,
            control_of_child,
            leaf,
            leaf_of,
            is_leaf_known: false,
            stage_ns,
            is_awaited: false,
            doom: None,
        })
    }

    /// The group of the slot's last sandbox, if it was of the same function, or a new one; and for which generation it
    /// was made.
    fn leaf_for(&mut self, slot: u32, generation: u32, id: u32) -> Option<io::Result<(Leaf, u32)>> {
        let function = self.functions.get(&id)?;
        let limits = function.ablation.keeps(Layer::Cgroup).then_some(&function.limits);
        if let Some(kept) = self.kept_leaves.remove(&slot) {
            if kept.function == id {
                return Some(Ok((kept.leaf, kept.leaf_of)));
            }
            // Nobody is in it.
            let _ = kept.leaf.remove();
        }
        Some(self.cgroups.create_leaf(id, slot, limits).map(|leaf| (leaf, generation)))
    }

    pub fn forget_leaves(&mut self, function: u32) {
        for (_, gone) in self.kept_leaves.extract_if(|_, kept| kept.function == function) {
            let _ = gone.leaf.remove();
        }
    }

    /// A few at a time: what waits here can still be overtaken.
    fn send_orders(&mut self) -> io::Result<()> {
        while self.ordered < ORDERS_AHEAD
            && let Some(slot) = self.orders.pop_front()
        {
            let Slot::Ordered { order, .. } = &mut self.slots[slot as usize] else { continue };
            let Some(theirs) = order.control_of_child.take().filter(|_| order.doom.is_none()) else {
                self.unborn(slot, Failure::Stage { stage: Stage::Clone, errno: libc::ECANCELED })?;
                continue;
            };
            let Some(function) = self.functions.get(&order.function) else { continue };
            let attach: Vec<_> = order.leaf.attach().collect();
            let message = Order {
                slot,
                slot_id: FIRST_SLOT_ID + slot,
                has_pid_namespace: function.ablation.keeps(Layer::PidNs),
                attach_count: attach.len(),
                has_cgroup: order.leaf.into_cgroup().is_some(),
            };
            let mut descriptors = vec![theirs.as_fd(), function.spec.as_fd()];
            descriptors.extend(attach);
            descriptors.extend(order.leaf.into_cgroup());
            self.nursery.order(&message, &descriptors)?;
            self.ordered += 1;
        }
        Ok(())
    }

    /// What came of orders.
    pub fn hear_nursery(&mut self) -> io::Result<()> {
        while let Some((answer, pidfd)) = self.nursery.answer()? {
            self.ordered -= 1;
            match (answer, pidfd) {
                (Birth::Born { slot, pid }, Some(pidfd)) => self.born(slot, pid, pidfd)?,
                (Birth::Born { .. }, None) => return Err(io::ErrorKind::InvalidData.into()),
                (Birth::Failed { slot, stage, errno }, _) => self.unborn(slot, Failure::Stage { stage, errno })?,
            }
        }
        self.send_orders()
    }

    fn born(&mut self, slot: u32, pid: i32, pidfd: OwnedFd) -> io::Result<()> {
        let state = &mut self.slots[slot as usize];
        let Slot::Ordered { order, since_ns } = std::mem::replace(state, Slot::Empty) else {
            return Err(io::Error::other("the nursery bore what was not ordered"));
        };
        let Unborn {
            generation, function, control, leaf, leaf_of, is_leaf_known, mut stage_ns, is_awaited, doom, ..
        } = order;
        let init = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        let waited = u32::try_from(now_ns() - since_ns).unwrap_or(u32::MAX);
        stage_ns[Stage::Clone as usize] = waited.saturating_sub(stage_ns[Stage::Cgroup as usize]);
        let sandbox = Sandbox {
            generation,
            function,
            init,
            pidfd,
            control,
            listener: None,
            leaf,
            leaf_of,
            is_leaf_known,
            stage_ns,
        };
        let watched = self.watch_sandbox(slot, &sandbox);
        let state = &mut self.slots[slot as usize];
        *state = Slot::Building { sandbox, since_ns, is_awaited };
        if let Some(end) = doom {
            state.kill(end);
        }
        if let Err(error) = watched {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            state.kill(Ending::Failed(Failure::Stage { stage: Stage::Clone, errno }));
            // Its death may wake nobody, so it is looked for.
            self.unburied.push(slot);
        }
        Ok(())
    }

    /// No process came of the order.
    fn unborn(&mut self, slot: u32, failure: Failure) -> io::Result<()> {
        let state = &mut self.slots[slot as usize];
        let Slot::Ordered { mut order, .. } = std::mem::replace(state, Slot::Empty) else { return Ok(()) };
        let end = order.doom.take().unwrap_or(Ending::Failed(failure));
        // Nobody was ever in it.
        let _ = order.leaf.remove();
        self.conclude(slot, order.generation, end, Remains::default())
    }

    fn watch_sandbox(&self, slot: u32, sandbox: &Sandbox) -> io::Result<()> {
        Source::Init.watch(&self.watch, &sandbox.pidfd, slot, sandbox.generation)?;
        Source::Control.watch(&self.watch, &sandbox.control, slot, sandbox.generation)?;
        match sandbox.leaf.oom_events() {
            Some(events) => Source::OutOfMemory.watch(&self.watch, events, slot, sandbox.generation),
            None => Ok(()),
        }
    }

    /// One message of the builder's or init's. What is none, or comes out of turn, ends the sandbox.
    pub fn hear_init(&mut self, slot: u32) -> io::Result<()> {
        let state = &mut self.slots[slot as usize];
        let Some(sandbox) = state.sandbox() else { return Ok(()) };
        let received = packet::receive::<FromInit>(&sandbox.control, RecvFlags::DONTWAIT);
        let (message, descriptors) = match received {
            Ok(Some(packet)) => (packet.message, packet.descriptors),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // Dead: its pidfd says so next. Deaf to the socket until then, or it would wake us for ever.
            Ok(None) | Err(_) => {
                let _ = self.watch.remove(&sandbox.control);
                return Ok(());
            }
        };
        match (message, &mut *state) {
            (FromInit::NeedMap { uid, gid }, Slot::Building { sandbox, .. }) => {
                let written = write_maps(sandbox, slot, uid, gid)
                    .and_then(|()| packet::send(&sandbox.control, &ToInit::Mapped, &[], None));
                if let Err(error) = written {
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    state.kill(Ending::Failed(Failure::Stage { stage: Stage::IdMap, errno }));
                }
            }
            (FromInit::Built { streams, contract, has_listener, stage_ns }, Slot::Building { .. }) => {
                self.built(slot, streams, contract, has_listener, &stage_ns, descriptors)?;
            }
            (FromInit::Failed { stage, errno }, Slot::Building { .. }) => {
                state.kill(Ending::Failed(Failure::Stage { stage, errno }));
            }
            (FromInit::Listener, Slot::Serving { sandbox }) => {
                sandbox.listener = descriptors.into_iter().next();
                if let Some(listener) = &sandbox.listener {
                    Source::Listener.watch(&self.watch, listener, slot, sandbox.generation)?;
                }
            }
            (_, Slot::Dying { .. }) => {}
            _ => state.kill(Ending::Failed(Failure::Stage { stage: Stage::Park, errno: libc::EPROTO })),
        }
        Ok(())
    }

    fn built(
        &mut self,
        slot: u32,
        streams: Streams,
        contract: Contract,
        has_listener: bool,
        stage_ns: &[u32],
        mut descriptors: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let state = &mut self.slots[slot as usize];
        let Slot::Building { mut sandbox, is_awaited, .. } = std::mem::replace(state, Slot::Empty) else {
            return Ok(());
        };
        let is_whole = descriptors.len() == streams.count() + usize::from(has_listener);
        sandbox.listener = if has_listener { descriptors.pop() } else { None };
        let generation = sandbox.generation;
        for (ours, theirs) in sandbox.stage_ns.iter_mut().zip(stage_ns) {
            *ours = ours.saturating_add(*theirs);
        }
        let function = if streams == Streams::Lazy { None } else { parking::function_of(&sandbox) };
        let is_gone_already = function.is_none() && streams != Streams::Lazy;
        let offer = Offer { streams, contract, descriptors, function, is_gone_already };
        *state = Slot::Parking { sandbox, offer, rest: Rest::starting(now_ns()) };
        if let Some(listener) = state.sandbox().and_then(|sandbox| sandbox.listener.as_ref()) {
            Source::Listener.watch(&self.watch, listener, slot, generation)?;
        }
        if is_whole && is_awaited && !is_gone_already {
            // What the call sends waits in the socket or pipe until the program reads.
            self.offer(slot, true)
        } else if is_whole {
            self.parking.push(slot);
            self.look_at(slot)
        } else {
            state.kill(Ending::Failed(Failure::Stage { stage: Stage::Channels, errno: libc::EPROTO }));
            Ok(())
        }
    }

    pub fn look_at_parking(&mut self) {
        let now = now_ns();
        for slot in self.parking.clone() {
            match &self.slots[slot as usize] {
                Slot::Parking { rest, .. } if rest.next_look_ns > now => {}
                _ => {
                    let looked = self.look_at(slot);
                    self.contain(slot, looked);
                }
            }
        }
    }

    fn look_at(&mut self, slot: u32) -> io::Result<()> {
        let state = &mut self.slots[slot as usize];
        let Slot::Parking { offer, rest, .. } = state else {
            self.parking.retain(|other| *other != slot);
            return Ok(());
        };
        let seen = parking::look(offer, rest, now_ns());
        match seen {
            Seen::Busy => return Ok(()),
            Seen::AtRest { is_guess } => self.offer(slot, is_guess)?,
            Seen::Broken(failure) => state.kill(Ending::Failed(failure)),
        }
        self.parking.retain(|other| *other != slot);
        Ok(())
    }

    /// Hands a parked sandbox to the worker.
    fn offer(&mut self, slot: u32, is_quiet_guess: bool) -> io::Result<()> {
        let Slot::Parking { mut sandbox, offer, rest } = std::mem::replace(&mut self.slots[slot as usize], Slot::Empty)
        else {
            return Ok(());
        };
        sandbox.stage_ns[Stage::Park as usize] = u32::try_from(now_ns() - rest.since_ns).unwrap_or(u32::MAX);
        let files = if sandbox.is_leaf_known { Vec::new() } else { sandbox.leaf.hand_out() };
        let kinds = files.iter().map(|(file, _)| *file as u8).collect();
        let copies: io::Result<Vec<_>> = files.iter().map(|(_, file)| file.try_clone_to_owned()).collect();
        let held = sandbox.leaf.held().unwrap_or_default();
        let event = Event::Ready {
            slot,
            generation: sandbox.generation,
            streams: offer.streams,
            leaf: sandbox.leaf_of,
            files: (!sandbox.is_leaf_known).then_some(kinds),
            stage_ns: std::mem::take(&mut sandbox.stage_ns),
            is_quiet_guess,
            held_memory_bytes: held.memory_bytes,
            held_tasks: held.tasks,
        };
        let about = offer.function.unwrap_or(sandbox.init);
        self.slots[slot as usize] = Slot::Serving { sandbox };
        let mut descriptors = offer.descriptors;
        match copies {
            Ok(copies) => descriptors.extend(copies),
            Err(error) => {
                let failure =
                    Failure::Stage { stage: Stage::Channels, errno: error.raw_os_error().unwrap_or(libc::EIO) };
                self.slots[slot as usize].kill(Ending::Failed(failure));
                return Ok(());
            }
        }
        self.tell_with(event, descriptors, Some(about))
    }

    /// The kernel stopped a process in a forbidden call, which it names and which will never return.
    pub fn hear_listener(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        let Some(listener) = state.sandbox().and_then(|sandbox| sandbox.listener.as_ref()) else { return };
        let ready = readiness(listener);
        if !ready.contains(PollFlags::IN) {
            // Nobody is left under the filter, and that would wake us for ever.
            if ready.contains(PollFlags::HUP) {
                let _ = self.watch.remove(listener);
            }
            return;
        }
        // Asked without a pending call it would block, and everything with it: below Linux 6.10 or so even on a hang-up.
        // A call that was pending counts, though its process be dead by now: then this is ENOENT. A call that a signal
        // interrupted comes again.
        let Ok(call) = sys::seccomp::notif_recv(listener.as_fd()) else { return };
        let number = u64::from(call.nr);
        self.end_sandbox(slot, Verdict::Denied, number, Failure::DeniedEarly { syscall: number });
    }

    /// v1: the kernel killed a process of the group; the whole sandbox is to die.
    pub fn check_memory(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        let Some(sandbox) = state.sandbox() else { return };
        if let Some(events) = sandbox.leaf.oom_events() {
            let _ = rustix::io::read(events, &mut [0u8; 8]);
        }
        if sandbox.leaf.incidents().is_ok_and(|incidents| incidents.oom_kills == 0) {
            return;
        }
        self.end_sandbox(slot, Verdict::OutOfMemory, 0, Failure::OutOfMemoryEarly);
    }

    /// init is dead, and with it every process of its namespace.
    pub fn reap_init(&mut self, slot: u32) -> io::Result<()> {
        let state = &mut self.slots[slot as usize];
        let Some(sandbox) = state.sandbox() else { return Ok(()) };
        if !matches!(state, Slot::Dying { exit_ns: Some(_), .. }) {
            let pidfd = WaitId::PidFd(sandbox.pidfd.as_fd());
            if rustix::process::waitid(pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?.is_none() {
                return Ok(());
            }
            let _ = self.watch.remove(&sandbox.pidfd);
        }
        if !matches!(state, Slot::Dying { .. }) {
            self.end_unexpectedly(slot);
        }
        if let Slot::Dying { since_ns, exit_ns, .. } = &mut self.slots[slot as usize] {
            exit_ns.get_or_insert_with(|| u32::try_from(now_ns() - *since_ns).unwrap_or(u32::MAX));
        }
        self.bury(slot)
    }

    /// A sandbox died that nobody here killed: by the kernel, for memory, or by something that should not be.
    fn end_unexpectedly(&mut self, slot: u32) {
        let sandbox = self.slots[slot as usize].sandbox();
        let is_oom = sandbox.and_then(|sandbox| sandbox.leaf.incidents().ok()).is_some_and(|seen| seen.oom_kills > 0);
        if is_oom {
            self.end_sandbox(slot, Verdict::OutOfMemory, 0, Failure::OutOfMemoryEarly);
        } else {
            let early = Failure::Stage { stage: Stage::Park, errno: libc::ECHILD };
            self.end_sandbox(slot, Verdict::Lost, 0, early);
        }
    }

    /// Removes what the kernel does not remove by itself, and tells the worker that the slot is free.
    fn bury(&mut self, slot: u32) -> io::Result<()> {
        let started = now_ns();
        let state = &mut self.slots[slot as usize];
        let Slot::Dying { sandbox, exit_ns: Some(exit_ns), .. } = state else { return Ok(()) };
        let exit_ns = *exit_ns;
        let usage = sandbox.leaf.files().usage().unwrap_or_default();
        let incidents = sandbox.leaf.incidents().unwrap_or_default();
        let is_limited = |function: &&Function| function.ablation.keeps(Layer::Cgroup);
        let function = self.functions.get(&sandbox.function).filter(is_limited);
        let has_room = self.kept_leaves.len() < KEPT_LEAVES_MAX;
        let is_kept = function.is_some_and(|of| has_room && sandbox.leaf.make_new(&of.limits, &incidents).is_ok());
        if !is_kept && sandbox.leaf.remove().is_err() {
            end_leftovers(&sandbox.leaf);
            if !self.unburied.contains(&slot) {
                self.unburied.push(slot);
            }
            return Ok(());
        }
        self.unburied.retain(|other| *other != slot);
        let Slot::Dying { sandbox, end, .. } = std::mem::replace(state, Slot::Empty) else { return Ok(()) };
        let Sandbox { generation, function, leaf, leaf_of, .. } = sandbox;
        if is_kept {
            if let Some(events) = leaf.oom_events() {
                self.watch.remove(events)?;
            }
            self.kept_leaves.insert(slot, KeptLeaf { function, leaf, leaf_of });
        }
        let cgroup_ns = u32::try_from(now_ns() - started).unwrap_or(u32::MAX);
        self.conclude(slot, generation, end, Remains { usage, incidents, exit_ns, cgroup_ns, is_leaf_kept: is_kept })
    }

    fn conclude(&mut self, slot: u32, generation: u32, end: Ending, remains: Remains) -> io::Result<()> {
        self.board.clear(slot);
        self.tell(match end {
            Ending::Failed(failure) => Event::Failed { slot, generation, failure },
            Ending::Gone { verdict, detail } => Event::Gone { slot, generation, verdict, detail, remains },
        })
    }

    pub fn bury_the_rest(&mut self) {
        let before = self.unburied.clone();
        for slot in &before {
            let reaped = self.reap_init(*slot);
            self.contain(*slot, reaped);
        }
        let is_stuck = !before.is_empty() && self.unburied.len() >= before.len();
        let patience = if is_stuck { self.remove_again_ns * 2 } else { REMOVE_AGAIN_NS };
        self.remove_again_ns = patience.min(REMOVE_AGAIN_MAX_NS);
        self.give_up_stuck_builds();
    }

    fn give_up_stuck_builds(&mut self) {
        let now = now_ns();
        if now < self.stuck_at_ns {
            return;
        }
        self.stuck_at_ns = NEVER;
        for state in &mut self.slots {
            let (Slot::Ordered { since_ns, .. } | Slot::Building { since_ns, .. }) = state else { continue };
            let stuck_at_ns = *since_ns + BUILD_WITHIN_NS;
            if now >= stuck_at_ns {
                state.kill(Ending::Failed(Failure::TimedOut));
            } else {
                self.stuck_at_ns = self.stuck_at_ns.min(stuck_at_ns);
            }
        }
    }

    /// How long the loop may sleep; for ever when nothing is being watched by looking.
    pub fn next_look_ns(&self) -> Option<u64> {
        let rests = self.parking.iter().filter_map(|slot| match &self.slots[*slot as usize] {
            Slot::Parking { rest, .. } => Some(rest),
            _ => None,
        });
        let look = parking::next_due(rests);
        let removal = (!self.unburied.is_empty()).then_some(self.remove_again_ns);
        let stuck = (self.stuck_at_ns != NEVER).then(|| self.stuck_at_ns.saturating_sub(now_ns()));
        [look, removal, stuck].into_iter().flatten().min()
    }
}

/// Kills and reaps what is in a group although its init is dead: only a sandbox without a pid namespace of its own (a
/// test's) can have left it.
fn end_leftovers(leaf: &Leaf) {
    let pids = leaf.processes().unwrap_or_default();
    for pid in pids.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        // Orphans are ours: we are PID 1 of M.
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
}

fn readiness(fd: &OwnedFd) -> PollFlags {
    let mut entry = [PollFd::new(fd, PollFlags::IN)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut entry, Some(&now)) {
        Ok(_) => entry[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

/// The sandbox's root is the image owner, its function the slot's own id; nothing else exists there.
fn write_maps(sandbox: &Sandbox, slot: u32, uid: u32, gid: u32) -> io::Result<()> {
    let slot_id = FIRST_SLOT_ID + slot;
    let process = format!("/proc/{}", sandbox.init.as_raw_nonzero());
    std::fs::write(format!("{process}/uid_map"), format!("0 {IMAGE_OWNER_ID} 1\n{uid} {slot_id} 1\n"))?;
    std::fs::write(format!("{process}/setgroups"), "deny")?;
    std::fs::write(format!("{process}/gid_map"), format!("0 {IMAGE_OWNER_ID} 1\n{gid} {slot_id} 1\n"))
}
