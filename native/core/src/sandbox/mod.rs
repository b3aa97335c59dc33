//! From a fresh clone of sandboxd to a parked function: the builder, which becomes the sandbox's init.
//!
//! The process that `build_and_serve` runs in is PID 1 of a new pid namespace and, for now, root of M, the
//! intermediate user namespace. Each step takes something away; after the last it holds a pipe, two sockets and no
//! privilege. It never returns into sandboxd's code: it ends by `_exit`, or by SIGKILL from sandboxd.

mod identity;
mod init;
mod rootfs;
mod spawn;
mod writable;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::RecvFlags;

use crate::ablate::{Ablation, Layer};
use crate::packet;
use crate::protocol::{Contract, FromInit, Spec, Start, Streams, ToInit};
use crate::stage::{At, SetupError, Stage};
use crate::sys;

/// M's id of the owner of every image's files, which every sandbox sees as root and no sandbox's process ever is.
pub const IMAGE_OWNER_ID: u32 = 1;
/// M's id of slot 0's function.
pub const FIRST_SLOT_ID: u32 = 1000;

/// What sandboxd knows about the sandbox it is cloned for.
#[derive(Debug)]
pub struct Plan<'a> {
    pub control: BorrowedFd<'a>,
    pub spec: BorrowedFd<'a>,
    /// `tasks` of the leaves to move into; none on pure v2, where clone3 placed us.
    pub attach: Vec<BorrowedFd<'a>>,
    /// What is written to timens_offsets; one value for all sandboxes of a worker.
    pub time_offsets: &'a TimeOffsets,
    /// Below Linux 6.6 tmpfs has no user xattrs, so what the function may write is copied instead (writable.rs).
    pub copies_writable: bool,
    /// M's id of the slot, which the function runs as.
    pub slot_id: u32,
}

/// The shift of a sandbox's clocks against the host's, which hides the host's uptime.
#[derive(Debug)]
pub struct TimeOffsets {
    pub file_content: String,
    pub monotonic_ns: i128,
}

impl TimeOffsets {
    /// The clocks start near zero now: whole seconds, so that both start together.
    pub fn since_boot() -> Self {
        use rustix::time::{ClockId, clock_gettime};
        let monotonic = clock_gettime(ClockId::Monotonic).tv_sec;
        let boottime = clock_gettime(ClockId::Boottime).tv_sec;
        Self {
            file_content: format!("monotonic -{monotonic} 0\nboottime -{boottime} 0\n"),
            monotonic_ns: -i128::from(monotonic) * 1_000_000_000,
        }
    }
}

/// Builds the sandbox around this process and then is its init. Never returns.
pub fn build_and_serve(plan: &Plan<'_>) -> ! {
    let code = match build(plan) {
        Ok(built) => init::serve(built),
        Err(error) => {
            let errno = error.source.raw_os_error().unwrap_or(libc::EIO);
            // If even this cannot be sent, sandboxd is gone and so will we be.
            let _ = packet::send(plan.control, &FromInit::Failed { stage: error.stage, errno }, &[], None);
            1
        }
    };
    sys::process::exit_now(code)
}

/// What init holds once the building is done.
struct Built {
    spec: Spec,
    control: OwnedFd,
    /// Our end of the channel to the worker.
    call: OwnedFd,
    function: Option<spawn::Function>,
}

/// Times of the stages, in nanoseconds.
struct Stopwatch {
    last_ns: u64,
    stage_ns: Vec<u32>,
}

impl Stopwatch {
    fn start() -> Self {
        Self { last_ns: crate::board::now_ns(), stage_ns: vec![0; Stage::COUNT] }
    }

    fn lap(&mut self, stage: Stage) {
        let now = crate::board::now_ns();
        self.stage_ns[stage as usize] = u32::try_from(now.saturating_sub(self.last_ns)).unwrap_or(u32::MAX);
        self.last_ns = now;
    }

    /// CLOCK_MONOTONIC jumps by the offset when this process enters its time namespace.
    fn shift(&mut self, offset_ns: i128) {
        self.last_ns = u64::try_from(i128::from(self.last_ns) + offset_ns).unwrap_or(0);
    }
}

