//! The N-API edge: what native/index.ts sees of the pool. Nothing else in the workspace knows JavaScript.
//!
//! The lease and its answer are one call each way on the JavaScript thread, and so is each step of a sandbox's life.
//! Everything less frequent crosses as one line of JSON.

mod affinity;
mod answers;
mod deliver;
mod events;
mod pool;
mod slot;
mod uv;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::rc::Rc;

use mayfly_core::ablate::Ablation;
use mayfly_core::cgroup::CallLimits;
use mayfly_core::protocol::{Contract, Spec, Start};
use mayfly_core::seccomp;
use mayfly_core::stage::Stage;
use napi::bindgen_prelude::{Env, Function, Uint8Array};
use napi_derive::napi;

use crate::deliver::{Deliver, Next};
use crate::pool::{Happening, Pool, Wanted};

type Result<T> = napi::Result<T>;

/// What a call needs beyond what its parked sandbox already holds. Guess; a call that needs more ends out_of_memory.
const HEADROOM_BYTES: u64 = 1024 * 1024;

/// Our errors carry the system's number in their message; native/index.ts makes PlatformErrors of them.
fn failure(what: &str, error: &io::Error) -> napi::Error {
    napi::Error::from_reason(format!("{what}: {error}"))
}

/// A socket pair for sandboxd: the number of its end, inheritable until `close_fd`, and ours.
#[derive(Debug)]
#[napi(object)]
pub struct Pair {
    pub ours: i32,
    pub theirs: i32,
}

#[napi]
pub fn socket_pair() -> Result<Pair> {
    let (ours, theirs) = mayfly_core::packet::pair().map_err(|error| failure("socketpair", &error))?;
    Ok(Pair { ours: ours.into_raw_fd(), theirs: theirs.into_raw_fd() })
}

/// The seccomp program of a profile in JSON.
#[napi]
pub fn compile_profile(json: String) -> Result<Uint8Array> {
    let profile = seccomp::Profile::parse(&json).map_err(|error| napi::Error::from_reason(error.to_string()))?;
    let program = seccomp::compile(&profile).map_err(|error| napi::Error::from_reason(error.to_string()))?;
    Ok(program.to_bytes().into())
}

#[napi]
pub fn syscall_name(number: u32) -> String {
    seccomp::syscall_name(number).map_or_else(|| format!("syscall_{number}"), str::to_owned)
}

/// What a function is, for both the sandbox and the hot path.
#[derive(Debug)]
#[napi(object)]
pub struct Definition {
    pub contract: String,
    pub start: String,
    pub is_reusable: bool,
    pub argv: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub hostname: String,
    pub uid: u32,
    pub gid: u32,
    pub layers: Vec<String>,
    pub tmp_bytes: f64,
    pub tmp_files: u32,
    pub open_files: u32,
    pub log_bytes: u32,
    pub ablate: Vec<String>,
    pub limits: Limits,
}

#[derive(Debug)]
#[napi(object)]
pub struct Limits {
    pub cpu_quota_us: u32,
    pub cpu_weight: u32,
    pub memory_bytes: f64,
    pub pids: u32,
    pub wall_ms: u32,
    pub cpu_ms: u32,
    pub output_bytes: u32,
}

impl Limits {
    fn wanted(&self) -> Wanted {
        Wanted {
            limits: CallLimits {
                cpu_quota_us: self.cpu_quota_us,
                cpu_weight: self.cpu_weight,
                memory_bytes: whole(self.memory_bytes),
                pids: self.pids,
            },
            wall_ms: self.wall_ms,
            cpu_ms: self.cpu_ms,
            output_bytes: self.output_bytes,
        }
    }
}

/// A JavaScript number that is a count; contract/limits.ts bounds it far below 2^53.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    assert!((0.0..9.0e15).contains(&number), "a count, not {number}");
    number as u64
}

/// The worker's side of one sandboxd.
#[napi]
#[derive(Debug)]
pub struct Core {
    /// None once it is closed: every descriptor goes then, and not when the garbage collector comes by.
    pool: Rc<RefCell<Option<Pool>>>,
    poll: Option<uv::Poll>,
}

#[napi]
impl Core {
    /// `fd` is our end of the pair, given up to this object. `on_done` and `on_slot` have deliver.rs's
    /// arguments, `on_event` one line of JSON.
    #[napi(constructor)]
    pub fn new(
        env: Env,
        fd: i32,
        slots: u32,
        on_done: Function<'_>,
        on_slot: Function<'_>,
        on_event: Function<'_>,
    ) -> Result<Self> {
        let control = mayfly_core::sys::process::adopt(fd).map_err(|error| failure("control socket", &error))?;
        let pool = Pool::new(control, slots).map_err(|error| failure("pool", &error))?;
        let deliver = Deliver::new(&env, on_done, on_slot, on_event)?;
        let epoll = pool.watch.as_fd().try_clone_to_owned().map_err(|error| failure("epoll", &error))?;
        let pool = Rc::new(RefCell::new(Some(pool)));
        let polled = Rc::clone(&pool);
        let on_readable = move || {
            let happenings = polled.borrow_mut().as_mut().map(Pool::drain).unwrap_or_default();
            // No borrow is alive here: JavaScript calls back into this pool.
            for happening in happenings {
                let next = match &happening {
                    Happening::Done { slot, .. } => polled.borrow().as_ref().map(|pool| Next::of(pool.state(*slot))),
                    _ => None,
                };
                deliver.happening(happening, next.unwrap_or_default());
            }
        };
        let poll = uv::Poll::start(env.get_uv_event_loop()?, epoll, Box::new(on_readable))
            .map_err(|errno| failure("uv_poll", &io::Error::from_raw_os_error(-errno)))?;
        Ok(Self { pool, poll: Some(poll) })
    }

