//! Starting the function's program: what it holds, what it may use, and the filter, last.
//!
//! The child is vforked with our descriptor table shared. So it costs no copied page tables, the listener it makes for
//! its filter is ours too, and whether exec worked is known when the spawn returns, without a pipe.

use std::ffi::{CStr, CString, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Resource, Rlimit};

use super::{FIRST_OWN_FD, move_up};
use crate::ablate::Layer;
use crate::packet;
use crate::protocol::{Contract, Spec};
use crate::seccomp;
use crate::stage::{At, SetupError, Stage};
use crate::sys;

/// A started program.
#[derive(Debug)]
pub struct Function {
    pub pid: Pid,
    /// Where the kernel names the program's forbidden calls.
    pub listener: Option<OwnedFd>,
}

impl Function {
    /// Once sandboxd holds the listener, a copy here would keep it open after sandboxd's death.
    pub fn without_listener(self) -> Self {
        Self { pid: self.pid, listener: None }
    }
}

/// Both sides of what a program reads and writes.
#[derive(Debug)]
pub struct Channels {
    /// The program's 0, 1, 2 and, for `link`, 3.
    function_ends: Vec<OwnedFd>,
    /// The worker's: link socket and log pipe, or stdin, stdout and log pipe.
    worker_ends: Vec<OwnedFd>,
}

impl Channels {
    /// Made by the slot's uid: pipes made by M-root would all count against M-root's share, and /dev/stdout would be
    /// EACCES.
    ///
    /// # Errors
    /// pipe2(2), socketpair(2), open(2).
    pub fn make(contract: Contract) -> io::Result<Self> {
        let (log_read, log_write) = pipe()?;
        match contract {
            Contract::Link => {
                let (ours, theirs) = packet::pair()?;
                let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                let log_too = move_up(log_write.try_clone()?)?;
                let function_ends = vec![move_up(null)?, log_write, log_too, move_up(theirs)?];
                Ok(Self { function_ends, worker_ends: vec![move_up(ours)?, log_read] })
            }
            Contract::Stdio => {
                let (stdin_read, stdin_write) = pipe()?;
                let (stdout_read, stdout_write) = pipe()?;
                let function_ends = vec![stdin_read, stdout_write, log_write];
                Ok(Self { function_ends, worker_ends: vec![stdin_write, stdout_read, log_read] })
            }
        }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((move_up(read)?, move_up(write)?))
}

/// Starts the program with `channels`; returns it and the worker's ends.
///
/// # Errors
/// The stage that failed in the child, exec among them.
pub fn start(spec: &Spec, channels: Channels) -> Result<(Function, Vec<OwnedFd>), SetupError> {
    let mut child = Child::prepare(spec).at(Stage::Exec)?;
    let descriptors = u32::try_from(channels.function_ends.len()).expect("three or four");
    for (number, end) in (0..).zip(&channels.function_ends) {
        sys::process::duplicate_onto(end.as_fd(), number).at(Stage::Channels)?;
    }
    if spec.ablation.keeps(Layer::CloseFds) {
        sys::process::cloexec_from(descriptors).at(Stage::Channels)?;
    } else {
        // What a forgotten flag would leave open.
        sys::process::duplicate_onto(channels.function_ends[0].as_fd(), FIRST_OWN_FD - 1).at(Stage::Channels)?;
    }
    let spawned = sys::process::spawn_sharing(enter_program, &mut child).at(Stage::Exec);
    // The table is shared until the child's exec, so only now may our copies of its ends go.
    let _ = sys::process::close_range(0, descriptors - 1);
    let pid = spawned?;
    if let Some((stage, errno)) = child.failure {
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        return Err(SetupError { stage, source: io::Error::from_raw_os_error(errno) });
    }
    let listener = child.listener.map(sys::process::adopt).transpose().at(Stage::Seccomp)?;
    Ok((Function { pid, listener: listener.map(move_up).transpose().at(Stage::Seccomp)? }, channels.worker_ends))
}

/// All that the child reads, made before the spawn because it must not allocate, and what it reports.
struct Child<'a> {
    spec: &'a Spec,
    program: CString,
    cwd: CString,
    argv: sys::process::PointerList,
    env: sys::process::PointerList,
    filter: seccomp::Program,
    listener: Option<RawFd>,
    failure: Option<(Stage, i32)>,
}

