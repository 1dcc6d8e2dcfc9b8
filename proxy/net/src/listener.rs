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
        // Small writes leave at once: on Linux, accepted sockets take this over, which spares a call for each.
        socket::set_nodelay(duplex.raw_fd());
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::runtime::{Options, Rung, run};

    #[test]
    fn what_is_accepted_sends_at_once_and_has_the_mode_of_its_engine() {
        for first_rung in [Rung::Deferred, Rung::Epoll] {
            let core = || async {
                let socket = crate::bind(&SocketAddr::from(([127, 0, 0, 1], 0)), true).expect("binds");
                let address = socket2::SockRef::from(&socket).local_addr().expect("bound");
                let listener = Listener::new(socket).expect("registers");
                let client = std::net::TcpStream::connect(address.as_socket().expect("an address")).expect("connects");
                listener.ready().await.expect("waits");
                let (accepted, _) = listener.accept().expect("accepts");
                let known = socket2::SockRef::from(&accepted);
                assert!(known.tcp_nodelay().expect("an option"));
                assert_eq!(known.nonblocking().expect("a flag"), crate::core::is_epoll());
                drop(client);
            };
            let options = Options { first_rung, ..Options::default() };
            std::thread::spawn(move || run(&options, |_| {}, |_| core()).expect("a core starts"))
                .join()
                .expect("no panic");
        }
    }
}
