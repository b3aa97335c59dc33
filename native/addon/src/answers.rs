//! From a readable descriptor to the end of a call.
//!
//! A good answer ends its call at once, by the board's compare-and-set, and is delivered with the usage read through
//! open descriptors. Every other end is only evidence: the sandbox is destroyed, and sandboxd's `Gone` brings what
//! decides between a function's death and a limit's.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mayfly_core::board::{Verdict, now_ns};
use mayfly_core::cgroup::{Incidents, Usage};
use mayfly_core::packet;
use mayfly_core::protocol::{Contract, End, FromCall, Remains, ToCall};
use mayfly_core::watch::EventFlags;
use rustix::net::RecvFlags;

use crate::affinity::UNKNOWN;
use crate::pool::{Done, Happening, KnownFiles, PINNED_NS, Pool, Source};
use crate::slot::{Call, Counters, Evidence, Sandbox, Slot, Streams};
use mayfly_core::link::{self, Answer};

/// A pipe holds 64 KiB; one read takes all of it.
const CHUNK_BYTES: usize = 64 * 1024;

impl Pool {
    /// The link socket or stdout is readable.
    pub(crate) fn hear_answer(&mut self, slot: u32, out: &mut Vec<Happening>) {
        let state = &self.slots[slot as usize];
        match state {
            Slot::Leased { sandbox, .. } if sandbox.contract == Contract::Link => self.hear_link(slot, out),
            Slot::Leased { .. } => self.hear_stdout(slot),
            Slot::Ready { sandbox } | Slot::Resetting { sandbox } => match has_closed(sandbox) {
                // Its end, if it is one, is told by init.
                Some(channel) => drop(self.watch.remove(channel)),
                None => self.break_idle(slot, "it answered before it was called", out),
            },
            _ => {}
        }
    }

    fn hear_link(&mut self, slot: u32, out: &mut Vec<Happening>) {
        let mut packet = std::mem::take(&mut self.packet);
        let step = self.read_link(slot, &mut packet);
        self.packet = packet;
        match step {
            Step::Wait => {}
            Step::Answered(output) => self.answered(slot, Done::Result(output), out),
            Step::Ended(evidence) => self.end_badly(slot, evidence),
        }
    }

