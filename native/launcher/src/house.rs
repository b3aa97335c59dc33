//! From a process of the host to sandboxd as PID 1 of M, in the order that works.
//!
//! ```text
//! launcher (host)              child                             its child
//!   ├── fork ───────────────────►│ enter the cgroup nodes
//!   │                            │ become the service id (root)
//!   │ ◄──────────────── Unshared │ unshare user, mount, pid, net, ipc, uts
//!   │ write the id maps          │
//!   │ Mapped ───────────────────►│ drop the groups
//!   │                            ├── fork ──────────────────────────►│ PID 1 of M
//!   │ ◄────────────────── Born   │ _exit                             │ the rooms, pivot
//!   │ ◄──── end of the socket: it is close-on-exec ───────────────────│ exec sandboxd
//! ```
//!
//! Any of them sends `Failed` instead and ends; then the launcher sweeps up behind it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mayfly_core::sys::house::{exec_descriptor, fork};
use mayfly_core::sys::process::{cloexec_from, exit_now, reset_signals, unshare_namespaces};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, capabilities, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::failure::{At, Code, Failure, Stage};
use crate::groups::Groups;
use crate::idmap;
use crate::ids::Ids;
use crate::rooms::{self, Layers};

/// Everything the child takes along.
#[derive(Debug)]
pub struct Plans {
    pub ids: Ids,
    pub groups: Groups,
    pub layers: Layers,
    pub sandboxd: OwnedFd,
    /// All of sandboxd's arguments.
    pub argv: Vec<CString>,
    /// The descriptors `argv` names.
    pub inherited: Vec<OwnedFd>,
}

const UNSHARED: u8 = b'U';
const MAPPED: u8 = b'M';
const BORN: u8 = b'B';
const FAILED: u8 = b'F';

/// M's namespaces. No cgroup namespace: with nsdelegate a process may not be placed outside its own, and the leaves
/// are beside sandboxd's node. No time namespace: sandboxes have their own, M needs the host's clock.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// Makes the house; the pid of sandboxd, once it runs.
pub fn build(plans: Plans) -> Result<u32, Failure> {
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.at(Stage::Fork, "socketpair")?;
    let Some(child) = fork().at(Stage::Fork, "fork")? else {
        drop(ours);
        let failure = match first_child(plans, theirs.as_fd()) {
            Err(failure) => failure,
            Ok(never) => match never {},
        };
        // If the launcher is gone there is nobody to tell.
        let _ = say(theirs.as_fd(), FAILED, failure.to_json().to_string().as_bytes());
        exit_now(1);
    };
    drop(theirs);
    let result = supervise(ours.as_fd(), child, &plans.ids);
    if result.is_err() {
        // Whatever state it is in; the janitor finds what it may have become.
        let _ = kill_process(child, Signal::KILL);
    }
    let _ = waitpid(Some(child), WaitOptions::empty());
    result
}

fn supervise(talk: BorrowedFd<'_>, child: Pid, ids: &Ids) -> Result<u32, Failure> {
    let mut sandboxd = None;
    loop {
        let mut packet = vec![0; 4096];
        let (length, _) = recv(talk, &mut packet[..], RecvFlags::empty()).at(Stage::Fork, "hearing from the child")?;
        match packet[..length].split_first() {
            None => break,
            Some((&UNSHARED, _)) => {
                idmap::write(child, ids)?;
                say(talk, MAPPED, &[]).at(Stage::IdMap, "telling the child")?;
            }
            Some((&BORN, pid)) => sandboxd = pid.try_into().ok().map(u32::from_ne_bytes),
            Some((_, report)) => return Err(reported(report)),
        }
    }
    // The socket closed: by exec, or by a death that sent no word.
    sandboxd.ok_or_else(|| Failure::setup(Stage::Fork, &io::ErrorKind::UnexpectedEof.into(), "the child ended"))
}

fn say(talk: BorrowedFd<'_>, kind: u8, body: &[u8]) -> io::Result<()> {
    send(talk, &[&[kind], body].concat(), SendFlags::NOSIGNAL)?;
    Ok(())
}

enum Never {}

fn first_child(plans: Plans, talk: BorrowedFd<'_>) -> Result<Never, Failure> {
    // Now, while we may: sandboxd is to be found, and killed, in its own node.
    for entrance in &plans.groups.entrances {
        rustix::io::write(entrance, b"0").at(Stage::CgroupEnter, "entering the cgroup node")?;
    }
    if let Ids::Service { base } = plans.ids {
        become_service(base).at(Stage::Privileges, "becoming the service id")?;
    }
    unshare_namespaces(NAMESPACES).at(Stage::Namespaces, "unshare").map_err(|failure| Failure {
        code: Code::HostUnfit,
        ..failure.with_remedy("see mayfly doctor: user namespaces may be switched off or all in use")
    })?;
    say(talk, UNSHARED, &[]).at(Stage::IdMap, "asking for the id map")?;
    let mut answer = [0; 1];
    recv(talk, &mut answer, RecvFlags::empty()).at(Stage::IdMap, "waiting for the id map")?;
    if answer[0] != MAPPED {
        // The launcher closed the socket: it knows why.
        exit_now(1);
    }
    set_thread_groups(&[]).at(Stage::Privileges, "dropping the supplementary groups")?;
    // The first child of a process that unshared its pid namespace is PID 1 of it.
    let Some(sandboxd) = fork().at(Stage::Fork, "fork of PID 1")? else {
        return first_process(plans);
    };
    let pid = u32::try_from(sandboxd.as_raw_nonzero().get()).unwrap_or(0);
    say(talk, BORN, &pid.to_ne_bytes()).at(Stage::Fork, "naming sandboxd")?;
    exit_now(0)
}

/// The service id must own M, or the worker, which runs as it, would have no power over M; but it keeps CAP_SYS_ADMIN
/// until M is made, for the hosts that allow no user namespaces to others.
pub fn become_service(base: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(base), Gid::from_raw(base));
    set_thread_groups(&[])?;
    set_keep_capabilities(true)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    let permitted = capabilities(None)?.permitted & CapabilitySet::SYS_ADMIN;
    set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() })?;
    Ok(())
}

/// Root of M and PID 1 in there, with nothing on the host.
fn first_process(plans: Plans) -> Result<Never, Failure> {
    debug_assert_eq!(getpid().as_raw_nonzero().get(), 1);
    // Or a Ctrl-C meant for the worker would reach sandboxd too.
    rustix::process::setsid().at(Stage::Exec, "setsid")?;
    rooms::enter(plans.layers)?;
    cloexec_from(3).at(Stage::Exec, "close_range")?;
    let handed = plans.inherited.iter().map(AsFd::as_fd);
    for fd in handed.chain(plans.groups.handover.hierarchies()) {
        fcntl_setfd(fd, FdFlags::empty()).at(Stage::Exec, format!("keeping descriptor {}", fd.as_raw_fd()))?;
    }
    reset_signals();
    let error = exec_descriptor(plans.sandboxd.as_fd(), &plans.argv);
    Err(Failure::setup(Stage::Exec, &error, "exec of sandboxd").with_remedy("build it again: npm run setup"))
}

/// A child's report is printed as it is: it was made by this same program.
fn reported(report: &[u8]) -> Failure {
    let value: serde_json::Value = serde_json::from_slice(report).unwrap_or_default();
    Failure::from_json(&value).unwrap_or_else(|| Failure {
        code: Code::SetupFailed,
        stage: Stage::Fork,
        errno: 0,
        message: "the child said something strange".to_owned(),
        remedy: String::new(),
    })
}
