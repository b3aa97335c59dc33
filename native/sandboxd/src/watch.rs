//! The one epoll descriptor, and what its tokens mean.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use rustix::time::Timespec;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Worker,
    Timer,
    /// An init's messages.
    Control,
    /// An init's death.
    Init,
    /// A forbidden call.
    Listener,
    /// v1: a group ran out of memory.
    OutOfMemory,
    /// An unpacker's death.
    Unpacker,
}

impl Source {
    const ALL: [Source; 7] = [
        Source::Worker,
        Source::Timer,
        Source::Control,
        Source::Init,
        Source::Listener,
        Source::OutOfMemory,
        Source::Unpacker,
    ];
}

/// A ready descriptor: whose, and of which life of that slot, since an event may outlive its sandbox within one batch.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    pub source: Source,
    pub index: u32,
    /// The low 24 bits of the slot's generation.
    pub generation: u32,
}

#[derive(Debug)]
pub struct Watch {
    epoll: OwnedFd,
}

const GENERATION_MASK: u32 = 0xff_ffff;

impl Watch {
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Closing the descriptor (all copies of it) ends the watch.
    pub fn add(&self, fd: impl AsFd, source: Source, index: u32, generation: u32) -> io::Result<()> {
        let token = u64::from(index) << 32 | u64::from(generation & GENERATION_MASK) << 8 | source as u64;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?)
    }

    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits at most `timeout_ns`; a signal counts as nothing ready.
    pub fn wait(&self, timeout_ns: Option<u64>) -> io::Result<Vec<Ready>> {
        let timeout = timeout_ns.map(|ns| Timespec {
            tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
        });
        let mut events = Vec::with_capacity(64);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(events.iter().filter_map(|event| decode(event.data.u64())).collect())
    }
}

impl Ready {
    pub fn is_of(&self, generation: Option<u32>) -> bool {
        generation.is_some_and(|generation| generation & GENERATION_MASK == self.generation)
    }
}

fn decode(token: u64) -> Option<Ready> {
    let source = *Source::ALL.get(usize::try_from(token & 0xff).ok()?)?;
    let index = u32::try_from(token >> 32).ok()?;
    let generation = u32::try_from(token >> 8 & u64::from(GENERATION_MASK)).ok()?;
    Some(Ready { source, index, generation })
}
