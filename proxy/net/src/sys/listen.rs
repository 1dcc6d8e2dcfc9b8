//! Listening sockets: one per core and listener, all bound to the same address with SO_REUSEPORT.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

/// What waits in the accept queue of one socket; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Binds one listening socket. With `exclusive` it fails when any other process listens there: SO_REUSEPORT alone
/// would let a second instance steal a share of the first one's connections in silence.
pub fn bind(address: &SocketAddr, exclusive: bool) -> io::Result<OwnedFd> {
    if exclusive && address.port() != 0 {
        let probe = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
        probe.set_reuse_address(true)?;
        if address.is_ipv6() {
            probe.set_only_v6(true)?;
        }
        probe.bind(&SockAddr::from(*address))?;
        probe.listen(1)?;
    }
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(*address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Lets a listening socket take connections meant for other addresses (TPROXY); it needs CAP_NET_ADMIN.
pub fn make_transparent(socket: &OwnedFd) -> io::Result<()> {
    let known = socket2::SockRef::from(socket);
    transparent(&known, matches!(known.local_addr()?.as_socket(), Some(SocketAddr::V6(_))))
}

/// Lets a socket stand for addresses that are not this host's.
pub(super) fn transparent(socket: &Socket, is_six: bool) -> io::Result<()> {
    if !is_six {
        return socket.set_ip_transparent_v4(true);
    }
    let on: libc::c_int = 1;
    // SAFETY: the pointer and length describe a live integer, which the call only reads.
    let result = unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(socket),
            libc::SOL_IPV6,
            libc::IPV6_TRANSPARENT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Binds a Unix socket, replacing a stale one that nobody listens on.
pub fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    let name = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Err(error) = socket.bind(&name) {
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let stale = error.kind() == io::ErrorKind::AddrInUse
            && probe.connect(&name).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if !stale {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        socket.bind(&name)?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Where a socket listens.
pub fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    socket2::SockRef::from(socket).local_addr().ok()?.as_socket()
}
