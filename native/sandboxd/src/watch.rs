//! What sandboxd waits for.

use std::io;
use std::os::fd::AsFd;

use mayfly_core::watch::{EventFlags, Token, Watch};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    Worker,
    /// The worker's socket takes more.
    Room,
    Timer,
    /// What came of an order.
    Nursery,
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
    const ALL: [Source; 9] = [
        Source::Worker,
        Source::Room,
        Source::Timer,
        Source::Nursery,
        Source::Control,
        Source::Init,
        Source::Listener,
        Source::OutOfMemory,
        Source::Unpacker,
    ];

    /// Has the loop told when `fd`, of this life of the slot, is readable.
    pub fn watch(self, watch: &Watch, fd: impl AsFd, index: u32, generation: u32) -> io::Result<()> {
        watch.add(fd, Token { index, generation, source: self as u8 }, EventFlags::IN)
    }

    /// The same for what belongs to no slot.
    pub fn watch_for(self, watch: &Watch, fd: impl AsFd, flags: EventFlags) -> io::Result<()> {
        watch.add(fd, Token { index: 0, generation: 0, source: self as u8 }, flags)
    }

    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}