    /// Runs `act` on the open pool.
    fn with<T>(&self, act: impl FnOnce(&mut Pool) -> T) -> Result<T> {
        let mut pool = self.pool.borrow_mut();
        pool.as_mut().map(act).ok_or_else(|| napi::Error::from_reason("the pool is closed"))
    }

    #[napi(catch_unwind)]
    pub fn define(&self, id: u32, definition: Definition, filter: &[u8]) -> Result<()> {
        let invalid = |what: &str| napi::Error::from_reason(what.to_owned());
        let ablation =
            Ablation::from_names(definition.ablate.iter().map(String::as_str)).map_err(|why| invalid(&why))?;
        let contract = if definition.contract == "link" { Contract::Link } else { Contract::Stdio };
        let start = if definition.start == "lazy" { Start::Lazy } else { Start::Eager };
        let bytes = |list: &[String]| list.iter().map(|text| text.clone().into_bytes()).collect();
        let spec = Spec {
            contract,
            start,
            argv: bytes(&definition.argv),
            env: bytes(&definition.env),
            cwd: definition.cwd.into_bytes(),
            hostname: definition.hostname.into_bytes(),
            uid: definition.uid,
            gid: definition.gid,
            layers: definition.layers,
            tmp_bytes: whole(definition.tmp_bytes),
            tmp_files: definition.tmp_files.into(),
            open_files: definition.open_files.into(),
            filter: filter.to_vec(),
            ablation,
        };
        let wanted = definition.limits.wanted();
        let function = pool::Function {
            contract,
            is_reusable: definition.is_reusable,
            limits: wanted.limits,
            wanted,
            log_bytes: definition.log_bytes,
        };
        let memfd = sealed_spec(&spec).map_err(|error| failure("spec", &error))?;
        self.with(|pool| pool.define(id, function, memfd, ablation))
    }

    #[napi(catch_unwind)]
    pub fn undefine(&self, id: u32) -> Result<()> {
        self.with(|pool| pool.undefine(id))
    }

    /// Unpacks the layer tar at `path` as `digest`; answered by an event with this token.
    #[napi(catch_unwind)]
    pub fn unpack(&self, token: u32, digest: String, path: String) -> Result<()> {
        let archive = std::fs::File::open(&path).map_err(|error| failure(&path, &error))?;
        self.with(|pool| pool.unpack(token, digest, archive.into()))
    }

    /// Returns the generation. `is_awaited`: a call waits for it.
    #[napi(catch_unwind)]
    pub fn build(&self, slot: u32, function: u32, is_awaited: bool) -> Result<u32> {
        self.with(|pool| {
            pool.build(slot, function, is_awaited);
            pool.generation(slot)
        })
    }

    /// Leases the ready slot to one call and sends it; the function's own limits where `limits` is absent. `is_alone`: no
    /// other call is running, so that it may have this thread's processor. Limits go no lower than what the parked
    /// sandbox holds: v1 would refuse, v2 would kill.
    #[napi(catch_unwind)]
    pub fn call(&self, slot: u32, payload: &[u8], is_alone: bool, limits: Option<Limits>) -> Result<()> {
        self.with(|pool| {
            let wanted = limits.map(|limits| {
                let (memory_bytes, tasks) = pool.held(slot);
                let mut wanted = limits.wanted();
                wanted.limits.memory_bytes = wanted.limits.memory_bytes.max(memory_bytes + HEADROOM_BYTES);
                wanted.limits.pids = wanted.limits.pids.max(u32::try_from(tasks).unwrap_or(u32::MAX));
                wanted
            });
            pool.call(slot, payload, is_alone, wanted)
        })?
        .map_err(|error| failure("call", &error))
    }

    /// How long, in nanoseconds, each stage of the slot's last build and of its last end took, as JSON.
    #[napi(catch_unwind)]
    pub fn stages(&self, slot: u32) -> Result<String> {
        let (build, end) = self.with(|pool| (pool.build_ns[slot as usize].clone(), pool.end_ns[slot as usize]))?;
        let build = Stage::ALL.iter().map(|stage| stage.name()).zip(build).filter(|(_, ns)| *ns > 0);
        let named = |stages: &mut dyn Iterator<Item = (&'static str, u32)>| {
            stages.map(|(name, ns)| (name.to_owned(), ns.into())).collect::<serde_json::Map<_, _>>()
        };
        Ok(serde_json::json!({ "build": named(&mut { build }), "end": named(&mut end.into_iter()) }).to_string())
    }

    #[napi(catch_unwind)]
    pub fn cancel(&self, slot: u32, generation: u32) -> Result<bool> {
        self.with(|pool| pool.cancel(slot, generation))
    }

    /// Destroys the sandboxes whose calls were answered since the last time: when is policy.
    #[napi(catch_unwind)]
    pub fn flush(&self) -> Result<()> {
        self.with(Pool::flush)
    }

    #[napi(catch_unwind)]
    pub fn retire(&self, slot: u32) -> Result<()> {
        self.with(|pool| pool.retire(slot))
    }

    #[napi(catch_unwind)]
    pub fn state(&self, slot: u32) -> Result<String> {
        self.with(|pool| pool.state(slot).name().to_owned())
    }

    /// Lets go of sandboxd, which ends, and of the event loop.
    #[napi(catch_unwind)]
    pub fn close(&mut self) {
        self.poll = None;
        *self.pool.borrow_mut() = None;
    }
}

/// Written once, then unchangeable: every builder reads the same.
fn sealed_spec(spec: &Spec) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let bytes = postcard::to_allocvec(spec).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let memfd = rustix::fs::memfd_create("mayfly-spec", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(memfd.try_clone()?);
    io::Write::write_all(&mut file, &bytes)?;
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(memfd)
}
