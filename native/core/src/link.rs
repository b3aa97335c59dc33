//! The `link` frame (native/link.md): one packet each way, and nothing the function sends is believed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// Larger payloads travel in a memfd. A packet of this size and its header fits a socket's default buffer.
pub const INLINE_BYTES_MAX: usize = 131_072;
const HEADER_BYTES: usize = 16;
pub const PACKET_BYTES_MAX: usize = HEADER_BYTES + INLINE_BYTES_MAX;

const VERSION: u8 = 1;
const INVOKE: u8 = 1;
const RESULT: u8 = 2;
const FAILED: u8 = 3;
const NEED_BUFFER: u8 = 4;
const BUFFER: u8 = 5;
const IN_MEMFD: u16 = 1;

/// What a packet of the function's means.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    Result(&'a [u8]),
    /// The result's first `length` bytes are in the buffer that was handed over.
    ResultInBuffer {
        length: u64,
    },
    Failed(&'a [u8]),
    NeedBuffer {
        length: u64,
    },
}

fn header(kind: u8, flags: u16, length: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0] = VERSION;
    bytes[1] = kind;
    bytes[2..4].copy_from_slice(&flags.to_le_bytes());
    bytes[8..].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Reads a packet. The error says, to the function's author, what is wrong with it.
pub fn parse(packet: &[u8]) -> Result<Answer<'_>, &'static str> {
    let Some((header, payload)) = packet.split_first_chunk::<HEADER_BYTES>() else {
        return Err("the frame is shorter than its header of 16 bytes");
    };
    let [version, kind, f0, f1, r0, r1, r2, r3, length @ ..] = *header;
    let flags = u16::from_le_bytes([f0, f1]);
    let length = u64::from_le_bytes(length);
    if version != VERSION {
        return Err("the frame's version is not 1");
    }
    if [r0, r1, r2, r3] != [0; 4] || flags & !IN_MEMFD != 0 {
        return Err("the frame has reserved bits set");
    }
    let is_inline = flags & IN_MEMFD == 0;
    let fits = u64::try_from(payload.len()) == Ok(length);
    match kind {
        RESULT if is_inline && fits => Ok(Answer::Result(payload)),
        RESULT if !is_inline && payload.is_empty() => Ok(Answer::ResultInBuffer { length }),
        FAILED if is_inline && fits => Ok(Answer::Failed(payload)),
        // Its length is a wish and not its payload's.
        NEED_BUFFER if is_inline && payload.is_empty() => Ok(Answer::NeedBuffer { length }),
        RESULT | FAILED | NEED_BUFFER => Err("the frame's length is not that of its payload"),
        _ => Err("the frame's kind is none that a function sends"),
    }
}

/// Sends the payload, inline or in a sealed memfd.
pub fn send_invoke(socket: BorrowedFd<'_>, payload: &[u8]) -> io::Result<()> {
    if payload.len() <= INLINE_BYTES_MAX {
        return send(socket, &header(INVOKE, 0, payload.len() as u64), payload, None);
    }
    let memfd = new_memfd(payload.len() as u64)?;
    let mut at = 0;
    while at < payload.len() {
        at += rustix::io::pwrite(&memfd, &payload[at..], at as u64)?;
    }
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::WRITE | SealFlags::SEAL)?;
    send(socket, &header(INVOKE, IN_MEMFD, payload.len() as u64), &[], Some(memfd.as_fd()))
}

/// Hands over a buffer of exactly `length` bytes for the result and keeps it for reading.
pub fn send_buffer(socket: BorrowedFd<'_>, length: u64) -> io::Result<OwnedFd> {
    let memfd = new_memfd(length)?;
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::SEAL)?;
    send(socket, &header(BUFFER, IN_MEMFD, length), &[], Some(memfd.as_fd()))?;
    Ok(memfd)
}

/// The size never changes: a reader of a shrinking file would be told lies by its length.
fn new_memfd(length: u64) -> io::Result<OwnedFd> {
    let memfd = rustix::fs::memfd_create("mayfly-payload", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&memfd, length)?;
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(memfd)
}

/// The first `length` bytes, by pread: the function may still be writing, which changes bytes and nothing else.
pub fn read_buffer(memfd: &OwnedFd, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut at = 0;
    while at < length {
        match rustix::io::pread(memfd, &mut bytes[at..], at as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => at += read,
        }
    }
    Ok(bytes)
}

fn send(socket: BorrowedFd<'_>, header: &[u8], payload: &[u8], memfd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let parts = [io::IoSlice::new(header), io::IoSlice::new(payload)];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = memfd.map(|fd| [fd]);
    if let Some(descriptors) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::net::sendmsg(socket, &parts, &mut control, flags)?;
    Ok(())
}

/// One packet, cut at the buffer's end; 0 when the function closed its end. There is no room for descriptors: the
/// kernel drops those it sends (row E30).
///
/// # Errors
/// recvfrom(2); EMSGSIZE for a packet larger than any frame.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let size = buffer.len();
    let (_, length) = rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC)?;
    if length > size { Err(rustix::io::Errno::MSGSIZE.into()) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: u8, flags: u16, length: u64, payload: &[u8]) -> Vec<u8> {
        [&header(kind, flags, length)[..], payload].concat()
    }

    #[test]
    fn reads_what_the_specification_allows() {
        assert_eq!(parse(&packet(RESULT, 0, 3, b"abc")), Ok(Answer::Result(b"abc")));
        assert_eq!(parse(&packet(RESULT, 0, 0, b"")), Ok(Answer::Result(b"")));
        assert_eq!(parse(&packet(RESULT, IN_MEMFD, 9, b"")), Ok(Answer::ResultInBuffer { length: 9 }));
        assert_eq!(parse(&packet(FAILED, 0, 2, b"no")), Ok(Answer::Failed(b"no")));
        assert_eq!(parse(&packet(NEED_BUFFER, 0, 7, b"")), Ok(Answer::NeedBuffer { length: 7 }));
    }

    #[test]
    fn refuses_every_lie() {
        for (lie, kind, flags, length, payload) in [
            ("length too long", RESULT, 0, 4, &b"abc"[..]),
            ("length too short", RESULT, 0, 2, b"abc"),
            ("length huge", RESULT, 0, u64::MAX, b"abc"),
            ("payload beside a memfd", RESULT, IN_MEMFD, 3, b"abc"),
            ("a request's kind", INVOKE, 0, 0, b""),
            ("a kind of the host's", BUFFER, 0, 0, b""),
            ("an unknown kind", 99, 0, 0, b""),
            ("an unknown flag", RESULT, 2, 0, b""),
        ] {
            assert!(parse(&packet(kind, flags, length, payload)).is_err(), "{lie}");
        }
        assert!(parse(b"short").is_err());
        let mut version = packet(RESULT, 0, 0, b"");
        version[0] = 2;
        assert!(parse(&version).is_err());
        let mut reserved = packet(RESULT, 0, 0, b"");
        reserved[5] = 1;
        assert!(parse(&reserved).is_err());
    }
}
