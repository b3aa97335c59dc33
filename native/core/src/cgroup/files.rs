//! Which cgroup files limit a sandbox and tell its usage, and how are they written and read?
//!
//! Works on open descriptors only, so that the addon (another process, another user, no cgroup mount in sight) and
//! sandboxd share it. Knows neither paths nor processes. The hot path is `apply` and `usage`: one pwrite or pread of
//! a stack buffer each, no allocation.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{pread, pwrite};
use serde::{Deserialize, Serialize};

use super::format::{Text, counter, field};

/// The period of every CPU quota, in microseconds. The kernel's own default, fixed so that a change of quota is one
/// write: shorter periods would shorten the pauses of a throttled sandbox, but the kernel refuses quotas below 1 ms,
/// and 1 ms of 100 is exactly the smallest limit (0.01 cores) a manifest may ask for.
pub const CPU_PERIOD_US: u32 = 100_000;

/// How far v1's memory+swap limit stays above the memory limit. With both equal the kernel kills and counts no hit in
/// memory.failcnt (seen on 6.18), which is what tells a sandbox's own OOM from an ancestor's. 16 pages are more than
/// the largest allocation the OOM killer is called for (8), and all that could ever be swapped out.
const SWAP_SLACK_BYTES: u64 = 64 * 1024;

/// One file of one cgroup interface. The kind alone tells what to write into it, so descriptors can cross a socket
/// as a list of these; the numbers are part of that message and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum File {
    /// v1 `cpu.cfs_quota_us`.
    CpuCfsQuota = 0,
    /// v1 `cpu.shares`.
    CpuShares = 1,
    /// v1 `memory.limit_in_bytes`.
    MemoryLimit = 2,
    /// v1 `memory.memsw.limit_in_bytes`, where the kernel accounts swap.
    MemorySwapLimit = 3,
    /// v1 `memory.max_usage_in_bytes`.
    MemoryMaxUsage = 4,
    /// v1 `cpuacct.usage`.
    CpuacctUsage = 5,
    /// v2 `cpu.max`.
    CpuMax = 6,
    /// v2 `cpu.weight`.
    CpuWeight = 7,
    /// v2 `memory.max`.
    MemoryMax = 8,
    /// v2 `memory.peak`, since Linux 5.19.
    MemoryPeak = 9,
    /// v2 `cpu.stat`, which every v2 group has, with or without the cpu controller.
    CpuStat = 10,
    /// `pids.max`, the same in both.
    PidsMax = 11,
    /// `pids.current`, the same in both.
    PidsCurrent = 12,
    /// `pids.events`, the same in both.
    PidsEvents = 13,
    /// v1 `cpu.stat` of the cpu controller; v2's is `CpuStat`.
    CpuThrottling = 14,
}

impl File {
    pub const COUNT: usize = 15;

    pub const ALL: [File; File::COUNT] = [
        File::CpuCfsQuota,
        File::CpuShares,
        File::MemoryLimit,
        File::MemorySwapLimit,
        File::MemoryMaxUsage,
        File::CpuacctUsage,
        File::CpuMax,
        File::CpuWeight,
        File::MemoryMax,
        File::MemoryPeak,
        File::CpuStat,
        File::PidsMax,
        File::PidsCurrent,
        File::PidsEvents,
        File::CpuThrottling,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            File::CpuCfsQuota => "cpu.cfs_quota_us",
            File::CpuShares => "cpu.shares",
            File::MemoryLimit => "memory.limit_in_bytes",
            File::MemorySwapLimit => "memory.memsw.limit_in_bytes",
            File::MemoryMaxUsage => "memory.max_usage_in_bytes",
            File::CpuacctUsage => "cpuacct.usage",
            File::CpuMax => "cpu.max",
            File::CpuWeight => "cpu.weight",
            File::MemoryMax => "memory.max",
            File::MemoryPeak => "memory.peak",
            File::CpuStat => "cpu.stat",
            File::PidsMax => "pids.max",
            File::PidsCurrent => "pids.current",
            File::PidsEvents => "pids.events",
            File::CpuThrottling => "cpu.stat",
        }
    }

    /// The kind with this number, as received from the other side of a socket.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<File> {
        File::ALL.get(usize::from(number)).copied()
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// The limits a cgroup enforces on one sandbox, in the units the kernel wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallLimits {
    /// Microseconds of CPU time per `CPU_PERIOD_US`; 100,000 is one core.
    pub cpu_quota_us: u32,
    /// As in v2's cpu.weight: 1 to 10,000, 100 being the kernel's default.
    pub cpu_weight: u32,
    pub memory_bytes: u64,
    /// Tasks: processes and threads.
    pub pids: u32,
}

