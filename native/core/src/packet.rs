//! SEQPACKET sockets that carry one postcard message and some descriptors per packet.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, UCred,
};
use rustix::process::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::PACKET_BYTES_MAX;

/// The most descriptors one packet carries: a ready sandbox's streams and limit files, with room to grow.
pub const DESCRIPTORS_MAX: usize = 32;

/// A connected pair, close-on-exec and non-blocking on neither side.
///
/// # Errors
/// socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends `message` with `descriptors`, and `about`'s pid where given: the kernel translates that into the receiver's
/// pid namespace, which is how the worker learns pids as the host sees them.
///
/// # Errors
/// sendmsg(2); EAGAIN on a full non-blocking socket, with nothing sent. EMSGSIZE for a message over the frame size.
pub fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
    about: Option<Pid>,
) -> io::Result<()> {
    let bytes = postcard::to_allocvec(message).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    if bytes.len() > PACKET_BYTES_MAX {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX), ScmCredentials(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    if let Some(pid) = about {
        let credentials = UCred { pid, uid: rustix::process::getuid(), gid: rustix::process::getgid() };
        control.push(SendAncillaryMessage::ScmCredentials(credentials));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One packet as it came.
#[derive(Debug)]
pub struct Received<T> {
    pub message: T,
    pub descriptors: Vec<OwnedFd>,
    /// The pid the sender spoke about (its own unless it may and did name another), where SO_PASSCRED is set.
    pub about: Option<Pid>,
}

/// Receives one packet; `None` when the other side is gone.
///
/// # Errors
/// recvmsg(2); EBADMSG for what is no `T`, and for a packet or a descriptor list that was cut.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd, flags: RecvFlags) -> io::Result<Option<Received<T>>> {
    let mut bytes = [0u8; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        flags | RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    let mut about = None;
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(fds) => descriptors.extend(fds),
            RecvAncillaryMessage::ScmCredentials(credentials) => about = Some(credentials.pid),
            _ => {}
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    let was_cut = got.flags.bits() & (libc::MSG_TRUNC | libc::MSG_CTRUNC).unsigned_abs() != 0;
    let message = if was_cut { None } else { postcard::from_bytes(&bytes[..got.bytes]).ok() };
    let message = message.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))?;
    Ok(Some(Received { message, descriptors, about }))
}
