//! Plain socket calls that never block: sending, peeking, connecting, shutting down, closing.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

use super::listen::transparent;
use crate::address::{Address, Peer};

fn checked(result: libc::ssize_t) -> io::Result<usize> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
}

/// Sends what fits, without waiting. `WouldBlock` when nothing fits.
#[inline]
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length describe a live slice; the kernel only reads from it during the call.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    checked(sent)
}

/// Sends what fits of several slices in one call, without waiting.
#[inline]
pub fn send_vectored(fd: RawFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: an all-zero msghdr is a valid value of the C struct.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len();
    // SAFETY: IoSlice has iovec's layout by the standard library's promise, and all slices outlive the call,
    // which only reads from them.
    let sent = unsafe { libc::sendmsg(fd, &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    checked(sent)
}

/// Reads what is there, without waiting.
pub fn receive(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length describe a live, exclusive slice that the kernel writes into during the call.
    let received = unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) };
    checked(received)
}

/// Reads and forgets what has arrived, within bounds and without waiting.
pub fn discard(fd: RawFd) {
    let mut scratch = [0; 2048];
    for _ in 0..8 {
        if !matches!(receive(fd, &mut scratch), Ok(count) if count == scratch.len()) {
            return;
        }
    }
}

/// Bytes that wait to be sent, or that the peer has not acknowledged (SIOCOUTQ). Of a Unix socket: what they take up.
pub fn unsent(fd: RawFd) -> u64 {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one int behind the pointer, which is to a live local.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut count) };
    if result < 0 { 0 } else { u64::try_from(count).unwrap_or(0) }
}

/// How the peer's side of a connection stands, without reading from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// More may come.
    Open,
    /// Its end has come, behind so many bytes that wait to be read.
    Ended(u64),
    /// The connection is over: it was reset.
    Over,
}

/// Asks the kernel how the peer's side stands (POLLRDHUP, POLLHUP, FIONREAD).
pub fn standing(fd: RawFd) -> Standing {
    let mut asked = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: the pointer is to one live local, and with a time-out of zero the call does not wait.
    let result = unsafe { libc::poll(&raw mut asked, 1, 0) };
    if result < 1 || asked.revents == 0 {
        return Standing::Open;
    }
    if asked.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0 {
        return Standing::Over;
    }
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one int behind the pointer, which is to a live local.
    let result = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut count) };
    if result < 0 { Standing::Open } else { Standing::Ended(u64::try_from(count).unwrap_or(0)) }
}

/// Whether an idle connection is still open and silent: neither data, nor an end, nor an error waits on it.
pub fn is_quiet(fd: RawFd) -> bool {
    let mut byte = 0u8;
    // SAFETY: one byte on the stack is the destination of at most one byte.
    let peeked = unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_DONTWAIT | libc::MSG_PEEK) };
    peeked < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
}

/// Ends the read side, or both. Errors are of no interest: the peer may have been faster.
pub fn shutdown(fd: RawFd, both: bool) {
    // SAFETY: takes only integers.
    unsafe { libc::shutdown(fd, if both { libc::SHUT_RDWR } else { libc::SHUT_RD }) };
}

/// Ends the read side of a listed connection: its posted read completes as if the peer had ended.
pub fn shutdown_read(fd: RawFd) {
    shutdown(fd, false);
}

/// Ends the write side, so that the peer reads an end.
pub fn shutdown_write(fd: RawFd) -> io::Result<()> {
    // SAFETY: takes only integers.
    checked(unsafe { libc::shutdown(fd, libc::SHUT_WR) } as libc::ssize_t).map(drop)
}

/// Makes the close that follows send a reset instead of an orderly end (SO_LINGER with zero).
pub fn reset_on_close(fd: RawFd) {
    with_socket(fd, |socket| {
        let _ = socket.set_linger(Some(std::time::Duration::ZERO));
    });
}

/// Sends small writes at once. A Unix socket has no such option and needs none.
pub fn set_nodelay(fd: RawFd) {
    with_socket(fd, |socket| {
        let _ = socket.set_tcp_nodelay(true);
    });
}

/// The ring wants blocking sockets (on a non-blocking one a receive returns at once instead of waiting); epoll the opposite.
pub fn set_nonblocking(fd: RawFd, on: bool) -> io::Result<()> {
    with_socket(fd, |socket| socket.set_nonblocking(on))
}

