//! The nursery: the process that every sandbox is cloned from, and the namespaces of the next one, made ahead.
//!
//! It holds no descriptor of any sandbox, sees few mounts and touches little memory, so that a clone copies little,
//! however many sandboxes there are. While nobody asks it makes the next sandbox's net, ipc, uts and time namespaces by
//! entering them itself: a net namespace takes longer than all the rest of a build. One set at a time, since the
//! kernel makes them one at a time too (a lock of rtnetlink's).
//!
//! Its clones are sandboxd's children (CLONE_PARENT), which reaps them. If it dies, sandboxd ends and everything with it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mayfly_core::ablate::Ablation;
use mayfly_core::board::{now_ns, short_ns};
use mayfly_core::packet;
use mayfly_core::protocol::{Birth, Order};
use mayfly_core::sandbox::{
    Ahead, Bare, DEVICES, FIRST_OWN_FD, Nest, Originals, Plan, TimeOffsets, UserNamespace, build_and_serve, move_up,
    userns,
};
use mayfly_core::stage::{At, SetupError, Stage};
use mayfly_core::sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::net::RecvFlags;
use rustix::process::Pid;

/// How long nobody must have asked before the next set is made: not while the last one's sandbox is still being built.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// sandboxd's end.
#[derive(Debug)]
pub struct Nursery {
    socket: OwnedFd,
}

impl Nursery {
    /// `first_id`: M's id of the first sandbox's function.
    pub fn start(
        time_offsets: TimeOffsets,
        copies_writable: bool,
        is_ablation_allowed: bool,
        first_id: u32,
    ) -> io::Result<Self> {
        let (ours, theirs) = packet::pair()?;
        match sys::process::clone3(0, None)? {
            sys::process::Cloned::Parent { .. } => Ok(Self { socket: ours }),
            sys::process::Cloned::Child => {
                drop(ours);
                let is_whole = !is_ablation_allowed;
                let served = move_up(theirs).and_then(|socket| {
                    let nest = Nest { originals: enter(&socket)?, time_offsets, is_whole, copies_writable };
                    Parent { socket, nest, next_id: first_id, ahead: None }.serve()
                });
                if let Err(error) = served {
                    crate::complain(&format!("the nursery: {error}"));
                }
                sys::process::exit_now(1)
            }
        }
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn order(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        packet::send(&self.socket, order, descriptors, None)
    }

    /// The next answer, `None` while there is none.
    ///
    /// # Errors
    /// The nursery is gone.
    pub fn answer(&self) -> io::Result<Option<(Birth, Option<OwnedFd>)>> {
        match packet::receive::<Birth>(&self.socket, RecvFlags::DONTWAIT) {
            Ok(Some(packet)) => Ok(Some((packet.message, packet.descriptors.into_iter().next()))),
            Ok(None) => Err(io::Error::other("the nursery is gone")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Leaves behind what is sandboxd's: its descriptors, and what only it needs of the mounts, since every sandbox's mount
/// namespace begins as a copy of the nursery's.
fn enter(socket: &OwnedFd) -> io::Result<Originals> {
    rustix::thread::set_name(c"mayfly-nursery")?;
    sys::process::close_all_but(vec![0, 1, 2, socket.as_raw_fd().unsigned_abs()])?;
    // A sandbox's init gives the numbers from 3 on to its function: whatever we hand it must be above.
    for number in 3..FIRST_OWN_FD {
        sys::process::duplicate_onto(socket.as_fd(), number)?;
    }
    let originals = Originals::open()?;
    sys::process::unshare_namespaces(libc::CLONE_NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for device in DEVICES {
        unmount(format!("/dev/{device}"), UnmountFlags::DETACH)?;
    }
    Ok(originals)
}

/// The nursery itself.
struct Parent {
    socket: OwnedFd,
    nest: Nest,
    next_id: u32,
    /// For the next sandbox, whose namespaces we are in.
    ahead: Option<Ahead>,
}

enum Side {
    Parent { pid: Pid, pidfd: OwnedFd },
    Child { plan: Plan, ahead: Ahead },
}

impl Parent {
    /// Returns when sandboxd is gone.
    fn serve(mut self) -> io::Result<()> {
        loop {
            if self.ahead.is_none() && !self.is_asked_soon()? {
                // What fails now is told to whoever asks next: it is tried again.
                self.ahead = self.make_ahead().ok();
            }
            let Some(packet) = packet::receive::<Order>(&self.socket, RecvFlags::empty())? else { return Ok(()) };
            let slot = packet.message.slot;
            match self.clone_sandbox(&packet.message, packet.descriptors) {
                Ok(Side::Child { plan, ahead }) => build_and_serve(plan, self.nest, ahead),
                Ok(Side::Parent { pid, pidfd }) => {
                    let born = Birth::Born { slot, pid: pid.as_raw_nonzero().get() };
                    packet::send(&self.socket, &born, &[pidfd.as_fd()], None)?;
                }
                Err(SetupError { stage, source }) => {
                    let errno = source.raw_os_error().unwrap_or(libc::EIO);
                    packet::send(&self.socket, &Birth::Failed { slot, stage, errno }, &[], None)?;
                }
            }
        }
    }

    fn is_asked_soon(&self) -> io::Result<bool> {
        let mut entry = [PollFd::new(&self.socket, PollFlags::IN)];
        Ok(poll(&mut entry, Some(&REST))? > 0)
    }

    /// Enters new namespaces, which the next clone is born into, and makes what else no function changes.
    fn make_ahead(&self) -> Result<Ahead, SetupError> {
        let started = now_ns();
        let time = if self.nest.is_whole { libc::CLONE_NEWTIME } else { 0 };
        let kinds = libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | time;
        sys::process::unshare_namespaces(kinds).at(Stage::Ahead)?;
        if self.nest.is_whole {
            // Only what is born afterwards is in a time namespace, and only until then its clocks can be set.
            self.nest.time_offsets.write().at(Stage::TimeNamespace)?;
        }
        loopback_up().at(Stage::Loopback)?;
        let (bare, user) = if self.nest.is_whole {
            let namespace = userns::make(self.next_id).at(Stage::UserNamespace)?;
            (Some(Bare::make(Ablation::NONE)?), Some(UserNamespace { id: self.next_id, namespace }))
        } else {
            (None, None)
        };
        Ok(Ahead { bare, user, ns: short_ns(now_ns() - started) })
    }

    fn clone_sandbox(&mut self, order: &Order, descriptors: Vec<OwnedFd>) -> Result<Side, SetupError> {
        let ahead = match self.ahead.take() {
            Some(ahead) => ahead,
            None => self.make_ahead()?,
        };
        self.next_id = order.next_id;
        let plan = Plan::new(order, descriptors).at(Stage::Clone)?;
        let kind = if order.has_pid_namespace { libc::CLONE_NEWPID } else { 0 };
        let flags = u64::from((kind | libc::CLONE_PARENT).unsigned_abs());
        match sys::process::clone3(flags, plan.cgroup()).at(Stage::Clone)? {
            sys::process::Cloned::Parent { pid, pidfd } => Ok(Side::Parent { pid, pidfd }),
            sys::process::Cloned::Child => Ok(Side::Child { plan, ahead }),
        }
    }
}

fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sys::process::loopback_up(socket.as_fd())
}
