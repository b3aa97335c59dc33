//! Is the program waiting for its call? Seen from outside, in /proc, since the program owes us no word.

use std::io;
use std::os::fd::AsFd;

use mayfly_core::protocol::{Contract, Failure, FromCall};
use mayfly_core::{board, packet};
use rustix::net::RecvFlags;
use rustix::process::Pid;

use crate::slot::{Offer, Rest, Sandbox};

/// A program in some other blocking call than the read we hope for is taken as waiting after this long. Chosen: a
/// program that merely sleeps before it prints is caught by this or, later, by its output before the call.
const QUIET_NS: u64 = 5_000_000;
/// Looks start this close together and spread out; a look costs 2.5 µs (PITFALLS, stdio and link).
const LOOK_EVERY_NS: u64 = 100_000;
const LOOK_EVERY_MAX_NS: u64 = 5_000_000;
/// Interpreters of a cold page cache take long; nothing that serves calls takes longer.
const PARK_WITHIN_NS: u64 = 20_000_000_000;
/// How much of what a broken program said is told.
const OUTPUT_BYTES_MAX: usize = 1024;

#[derive(Debug)]
pub enum Seen {
    /// Not yet: look again at the time now in `rest`.
    Busy,
    /// Waiting; `is_guess` when it is merely quiet.
    AtRest {
        is_guess: bool,
    },
    Broken(Failure),
}

impl Rest {
    pub fn starting(now: u64) -> Self {
        Rest { since_ns: now, next_look_ns: now + LOOK_EVERY_NS, quiet_since_ns: None }
    }
}

pub fn look(offer: &Offer, rest: &mut Rest, now: u64) -> Seen {
    // Its output comes first: a program may speak and then wait, or speak and end.
    if let Some(output) = early_output(offer) {
        return Seen::Broken(Failure::SpokeEarly { output });
    }
    let Some(function) = offer.function else {
        return match ended_early(offer) {
            Some(failure) if offer.is_gone_already => Seen::Broken(failure),
            _ if offer.is_gone_already => Seen::Busy,
            _ => Seen::AtRest { is_guess: false },
        };
    };
    match blocked_in(function) {
        Ok(Some(call)) if call.is_the_read(offer.contract) => return Seen::AtRest { is_guess: false },
        Ok(Some(_)) => {
            let quiet_since = *rest.quiet_since_ns.get_or_insert(now);
            if now - quiet_since >= QUIET_NS {
                return Seen::AtRest { is_guess: true };
            }
        }
        Ok(None) => rest.quiet_since_ns = None,
        Err(_) => {
            if let Some(failure) = ended_early(offer) {
                return Seen::Broken(failure);
            }
        }
    }
    if now - rest.since_ns > PARK_WITHIN_NS {
        return Seen::Broken(Failure::NeverParked);
    }
    let every = ((now - rest.since_ns) / 4).clamp(LOOK_EVERY_NS, LOOK_EVERY_MAX_NS);
    rest.next_look_ns = now + every;
    Seen::Busy
}

/// A system call that a process sleeps in.
struct Call {
    number: u64,
    first_argument: u64,
}

impl Call {
    fn is_the_read(&self, contract: Contract) -> bool {
        let descriptor = match contract {
            Contract::Link => 3,
            Contract::Stdio => 0,
        };
        let reads = [libc::SYS_read, libc::SYS_readv, libc::SYS_recvfrom, libc::SYS_recvmsg];
        self.first_argument == descriptor && reads.iter().any(|read| u64::try_from(*read) == Ok(self.number))
    }
}

/// `/proc/PID/syscall`: "running", or the number and arguments of the call in hexadecimal (proc(5)).
fn blocked_in(function: Pid) -> io::Result<Option<Call>> {
    let line = std::fs::read_to_string(format!("/proc/{}/syscall", function.as_raw_nonzero()))?;
    let mut words = line.split_ascii_whitespace();
    let (Some(number), Some(first)) = (words.next().and_then(|word| word.parse().ok()), words.next()) else {
        return Ok(None);
    };
    let first_argument = u64::from_str_radix(first.trim_start_matches("0x"), 16).unwrap_or(u64::MAX);
    Ok(Some(Call { number, first_argument }))
}

/// What a `stdio` program wrote to its stdout before any call.
fn early_output(offer: &Offer) -> Option<Vec<u8>> {
    if offer.contract != Contract::Stdio {
        return None;
    }
    let output = drain(offer.descriptors.get(2)?);
    (!output.is_empty()).then_some(output)
}

/// init's word on the call channel that the program ended.
fn ended_early(offer: &Offer) -> Option<Failure> {
    let call = offer.descriptors.first()?;
    let packet = packet::receive::<FromCall>(call, RecvFlags::DONTWAIT).ok()??;
    let FromCall::Ended(end) = packet.message else { return None };
    Some(Failure::EndedEarly { end, output: offer.descriptors.last().map(drain).unwrap_or_default() })
}

/// What is in a pipe at this moment, as far as it is told.
fn drain(pipe: impl AsFd) -> Vec<u8> {
    let waiting = rustix::io::ioctl_fionread(&pipe).unwrap_or(0);
    let mut bytes = vec![0; usize::try_from(waiting).unwrap_or(0).min(OUTPUT_BYTES_MAX)];
    if bytes.is_empty() {
        return bytes;
    }
    let read = rustix::io::read(&pipe, &mut bytes).unwrap_or(0);
    bytes.truncate(read);
    bytes
}

/// The function's pid, as M numbers it: init's first child.
pub fn function_of(sandbox: &Sandbox) -> Option<Pid> {
    let init = sandbox.init.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).ok()?;
    Pid::from_raw(children.split_ascii_whitespace().next()?.parse().ok()?)
}

/// When the next of these looks is due.
pub fn next_due<'a>(rests: impl Iterator<Item = &'a Rest>) -> Option<u64> {
    let now = board::now_ns();
    rests.map(|rest| rest.next_look_ns.saturating_sub(now)).min()
}
