//! What sandboxd says, and what that makes of a slot.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mayfly_core::board::Board;
use mayfly_core::cgroup::{File, Held, Incidents, LimitFiles};
use mayfly_core::packet;
use mayfly_core::protocol::{Contract, Event, Streams as StreamKinds, VERSION};
use mayfly_core::watch::EventFlags;
use rustix::net::RecvFlags;
use rustix::process::Pid;

use crate::pool::{Happening, KnownFiles, Pool, Source};
use crate::slot::{Counters, Logs, Sandbox, Slot, Streams};

impl Pool {
    pub(crate) fn hear_sandboxd(&mut self, out: &mut Vec<Happening>) {
        self.send_unsent();
        // A bounded number per batch, so that a flood of events does not hold up an answer.
        for _ in 0..16 {
            match packet::receive::<Event>(&self.control, RecvFlags::DONTWAIT) {
                Ok(Some(packet)) => self.take_event(packet, out),
                Ok(None) => return self.lose("sandboxd ended", out),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.lose(&format!("sandboxd's socket: {error}"), out),
            }
        }
    }

    fn lose(&mut self, why: &str, out: &mut Vec<Happening>) {
        if !std::mem::replace(&mut self.is_lost, true) {
            let _ = self.watch.remove(&self.control);
            out.push(Happening::Lost { why: why.to_owned() });
        }
    }

    fn take_event(&mut self, packet: packet::Received<Event>, out: &mut Vec<Happening>) {
        let packet::Received { message, mut descriptors, about } = packet;
        match message {
            Event::Hello { version, slots, cgroup_mode, copies_writable } => {
                match self.open_board(version, slots, descriptors) {
                    Ok(()) => out.push(Happening::Hello { cgroup_mode, copies_writable }),
                    Err(error) => self.lose(&format!("sandboxd's hello: {error}"), out),
                }
            }
            Event::Defined { function, errno } => out.push(Happening::Defined { function, errno }),
            Event::Ready {
                slot,
                generation,
                streams,
                files,
                leaf,
                stage_ns,
                is_quiet_guess,
                held_memory_bytes,
                held_tasks,
                before,
            } => {
                if generation != self.generation(slot) {
                    return;
                }
                let Slot::Warming { function } = self.slots[slot as usize] else { return };
                let known = self.known_files[slot as usize].take().filter(|known| known.leaf == leaf);
                let files = match files {
                    Some(kinds) => take_files(&kinds, &mut descriptors, streams),
                    None => known.map(|known| known.files),
                };
                let group = files.map(|files| KnownFiles { function, leaf, files });
                let held = Held { memory_bytes: held_memory_bytes, tasks: held_tasks };
                match self.take_sandbox(slot, group, streams, descriptors, (held, before), about) {
                    Ok(sandbox) => {
                        self.slots[slot as usize] = Slot::Ready { sandbox };
                        let pid = about.map_or(0, Pid::as_raw_pid);
                        self.build_ns[slot as usize] = stage_ns;
                        out.push(Happening::Ready { slot, function, pid, is_quiet_guess });
                    }
                    Err(error) => {
                        self.retire(slot);
                        out.push(Happening::Broken { slot, function, what: error.to_string() });
                    }
                }
            }
            Event::Failed { slot, generation, failure } => {
                if generation != self.generation(slot) {
                    return;
                }
                if let Slot::Warming { function } = self.slots[slot as usize] {
                    out.push(Happening::BuildFailed { slot, function, failure });
                }
                self.slots[slot as usize] = Slot::Cold;
                out.push(Happening::Gone { slot });
            }
            Event::Gone { slot, generation, verdict, detail, remains } => {
                if generation == self.generation(slot) {
                    self.bury(slot, verdict, detail, &remains, out);
                }
            }
            Event::Unpacked { token, errno, message } => out.push(Happening::Unpacked { token, errno, message }),
        }
    }

    fn open_board(&mut self, version: u32, slots: u32, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut next = descriptors.into_iter();
        let (Some(memory), Some(timer)) = (next.next(), next.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        if version != VERSION || slots as usize != self.slots.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.board = Some(Board::map(memory.as_fd(), slots, timer)?);
        Ok(())
    }

    fn take_sandbox(
        &self,
        slot: u32,
        group: Option<KnownFiles>,
        kinds: StreamKinds,
        mut descriptors: Vec<OwnedFd>,
        (held, before): (Held, Incidents),
        function_process: Option<Pid>,
    ) -> io::Result<Sandbox> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let KnownFiles { function, leaf, files } = group.ok_or_else(invalid)?;
        let of = self.functions.get(&function).ok_or_else(invalid)?;
        if descriptors.len() != kinds.count() {
            return Err(invalid());
        }
        let stream_fds = descriptors.split_off(1);
        let call = descriptors.pop().ok_or_else(invalid)?;
        let streams = match kinds {
            StreamKinds::Lazy => None,
            _ => Some(Streams::from_descriptors(of.contract, stream_fds).ok_or_else(invalid)?),
        };
        let mut processes: Vec<_> = function_process.into_iter().collect();
        if of.contract == Contract::Stdio || streams.is_none() {
            // Its init, which starts the program or tells of its end, made the channel.
            processes.extend(rustix::net::sockopt::socket_peercred(&call).ok().map(|of_init| of_init.pid));
            processes.dedup();
        }
        // From here on the peak is the call's, where the kernel lets it be reset.
        let _ = files.reset_memory_peak();
        let sandbox = Sandbox {
            function,
            contract: of.contract,
            call,
            streams,
            before: Counters::of_parked(&files, &of.limits, &before).unwrap_or_default(),
            leaf,
            files,
            limits: of.limits,
            held_memory_bytes: held.memory_bytes,
            held_tasks: held.tasks,
            is_used: false,
            processes,
            processor: None,
            logs: Logs { kept: Vec::new(), max: of.log_bytes as usize, is_cut: false },
        };
        self.watch_fd(&sandbox.call, slot, Source::Call, EventFlags::IN)?;
        self.watch_streams(slot, &sandbox)?;
        Ok(sandbox)
    }
}

/// The limit files that follow a sandbox's streams, which stay in `descriptors`.
fn take_files(kinds: &[u8], descriptors: &mut Vec<OwnedFd>, streams: StreamKinds) -> Option<LimitFiles> {
    if descriptors.len() != streams.count() + kinds.len() {
        return None;
    }
    let kinds = kinds.iter().map(|number| File::from_u8(*number)).collect::<Option<Vec<_>>>()?;
    Some(kinds.into_iter().zip(descriptors.split_off(streams.count())).collect())
}
