//! From a fresh clone of sandboxd to a parked function: the builder, which becomes the sandbox's init.
//!
//! The process that `build_and_serve` runs in is PID 1 of a new pid namespace and, for now, root of M, the
//! intermediate user namespace. Each step takes something away; after the last it holds a pipe, two sockets and no
//! privilege. It never returns into sandboxd's code: it ends by `_exit`, or by SIGKILL from sandboxd.

mod identity;
mod init;
mod rootfs;
mod spawn;
pub mod userns;
mod writable;

pub use rootfs::Bare;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::RecvFlags;

use crate::ablate::{Ablation, Layer};
use crate::packet;
use crate::protocol::{Contract, FromInit, Order, Spec, Start, Streams, ToInit};
use crate::stage::{At, SetupError, Stage};
use crate::sys;

/// M's id of the owner of every image's files, which every sandbox sees as root and no sandbox's process ever is.
pub const IMAGE_OWNER_ID: u32 = 1;
/// All that is in a /dev of ours.
pub const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// M's first id of a function. There are as many as slots, and one more, which is the next one's.
pub const FIRST_ID: u32 = 1000;

/// The descriptors of one sandbox, as sandboxd sends them.
#[derive(Debug)]
pub struct Plan {
    control: OwnedFd,
    spec: OwnedFd,
    /// `tasks` of the leaves to move into; none on pure v2, where clone3 placed us.
    attach: Vec<OwnedFd>,
    cgroup: Option<OwnedFd>,
    id: u32,
}

impl Plan {
    /// # Errors
    /// EBADMSG when they are not as many as ordered.
    pub fn new(order: &Order, descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let bad_message = || io::Error::from_raw_os_error(libc::EBADMSG);
        let mut next = descriptors.into_iter();
        let (Some(control), Some(spec)) = (next.next(), next.next()) else { return Err(bad_message()) };
        let attach: Vec<_> = next.by_ref().take(order.attach_count).collect();
        let cgroup = if order.has_cgroup { next.next() } else { None };
        let is_whole = attach.len() == order.attach_count && cgroup.is_some() == order.has_cgroup;
        if !is_whole || next.next().is_some() {
            return Err(bad_message());
        }
        Ok(Self { control, spec, attach, cgroup, id: order.id })
    }

    pub fn cgroup(&self) -> Option<BorrowedFd<'_>> {
        self.cgroup.as_ref().map(AsFd::as_fd)
    }
}

/// What every sandbox finds where it is born.
#[derive(Debug)]
pub struct Nest {
    pub originals: Originals,
    pub time_offsets: TimeOffsets,
    /// Nothing can be switched off: all that can be is made ahead. In a test's house a sandbox makes its own time
    /// namespace (nobody comes back from one to M's, which is the host's) and its own mounts.
    pub is_whole: bool,
    /// Below Linux 6.6 tmpfs has no user xattrs, so what the function may write is copied instead (writable.rs).
    pub copies_writable: bool,
}

/// What is made for one sandbox before anybody asks for it, besides the namespaces it is born into.
#[derive(Debug)]
pub struct Ahead {
    /// None where tests may want it otherwise.
    pub bare: Option<Bare>,
    /// The same; and it is of no use to a function that is not the usual one.
    pub user: Option<UserNamespace>,
    /// What all of it took.
    pub ns: u32,
}

/// With its maps, and without room for a nested one.
#[derive(Debug)]
pub struct UserNamespace {
    /// M's id of the function.
    pub id: u32,
    pub namespace: OwnedFd,
}

/// M's own namespaces, where a sandbox goes back to when a test switches that layer off.
#[derive(Debug, Default)]
pub struct Originals {
    namespaces: Vec<(Layer, libc::c_int, OwnedFd)>,
}

impl Originals {
    /// Those of the calling process.
    ///
    /// # Errors
    /// open(2).
    pub fn open() -> io::Result<Self> {
        let kinds = [
            (Layer::NetNs, libc::CLONE_NEWNET, "net"),
            (Layer::IpcNs, libc::CLONE_NEWIPC, "ipc"),
            (Layer::UtsNs, libc::CLONE_NEWUTS, "uts"),
        ];
        let open = |(layer, kind, name)| -> io::Result<_> {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            Ok((layer, kind, rustix::fs::open(format!("/proc/self/ns/{name}"), flags, Mode::empty())?))
        };
        Ok(Self { namespaces: kinds.into_iter().map(open).collect::<io::Result<_>>()? })
    }