impl<'a> Child<'a> {
    fn prepare(spec: &'a Spec) -> io::Result<Self> {
        let strings = |list: &[Vec<u8>]| -> io::Result<_> {
            let owned = list.iter().map(|bytes| CString::new(bytes.clone())).collect::<Result<Vec<_>, _>>()?;
            Ok(sys::process::PointerList::new(owned))
        };
        let program = spec.argv.first().ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        Ok(Self {
            spec,
            program: CString::new(program.clone())?,
            cwd: CString::new(spec.cwd.clone())?,
            argv: strings(&spec.argv)?,
            env: strings(&spec.env)?,
            filter: seccomp::Program::from_bytes(&spec.filter)
                .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?,
            listener: None,
            failure: None,
        })
    }

    /// In the child, in the parent's memory: no allocation, no drop of anything of the parent's.
    fn enter(&mut self) -> Result<(), (Stage, io::Error)> {
        let spec = self.spec;
        sys::process::set_signal_mask(&[]);
        // A group of its own, so that what it sends to its group stays with it. Not a session: that costs every sandbox an
        // autogroup of the scheduler's, and sandboxd's session has no terminal.
        rustix::process::setpgid(None, None).map_err(|error| (Stage::Exec, error.into()))?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        if spec.ablation.keeps(Layer::Rlimits) {
            for (resource, limit) in rlimits(spec) {
                let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
                rustix::process::setrlimit(resource, limit).map_err(|error| (Stage::Rlimits, error.into()))?;
            }
        }
        enter_cwd(&self.cwd).map_err(|error| (Stage::Cwd, error))?;
        if spec.ablation.keeps(Layer::Seccomp) {
            let listener =
                sys::seccomp::install(self.filter.instructions(), true).map_err(|error| (Stage::Seccomp, error))?;
            // The number and not the owner: the table is shared, and the parent adopts it.
            self.listener = listener.map(std::os::fd::IntoRawFd::into_raw_fd);
        }
        Err((Stage::Exec, sys::process::execve(&self.program, &self.argv, &self.env)))
    }
}

extern "C" fn enter_program(argument: *mut c_void) -> c_int {
    let child = sys::process::argument_of::<Child<'_>>(argument);
    if let Err((stage, error)) = child.enter() {
        child.failure = Some((stage, error.raw_os_error().unwrap_or(libc::EIO)));
    }
    sys::process::exit_now(127)
}

/// CVE-2024-21626 was a working directory outside the root: getcwd then gives a path that does not start with `/`.
fn enter_cwd(cwd: &CStr) -> io::Result<()> {
    rustix::process::chdir(cwd)?;
    let mut buffer = [0u8; 4096];
    if sys::process::getcwd(&mut buffer)?.first() == Some(&b'/') {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EXDEV))
    }
}

/// A core limit of 1 and not 0: a piped core_pattern ignores 0 and gives up at 1, and no file is that small
/// (fs/coredump.c). The file size is a page more than can be written, so that a program which fills its space sees
/// ENOSPC and not SIGXFSZ. The rest are the kernel's per-uid counters.
fn rlimits(spec: &Spec) -> [(Resource, u64); 6] {
    [
        (Resource::Core, 1),
        (Resource::Nofile, spec.open_files),
        (Resource::Fsize, spec.tmp_bytes + 4096),
        (Resource::Memlock, 64 * 1024),
        (Resource::Sigpending, 256),
        (Resource::Msgqueue, 0),
    ]
}

/// The highest number a program is given, and the lowest of ours, must not meet.
const _: () = assert!(FIRST_OWN_FD > 3);