    fn read_link(&mut self, slot: u32, packet: &mut [u8]) -> Step {
        let Slot::Leased { sandbox, call } = &mut self.slots[slot as usize] else { return Step::Wait };
        let Some(Streams::Link { socket, .. }) = &sandbox.streams else { return Step::Wait };
        let length = match link::receive(socket.as_fd(), packet) {
            // It closed its end: its process's end, which init tells, decides. Deaf until then.
            Ok(0) => {
                let _ = self.watch.remove(socket);
                return Step::Wait;
            }
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Wait,
            Err(_) => return Step::Ended(Evidence::Malformed("the packet is larger than any frame")),
        };
        let is_too_long = |length: u64| length > call.output_bytes_max as u64;
        match link::parse(&packet[..length]) {
            Err(why) => Step::Ended(Evidence::Malformed(why)),
            Ok(Answer::Result(output)) if is_too_long(output.len() as u64) => Step::Ended(Evidence::OutputLimit),
            Ok(Answer::Result(output)) => Step::Answered(output.to_vec()),
            Ok(Answer::Failed(message)) => Step::Ended(Evidence::Failed(message.to_vec())),
            Ok(Answer::NeedBuffer { length } | Answer::ResultInBuffer { length }) if is_too_long(length) => {
                Step::Ended(Evidence::OutputLimit)
            }
            Ok(Answer::NeedBuffer { .. }) if call.buffer.is_some() => {
                Step::Ended(Evidence::Malformed("a second buffer was asked for"))
            }
            Ok(Answer::NeedBuffer { length }) => match link::send_buffer(socket.as_fd(), length) {
                Ok(buffer) => {
                    call.buffer = Some(buffer);
                    Step::Wait
                }
                Err(_) => Step::Ended(Evidence::Malformed("a buffer was asked for and not fetched")),
            },
            Ok(Answer::ResultInBuffer { length }) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                match call.buffer.as_ref().map(|buffer| link::read_buffer(buffer, length)) {
                    Some(Ok(output)) => Step::Answered(output),
                    _ => Step::Ended(Evidence::Malformed("the result is not in a buffer that was handed over")),
                }
            }
        }
    }

    fn hear_stdout(&mut self, slot: u32) {
        let Slot::Leased { sandbox, call } = &mut self.slots[slot as usize] else { return };
        let Some(Streams::Stdio { stdout, .. }) = &sandbox.streams else { return };
        match read_some(stdout, call) {
            Reading::More => {}
            // Whether the call is over says the process and not the pipe (row E32).
            Reading::End => drop(self.watch.remove(stdout)),
            Reading::TooLong => self.end_badly(slot, Evidence::OutputLimit),
        }
    }

    /// A message of init's.
    pub(crate) fn hear_init(&mut self, slot: u32, out: &mut Vec<Happening>) {
        let Some(sandbox) = self.slots[slot as usize].sandbox_mut() else { return };
        let packet = match packet::receive::<FromCall>(&sandbox.call, RecvFlags::DONTWAIT) {
            Ok(Some(packet)) => packet,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // init is dead, or talks nonsense, which no init of ours does. sandboxd's `Gone` is on its way.
            Ok(None) | Err(_) => {
                let _ = self.watch.remove(&sandbox.call);
                return;
            }
        };
        match packet.message {
            FromCall::Ended(end) => self.process_ended(slot, end, out),
            FromCall::Started => self.started(slot, packet.descriptors),
            FromCall::Failed { stage, errno } => {
                self.end_badly(slot, Evidence::NotStarted { stage: stage.name(), errno })
            }
            FromCall::IsReset => self.is_reset(slot, packet.descriptors, out),
        }
    }

    fn process_ended(&mut self, slot: u32, end: End, out: &mut Vec<Happening>) {
        match &mut self.slots[slot as usize] {
            Slot::Leased { sandbox, call } => {
                // What it wrote before it ended is in the pipe.
                let mut is_too_long = false;
                if let Some(Streams::Stdio { stdout, .. }) = &sandbox.streams {
                    loop {
                        match read_some(stdout, call) {
                            Reading::More if rustix::io::ioctl_fionread(stdout).unwrap_or(0) > 0 => {}
                            Reading::TooLong => break is_too_long = true,
                            Reading::More | Reading::End => break,
                        }
                    }
                }
                let output = std::mem::take(&mut call.output);
                let is_good = end == End::Exited(0) && sandbox.contract == Contract::Stdio;
                if is_too_long {
                    self.end_badly(slot, Evidence::OutputLimit);
                } else if is_good {
                    self.answered(slot, Done::Result(output), out);
                } else {
                    self.end_badly(slot, Evidence::Ended(end));
                }
            }
            Slot::Ready { .. } | Slot::Resetting { .. } => {
                let how = match end {
                    End::Exited(code) => format!("it exited with {code} before it was called"),
                    End::Signaled(signal) => format!("signal {signal} ended it before it was called"),
                };
                self.break_idle(slot, &how, out);
            }
            _ => {}
        }
    }

    /// `start: lazy`: the program runs; now its payload.
    fn started(&mut self, slot: u32, descriptors: Vec<OwnedFd>) {
        let Slot::Leased { mut sandbox, mut call } = std::mem::replace(&mut self.slots[slot as usize], Slot::Cold)
        else {
            return;
        };
        sandbox.streams = Streams::from_descriptors(sandbox.contract, descriptors);
        let payload = call.pending.as_ref().map(|(payload, _)| payload.clone()).unwrap_or_default();
        let sent = self.watch_streams(slot, &sandbox).and_then(|()| match &sandbox.streams {
            Some(Streams::Link { socket, .. }) => link::send_invoke(socket.as_fd(), &payload),
            Some(Streams::Stdio { .. }) => self.write_stdin(slot, &mut sandbox, &mut call),
            None => Err(io::ErrorKind::InvalidData.into()),
        });
        self.slots[slot as usize] = Slot::Leased { sandbox, call };
        if let Err(error) = sent {
            let errno = error.raw_os_error().unwrap_or(0);
            self.end_badly(slot, Evidence::NotStarted { stage: "channels", errno });
        }
    }

    /// Writes what the pipe takes, and closes it after the last byte. A program that does not read, or closed its
    /// stdin, may still answer.
    pub(crate) fn write_stdin(&self, slot: u32, sandbox: &mut Sandbox, call: &mut Call) -> io::Result<()> {
        let Some(Streams::Stdio { stdin, .. }) = &mut sandbox.streams else { return Ok(()) };
        let (Some(pipe), Some((payload, written))) = (stdin.as_ref(), call.pending.as_mut()) else { return Ok(()) };
        let is_first = *written == 0;
        while *written < payload.len() {
            match rustix::io::write(pipe, &payload[*written..]) {
                Ok(count) => *written += count,
                Err(rustix::io::Errno::AGAIN) if is_first => {
                    return self.watch_fd(pipe, slot, Source::Stdin, EventFlags::OUT);
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::PIPE) => break,
                Err(error) => return Err(error.into()),
            }
        }
        *stdin = None;
        call.pending = None;
        Ok(())
    }

    pub(crate) fn go_on_writing(&mut self, slot: u32) {
        let Slot::Leased { mut sandbox, mut call } = std::mem::replace(&mut self.slots[slot as usize], Slot::Cold)
        else {
            unreachable!("stdin is watched only while leased")
        };
        let wrote = self.write_stdin(slot, &mut sandbox, &mut call);
        self.slots[slot as usize] = Slot::Leased { sandbox, call };
        if wrote.is_err() {
            self.end_badly(slot, Evidence::Malformed("its stdin broke"));
        }
    }

    pub(crate) fn hear_log(&mut self, slot: u32) {
        let Some(sandbox) = self.slots[slot as usize].sandbox_mut() else { return };
        if let Some(log) = drain_log(sandbox) {
            let _ = self.watch.remove(log);
        }
    }

    /// The call has its answer, unless sandboxd judged it first.
    fn answered(&mut self, slot: u32, done: Done, out: &mut Vec<Happening>) {
        if !self.board().end(slot, self.generation(slot)) {
            self.poison(slot, Evidence::Judged);
            return;
        }
        let Slot::Leased { mut sandbox, call } = std::mem::replace(&mut self.slots[slot as usize], Slot::Cold) else {
            unreachable!("only a leased slot is answered")
        };
        if now_ns() - call.started_ns >= PINNED_NS {
            // sandboxd has let it loose, or was about to.
            sandbox.processor = sandbox.processor.map(|_| UNKNOWN);
        }
        let (usage, incidents) = self.used(&mut sandbox, &call);
        drain_log(&mut sandbox);
        let logs = sandbox.logs.take();
        out.push(Happening::Done { slot, done, logs, usage, incidents });
        let is_reusable = self.functions.get(&sandbox.function).is_some_and(|function| function.is_reusable);
        if is_reusable {
            self.reset(slot, sandbox);
        } else {
            self.slots[slot as usize] = Slot::Poisoned { sandbox, call: None };
            self.destroy_later(slot);
        }
    }

    /// What a call that is answered used; what is counted from now on is the next one's. Each counter is one read of
    /// an open file, about a microsecond.
    fn used(&self, sandbox: &mut Sandbox, call: &Call) -> (Usage, Incidents) {
        let before = sandbox.before;
        let mut usage = sandbox.files.usage().unwrap_or_default();
        sandbox.before.cpu_ns = usage.cpu_ns;
        usage.cpu_ns = usage.cpu_ns.saturating_sub(before.cpu_ns);
        let mut incidents = Incidents::default();
        sandbox.before.pids_denied_count = sandbox.files.pids_denied_count().unwrap_or(0);
        incidents.pids_denied_count = sandbox.before.pids_denied_count.saturating_sub(before.pids_denied_count);
        // On every CPU at once it could not have used up one period's quota: there is nothing to read.
        let could_be_throttled =
            (now_ns() - call.started_ns) * self.cpus > u64::from(sandbox.limits.cpu_quota_us) * 1000;
        if could_be_throttled {
            sandbox.before.throttled_count = sandbox.files.throttled_count().unwrap_or(0);
            incidents.throttled_count = sandbox.before.throttled_count.saturating_sub(before.throttled_count);
        }
        (usage, incidents)
    }

    /// Leased -> Resetting -> Ready, or Poisoned when it is not clean.
    fn reset(&mut self, slot: u32, mut sandbox: Sandbox) {
        let restored = self.restore_limits(&mut sandbox);
        let is_clean = restored.is_ok()
            && match sandbox.contract {
                // One process that goes on: nothing else may be left running, and nothing unread.
                Contract::Link => {
                    let tasks = sandbox.files.tasks().unwrap_or(u64::MAX);
                    tasks == sandbox.held_tasks && is_silent(&sandbox)
                }
                // init ends whatever is left and starts the program anew.
                Contract::Stdio => {
                    // What init starts now would keep to init's processor for good.
                    if sandbox.processor.take().is_some() {
                        self.affinity.widen(&sandbox.processes);
                    }
                    sandbox.streams = None;
                    packet::send(&sandbox.call, &ToCall::Reset, &[], None).is_ok()
                }
            };
        let is_link = sandbox.contract == Contract::Link;
        match (is_clean, is_link) {
            (false, _) => {
                self.slots[slot as usize] = Slot::Poisoned { sandbox, call: None };
                self.destroy(slot);
            }
            (true, true) => {
                // The answer itself tells: whoever takes it finds the slot ready.
                self.slots[slot as usize] = Slot::Ready { sandbox };
            }
            (true, false) => self.slots[slot as usize] = Slot::Resetting { sandbox },
        }
    }

    fn restore_limits(&self, sandbox: &mut Sandbox) -> io::Result<()> {
        let base = self.functions.get(&sandbox.function).map_or(sandbox.limits, |function| function.limits);
        sandbox.files.apply(&sandbox.limits, &base)?;
        sandbox.limits = base;
        // Below Linux 6.12 v2's peak stays that of the whole life: the usage says so by not falling.
        let _ = sandbox.files.reset_memory_peak();
        Ok(())
    }

    /// `stdio`: the new program is started.
    fn is_reset(&mut self, slot: u32, descriptors: Vec<OwnedFd>, out: &mut Vec<Happening>) {
        let Slot::Resetting { mut sandbox } = std::mem::replace(&mut self.slots[slot as usize], Slot::Cold) else {
            unreachable!("init resets only when it is told to")
        };
        sandbox.streams = Streams::from_descriptors(sandbox.contract, descriptors);
        let function = sandbox.function;
        let is_whole = sandbox.streams.is_some() && self.watch_streams(slot, &sandbox).is_ok();
        self.slots[slot as usize] = Slot::Ready { sandbox };
        if is_whole {
            out.push(Happening::Again { slot, function });
        } else {
            self.retire(slot);
        }
    }

    /// A bad end, unless sandboxd judged first.
    fn end_badly(&mut self, slot: u32, evidence: Evidence) {
        match &self.slots[slot as usize] {
            Slot::Leased { .. } => {
                let is_first = self.board().end(slot, self.generation(slot));
                self.poison(slot, if is_first { evidence } else { Evidence::Judged });
            }
            // A start that failed while nobody called.
            Slot::Resetting { .. } => self.retire(slot),
            _ => {}
        }
    }

    /// Leased -> Poisoned: destroyed, and its call waits for `Gone`.
    pub(crate) fn poison(&mut self, slot: u32, evidence: Evidence) {
        let Slot::Leased { mut sandbox, .. } = std::mem::replace(&mut self.slots[slot as usize], Slot::Cold) else {
            unreachable!("only a leased slot has a call to lose")
        };
        drain_log(&mut sandbox);
        self.slots[slot as usize] = Slot::Poisoned { sandbox, call: Some(evidence) };
        self.destroy(slot);
    }

    fn break_idle(&mut self, slot: u32, what: &str, out: &mut Vec<Happening>) {
        let Some(sandbox) = self.slots[slot as usize].sandbox_mut() else { return };
        let function = sandbox.function;
        self.retire(slot);
        out.push(Happening::Broken { slot, function, what: what.to_owned() });
    }

    /// The sandbox's last event.
    pub(crate) fn bury(
        &mut self,
        slot: u32,
        verdict: Option<Verdict>,
        detail: u64,
        remains: &Remains,
        out: &mut Vec<Happening>,
    ) {
        let judged = |verdict: Option<Verdict>| Done::Judged { verdict: verdict.unwrap_or(Verdict::Lost), detail };
        let sandbox = match std::mem::replace(&mut self.slots[slot as usize], Slot::Cold) {
            Slot::Poisoned { mut sandbox, call: Some(evidence) } => {
                let done = match evidence {
                    Evidence::Judged => judged(verdict),
                    Evidence::Ended(End::Exited(code)) => Done::Exited(code),
                    Evidence::Ended(End::Signaled(signal)) => Done::Signaled(signal),
                    Evidence::Failed(message) => Done::Failed(message),
                    Evidence::Malformed(why) => Done::Malformed(why),
                    Evidence::OutputLimit => Done::OutputLimit,
                    Evidence::Cancelled => Done::Cancelled,
                    Evidence::NotStarted { stage, errno } => Done::NotStarted { stage, errno },
                };
                let logs = sandbox.logs.take();
                let (usage, incidents) = since(sandbox.before, remains);
                out.push(Happening::Done { slot, done, logs, usage, incidents });
                Some(sandbox)
            }
            Slot::Leased { mut sandbox, .. } => {
                drain_log(&mut sandbox);
                let logs = sandbox.logs.take();
                let (usage, incidents) = since(sandbox.before, remains);
                out.push(Happening::Done { slot, done: judged(verdict), logs, usage, incidents });
                Some(sandbox)
            }
            Slot::Ready { sandbox } | Slot::Resetting { sandbox } => {
                let what = match verdict {
                    Some(Verdict::Denied) => format!("it made the forbidden system call {detail} before it was called"),
                    Some(Verdict::OutOfMemory) => "it ran out of memory before it was called".to_owned(),
                    _ => "it died before it was called".to_owned(),
                };
                out.push(Happening::Broken { slot, function: sandbox.function, what });
                Some(sandbox)
            }
            Slot::Poisoned { sandbox, call: None } => Some(sandbox),
            Slot::Retired { sandbox } => sandbox,
            Slot::Warming { .. } | Slot::Cold => None,
        };
        self.known_files[slot as usize] = sandbox
            .filter(|_| remains.is_leaf_kept)
            .map(|Sandbox { function, leaf, files, .. }| KnownFiles { function, leaf, files });
        self.end_ns[slot as usize] = [("exit", remains.exit_ns), ("cgroup", remains.cgroup_ns)];
        out.push(Happening::Gone { slot });
    }
}