impl CallLimits {
    /// What a new group has before anything is written: the `current` of the first `apply`.
    pub const NONE: CallLimits =
        CallLimits { cpu_quota_us: u32::MAX, cpu_weight: 100, memory_bytes: u64::MAX, pids: u32::MAX };
}

/// What a sandbox used; 0 where the host has no such controller (degraded).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub cpu_ns: u64,
    pub memory_peak_bytes: u64,
}

/// The open files of one sandbox's group, by kind.
#[derive(Debug, Default)]
pub struct LimitFiles {
    fds: [Option<OwnedFd>; File::COUNT],
}

impl FromIterator<(File, OwnedFd)> for LimitFiles {
    fn from_iter<I: IntoIterator<Item = (File, OwnedFd)>>(files: I) -> LimitFiles {
        let mut all = LimitFiles::default();
        for (file, fd) in files {
            all.insert(file, fd);
        }
        all
    }
}

impl LimitFiles {
    pub fn insert(&mut self, file: File, fd: OwnedFd) {
        self.fds[file.index()] = Some(fd);
    }

    pub(super) fn extend(&mut self, other: LimitFiles) {
        for (into, from) in self.fds.iter_mut().zip(other.fds) {
            if from.is_some() {
                *into = from;
            }
        }
    }

    #[must_use]
    pub fn get(&self, file: File) -> Option<BorrowedFd<'_>> {
        self.fds[file.index()].as_ref().map(AsFd::as_fd)
    }

    /// Every open file with its kind: what sandboxd passes to the addon.
    pub fn iter(&self) -> impl Iterator<Item = (File, BorrowedFd<'_>)> {
        File::ALL.into_iter().filter_map(|file| Some((file, self.get(file)?)))
    }

    /// Turns `current` limits into `wanted` ones, writing only what differs. After an error the limits are a mixture
    /// of both, so the sandbox must not be used. A memory limit below what the group holds is refused (v1) or kills
    /// (v2): the caller keeps it above what was parked.
    pub fn apply(&self, current: &CallLimits, wanted: &CallLimits) -> io::Result<()> {
        if wanted.cpu_quota_us != current.cpu_quota_us {
            self.write_cpu_quota(wanted.cpu_quota_us)?;
        }
        if wanted.cpu_weight != current.cpu_weight {
            self.write(File::CpuShares, |text| text.number(shares_of_weight(wanted.cpu_weight)))?;
            self.write(File::CpuWeight, |text| text.number(u64::from(wanted.cpu_weight)))?;
        }
        if wanted.memory_bytes != current.memory_bytes {
            for file in memory_order(current.memory_bytes, wanted.memory_bytes) {
                let slack = if *file == File::MemorySwapLimit { SWAP_SLACK_BYTES } else { 0 };
                let bytes = wanted.memory_bytes.saturating_add(slack);
                self.write(*file, |text| text.number_or_max(bytes, u64::MAX, "-1"))?;
            }
            self.write(File::MemoryMax, |text| text.number_or_max(wanted.memory_bytes, u64::MAX, "max"))?;
        }
        if wanted.pids != current.pids {
            self.write(File::PidsMax, |text| text.number_or_max(wanted.pids.into(), u32::MAX.into(), "max"))?;
        }
        Ok(())
    }

    /// Writes all limits, whatever they are now.
    pub fn restore(&self, limits: &CallLimits) -> io::Result<()> {
        // Or v1 would refuse a memory limit above it.
        self.write(File::MemorySwapLimit, |text| text.word("-1"))?;
        let unlike =
            CallLimits { cpu_quota_us: !limits.cpu_quota_us, cpu_weight: 0, pids: !limits.pids, ..CallLimits::NONE };
        self.apply(&unlike, limits)
    }

    /// To be called before a kill: a throttled sandbox takes some 72 ms to die, an unthrottled one half a millisecond.
    pub fn lift_cpu_quota(&self) -> io::Result<()> {
        self.write_cpu_quota(CallLimits::NONE.cpu_quota_us)
    }

    /// CPU time and peak memory since the group was made or its peak was reset.
    pub fn usage(&self) -> io::Result<Usage> {
        Ok(Usage { cpu_ns: self.cpu_ns()?, memory_peak_bytes: self.memory_peak_bytes()? })
    }

    /// CPU time alone, for polling.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        let mut buffer = [0; 512];
        if let Some(fd) = self.get(File::CpuStat) {
            return Ok(field(read(fd, &mut buffer)?, b"usage_usec")?.saturating_mul(1000));
        }
        match self.get(File::CpuacctUsage) {
            Some(fd) => counter(read(fd, &mut buffer)?),
            None => Ok(0),
        }
    }

    /// How many tasks there are now: the cheap way to see whether a call left something running.
    pub fn tasks(&self) -> io::Result<u64> {
        self.get(File::PidsCurrent).map_or(Ok(0), |fd| counter(read(fd, &mut [0; 32])?))
    }

    /// Periods in which the CPU quota stopped the group.
    pub fn throttled_count(&self) -> io::Result<u64> {
        let file = self.get(File::CpuThrottling).or_else(|| self.get(File::CpuStat));
        // A v2 group without the cpu controller has no such line.
        file.map_or(Ok(0), |fd| Ok(field(read(fd, &mut [0; 512])?, b"nr_throttled").unwrap_or(0)))
    }

    /// Forks that the pids limit refused.
    pub fn pids_denied_count(&self) -> io::Result<u64> {
        self.get(File::PidsEvents).map_or(Ok(0), |fd| field(read(fd, &mut [0; 64])?, b"max"))
    }

    /// Peak memory alone; 0 where the kernel does not tell it.
    pub fn memory_peak_bytes(&self) -> io::Result<u64> {
        match self.peak() {
            Some(fd) => counter(read(fd, &mut [0; 32])?),
            None => Ok(0),
        }
    }

    /// Makes the peak start again from what is held at this moment, for a sandbox that serves another call. Fails
    /// below Linux 6.12 on v2, where the peak then stays that of the whole life.
    pub fn reset_memory_peak(&self) -> io::Result<()> {
        self.peak().map_or(Ok(()), |fd| Ok(pwrite(fd, b"0", 0).map(drop)?))
    }

    fn peak(&self) -> Option<BorrowedFd<'_>> {
        self.get(File::MemoryMaxUsage).or_else(|| self.get(File::MemoryPeak))
    }

    fn write_cpu_quota(&self, quota_us: u32) -> io::Result<()> {
        let none = u64::from(CallLimits::NONE.cpu_quota_us);
        self.write(File::CpuCfsQuota, |text| text.number_or_max(quota_us.into(), none, "-1"))?;
        self.write(File::CpuMax, |text| {
            text.number_or_max(quota_us.into(), none, "max");
            text.word(" ");
            text.number(CPU_PERIOD_US.into());
        })
    }

    /// Writes one file if it is open: which ones are is decided by the cgroup version when the group is made.
    fn write(&self, file: File, compose: impl FnOnce(&mut Text)) -> io::Result<()> {
        let Some(fd) = self.get(file) else { return Ok(()) };
        let mut text = Text::default();
        compose(&mut text);
        pwrite(fd, text.as_bytes(), 0)?;
        Ok(())
    }
}

