//! Calls JavaScript with what happened.
//!
//! `napi_make_callback` and not a plain call: it runs promise jobs when the callback returns, so an answer's handlers
//! have run before the next answer is looked at, and before any sandbox is torn down.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use mayfly_core::board::Verdict;
use mayfly_core::protocol::{End, Failure};
use napi::bindgen_prelude::{Env, Function};
use napi::{JsValue, sys};
use serde_json::json;

use crate::pool::{Done, Happening};
use crate::slot::Slot;

pub struct Deliver {
    env: sys::napi_env,
    on_done: sys::napi_ref,
    on_slot: sys::napi_ref,
    on_event: sys::napi_ref,
    /// The one buffer of no bytes, which most calls' logs are.
    nothing: sys::napi_ref,
    inbox: Inbox,
}

/// A buffer of JavaScript's for small results, each copied out by the callback: to make a buffer from here takes ten
/// times as long as it takes JavaScript.
struct Inbox {
    buffer: sys::napi_ref,
    bytes: NonNull<u8>,
}

const INBOX_BYTES: usize = 4096;

/// What `on_slot` is told of, once or more for every sandbox; native/index.ts has the same numbers.
const READY: u32 = 0;
const AGAIN: u32 = 1;
const GONE: u32 = 2;

/// How many arguments `on_done` has: slot, what became of it, kind, number, text, output, how many bytes of it where it
/// is the inbox, else -1, logs, whether those were cut, CPU time, peak memory, throttled periods, refused forks, OOM
/// kills, hits of the own memory limit.
const DONE_ARGUMENTS: usize = 15;

impl Deliver {
    pub fn new(env: &Env, on_done: Function<'_>, on_slot: Function<'_>, on_event: Function<'_>) -> napi::Result<Self> {
        let reference = |value: sys::napi_value| {
            let mut reference = ptr::null_mut();
            // SAFETY: `value` is a live value of this environment and scope; the reference is
            // deleted by `drop`.
            let status = unsafe { sys::napi_create_reference(env.raw(), value, 1, &raw mut reference) };
            if status == sys::Status::napi_ok {
                Ok(reference)
            } else {
                Err(napi::Error::from_reason("napi_create_reference"))
            }
        };
        let scope = Scope::open(env.raw());
        let (inbox, bytes) = scope.buffer(INBOX_BYTES)?;
        Ok(Self {
            env: env.raw(),
            on_done: reference(on_done.raw())?,
            on_slot: reference(on_slot.raw())?,
            on_event: reference(on_event.raw())?,
            nothing: reference(scope.bytes(&[]))?,
            inbox: Inbox { buffer: reference(inbox)?, bytes },
        })
    }

    /// `next` is of the slot whose call is done.
    pub fn happening(&self, happening: Happening, next: Next) {
        let scope = Scope::open(self.env);
        match happening {
            Happening::Done { slot, done, logs, usage, incidents } => {
                let (kind, number, text, output) = parts(&done);
                let (output, inbox_bytes) = self.output(&scope, output);
                let arguments: [sys::napi_value; DONE_ARGUMENTS] = [
                    scope.number(f64::from(slot)),
                    scope.number(f64::from(next as u8)),
                    scope.number(f64::from(kind)),
                    scope.number(number),
                    scope.string(text),
                    output,
                    scope.number(inbox_bytes),
                    self.bytes(&scope, &logs.kept),
                    scope.boolean(logs.is_cut),
                    scope.count(usage.cpu_ns),
                    scope.count(usage.memory_peak_bytes),
                    scope.count(incidents.throttled_count),
                    scope.count(incidents.pids_denied_count),
                    scope.count(incidents.oom_kills),
                    scope.count(incidents.memory_limit_hits),
                ];
                scope.call(self.on_done, &arguments);
            }
            Happening::Ready { slot, function, pid, is_quiet_guess } => {
                let values = [slot, function, pid.unsigned_abs(), u32::from(is_quiet_guess)];
                self.slot_event(&scope, READY, values);
            }
            Happening::Again { slot, function } => self.slot_event(&scope, AGAIN, [slot, function, 0, 0]),
            Happening::Gone { slot } => self.slot_event(&scope, GONE, [slot, 0, 0, 0]),
            other => scope.call(self.on_event, &[scope.string(&event(other).to_string())]),
        }
    }
}

impl Deliver {
    fn bytes(&self, scope: &Scope, bytes: &[u8]) -> sys::napi_value {
        if bytes.is_empty() { scope.referred(self.nothing) } else { scope.bytes(bytes) }
    }

