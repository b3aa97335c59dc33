//! The board: one cache line per slot in memory that the worker and sandboxd share, on which a call's end is decided
//! by one compare-and-set.
//!
//! ```text
//!             worker: start                worker: answer came
//!  idle ───────────────────────► running ──────────────────────► ended
//!                                   │ sandboxd: deadline, CPU time, forbidden call, out of memory, death
//!                                   └──────────────────────────► the verdict
//! ```
//!
//! The word carries the slot's generation, so a late verdict on an earlier sandbox of the slot changes nothing.
//! The worker arms the shared timer only when its call's next check is earlier than every armed one: with calls of
//! equal limits, back to back, that is once per limit and not once per call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec};

use crate::sys;

/// Why sandboxd ended a call; the numbers cross the wire and the shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Verdict {
    WallTime = 3,
    CpuTime = 4,
    /// With the syscall's number in the slot's detail word.
    Denied = 5,
    OutOfMemory = 6,
    /// init ended for a reason that is none of the above.
    Lost = 7,
}

impl Verdict {
    const ALL: [Verdict; 5] =
        [Verdict::WallTime, Verdict::CpuTime, Verdict::Denied, Verdict::OutOfMemory, Verdict::Lost];
}

const IDLE: u64 = 0;
const RUNNING: u64 = 1;
const ENDED: u64 = 2;

/// What the state word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Idle,
    Running { generation: u32 },
    Ended { generation: u32 },
    Judged { generation: u32, verdict: Verdict },
}

/// Words per slot: a cache line, so that two slots do not share one.
const WORDS: usize = 8;
const STATE: usize = 0;
const CHECK_AT: usize = 1;
const DEADLINE: usize = 2;
const CPU_END: usize = 3;
const DETAIL: usize = 4;
const WIDEN_AT: usize = 5;

/// "Nothing is armed" in the header, and "no limit" in a slot's CPU word.
pub const NEVER: u64 = u64::MAX;

/// A call's clocks, all in nanoseconds of CLOCK_MONOTONIC or of the leaf's CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    pub wall_deadline: u64,
    /// The leaf's CPU time at which the call ends, or `NEVER`.
    pub cpu_end: u64,
    /// When a call that was given one processor may use all of them, or `NEVER`.
    pub widen_at: u64,
    /// When sandboxd looks next: the earliest of the above, or sooner where CPU time could run out sooner.
    pub check_at: u64,
}

#[derive(Debug)]
pub struct Board {
    words: &'static [AtomicU64],
    timer: OwnedFd,
}

impl Board {
    /// Makes the memory for `slots` slots, sealed against resizing, with nothing armed.
    ///
    /// # Errors
    /// memfd_create(2), ftruncate(2), fcntl(2).
    pub fn create_memory(slots: u32) -> io::Result<OwnedFd> {
        let memfd = rustix::fs::memfd_create("mayfly-board", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let bytes = word_count(slots) * size_of::<AtomicU64>();
        rustix::fs::ftruncate(&memfd, bytes as u64)?;
        rustix::io::pwrite(&memfd, &NEVER.to_ne_bytes(), 0)?;
        rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(memfd)
    }

    /// # Errors
    /// EINVAL when the memory is not of `create_memory`'s making.
    pub fn map(memory: BorrowedFd<'_>, slots: u32, timer: OwnedFd) -> io::Result<Self> {
        Ok(Self { words: sys::memory::map_words(memory, word_count(slots))?, timer })
    }

    /// The timer that becomes readable when a check is due.
    pub fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    pub fn slots(&self) -> u32 {
        u32::try_from(self.words.len() / WORDS - 1).expect("made from a u32")
    }

    fn word(&self, slot: u32, word: usize) -> &AtomicU64 {
        // The first line is the header.
        &self.words[(slot as usize + 1) * WORDS + word]
    }

    fn armed(&self) -> &AtomicU64 {
        &self.words[0]
    }

    pub fn state(&self, slot: u32) -> State {
        decode(self.word(slot, STATE).load(SeqCst))
    }

    /// The forbidden syscall's number, after a `Denied`.
    pub fn detail(&self, slot: u32) -> u64 {
        self.word(slot, DETAIL).load(SeqCst)
    }

    /// Worker: the call of this generation begins.
    ///
    /// # Errors
    /// timerfd_settime(2).
    pub fn start(&self, slot: u32, generation: u32, clocks: Clocks) -> io::Result<()> {
        self.word(slot, DEADLINE).store(clocks.wall_deadline, SeqCst);
        self.word(slot, CPU_END).store(clocks.cpu_end, SeqCst);
        self.word(slot, WIDEN_AT).store(clocks.widen_at, SeqCst);
        self.word(slot, CHECK_AT).store(clocks.check_at, SeqCst);
        self.word(slot, STATE).store(encode(generation, RUNNING), SeqCst);
        self.arm(clocks.check_at)
    }

    /// Worker: the call's answer came. False when sandboxd was first.
    pub fn end(&self, slot: u32, generation: u32) -> bool {
        self.decide(slot, generation, ENDED)
    }

    /// sandboxd: the call is over for this reason. False when the worker, or an earlier verdict, was first.
    pub fn judge(&self, slot: u32, generation: u32, verdict: Verdict, detail: u64) -> bool {
        self.word(slot, DETAIL).store(detail, SeqCst);
        self.decide(slot, generation, verdict as u64)
    }

    /// sandboxd: the call has all processors.
    pub fn widened(&self, slot: u32) {
        self.word(slot, WIDEN_AT).store(NEVER, SeqCst);
    }

    fn decide(&self, slot: u32, generation: u32, to: u64) -> bool {
        let from = encode(generation, RUNNING);
        self.word(slot, STATE).compare_exchange(from, encode(generation, to), SeqCst, SeqCst).is_ok()
    }

    /// Either: the slot is empty.
    pub fn clear(&self, slot: u32) {
        self.word(slot, STATE).store(IDLE, SeqCst);
    }

    /// sandboxd: the running calls whose check is due, with their clocks; `next` is asked for the later check of each
    /// that goes on. Afterwards the timer stands at the earliest check of all.
    ///
    /// # Errors
    /// timerfd_settime(2).
    pub fn scan(&self, now: u64, mut next: impl FnMut(u32, u32, Clocks) -> Option<u64>) -> io::Result<()> {
        // From here on a worker that starts a call arms the timer itself, so a slot this loop has passed is not lost.
        self.armed().store(NEVER, SeqCst);
        let mut earliest = NEVER;
        for slot in 0..self.slots() {
            let State::Running { generation } = self.state(slot) else { continue };
            let clocks = Clocks {
                wall_deadline: self.word(slot, DEADLINE).load(SeqCst),
                cpu_end: self.word(slot, CPU_END).load(SeqCst),
                widen_at: self.word(slot, WIDEN_AT).load(SeqCst),
                check_at: self.word(slot, CHECK_AT).load(SeqCst),
            };
            let check_at = if clocks.check_at > now { Some(clocks.check_at) } else { next(slot, generation, clocks) };
            if let Some(check_at) = check_at {
                self.word(slot, CHECK_AT).store(check_at, SeqCst);
                earliest = earliest.min(check_at);
            }
        }
        self.arm(earliest)
    }

    /// Sets the timer to `check_at` unless an earlier check is armed.
    ///
    /// Two processes may be in here at once; each goes on until what it set is what the header says, so the last
    /// setter sets the minimum.
    fn arm(&self, check_at: u64) -> io::Result<()> {
        let mut armed = self.armed().fetch_min(check_at, SeqCst);
        if armed <= check_at {
            return Ok(());
        }
        loop {
            let target = self.armed().load(SeqCst);
            if target == armed || target == NEVER {
                return Ok(());
            }
            let at = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: timespec(target) };
            rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &at)?;
            armed = target;
        }
    }
}

