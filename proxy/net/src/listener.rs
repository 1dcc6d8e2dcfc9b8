//! A listening socket of one core: waits for readiness, then accepts until it would block. (A cancelled accept
//! operation of the engine leaks a descriptor, and its accept sets no CLOEXEC.)

use std::io;
use std::os::fd::OwnedFd;

use crate::address::Peer;
use crate::sys::duplex::Duplex;
use crate::sys::socket;

/// One listening socket.
pub struct Listener {
    duplex: Duplex,
}

impl Listener {
    /// Takes a listening socket.
    ///
    /// # Errors
    /// When the engine cannot register the descriptor.
    pub fn new(fd: OwnedFd) -> io::Result<Listener> {
        let duplex = Duplex::new(fd)?;
        socket::set_nonblocking(duplex.raw_fd(), true)?;
        Ok(Listener { duplex })
    }

    /// Waits until a connection may be waiting. Safe to drop.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn ready(&self) -> io::Result<()> {
        self.duplex.readable().await?;
        crate::core::completed();
        Ok(())
    }

    /// Takes one connection, `WouldBlock` when none is left.
    ///
    /// # Errors
    /// What accept4 says; EMFILE and ENFILE mean that descriptors are exhausted: wait a little, the queue is kept.
    pub fn accept(&self) -> io::Result<(OwnedFd, Peer)> {
        socket::accept(self.duplex.raw_fd(), crate::core::is_epoll())
    }

    /// Gives the socket back, if no wait is pending on it.
    pub fn into_fd(self) -> Option<OwnedFd> {
        self.duplex.into_fd()
    }
}
