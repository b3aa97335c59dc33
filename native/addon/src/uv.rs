//! libuv's poll handle: how the addon's one epoll descriptor wakes the JavaScript thread, with no thread of ours.
//!
//! Node exports libuv's symbols to addons. Only what is documented as stable across its major version is used: handles
//! are allocated by `uv_handle_size` and their first field is `data` (libuv documentation, uv_handle_t).

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, OwnedFd};

use napi::sys::uv_loop_s;

#[repr(C)]
struct Handle {
    data: *mut c_void,
    // The rest is libuv's.
}

type PollCallback = unsafe extern "C" fn(handle: *mut Handle, status: c_int, events: c_int);
type CloseCallback = unsafe extern "C" fn(handle: *mut Handle);

unsafe extern "C" {
    fn uv_handle_size(kind: c_int) -> usize;
    fn uv_poll_init(event_loop: *mut uv_loop_s, handle: *mut Handle, fd: c_int) -> c_int;
    fn uv_poll_start(handle: *mut Handle, events: c_int, callback: PollCallback) -> c_int;
    fn uv_poll_stop(handle: *mut Handle) -> c_int;
    fn uv_close(handle: *mut Handle, callback: CloseCallback);
}

/// `UV_POLL` of uv_handle_type and `UV_READABLE` of uv_poll_event.
const UV_POLL: c_int = 8;
const UV_READABLE: c_int = 1;

/// A started poll handle that calls `on_readable` on the JavaScript thread.
///
/// It keeps the event loop alive until it is dropped.
#[derive(Debug)]
pub struct Poll {
    handle: *mut Handle,
}

/// What the handle's `data` points to.
struct Data {
    on_readable: Box<dyn Fn()>,
    /// libuv polls its number until the handle is closed.
    _fd: OwnedFd,
    layout: std::alloc::Layout,
}

impl Poll {
    /// # Errors
    /// libuv's negative errno.
    pub fn start(event_loop: *mut uv_loop_s, fd: OwnedFd, on_readable: Box<dyn Fn()>) -> Result<Self, c_int> {
        // SAFETY: UV_POLL is a handle kind libuv knows; the call reads no memory of ours.
        let size = unsafe { uv_handle_size(UV_POLL) };
        let layout = std::alloc::Layout::from_size_align(size, 16).map_err(|_| -libc::ENOMEM)?;
        // SAFETY: the size is libuv's own and not zero.
        let handle = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<Handle>();
        if handle.is_null() {
            return Err(-libc::ENOMEM);
        }
        let number = fd.as_raw_fd();
        let data = Box::into_raw(Box::new(Data { on_readable, _fd: fd, layout }));
        // SAFETY: `handle` is memory of libuv's size for a poll handle, not yet in any loop; `event_loop` is the one
        // Node gave for this environment; `number` is open, and `data` keeps it so until the handle is closed.
        let status = unsafe {
            let initialised = uv_poll_init(event_loop, handle, number);
            if initialised == 0 {
                (*handle).data = data.cast();
                uv_poll_start(handle, UV_READABLE, readable)
            } else {
                drop(Box::from_raw(data));
                std::alloc::dealloc(handle.cast(), layout);
                initialised
            }
        };
        if status == 0 { Ok(Self { handle }) } else { Err(status) }
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        // SAFETY: the handle was started by `start` and is closed once, here; libuv frees nothing and calls `closed`
        // when it no longer looks at it.
        unsafe {
            uv_poll_stop(self.handle);
            uv_close(self.handle, closed);
        }
    }
}

unsafe extern "C" fn readable(handle: *mut Handle, _status: c_int, _events: c_int) {
    // SAFETY: libuv calls with the handle that `start` gave `data` to, before `closed` frees it.
    let data = unsafe { &*(*handle).data.cast::<Data>() };
    (data.on_readable)();
}

unsafe extern "C" fn closed(handle: *mut Handle) {
    // SAFETY: called once, last, by libuv for the handle `drop` closed: nobody else holds either pointer now.
    unsafe {
        let data = Box::from_raw((*handle).data.cast::<Data>());
        std::alloc::dealloc(handle.cast(), data.layout);
    }
}
