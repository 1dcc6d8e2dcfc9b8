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