    /// The output, or the inbox and how much of it is the output.
    fn output(&self, scope: &Scope, output: &[u8]) -> (sys::napi_value, f64) {
        if output.is_empty() || output.len() > INBOX_BYTES {
            return (self.bytes(scope, output), -1.0);
        }
        // SAFETY: as long as its buffer, which the reference keeps and nothing detaches; this is JavaScript's thread.
        unsafe { self.inbox.bytes.copy_from_nonoverlapping(NonNull::from(output).cast(), output.len()) };
        #[allow(clippy::cast_precision_loss)]
        let length = output.len() as f64;
        (scope.referred(self.inbox.buffer), length)
    }

    fn slot_event(&self, scope: &Scope, kind: u32, values: [u32; 4]) {
        let [slot, function, pid, is_quiet_guess] = values.map(|value| scope.number(f64::from(value)));
        scope.call(self.on_slot, &[scope.number(f64::from(kind)), slot, function, pid, is_quiet_guess]);
    }
}

impl Drop for Deliver {
    fn drop(&mut self) {
        for reference in [self.on_done, self.on_slot, self.on_event, self.nothing, self.inbox.buffer] {
            // SAFETY: made by `new`, deleted once; this is dropped with the poll handle, on the JavaScript thread.
            unsafe { sys::napi_delete_reference(self.env, reference) };
        }
    }
}

/// What became of a slot whose call is done; native/evidence.ts has the same numbers.
#[derive(Debug, Clone, Copy, Default)]
#[repr(u8)]
pub enum Next {
    #[default]
    Ended,
    ServesOn,
    Resets,
}

impl Next {
    pub const fn of(state: &Slot) -> Self {
        match state {
            Slot::Ready { .. } => Self::ServesOn,
            Slot::Resetting { .. } => Self::Resets,
            _ => Self::Ended,
        }
    }
}

/// kind, number, text and bytes of an end; native/evidence.ts has the same list of kinds.
fn parts(done: &Done) -> (u8, f64, &str, &[u8]) {
    match done {
        Done::Result(output) => (0, 0.0, "", output),
        Done::Failed(message) => (1, 0.0, "", message),
        Done::Malformed(why) => (2, 0.0, why, &[]),
        Done::OutputLimit => (3, 0.0, "", &[]),
        Done::Exited(code) => (4, f64::from(*code), "", &[]),
        Done::Signaled(signal) => (5, f64::from(*signal), "", &[]),
        Done::Cancelled => (6, 0.0, "", &[]),
        Done::NotStarted { stage, errno } => (7, f64::from(*errno), stage, &[]),
        Done::Judged { verdict: Verdict::WallTime, .. } => (8, 0.0, "", &[]),
        Done::Judged { verdict: Verdict::CpuTime, .. } => (9, 0.0, "", &[]),
        #[allow(clippy::cast_precision_loss)]
        Done::Judged { verdict: Verdict::Denied, detail } => (10, *detail as f64, "", &[]),
        Done::Judged { verdict: Verdict::OutOfMemory, .. } => (11, 0.0, "", &[]),
        Done::Judged { verdict: Verdict::Lost, .. } => (12, 0.0, "", &[]),
    }
}

fn event(happening: Happening) -> serde_json::Value {
    match happening {
        Happening::Hello { cgroup_mode, copies_writable } => {
            json!({ "kind": "hello", "cgroupMode": cgroup_mode, "copiesWritable": copies_writable })
        }
        Happening::Defined { function, errno } => json!({ "kind": "defined", "function": function, "errno": errno }),
        Happening::BuildFailed { slot, function, failure } => {
            json!({ "kind": "failed", "slot": slot, "function": function, "failure": describe(&failure) })
        }
        Happening::Broken { slot, function, what } => {
            json!({ "kind": "broken", "slot": slot, "function": function, "what": what })
        }
        Happening::Unpacked { token, errno, message } => {
            json!({ "kind": "unpacked", "token": token, "errno": errno, "message": message })
        }
        Happening::Lost { why } => json!({ "kind": "lost", "why": why }),
        Happening::Done { .. } | Happening::Ready { .. } | Happening::Again { .. } | Happening::Gone { .. } => {
            unreachable!("delivered by a callback of its own")
        }
    }
}

