//! sandboxd: builds, limits, kills and reaps sandboxes, for one worker.
//!
//! Single-threaded. Root of M, the intermediate user namespace, and nobody on the host; PID 1 of M's pid namespace, so
//! that its death, however it comes, is the death of every sandbox. It ends when the worker's socket closes. It parses
//! no tenant's data, resolves no tenant's path and runs no tenant's code.

mod birth;
mod daemon;
mod lifecycle;
mod nursery;
mod parking;
mod slot;
mod unpack;
mod watch;

use std::io::{self, Write as _};
use std::os::fd::{OwnedFd, RawFd};

use mayfly_core::cgroup::Handover;

/// What the launcher hands over, as `--name value` pairs and flags.
#[derive(Debug)]
pub struct Options {
    pub control: OwnedFd,
    /// Held for our life: its flock is what keeps a second worker out of MAYFLY_HOME.
    pub lock: Option<OwnedFd>,
    pub cgroup: Handover,
    pub slots: u32,
    /// How many ids M has.
    pub ids: u32,
    pub is_ablation_allowed: bool,
}

fn main() {
    let result = parse(std::env::args().skip(1)).and_then(daemon::run);
    if let Err(error) = result {
        complain(&error.to_string());
        std::process::exit(1);
    }
}

/// A line for the worker's log, which our stderr goes to. Not `eprintln!`: it panics when the worker is gone.
pub fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "sandboxd: {what}");
}

fn parse(mut args: impl Iterator<Item = String>) -> io::Result<Options> {
    let (mut control, mut lock, mut cgroup, mut slots, mut ids) = (None, None, None, None, None);
    let mut is_ablation_allowed = false;
    while let Some(name) = args.next() {
        if name == "--ablation-allowed" {
            is_ablation_allowed = true;
            continue;
        }
        if name == "--degraded" {
            // What is missing shows in the handover; the decision to go on was the launcher's.
            continue;
        }
        let value = args.next().ok_or_else(|| invalid(&format!("{name} wants a value")))?;
        match name.as_str() {
            "--control" => control = Some(descriptor(number(&value)?)?),
            "--lock" => lock = Some(descriptor(number(&value)?)?),
            "--cgroup" => cgroup = Some(Handover::from_arg(&value, descriptor)?),
            "--slots" => slots = Some(number(&value)?),
            "--ids" => ids = Some(number(&value)?),
            "--instance" => {}
            _ => return Err(invalid(&format!("unknown option {name}"))),
        }
    }
    let missing = || invalid("started by hand? mayfly-launcher starts sandboxd");
    Ok(Options {
        control: control.ok_or_else(missing)?,
        lock,
        cgroup: cgroup.ok_or_else(missing)?,
        slots: slots.ok_or_else(missing)?,
        ids: ids.ok_or_else(missing)?,
        is_ablation_allowed,
    })
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| invalid(&format!("{text:?} is no number")))
}

/// Takes over a descriptor the launcher left open, and closes it to what we exec.
fn descriptor(number: RawFd) -> io::Result<OwnedFd> {
    let fd = mayfly_core::sys::process::adopt(number)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.to_owned())
}
