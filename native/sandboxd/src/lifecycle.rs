//! From a request to build to the last removed group: what happens to one slot.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mayfly_core::ablate::Layer;
use mayfly_core::board::{Verdict, now_ns};
use mayfly_core::cgroup::Leaf;
use mayfly_core::packet;
use mayfly_core::protocol::{Contract, Event, Failure, FromInit, Streams, ToInit};
use mayfly_core::sandbox::{FIRST_SLOT_ID, IMAGE_OWNER_ID, Plan, build_and_serve};
use mayfly_core::stage::{At, SetupError, Stage};
use mayfly_core::sys;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::RecvFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions};

use crate::daemon::Daemon;
use crate::parking::{self, Seen};
use crate::slot::{Ending, Offer, Rest, Sandbox, Slot};
use crate::watch::Source;

/// A build takes milliseconds; one that takes this long is stuck and gives its slot back.
const BUILD_WITHIN_NS: u64 = 20_000_000_000;
/// A group whose last process was reaped a moment ago may still be busy (row P03); one whose process hangs in the
/// kernel may be for long (P04).
pub const REMOVE_AGAIN_NS: u64 = 1_000_000;
const REMOVE_AGAIN_MAX_NS: u64 = 100_000_000;

impl Daemon {
    pub fn build(&mut self, slot: u32, generation: u32, function: u32, is_awaited: bool) -> io::Result<()> {
        if !matches!(self.slots.get(slot as usize), Some(Slot::Empty)) {
            // The worker built where it must not: tell it, and touch nothing.
            return self.fail(
                slot,
                generation,
                &SetupError { stage: Stage::Clone, source: io::ErrorKind::ResourceBusy.into() },
            );
        }
        self.board.clear(slot);
        let sandbox = match self.clone_sandbox(slot, generation, function) {
            Ok(sandbox) => sandbox,
            Err(error) => return self.fail(slot, generation, &error),
        };
        let watched = self.watch_sandbox(slot, &sandbox);
        let state = &mut self.slots[slot as usize];
        *state = Slot::Building { sandbox, since_ns: now_ns(), is_awaited };
        if let Err(error) = watched {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            state.kill(Ending::Failed(Failure::Stage { stage: Stage::Clone, errno }));
            // Its death may wake nobody, so it is looked for.
            self.unburied.push(slot);
        }
        Ok(())
    }

    fn fail(&mut self, slot: u32, generation: u32, error: &SetupError) -> io::Result<()> {
        let errno = error.source.raw_os_error().unwrap_or(libc::EIO);
        let failure = Failure::Stage { stage: error.stage, errno };
        self.tell(Event::Failed { slot, generation, failure })
    }

    fn clone_sandbox(&mut self, slot: u32, generation: u32, id: u32) -> Result<Sandbox, SetupError> {
        let missing = || SetupError { stage: Stage::Spec, source: io::ErrorKind::NotFound.into() };
        let function = self.functions.get(&id).ok_or_else(missing)?;
        let started = now_ns();
        let limits = function.ablation.keeps(Layer::Cgroup).then_some(&function.limits);
        let mut leaf = self.cgroups.create_leaf(id, slot, limits).at(Stage::Cgroup)?;
        let made = now_ns();
        let cloned = self.clone_into(&leaf, id, slot);
        let (init, pidfd, control) = match cloned {
            Ok(parts) => parts,
            Err(error) => {
                let _ = leaf.remove();
                return Err(error);
            }
        };
        leaf.close_entrance();
        let mut stage_ns = vec![0; Stage::COUNT];
        stage_ns[Stage::Cgroup as usize] = u32::try_from(made - started).unwrap_or(u32::MAX);
        stage_ns[Stage::Clone as usize] = u32::try_from(now_ns() - made).unwrap_or(u32::MAX);
        Ok(Sandbox { generation, init, pidfd, control, listener: None, leaf, stage_ns })
    }

    fn clone_into(&self, leaf: &Leaf, function: u32, slot: u32) -> Result<(Pid, OwnedFd, OwnedFd), SetupError> {
        let function = &self.functions[&function];
        let (ours, theirs) = packet::pair().at(Stage::Clone)?;
        let flags = if function.ablation.keeps(Layer::PidNs) { libc::CLONE_NEWPID } else { 0 };
        match sys::process::clone3(u64::from(flags.unsigned_abs()), leaf.into_cgroup()).at(Stage::Clone)? {
            sys::process::Cloned::Parent { pid, pidfd } => Ok((pid, pidfd, ours)),
            sys::process::Cloned::Child => build_and_serve(&Plan {
                control: theirs.as_fd(),
                spec: function.spec.as_fd(),
                attach: leaf.attach().collect(),
                time_offsets: &self.time_offsets,
                copies_writable: self.copies_writable,
                slot_id: FIRST_SLOT_ID + slot,
            }),
        }
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
        let files = sandbox.leaf.hand_out();
        let kinds = files.iter().map(|(file, _)| *file as u8).collect();
        let copies: io::Result<Vec<_>> = files.iter().map(|(_, file)| file.try_clone_to_owned()).collect();
        let held = sandbox.leaf.held().unwrap_or_default();
        let event = Event::Ready {
            slot,
            generation: sandbox.generation,
            streams: offer.streams,
            files: kinds,
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
        if !matches!(state, Slot::Dying { is_reaped: true, .. }) {
            let pidfd = WaitId::PidFd(sandbox.pidfd.as_fd());
            if rustix::process::waitid(pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?.is_none() {
                return Ok(());
            }
            let _ = self.watch.remove(&sandbox.pidfd);
        }
        if !matches!(state, Slot::Dying { .. }) {
            self.end_unexpectedly(slot);
        }
        if let Slot::Dying { is_reaped, .. } = &mut self.slots[slot as usize] {
            *is_reaped = true;
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
        let state = &mut self.slots[slot as usize];
        let Slot::Dying { sandbox, is_reaped: true, .. } = state else { return Ok(()) };
        let usage = sandbox.leaf.files().usage().unwrap_or_default();
        let incidents = sandbox.leaf.incidents().unwrap_or_default();
        if sandbox.leaf.remove().is_err() {
            end_leftovers(&sandbox.leaf);
            if !self.unburied.contains(&slot) {
                self.unburied.push(slot);
            }
            return Ok(());
        }
        self.unburied.retain(|other| *other != slot);
        let Slot::Dying { sandbox, end, .. } = std::mem::replace(state, Slot::Empty) else { return Ok(()) };
        let generation = sandbox.generation;
        drop(sandbox);
        self.board.clear(slot);
        self.tell(match end {
            Ending::Failed(failure) => Event::Failed { slot, generation, failure },
            Ending::Gone { verdict, detail } => Event::Gone { slot, generation, verdict, detail, usage, incidents },
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
        for state in &mut self.slots {
            if matches!(state, Slot::Building { since_ns, .. } if now - *since_ns > BUILD_WITHIN_NS) {
                state.kill(Ending::Failed(Failure::TimedOut));
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
        let is_building = self.slots.iter().any(|state| matches!(state, Slot::Building { .. }));
        let stuck = is_building.then_some(BUILD_WITHIN_NS);
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