    /// Closes them, too.
    fn enter_ablated(self, ablation: Ablation) -> io::Result<()> {
        let mut ablated = self.namespaces.iter().filter(|(layer, ..)| !ablation.keeps(*layer));
        ablated.try_for_each(|(_, kind, namespace)| sys::process::setns(namespace.as_fd(), *kind))
    }
}

/// The shift of a sandbox's clocks against the host's, which hides the host's uptime.
#[derive(Debug)]
pub struct TimeOffsets {
    file_content: String,
}

impl TimeOffsets {
    /// The clocks start near zero now: whole seconds, so that both start together.
    pub fn since_boot() -> Self {
        use rustix::time::{ClockId, clock_gettime};
        let monotonic = clock_gettime(ClockId::Monotonic).tv_sec;
        let boottime = clock_gettime(ClockId::Boottime).tv_sec;
        Self { file_content: format!("monotonic -{monotonic} 0\nboottime -{boottime} 0\n") }
    }

    /// For the children of the calling process, which has unshared its time namespace: clone3 with NEWTIME would freeze
    /// the offsets at nothing.
    ///
    /// # Errors
    /// open(2), write(2); EACCES once a process is in the namespace.
    pub fn write(&self) -> io::Result<()> {
        write_file(c"/proc/self/timens_offsets", self.file_content.as_bytes())
    }
}

/// Builds the sandbox around this process and then is its init. Never returns.
pub fn build_and_serve(plan: Plan, nest: Nest, ahead: Ahead) -> ! {
    let code = match keep_only(&plan, &nest, &ahead) {
        Ok(control) => match build(plan, &control, nest, ahead) {
            Ok(built) => init::serve(built, control),
            Err(error) => {
                let errno = error.source.raw_os_error().unwrap_or(libc::EIO);
                // If even this cannot be sent, sandboxd is gone and so will we be.
                let _ = packet::send(&control, &FromInit::Failed { stage: error.stage, errno }, &[], None);
                1
            }
        },
        // sandboxd sees the socket close, and our death.
        Err(_) => 1,
    };
    sys::process::exit_now(code)
}

/// What init holds once the building is done.
struct Built {
    spec: Spec,
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
        self.stage_ns[stage as usize] = crate::board::short_ns(now.saturating_sub(self.last_ns));
        self.last_ns = now;
    }
}

