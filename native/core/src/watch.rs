//! One epoll descriptor over the descriptors of many slots, and what its tokens mean.
//!
//! A token names the slot, the life of the slot it was registered in, and which of its descriptors is ready: within one
//! batch an event may outlive its sandbox, and must not be taken for the next one's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::time::Timespec;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub index: u32,
    /// Only the low 24 bits are kept.
    pub generation: u32,
    /// The user's own numbering.
    pub source: u8,
}

const GENERATION_MASK: u32 = 0xff_ffff;

impl Token {
    pub fn is_of(self, generation: u32) -> bool {
        generation & GENERATION_MASK == self.generation & GENERATION_MASK
    }

    fn to_word(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation & GENERATION_MASK) << 8 | u64::from(self.source)
    }

    fn from_word(word: u64) -> Self {
        let [source, g0, g1, g2, i0, i1, i2, i3] = word.to_le_bytes();
        let generation = u32::from_le_bytes([g0, g1, g2, 0]);
        Self { index: u32::from_le_bytes([i0, i1, i2, i3]), generation, source }
    }
}

#[derive(Debug)]
pub struct Watch {
    epoll: OwnedFd,
}

/// The most events taken at once; the rest are there at the next call.
const BATCH: usize = 64;

impl Watch {
    /// # Errors
    /// epoll_create1(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Level-triggered. Closing every copy of the descriptor ends it.
    ///
    /// # Errors
    /// epoll_ctl(2).
    pub fn add(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.to_word()), flags)?)
    }

    /// # Errors
    /// epoll_ctl(2).
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits at most `timeout_ns`, for ever on `None`; a signal counts as nothing ready.
    ///
    /// # Errors
    /// epoll_wait(2).
    pub fn wait(&self, timeout_ns: Option<u64>) -> io::Result<Vec<Token>> {
        let timeout = timeout_ns.map(|ns| Timespec {
            tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
        });
        let mut events = Vec::with_capacity(BATCH);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(events.iter().map(|event| Token::from_word(event.data.u64())).collect())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// What can be done with `fd` at this moment; nothing where the kernel does not say.
pub fn readiness(fd: impl AsFd) -> PollFlags {
    let mut entry = [PollFd::new(&fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut entry, Some(&now)) {
        Ok(_) => entry[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn a_token_survives_the_kernel_but_for_the_high_bits_of_its_generation() {
        let token = Token { index: 0x1234_5678, generation: 0xffab_cdef, source: 7 };
        let back = Token::from_word(token.to_word());
        assert_eq!((back.index, back.source), (token.index, token.source));
        assert!(back.is_of(token.generation));
        assert!(!back.is_of(token.generation + 1));
    }
}