/// v1 demands limit <= memory+swap limit at every moment, so whichever moves away from the other goes first. A call
/// that lowers the limit leaves the other where it is: a group with swappiness 0 is killed at its limit, not swapped.
const fn memory_order(current: u64, wanted: u64) -> &'static [File] {
    if wanted > current {
        &[File::MemorySwapLimit, File::MemoryLimit]
    } else if current == CallLimits::NONE.memory_bytes {
        &[File::MemoryLimit, File::MemorySwapLimit]
    } else {
        &[File::MemoryLimit]
    }
}

/// The kernel's own conversion between the two scales, whose defaults are 100 and 1024.
fn shares_of_weight(weight: u32) -> u64 {
    (u64::from(weight) * 1024 / 100).clamp(2, 262_144)
}

fn read<'a>(fd: BorrowedFd<'_>, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let length = pread(fd, &mut *buffer, 0)?;
    Ok(&buffer[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_kinds_lead_back_to_the_kind() {
        for file in File::ALL {
            assert_eq!(File::from_u8(file as u8), Some(file));
        }
        assert_eq!(File::from_u8(u8::MAX), None);
    }

    #[test]
    fn raising_memory_moves_swap_first_and_a_call_that_lowers_it_leaves_swap() {
        assert_eq!(memory_order(1, 2), [File::MemorySwapLimit, File::MemoryLimit]);
        assert_eq!(memory_order(2, 1), [File::MemoryLimit]);
        assert_eq!(memory_order(u64::MAX, 1), [File::MemoryLimit, File::MemorySwapLimit]);
    }

    #[test]
    fn weights_become_shares() {
        assert_eq!(shares_of_weight(100), 1024);
        assert_eq!(shares_of_weight(1), 10);
        assert_eq!(shares_of_weight(10_000), 102_400);
    }

    #[test]
    fn a_group_without_files_accepts_limits_and_reports_nothing() {
        let files = LimitFiles::default();
        let wanted = CallLimits { cpu_quota_us: 1000, cpu_weight: 1, memory_bytes: 1, pids: 1 };
        files.apply(&CallLimits::NONE, &wanted).unwrap();
        assert_eq!(files.usage().unwrap(), Usage::default());
        assert_eq!(files.iter().count(), 0);
    }
}