fn describe(failure: &Failure) -> serde_json::Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match failure {
        Failure::Stage { stage, errno } => json!({ "why": "stage", "stage": stage.name(), "errno": errno }),
        Failure::EndedEarly { end: End::Exited(code), output } => {
            json!({ "why": "exited", "code": code, "output": text(output) })
        }
        Failure::EndedEarly { end: End::Signaled(signal), output } => {
            json!({ "why": "signaled", "signal": signal, "output": text(output) })
        }
        Failure::SpokeEarly { output } => json!({ "why": "spoke", "output": text(output) }),
        Failure::DeniedEarly { syscall } => json!({ "why": "denied", "syscall": syscall }),
        Failure::OutOfMemoryEarly => json!({ "why": "out_of_memory" }),
        Failure::NeverParked => json!({ "why": "never_parked" }),
        Failure::TimedOut => json!({ "why": "timed_out" }),
    }
}

/// A handle scope: libuv's callback has none of its own.
struct Scope {
    env: sys::napi_env,
    scope: sys::napi_handle_scope,
}

impl Scope {
    fn open(env: sys::napi_env) -> Self {
        let mut scope = ptr::null_mut();
        // SAFETY: on the JavaScript thread of `env`, which lives as long as its event loop calls us.
        unsafe { sys::napi_open_handle_scope(env, &raw mut scope) };
        Self { env, scope }
    }

    fn number(&self, number: f64) -> sys::napi_value {
        let mut value = ptr::null_mut();
        // SAFETY: inside this scope, on the JavaScript thread.
        unsafe { sys::napi_create_double(self.env, number, &raw mut value) };
        value
    }

    /// Counts of the kernel's stay below 2^53.
    #[allow(clippy::cast_precision_loss)]
    fn count(&self, count: u64) -> sys::napi_value {
        self.number(count as f64)
    }

    fn boolean(&self, is_true: bool) -> sys::napi_value {
        let mut value = ptr::null_mut();
        // SAFETY: inside this scope, on the JavaScript thread.
        unsafe { sys::napi_get_boolean(self.env, is_true, &raw mut value) };
        value
    }

    fn string(&self, text: &str) -> sys::napi_value {
        let mut value = ptr::null_mut();
        // SAFETY: `text` is `len` bytes of UTF-8, which the call copies.
        unsafe {
            sys::napi_create_string_utf8(self.env, text.as_ptr().cast(), text.len().cast_signed(), &raw mut value)
        };
        value
    }

    fn bytes(&self, bytes: &[u8]) -> sys::napi_value {
        let mut value = ptr::null_mut();
        // SAFETY: the call copies `len` bytes into memory of JavaScript's.
        unsafe {
            let data: *const c_void = bytes.as_ptr().cast();
            sys::napi_create_buffer_copy(self.env, bytes.len(), data, ptr::null_mut(), &raw mut value);
        }
        value
    }

    fn buffer(&self, length: usize) -> napi::Result<(sys::napi_value, NonNull<u8>)> {
        let (mut value, mut data) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: inside this scope, on the JavaScript thread.
        unsafe { sys::napi_create_buffer(self.env, length, &raw mut data, &raw mut value) };
        let data = NonNull::new(data.cast()).ok_or_else(|| napi::Error::from_reason("napi_create_buffer"))?;
        Ok((value, data))
    }

    fn referred(&self, reference: sys::napi_ref) -> sys::napi_value {
        let mut value = ptr::null_mut();
        // SAFETY: a strong reference of this environment.
        unsafe { sys::napi_get_reference_value(self.env, reference, &raw mut value) };
        value
    }

    fn call(&self, function: sys::napi_ref, arguments: &[sys::napi_value]) {
        let callee = self.referred(function);
        let (mut global, mut result) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: `callee` and the arguments are values of this scope. No borrow of the pool is alive, so JavaScript
        // may call back.
        unsafe {
            sys::napi_get_global(self.env, &raw mut global);
            let status = sys::napi_make_callback(
                self.env,
                ptr::null_mut(),
                global,
                callee,
                arguments.len(),
                arguments.as_ptr(),
                &raw mut result,
            );
            if status == sys::Status::napi_pending_exception {
                // What a callback throws is uncaught, as of any event.
                let mut error = ptr::null_mut();
                sys::napi_get_and_clear_last_exception(self.env, &raw mut error);
                sys::napi_fatal_exception(self.env, error);
            }
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, closed once, in reverse order of opening.
        unsafe { sys::napi_close_handle_scope(self.env, self.scope) };
    }
}