/// The local and remote addresses, where the socket is a TCP one.
pub fn names(fd: RawFd) -> (Option<SocketAddr>, Option<SocketAddr>) {
    with_socket(fd, |socket| {
        (
            socket.local_addr().ok().and_then(|address| address.as_socket()),
            socket.peer_addr().ok().and_then(|address| address.as_socket()),
        )
    })
}

/// Where a redirected connection was meant to go: what netfilter's REDIRECT remembers, else (TPROXY) the local address.
pub fn original_destination(fd: RawFd) -> Option<SocketAddr> {
    let (local, _) = names(fd);
    let remembered = with_socket(fd, |socket| match local {
        Some(SocketAddr::V6(_)) => socket.original_dst_v6(),
        _ => socket.original_dst_v4(),
    });
    remembered.ok().and_then(|address| address.as_socket()).or(local)
}

/// The mark of every socket that connects (SO_MARK): zero for none. It tells our own traffic from what is intercepted.
static MARK: AtomicU32 = AtomicU32::new(0);

/// Marks every socket that connects from now on; it needs CAP_NET_ADMIN.
pub fn mark_connections(mark: u32) {
    MARK.store(mark, Ordering::Relaxed);
}

/// Marks a socket that somebody else connects, as those that `begin_connect` makes.
pub fn mark(socket: impl AsFd) -> io::Result<()> {
    let mark = MARK.load(Ordering::Relaxed);
    if mark == 0 { Ok(()) } else { socket2::SockRef::from(&socket).set_mark(mark) }
}

/// A pending error of a socket that was connecting (SO_ERROR).
pub fn pending_error(fd: RawFd) -> io::Result<()> {
    match with_socket(fd, |socket| socket.take_error())? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn with_socket<R>(fd: RawFd, f: impl FnOnce(&Socket) -> R) -> R {
    // SAFETY: the caller owns the descriptor for the length of this call; ManuallyDrop keeps it from being closed here.
    let socket = std::mem::ManuallyDrop::new(unsafe { Socket::from_raw_fd(fd) });
    f(&socket)
}

/// Begins to connect without waiting, from an address that need not be this host's if one is given. True if it is already
/// connected.
pub fn begin_connect(address: &Address, source: Option<IpAddr>) -> io::Result<(OwnedFd, bool)> {
    let (domain, name) = match address {
        Address::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path.as_path())?),
    };
    // Socket::new sets CLOEXEC.
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if matches!(address, Address::Tcp(_)) {
        mark(&socket)?;
        socket.set_tcp_nodelay(true)?;
    }
    if let Some(source) = source {
        transparent(&socket, source.is_ipv6())?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    let connected = match socket.connect(&name) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => false,
        Err(error) => return Err(error),
    };
    Ok((socket.into(), connected))
}

/// Accepts one connection with CLOEXEC, without waiting (the listener is non-blocking).
pub fn accept(listener: RawFd, nonblocking: bool) -> io::Result<(OwnedFd, Peer)> {
    let flags = libc::SOCK_CLOEXEC | if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: an all-zero sockaddr_storage is a valid value of the C struct.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: both pointers are to live locals, and `length` is the size of the storage that the kernel may fill.
    let fd = unsafe { libc::accept4(listener, (&raw mut storage).cast(), &mut length, flags) };
    checked(fd as libc::ssize_t)?;
    // SAFETY: accept4 has just returned this descriptor and nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok((fd, peer(&storage)))
}

fn peer(storage: &libc::sockaddr_storage) -> Peer {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in, which the storage is large and aligned enough for.
            let name = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = std::net::Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Peer::Tcp(SocketAddr::new(ip.into(), u16::from_be(name.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let name = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = std::net::Ipv6Addr::from(name.sin6_addr.s6_addr);
            Peer::Tcp(SocketAddr::new(ip.into(), u16::from_be(name.sin6_port)))
        }
        _ => Peer::Unix,
    }
}

/// Closes a descriptor that the engine gave back, with a plain call.
pub fn close(fd: RawFd) {
    // SAFETY: the caller passes ownership of the descriptor.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// Hands a descriptor to the engine as a stream socket of whatever family: it only ever receives, polls and closes it.
pub fn adopt(fd: OwnedFd) -> io::Result<monoio::net::TcpStream> {
    // SAFETY: ownership moves through the raw descriptor into the standard library's type and at once into the engine's.
    let stream = unsafe { std::net::TcpStream::from_raw_fd(fd.into_raw_fd()) };
    monoio::net::TcpStream::from_std(stream)
}
