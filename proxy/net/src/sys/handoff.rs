//! Passing descriptors to another process over a Unix socket (SCM_RIGHTS), each with a name.

use std::io::{self, Read, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Longest name that is passed.
const MAX_NAME: usize = 255;
/// More descriptors than any configuration has; a bound against a confused peer.
const MAX_DESCRIPTORS: u32 = 65_536;

/// Room for one descriptor's control message, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 32]);

fn with_message<R>(payload: &mut [u8], control: &mut Control, f: impl FnOnce(&mut libc::msghdr) -> R) -> R {
    let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    // SAFETY: an all-zero msghdr is a valid value of the C struct.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    f(&mut message)
}

fn send_one(socket: &UnixStream, name: &str, fd: RawFd) -> io::Result<()> {
    let mut payload = vec![0u8; 1 + name.len()];
    payload[0] = name.len() as u8;
    payload[1..].copy_from_slice(name.as_bytes());
    let mut control = Control([0; 32]);
    let sent = with_message(&mut payload, &mut control, |message| {
        // SAFETY: the control buffer is large and aligned enough for one header with one descriptor (CMSG_SPACE(4)
        // is 24), so CMSG_FIRSTHDR is not null and CMSG_DATA lies within it.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as usize;
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
            libc::sendmsg(socket.as_raw_fd(), message, libc::MSG_NOSIGNAL)
        }
    });
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    // A stream socket may take less than all of a small message only in theory.
    (&mut &*socket).write_all(&payload[sent as usize..])
}

fn receive_one(socket: &UnixStream) -> io::Result<(String, OwnedFd)> {
    let mut length = [0u8; 1];
    let mut control = Control([0; 32]);
    let (received, fd) = with_message(&mut length, &mut control, |message| {
        // SAFETY: payload and control buffers live in this frame; the kernel reports in the header what it wrote.
        unsafe {
            let received = libc::recvmsg(socket.as_raw_fd(), message, libc::MSG_CMSG_CLOEXEC);
            let header = libc::CMSG_FIRSTHDR(message);
            let is_rights = received > 0
                && !header.is_null()
                && (*header).cmsg_level == libc::SOL_SOCKET
                && (*header).cmsg_type == libc::SCM_RIGHTS
                && (*header).cmsg_len == libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
            let fd = is_rights.then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()));
            (received, fd)
        }
    });
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd =
        fd.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the running instance passed no descriptor"))?;
    let mut name = vec![0u8; usize::from(length[0])];
    (&mut &*socket).read_exact(&mut name)?;
    let name =
        String::from_utf8(name).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a name that is no text"))?;
    Ok((name, fd))
}

/// Passes descriptors with their names.
///
/// # Errors
/// When the peer is gone, or a name is too long.
pub fn send_descriptors(socket: &UnixStream, descriptors: &[(String, RawFd)]) -> io::Result<()> {
    (&mut &*socket).write_all(&(descriptors.len() as u32).to_be_bytes())?;
    for (name, fd) in descriptors {
        if name.len() > MAX_NAME {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a listener's name is longer than 255 bytes"));
        }
        send_one(socket, name, *fd)?;
    }
    Ok(())
}

/// Takes descriptors with their names.
///
/// # Errors
/// When the peer is gone or speaks otherwise.
pub fn receive_descriptors(socket: &UnixStream) -> io::Result<Vec<(String, OwnedFd)>> {
    let mut count = [0u8; 4];
    (&mut &*socket).read_exact(&mut count)?;
    let count = u32::from_be_bytes(count);
    if count > MAX_DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors"));
    }
    (0..count).map(|_| receive_one(socket)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_arrive_with_their_names() {
        let (ours, theirs) = UnixStream::pair().expect("descriptors");
        let (one, other) = UnixStream::pair().expect("descriptors");
        send_descriptors(&ours, &[("edge".to_owned(), one.as_raw_fd()), (String::new(), ours.as_raw_fd())])
            .expect("sends");
        let received = receive_descriptors(&theirs).expect("receives");
        assert_eq!(received.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["edge", ""]);
        let passed = UnixStream::from(received.into_iter().next().expect("two").1);
        (&mut &passed).write_all(b"x").expect("the other end is open");
        let mut byte = [0];
        (&mut &other).read_exact(&mut byte).expect("it is the same socket");
    }

    #[test]
    fn a_peer_that_leaves_is_an_error() {
        let (ours, theirs) = UnixStream::pair().expect("descriptors");
        (&mut &ours).write_all(&2u32.to_be_bytes()).expect("sends");
        drop(ours);
        assert!(receive_descriptors(&theirs).is_err());
    }
}
