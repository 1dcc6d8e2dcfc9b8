//! The engine's socket, shared by the read pump of a stream and by its writer on the same core.

use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use monoio::io::AsyncReadRent;
use monoio::net::TcpStream;

use super::buf::Buf;
use super::socket;

/// One socket that can be read and awaited for writing at the same time.
#[derive(Clone)]
pub struct Duplex {
    inner: Rc<UnsafeCell<TcpStream>>,
}

impl Duplex {
    pub fn new(fd: OwnedFd) -> io::Result<Duplex> {
        let nonblocking = crate::core::is_epoll();
        socket::set_nonblocking(fd.as_raw_fd(), nonblocking)?;
        Duplex::accepted(fd)
    }

    /// Of a socket that was accepted on this core, in the mode that its engine wants.
    pub fn accepted(fd: OwnedFd) -> io::Result<Duplex> {
        Ok(Duplex { inner: Rc::new(UnsafeCell::new(socket::adopt(fd)?)) })
    }

    pub fn raw_fd(&self) -> RawFd {
        // SAFETY: see `read`.
        unsafe { &*self.inner.get() }.as_raw_fd()
    }

    /// Posts one read into the buffer's room and waits for it. Never drop it and go on: bytes would be lost.
    ///
    /// (The operation is made here: an `async fn` would keep the buffer's place for as long as a connection idles.)
    pub fn read(&self, buf: Buf) -> impl Future<Output = (io::Result<usize>, Buf)> {
        // SAFETY: the engine's stream is one reference-counted descriptor; `read` uses the exclusive reference only
        // to clone it when the operation is made, and nothing else of the stream is ever written. The type is
        // bound to this thread, so no two references are used at the same instant.
        let stream = unsafe { &mut *self.inner.get() };
        stream.read(buf)
    }

    /// Waits until something can be read (or the end or an error waits), holding no buffer.
    pub async fn readable(&self) -> io::Result<()> {
        // SAFETY: as in `read`.
        unsafe { &*self.inner.get() }.readable(false).await
    }

    /// Waits until something can be written. Safe to drop.
    pub async fn writable(&self) -> io::Result<()> {
        // SAFETY: as in `read`.
        unsafe { &*self.inner.get() }.writable(false).await
    }

    /// Closes with a plain call when nothing is pending; with an operation still held by the engine, by its own close.
    pub fn close(self) {
        if let Ok(stream) = Rc::try_unwrap(self.inner) {
            let stream = stream.into_inner();
            // The engine panics here while an operation holds the descriptor; the callers make sure that none does.
            socket::close(stream.into_raw_fd());
        }
    }

    /// Gives the descriptor back, as `close` does.
    pub fn into_fd(self) -> Option<OwnedFd> {
        use std::os::fd::FromRawFd;
        let stream = Rc::try_unwrap(self.inner).ok()?.into_inner();
        // SAFETY: the engine has just given up the descriptor; nobody else owns it.
        Some(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) })
    }
}
