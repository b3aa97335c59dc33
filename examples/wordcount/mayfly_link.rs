//! The `link` contract of Mayfly for Rust, in one file and without dependencies: native/link.md in code.
//!
//! ```ignore
//! while let Some(payload) = mayfly_link::receive()? {
//!     mayfly_link::reply(&payload)?;
//! }
//! ```

use std::fs::File;
use std::io::{self, Error, ErrorKind};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;

const FD: RawFd = 3;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 16;
const INLINE_MAX: usize = 131_072;
/// The payload is in a memfd, not in the frame.
const IN_MEMFD: u16 = 1;

const INVOKE: u8 = 1;
const RESULT: u8 = 2;
const FAILED: u8 = 3;
const NEED_BUFFER: u8 = 4;
const BUFFER: u8 = 5;

struct Frame {
    kind: u8,
    flags: u16,
    length: u64,
    payload: Vec<u8>,
    memfd: Option<File>,
}

/// Waits for the next invocation's payload; `None` when there will be no more.
pub fn receive() -> io::Result<Option<Vec<u8>>> {
    let Some(frame) = receive_frame()? else {
        return Ok(None);
    };
    if frame.kind != INVOKE {
        return Err(protocol("expected INVOKE"));
    }
    if frame.flags & IN_MEMFD == 0 {
        return Ok(Some(frame.payload));
    }
    let memfd = frame.memfd.ok_or_else(|| protocol("no descriptor came with a large payload"))?;
    let length = usize::try_from(frame.length).map_err(|_| protocol("the payload is too large"))?;
    let mut payload = vec![0; length];
    memfd.read_exact_at(&mut payload, 0)?;
    Ok(Some(payload))
}

/// Answers the invocation.
pub fn reply(result: &[u8]) -> io::Result<()> {
    if result.len() <= INLINE_MAX {
        return send_frame(RESULT, 0, result.len(), result);
    }
    // It does not fit into a frame: ask the host for a buffer of its size, fill it, say so.
    send_frame(NEED_BUFFER, 0, result.len(), &[])?;
    match receive_frame()? {
        Some(Frame { kind: BUFFER, length, memfd: Some(memfd), .. }) if length == result.len() as u64 => {
            memfd.write_all_at(result, 0)?;
            send_frame(RESULT, IN_MEMFD, result.len(), &[])
        }
        _ => Err(protocol("expected BUFFER")),
    }
}

/// Answers that the function failed, with a text for the caller.
pub fn fail(text: &str) -> io::Result<()> {
    let end = (0..=text.len().min(INLINE_MAX)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    send_frame(FAILED, 0, end, &text.as_bytes()[..end])
}

fn send_frame(kind: u8, flags: u16, length: usize, payload: &[u8]) -> io::Result<()> {
    let mut packet = Vec::with_capacity(HEADER_BYTES + payload.len());
    packet.extend_from_slice(&[VERSION, kind]);
    packet.extend_from_slice(&flags.to_le_bytes());
    packet.extend_from_slice(&0u32.to_le_bytes());
    packet.extend_from_slice(&(length as u64).to_le_bytes());
    packet.extend_from_slice(payload);
    // One write is one packet of a SEQPACKET socket: it goes as a whole or not at all.
    retry(|| {
        // SAFETY: `packet` is live and initialized for its whole length while the kernel reads it.
        unsafe { send(FD, packet.as_ptr(), packet.len(), MSG_NOSIGNAL) }
    })?;
    Ok(())
}

fn receive_frame() -> io::Result<Option<Frame>> {
    let mut packet = vec![0u8; HEADER_BYTES + INLINE_MAX];
    // Room for one descriptor: what else came with the packet is closed by the kernel.
    let mut control = ControlMessage { length: 0, level: 0, kind: 0, fd: -1 };
    let mut part = IoVector { base: packet.as_mut_ptr(), length: packet.len() };
    let mut message = MessageHeader {
        name: null_mut(),
        name_length: 0,
        parts: &raw mut part,
        part_count: 1,
        control: &raw mut control,
        control_length: size_of::<ControlMessage>(),
        flags: 0,
    };
    let received = retry(|| {
        // SAFETY: every pointer in `message` is to a live local with the length given beside it, and the layouts of the
        // three structures are those of 64-bit Linux (asserted below).
        unsafe { recvmsg(FD, &raw mut message, MSG_CMSG_CLOEXEC) }
    })?;
    let has_fd = message.control_length > 0 && (control.level, control.kind) == (SOL_SOCKET, SCM_RIGHTS);
    // SAFETY: the kernel has just made this descriptor for us, and nothing else knows its number.
    let memfd = (has_fd && control.fd >= 0).then(|| File::from(unsafe { OwnedFd::from_raw_fd(control.fd) }));
    if received == 0 {
        return Ok(None);
    }
    packet.truncate(received);
    if received < HEADER_BYTES || packet[0] != VERSION || message.flags & MSG_TRUNC != 0 {
        return Err(protocol("a frame is malformed"));
    }
    let payload = packet.split_off(HEADER_BYTES);
    let flags = u16::from_le_bytes([packet[2], packet[3]]);
    let length = u64::from_le_bytes(packet[8..16].try_into().expect("eight bytes"));
    if flags & IN_MEMFD == 0 && packet[1] != BUFFER && length != payload.len() as u64 {
        return Err(protocol("a frame's length is not its payload's"));
    }
    Ok(Some(Frame { kind: packet[1], flags, length, payload, memfd }))
}

fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(bytes) = usize::try_from(call()) {
            return Ok(bytes);
        }
        let error = Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn protocol(problem: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("descriptor {FD}: {problem}"))
}

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const MSG_TRUNC: i32 = 0x20;
const MSG_NOSIGNAL: i32 = 0x4000;
const MSG_CMSG_CLOEXEC: i32 = 0x4000_0000;

/// `struct iovec`.
#[repr(C)]
struct IoVector {
    base: *mut u8,
    length: usize,
}

/// `struct msghdr` as glibc and musl have it on little-endian 64-bit Linux.
#[repr(C)]
struct MessageHeader {
    name: *mut u8,
    name_length: u32,
    parts: *mut IoVector,
    part_count: usize,
    control: *mut ControlMessage,
    control_length: usize,
    flags: i32,
}

/// `struct cmsghdr` with room for one descriptor behind it.
#[repr(C, align(8))]
struct ControlMessage {
    length: usize,
    level: i32,
    kind: i32,
    fd: RawFd,
}

const _: () = assert!(size_of::<MessageHeader>() == 56 && size_of::<ControlMessage>() == 24);

unsafe extern "C" {
    fn send(fd: i32, buffer: *const u8, length: usize, flags: i32) -> isize;
    fn recvmsg(fd: i32, message: *mut MessageHeader, flags: i32) -> isize;
}