/// The order of operations; PITFALLS of each step stand beside it.
fn build(plan: &Plan<'_>) -> Result<Built, SetupError> {
    let mut watch = Stopwatch::start();
    // For whoever looks at the host's processes: every sandbox's init is a fork of sandboxd.
    rustix::thread::set_name(c"mayfly-init").at(Stage::Spec)?;
    let control = keep_only(plan).at(Stage::Spec)?;
    let spec = read_spec(plan.spec).at(Stage::Spec)?;
    watch.lap(Stage::Spec);

    // While we are M-root: after the switch to the slot's uid the kernel refuses a v1 attach. Before the cgroup
    // namespace: it is rooted where we are when it is made.
    for procs in &plan.attach {
        write_all(*procs, b"0").at(Stage::CgroupAttach)?;
    }
    // The OOM killer must prefer a function to anything of the host. Lowering it again needs a capability.
    write_file(c"/proc/self/oom_score_adj", b"500").at(Stage::CgroupAttach)?;
    watch.lap(Stage::CgroupAttach);

    sys::process::unshare_namespaces(namespaces(spec.ablation)).at(Stage::Namespaces)?;
    watch.lap(Stage::Namespaces);
    if spec.ablation.keeps(Layer::TimeNs) {
        enter_time_namespace(plan.time_offsets).at(Stage::TimeNamespace)?;
        watch.shift(plan.time_offsets.monotonic_ns);
    }
    watch.lap(Stage::TimeNamespace);
    if spec.ablation.keeps(Layer::NetNs) {
        loopback_up().at(Stage::Loopback)?;
    }
    watch.lap(Stage::Loopback);
    if spec.ablation.keeps(Layer::UtsNs) {
        rustix::system::sethostname(&spec.hostname).at(Stage::Hostname)?;
    }
    watch.lap(Stage::Hostname);

    // Opened before the root changes: the sandbox's own /proc has no sys.
    let sysctls = rustix::fs::open("/proc/sys/user", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .at(Stage::NestedNamespaces)?;
    if spec.ablation.keeps(Layer::MountNs) {
        rootfs::enter(&spec, plan.copies_writable, &mut |stage| watch.lap(stage))?;
    }
    identity::enter_user_namespace(&spec, control.as_fd(), &mut |stage| watch.lap(stage))?;
    identity::drop_privileges(&spec, plan.slot_id, sysctls.as_fd(), &mut |stage| watch.lap(stage))?;
    drop(sysctls);

    finish(spec, control, watch)
}

/// Makes the channels, as the slot's uid so that they count as its own, starts the program if it is to wait in the
/// sandbox, and tells sandboxd.
fn finish(spec: Spec, control: OwnedFd, mut watch: Stopwatch) -> Result<Built, SetupError> {
    let (call, worker_call) = packet::pair().at(Stage::Channels)?;
    let call = move_up(call).at(Stage::Channels)?;
    let streams = match (spec.start, spec.contract) {
        (Start::Lazy, _) => Streams::Lazy,
        (Start::Eager, Contract::Link) => Streams::Link,
        (Start::Eager, Contract::Stdio) => Streams::Stdio,
    };
    watch.lap(Stage::Channels);
    let (function, worker_ends) = match spec.start {
        Start::Lazy => (None, Vec::new()),
        Start::Eager => {
            let channels = spawn::Channels::make(spec.contract).at(Stage::Channels)?;
            let (function, ends) = spawn::start(&spec, channels)?;
            (Some(function), ends)
        }
    };
    watch.lap(Stage::Exec);

    let listener = function.as_ref().and_then(|function| function.listener.as_ref());
    let mut descriptors = vec![worker_call.as_fd()];
    descriptors.extend(worker_ends.iter().map(AsFd::as_fd));
    descriptors.extend(listener.map(AsFd::as_fd));
    let has_listener = listener.is_some();
    let message = FromInit::Built { streams, contract: spec.contract, has_listener, stage_ns: watch.stage_ns };
    packet::send(&control, &message, &descriptors, None).at(Stage::Park)?;
    let function = function.map(spawn::Function::without_listener);
    Ok(Built { spec, control, call, function })
}

const fn namespaces(ablation: Ablation) -> i32 {
    let mut flags = 0;
    let pairs = [
        (Layer::MountNs, libc::CLONE_NEWNS),
        (Layer::NetNs, libc::CLONE_NEWNET),
        (Layer::IpcNs, libc::CLONE_NEWIPC),
        (Layer::UtsNs, libc::CLONE_NEWUTS),
        (Layer::CgroupNs, libc::CLONE_NEWCGROUP),
        (Layer::TimeNs, libc::CLONE_NEWTIME),
    ];
    let mut i = 0;
    while i < pairs.len() {
        if ablation.keeps(pairs[i].0) {
            flags |= pairs[i].1;
        }
        i += 1;
    }
    flags
}

/// Closes every descriptor inherited from sandboxd but the plan's, and moves the control socket above those that the
/// function will have.
fn keep_only(plan: &Plan<'_>) -> io::Result<OwnedFd> {
    let needed = [plan.control, plan.spec].into_iter().chain(plan.attach.iter().copied());
    sys::process::close_all_but(needed.map(|fd| fd.as_raw_fd().unsigned_abs()).chain([0, 1, 2]).collect())?;
    Ok(rustix::io::fcntl_dupfd_cloexec(plan.control, FIRST_OWN_FD)?)
}

/// Our own descriptors live from here on, above every one that a function is given.
const FIRST_OWN_FD: i32 = 10;

fn move_up(fd: OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, FIRST_OWN_FD)?)
}

fn read_spec(memfd: BorrowedFd<'_>) -> io::Result<Spec> {
    let size = usize::try_from(rustix::fs::fstat(memfd)?.st_size).unwrap_or(0);
    let mut bytes = vec![0; size];
    let read = rustix::io::pread(memfd, &mut bytes, 0)?;
    postcard::from_bytes(&bytes[..read]).map_err(|_| io::Error::from_raw_os_error(libc::EBADMSG))
}

/// clone3 with NEWTIME would freeze the offsets at nothing; so unshare, write, and only then enter.
fn enter_time_namespace(offsets: &TimeOffsets) -> io::Result<()> {
    write_file(c"/proc/self/timens_offsets", offsets.file_content.as_bytes())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open("/proc/self/ns/time_for_children", flags, Mode::empty())?;
    sys::process::setns(namespace.as_fd(), libc::CLONE_NEWTIME)
}

fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sys::process::loopback_up(socket.as_fd())
}

fn write_file(path: &std::ffi::CStr, content: &[u8]) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write_all(file.as_fd(), content)
}

/// Kernel files take a value in one write or not at all.
fn write_all(file: BorrowedFd<'_>, content: &[u8]) -> io::Result<()> {
    if rustix::io::write(file, content)? == content.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Tells sandboxd that the maps are wanted and waits until they are written.
fn await_maps(control: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    packet::send(control, &FromInit::NeedMap { uid, gid }, &[], None)?;
    match packet::receive::<ToInit>(control, RecvFlags::empty())? {
        Some(packet::Received { message: ToInit::Mapped, .. }) => Ok(()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