/// The call's part of what its sandbox counted in all.
fn since(before: Counters, remains: &Remains) -> (Usage, Incidents) {
    let Remains { mut usage, mut incidents, .. } = *remains;
    usage.cpu_ns = usage.cpu_ns.saturating_sub(before.cpu_ns);
    incidents.throttled_count = incidents.throttled_count.saturating_sub(before.throttled_count);
    incidents.pids_denied_count = incidents.pids_denied_count.saturating_sub(before.pids_denied_count);
    (usage, incidents)
}

enum Step {
    Wait,
    Answered(Vec<u8>),
    Ended(Evidence),
}

enum Reading {
    More,
    End,
    TooLong,
}

/// One read of stdout, of at most what the limit leaves and one byte more.
fn read_some(stdout: &OwnedFd, call: &mut Call) -> Reading {
    let room = call.output_bytes_max + 1 - call.output.len();
    let start = call.output.len();
    call.output.resize(start + room.min(CHUNK_BYTES), 0);
    let result = rustix::io::read(stdout, &mut call.output[start..]);
    call.output.truncate(start + result.unwrap_or(0));
    match result {
        Ok(0) => Reading::End,
        Ok(_) if call.output.len() > call.output_bytes_max => Reading::TooLong,
        Ok(_) | Err(_) => Reading::More,
    }
}