const fn word_count(slots: u32) -> usize {
    (slots as usize + 1) * WORDS
}

const fn encode(generation: u32, phase: u64) -> u64 {
    (generation as u64) << 8 | phase
}

fn decode(word: u64) -> State {
    let generation = u32::try_from(word >> 8 & u64::from(u32::MAX)).expect("masked to 32 bits");
    match word & 0xff {
        RUNNING => State::Running { generation },
        ENDED => State::Ended { generation },
        phase => match Verdict::ALL.into_iter().find(|verdict| *verdict as u64 == phase) {
            Some(verdict) => State::Judged { generation, verdict },
            None => State::Idle,
        },
    }
}

fn timespec(ns: u64) -> Timespec {
    // Two divisions of a u64 fit i64; an all-zero value would disarm the timer, and no check is at the boot instant.
    Timespec {
        tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
    }
}

/// A duration as it crosses the wire: up to four seconds.
pub fn short_ns(ns: u64) -> u32 {
    u32::try_from(ns).unwrap_or(u32::MAX)
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create, timerfd_gettime};

    fn board(slots: u32) -> Board {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).unwrap();
        Board::map(Board::create_memory(slots).unwrap().as_fd(), slots, timer).unwrap()
    }

    fn until(at: u64) -> Clocks {
        Clocks { wall_deadline: at, cpu_end: NEVER, widen_at: NEVER, check_at: at }
    }

    fn armed_for_ns(board: &Board) -> i64 {
        let left = timerfd_gettime(board.timer()).unwrap().it_value;
        left.tv_sec * 1_000_000_000 + left.tv_nsec
    }

    #[test]
    fn a_call_is_ended_once() {
        let board = board(2);
        board.start(1, 7, until(now_ns() + 1_000_000_000)).unwrap();
        assert!(!board.end(1, 6), "a call of another life of the slot");
        assert!(board.judge(1, 7, Verdict::Denied, 101));
        assert!(!board.end(1, 7), "already judged");
        assert!(!board.judge(1, 7, Verdict::WallTime, 0));
        assert_eq!(board.state(1), State::Judged { generation: 7, verdict: Verdict::Denied });
        assert_eq!(board.state(0), State::Idle);
    }

    #[test]
    fn the_timer_stands_at_the_earliest_check() {
        let board = board(3);
        let now = now_ns();
        board.start(0, 1, until(now + 50_000_000_000)).unwrap();
        board.start(1, 1, until(now + 90_000_000_000)).unwrap();
        assert!((40_000_000_000..50_000_000_000).contains(&armed_for_ns(&board)), "a later call arms nothing");
        board.start(2, 1, until(now + 20_000_000_000)).unwrap();
        assert!((10_000_000_000..20_000_000_000).contains(&armed_for_ns(&board)), "an earlier one does");
    }

    #[test]
    fn a_scan_asks_about_what_is_due_and_arms_for_the_rest() {
        let board = board(4);
        let now = now_ns();
        board.start(0, 1, until(now - 1)).unwrap();
        board.start(1, 1, until(now + 60_000_000_000)).unwrap();
        board.start(2, 1, until(now - 1)).unwrap();
        assert!(board.end(2, 1));
        let mut asked = Vec::new();
        board
            .scan(now, |slot, generation, _| {
                asked.push((slot, generation));
                None
            })
            .unwrap();
        assert_eq!(asked, [(0, 1)]);
        assert!((50_000_000_000..60_000_000_000).contains(&armed_for_ns(&board)));
    }
}
