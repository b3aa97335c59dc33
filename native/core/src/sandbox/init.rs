//! PID 1 of a sandbox: reaps, reports how the function ended, starts it at the lease where it is to be started then.
//!
//! It holds two sockets, a signalfd and no privilege, is not dumpable, and does not end by itself: sandboxd kills it
//! when the worker has read what it wanted, and with it everything in its pid namespace.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::RecvFlags;
use rustix::process::WaitOptions;

use super::{Built, spawn};
use crate::packet;
use crate::protocol::{End, FromCall, FromInit, ToCall};
use crate::stage::{At, Stage};
use crate::sys;

pub(super) fn serve(built: Built, control: OwnedFd) -> i32 {
    match Init::new(built, control).and_then(Init::run) {
        // The worker closed the call channel: sandboxd's SIGKILL follows, or sandboxd is gone and we go too.
        Ok(()) => 0,
        Err(_) => 1,
    }
}

struct Init {
    built: Built,
    control: OwnedFd,
    signals: OwnedFd,
}

impl Init {
    fn new(built: Built, control: OwnedFd) -> io::Result<Self> {
        sys::process::set_signal_mask(&[libc::SIGCHLD]);
        let signals = sys::process::signalfd(&[libc::SIGCHLD])?;
        Ok(Self { built, control, signals })
    }

    fn run(mut self) -> io::Result<()> {
        // The function may have ended before the signal was blocked.
        self.reap()?;
        loop {
            let mut ready = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&self.built.call, PollFlags::IN),
                PollFd::new(&self.control, PollFlags::IN),
            ];
            match poll(&mut ready, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let [signal, call, control] = ready.map(|entry| !entry.revents().is_empty());
            if control {
                return Ok(());
            }
            if signal {
                let _ = rustix::io::read(&self.signals, &mut [0u8; 128]);
                self.reap()?;
            }
            if call && !self.obey()? {
                return Ok(());
            }
        }
    }

    /// Reaps all that can be; reports the function's end, after ending what it left behind.
    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if self.built.function.as_ref().is_some_and(|function| function.pid == pid) {
                self.built.function = None;
                // Daemons it left must not go on working, or be billed, while the worker reads the result (row E32).
                end_all_others();
                let end = match status.terminating_signal() {
                    Some(signal) => End::Signaled(signal),
                    None => End::Exited(status.exit_status().unwrap_or(0)),
                };
                self.tell(&FromCall::Ended(end), &[])?;
            }
        }
        Ok(())
    }

    /// One message of the worker's; false when it is gone.
    fn obey(&mut self) -> io::Result<bool> {
        let Some(packet) = packet::receive::<ToCall>(&self.built.call, RecvFlags::empty())? else { return Ok(false) };
        match packet.message {
            ToCall::Go => self.start(&FromCall::Started)?,
            ToCall::Reset => self.reset()?,
        }
        Ok(true)
    }

    fn start(&mut self, done: &FromCall) -> io::Result<()> {
        let spec = &self.built.spec;
        let channels = spawn::Channels::make(spec.contract).at(Stage::Channels);
        let started = channels.and_then(|channels| spawn::start(spec, channels));
        match started {
            Ok((function, ends)) => {
                if let Some(listener) = &function.listener {
                    packet::send(&self.control, &FromInit::Listener, &[listener.as_fd()], None)?;
                }
                self.built.function = Some(function.without_listener());
                let ends: Vec<_> = ends.iter().map(AsFd::as_fd).collect();
                self.tell(done, &ends)
            }
            Err(error) => {
                let errno = error.source.raw_os_error().unwrap_or(libc::EIO);
                self.tell(&FromCall::Failed { stage: error.stage, errno }, &[])
            }
        }
    }

    /// Ends whatever the last call left and starts the program anew.
    fn reset(&mut self) -> io::Result<()> {
        self.built.function = None;
        end_all_others();
        self.start(&FromCall::IsReset)
    }

    fn tell(&self, message: &FromCall, descriptors: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<()> {
        packet::send(&self.built.call, message, descriptors, None)
    }
}

/// Kills every process of the namespace but this one, and reaps until none is left: kill(-1) from PID 1 is "all but
/// me", and a process forked meanwhile is met by the next round.
fn end_all_others() {
    loop {
        let _ = sys::process::kill_all_others();
        match rustix::process::wait(WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
            Ok(_) => {}
        }
    }
}