/// Reads what is in the log pipe; returns the pipe when nobody can write to it any more.
fn drain_log(sandbox: &mut Sandbox) -> Option<BorrowedFd<'_>> {
    let log = sandbox.streams.as_ref()?.log();
    // Zeroing it would cost every call more than the read of an empty pipe.
    let mut chunk = [MaybeUninit::uninit(); CHUNK_BYTES];
    // A writer as fast as this reader would hold the thread for ever: one pipe's worth.
    match rustix::io::read(log, &mut chunk[..]) {
        Ok(([], _)) => Some(log),
        Ok((bytes, _)) => {
            sandbox.logs.push(bytes);
            None
        }
        Err(_) => None,
    }
}

/// The channel of answers, where it is readable because the program closed it and not because it wrote.
fn has_closed(sandbox: &Sandbox) -> Option<BorrowedFd<'_>> {
    match sandbox.streams.as_ref()? {
        Streams::Link { socket, .. } => {
            let peeked = rustix::net::recv(socket, &mut [0u8; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK);
            matches!(peeked, Ok((_, 0))).then(|| socket.as_fd())
        }
        Streams::Stdio { stdout, .. } => (rustix::io::ioctl_fionread(stdout) == Ok(0)).then(|| stdout.as_fd()),
    }
}

/// No frame waits to be read: one sent after the answer would be taken for the next call's.
fn is_silent(sandbox: &Sandbox) -> bool {
    let Some(Streams::Link { socket, .. }) = &sandbox.streams else { return false };
    matches!(
        rustix::net::recv(socket, &mut [0u8; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK),
        Err(rustix::io::Errno::AGAIN)
    )
}
