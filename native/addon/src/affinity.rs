//! On which processor does a call's function wake?
//!
//! The thread that sends a call is about to sleep until the answer comes, so the function is best woken on that
//! thread's own processor: it is awake, and its caches hold the message. Waking another one, which may be halted, takes
//! several times as long as everything else on the path. The scheduler does not know that we are about to sleep.
//!
//! A call that turns out to be long is let loose by sandboxd, with whatever it started (board.rs, `widen_at`).

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// No processor's number: it may be one, and may be all.
pub const UNKNOWN: usize = usize::MAX;

#[derive(Debug)]
pub struct Affinity {
    /// What this process, and so every sandbox, may use.
    all: CpuSet,
    /// Setting another user's process's affinity takes CAP_SYS_NICE over its user namespace, which the owner of M has.
    is_allowed: bool,
}

impl Affinity {
    pub fn of_this_process() -> Self {
        match sched_getaffinity(None) {
            // With one processor there is nothing to choose.
            Ok(all) => Self { all, is_allowed: all.count() > 1 },
            Err(_) => Self { all: CpuSet::new(), is_allowed: false },
        }
    }

    /// Has these processes run where this thread runs now, unless `current` is that; none when they may run anywhere.
    ///
    /// By number: it cannot have been given to another process, since these are parked, their ends are told, and the
    /// kernel goes through all numbers before it gives one out again.
    pub fn pin(&mut self, processes: &[Pid], current: Option<usize>) -> Option<usize> {
        if !self.is_allowed || processes.is_empty() {
            return None;
        }
        let processor = sched_getcpu();
        if current == Some(processor) {
            return current;
        }
        let mut here = CpuSet::new();
        here.set(processor);
        for process in processes {
            // Of one that died a moment ago its end tells.
            if sched_setaffinity(Some(*process), &here) == Err(rustix::io::Errno::PERM) {
                self.is_allowed = false;
            }
        }
        self.is_allowed.then_some(processor)
    }

    pub fn widen(&self, processes: &[Pid]) {
        for process in processes {
            let _ = sched_setaffinity(Some(*process), &self.all);
        }
    }
}
