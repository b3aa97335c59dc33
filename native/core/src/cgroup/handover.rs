//! What does the launcher hand to sandboxd so that it can limit sandboxes without seeing a cgroup mount?
//!
//! The mode and, for each controller, an open directory: the worker's own node. It travels as one argument of the
//! command line, `mode=hybrid,cpu=5,memory=6,pids=7,unified=8`; controllers that share a mount repeat its number.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::mode::Mode;

/// A limit or a count the kernel keeps per group; `Unified` is the v2 hierarchy itself, with or without controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    Cpu,
    Memory,
    Pids,
    Cpuacct,
    Unified,
}

impl Controller {
    pub const ALL: [Controller; 5] =
        [Controller::Cpu, Controller::Memory, Controller::Pids, Controller::Cpuacct, Controller::Unified];

    /// The ones without which a sandbox is not limited.
    pub const LIMITING: [Controller; 3] = [Controller::Cpu, Controller::Memory, Controller::Pids];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Cpuacct => "cpuacct",
            Controller::Unified => "unified",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Controller> {
        Controller::ALL.into_iter().find(|controller| controller.name() == name)
    }
}

/// The worker's nodes. Directories are shared because one v1 mount can carry several controllers, and because every
/// leaf keeps them to remove itself.
#[derive(Clone, Debug)]
pub struct Handover {
    pub mode: Mode,
    dirs: Vec<(Controller, Arc<OwnedFd>)>,
}

impl Handover {
    #[must_use]
    pub fn new(mode: Mode) -> Handover {
        Handover { mode, dirs: Vec::new() }
    }

    /// Adds one hierarchy's directory for all the controllers it carries.
    pub fn add(&mut self, controllers: &[Controller], dir: OwnedFd) {
        let dir = Arc::new(dir);
        self.dirs.extend(controllers.iter().map(|&controller| (controller, Arc::clone(&dir))));
    }

    #[must_use]
    pub fn dir(&self, controller: Controller) -> Option<BorrowedFd<'_>> {
        self.dirs.iter().find(|(of, _)| *of == controller).map(|(_, dir)| dir.as_fd())
    }

    /// Each hierarchy once, however many controllers it carries.
    pub fn hierarchies(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.dirs.iter().enumerate().filter_map(|(index, (_, dir))| {
            let seen = self.dirs[..index].iter().any(|(_, other)| Arc::ptr_eq(other, dir));
            (!seen).then(|| dir.as_fd())
        })
    }

    /// The limits this host cannot enforce.
    #[must_use]
    pub fn missing(&self) -> Vec<Controller> {
        Controller::LIMITING.into_iter().filter(|&controller| self.dir(controller).is_none()).collect()
    }

    #[must_use]
    pub fn to_arg(&self) -> String {
        let mut arg = format!("mode={}", self.mode.name());
        for (controller, dir) in &self.dirs {
            arg.push_str(&format!(",{}={}", controller.name(), dir.as_raw_fd()));
        }
        arg
    }

    /// The reverse, in the process that inherited the descriptors; `take` turns a number into an owned descriptor and
    /// is called once for each number.
    pub fn from_arg(arg: &str, mut take: impl FnMut(RawFd) -> io::Result<OwnedFd>) -> io::Result<Handover> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("not a cgroup handover: {arg}"));
        let mut pairs = arg.split(',').map(|pair| pair.split_once('=').ok_or_else(invalid));
        let ("mode", mode) = pairs.next().ok_or_else(invalid)?? else { return Err(invalid()) };
        let mut handover = Handover::new(Mode::from_name(mode).ok_or_else(invalid)?);
        let mut taken: Vec<(RawFd, Arc<OwnedFd>)> = Vec::new();
        for pair in pairs {
            let (name, number) = pair?;
            let controller = Controller::from_name(name).ok_or_else(invalid)?;
            let number: RawFd = number.parse().map_err(|_| invalid())?;
            let dir = match taken.iter().find(|(of, _)| *of == number) {
                Some((_, dir)) => Arc::clone(dir),
                None => Arc::new(take(number)?),
            };
            taken.push((number, Arc::clone(&dir)));
            handover.dirs.push((controller, dir));
        }
        Ok(handover)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn directory() -> OwnedFd {
        File::open("/").unwrap().into()
    }

    #[test]
    fn the_argument_leads_back_to_the_handover() {
        let mut handover = Handover::new(Mode::V1);
        handover.add(&[Controller::Cpu, Controller::Cpuacct], directory());
        handover.add(&[Controller::Memory], directory());
        let mut taken = 0;
        let read = Handover::from_arg(&handover.to_arg(), |_| {
            taken += 1;
            Ok(directory())
        });
        let read = read.unwrap();
        assert_eq!(taken, 2);
        assert_eq!(read.mode, Mode::V1);
        assert_eq!(read.hierarchies().count(), 2);
        assert_eq!(read.missing(), [Controller::Pids]);
    }

    #[test]
    fn nonsense_is_refused() {
        for arg in ["", "cpu=3", "mode=v9", "mode=v1,cpu", "mode=v1,cpu=x", "mode=v1,disk=3"] {
            assert!(Handover::from_arg(arg, |_| Ok(directory())).is_err(), "{arg}");
        }
    }
}