/// The order of operations; PITFALLS of each step stand beside it.
fn build(plan: Plan, control: &OwnedFd, nest: Nest, ahead: Ahead) -> Result<Built, SetupError> {
    let mut watch = Stopwatch::start();
    watch.stage_ns[Stage::Ahead as usize] = ahead.ns;
    // For whoever looks at the host's processes: every sandbox's init is a fork of the nursery.
    rustix::thread::set_name(c"mayfly-init").at(Stage::Spec)?;
    let spec = read_spec(plan.spec.as_fd()).at(Stage::Spec)?;
    watch.lap(Stage::Spec);

    // While we are M-root: after the switch to the slot's uid the kernel refuses a v1 attach. Before the cgroup
    // namespace: it is rooted where we are when it is made.
    for tasks in &plan.attach {
        write_all(tasks.as_fd(), b"0").at(Stage::CgroupAttach)?;
    }
    // The OOM killer must prefer a function to anything of the host. Lowering it again needs a capability.
    write_file(c"/proc/self/oom_score_adj", b"500").at(Stage::CgroupAttach)?;
    watch.lap(Stage::CgroupAttach);

    sys::process::unshare_namespaces(namespaces(spec.ablation)).at(Stage::Namespaces)?;
    nest.originals.enter_ablated(spec.ablation).at(Stage::Namespaces)?;
    watch.lap(Stage::Namespaces);
    if !nest.is_whole && spec.ablation.keeps(Layer::TimeNs) {
        enter_time_namespace(&nest.time_offsets).at(Stage::TimeNamespace)?;
        watch = Stopwatch { last_ns: crate::board::now_ns(), ..watch };
    }
    if spec.ablation.keeps(Layer::UtsNs) {
        rustix::system::sethostname(&spec.hostname).at(Stage::Hostname)?;
    }
    watch.lap(Stage::Hostname);

    let is_usual = (spec.uid, spec.gid) == (userns::USUAL_ID, userns::USUAL_ID);
    let user = ahead.user.filter(|user| is_usual && user.id == plan.id);
    // Opened before the root changes: the sandbox's own /proc has no sys.
    let sysctls = rustix::fs::open("/proc/sys/user", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .at(Stage::NestedNamespaces)?;
    if spec.ablation.keeps(Layer::MountNs) {
        let bare = ahead.bare.map_or_else(|| Bare::make(spec.ablation), Ok)?;
        rootfs::enter(&spec, bare, nest.copies_writable, &mut |stage| watch.lap(stage))?;
    }
    if let Some(user) = user {
        identity::join_user_namespace(user.namespace, &mut |stage| watch.lap(stage))?;
    } else {
        identity::make_user_namespace(&spec, control.as_fd(), sysctls.as_fd(), &mut |stage| watch.lap(stage))?;
    }
    drop(sysctls);
    identity::drop_privileges(&spec, plan.id, &mut |stage| watch.lap(stage))?;

    finish(spec, control, watch)
}

/// Makes the channels, as the slot's uid so that they count as its own, starts the program if it is to wait in the
/// sandbox, and tells sandboxd.
fn finish(spec: Spec, control: &OwnedFd, mut watch: Stopwatch) -> Result<Built, SetupError> {
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
    packet::send(control, &message, &descriptors, None).at(Stage::Park)?;
    let function = function.map(spawn::Function::without_listener);
    Ok(Built { spec, call, function })
}

/// Those that are not made ahead: they depend on where the process is.
const fn namespaces(ablation: Ablation) -> i32 {
    let mut flags = 0;
    let pairs = [(Layer::MountNs, libc::CLONE_NEWNS), (Layer::CgroupNs, libc::CLONE_NEWCGROUP)];
    let mut i = 0;
    while i < pairs.len() {
        if ablation.keeps(pairs[i].0) {
            flags |= pairs[i].1;
        }
        i += 1;
    }
    flags
}

/// Closes every descriptor of the nursery's, and moves the control socket above those that the function will have.
fn keep_only(plan: &Plan, nest: &Nest, ahead: &Ahead) -> io::Result<OwnedFd> {
    let own = [&plan.control, &plan.spec].into_iter().chain(&plan.attach);
    let all = own
        .chain(nest.originals.namespaces.iter().map(|(.., namespace)| namespace))
        .chain(ahead.bare.iter().flat_map(Bare::descriptors))
        .chain(ahead.user.iter().map(|user| &user.namespace));
    let numbers = all.map(|fd| fd.as_raw_fd().unsigned_abs());
    sys::process::close_all_but(numbers.chain([0, 1, 2]).collect())?;
    move_up(plan.control.try_clone()?)
}

/// Our own descriptors live from here on, above every one that a function is given.
pub const FIRST_OWN_FD: i32 = 10;

/// # Errors
/// fcntl(2).
pub fn move_up(fd: OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, FIRST_OWN_FD)?)
}

fn read_spec(memfd: BorrowedFd<'_>) -> io::Result<Spec> {
    let size = usize::try_from(rustix::fs::fstat(memfd)?.st_size).unwrap_or(0);
    let mut bytes = vec![0; size];
    let read = rustix::io::pread(memfd, &mut bytes, 0)?;
    postcard::from_bytes(&bytes[..read]).map_err(|_| io::Error::from_raw_os_error(libc::EBADMSG))
}

fn enter_time_namespace(offsets: &TimeOffsets) -> io::Result<()> {
    sys::process::unshare_namespaces(libc::CLONE_NEWTIME)?;
    offsets.write()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open("/proc/self/ns/time_for_children", flags, Mode::empty())?;
    sys::process::setns(namespace.as_fd(), libc::CLONE_NEWTIME)
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
