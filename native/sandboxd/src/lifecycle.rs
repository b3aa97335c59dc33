//! From the first word of a sandbox's builder to its last removed group: what happens to one slot.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mayfly_core::ablate::Layer;
use mayfly_core::board::{NEVER, Verdict, now_ns, short_ns};
use mayfly_core::cgroup::Leaf;
use mayfly_core::packet;
use mayfly_core::protocol::{Contract, Event, Failure, FromInit, Remains, Streams, ToInit};
use mayfly_core::sandbox::userns::write_maps;
use mayfly_core::stage::Stage;
use mayfly_core::sys;
use mayfly_core::watch::readiness;
use rustix::event::PollFlags;
use rustix::net::RecvFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions};

use crate::birth::BUILD_WITHIN_NS;
use crate::daemon::{Daemon, Function};
use crate::parking::{self, Seen};
use crate::slot::{Ending, Offer, Rest, Sandbox, Slot};
use crate::watch::Source;

/// A group whose last process was reaped a moment ago may still be busy (row P03); one whose process hangs in the
/// kernel may be for long (P04).
pub const REMOVE_AGAIN_NS: u64 = 1_000_000;
const REMOVE_AGAIN_MAX_NS: u64 = 100_000_000;

/// Kept groups are a few dozen kilobytes of the kernel's each. Guess.
const KEPT_GROUPS_MAX: usize = 256;

impl Daemon {
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
                let written = write_maps(sandbox.init, uid, gid, sandbox.id)
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
        sandbox.stage_ns[Stage::Park as usize] = short_ns(now_ns() - rest.since_ns);
        let files = if sandbox.is_leaf_known { Vec::new() } else { sandbox.group.leaf.hand_out() };
        let kinds = files.iter().map(|(file, _)| *file as u8).collect();
        let copies: io::Result<Vec<_>> = files.iter().map(|(_, file)| file.try_clone_to_owned()).collect();
        let held = sandbox.group.leaf.held().unwrap_or_default();
        let event = Event::Ready {
            slot,
            generation: sandbox.generation,
            streams: offer.streams,
            leaf: sandbox.group.leaf_of,
            files: (!sandbox.is_leaf_known).then_some(kinds),
            stage_ns: std::mem::take(&mut sandbox.stage_ns),
            is_quiet_guess,
            held_memory_bytes: held.memory_bytes,
            held_tasks: held.tasks,
            before: sandbox.group.leaf.before(),
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
        let Some(sandbox) = self.slots[slot as usize].sandbox_mut() else { return };
        sandbox.group.leaf.hear_oom();
        if sandbox.group.leaf.incidents().is_ok_and(|incidents| incidents.oom_kills == 0) {
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
            exit_ns.get_or_insert_with(|| short_ns(now_ns() - *since_ns));
        }
        self.bury(slot)
    }

    /// A sandbox died that nobody here killed: by the kernel, for memory, or by something that should not be.
    fn end_unexpectedly(&mut self, slot: u32) {
        let sandbox = self.slots[slot as usize].sandbox();
        let is_oom =
            sandbox.and_then(|sandbox| sandbox.group.leaf.incidents().ok()).is_some_and(|seen| seen.oom_kills > 0);
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
        let usage = sandbox.group.leaf.files().usage().unwrap_or_default();
        let incidents = sandbox.group.leaf.incidents().unwrap_or_default();
        let is_limited = |function: &&Function| function.ablation.keeps(Layer::Cgroup);
        let function = self.functions.get(&sandbox.group.function).filter(is_limited);
        let has_room = self.kept_groups.len() < KEPT_GROUPS_MAX;
        let is_kept =
            function.is_some_and(|of| has_room && sandbox.group.leaf.make_new(&of.limits, &incidents).is_ok());
        if !is_kept && sandbox.group.leaf.remove().is_err() {
            end_leftovers(&sandbox.group.leaf);
            if !self.unburied.contains(&slot) {
                self.unburied.push(slot);
            }
            return Ok(());
        }
        self.unburied.retain(|other| *other != slot);
        let Slot::Dying { sandbox, end, .. } = std::mem::replace(state, Slot::Empty) else { return Ok(()) };
        let Sandbox { generation, id, group, .. } = sandbox;
        self.ids.give_back(id);
        if is_kept {
            if let Some(events) = group.leaf.oom_events() {
                self.watch.remove(events)?;
            }
            self.kept_groups.insert(slot, group);
        }
        let cgroup_ns = short_ns(now_ns() - started);
        self.conclude(slot, generation, end, Remains { usage, incidents, exit_ns, cgroup_ns, is_leaf_kept: is_kept })
    }

    pub fn conclude(&mut self, slot: u32, generation: u32, end: Ending, remains: Remains) -> io::Result<()> {
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
