//! A stream's TLS: how it begins, and how reading goes through it.

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::Stream;
use crate::clock::{self, Nanos};
use crate::deadline::{Deadline, Ends};
use crate::sys::buf::{Buf, Size};
use crate::sys::duplex::Duplex;
use crate::sys::socket;
use crate::tls::{self, Accept, Connect, HandshakeError, Info, Session};

/// How long what was written last may take to leave after its stream was dropped.
const LAST_WORDS_NS: u64 = 5_000_000_000;

/// Ends a session whose stream is dropped: in order, the peer is told. Returns it if something still has to be sent.
pub(super) fn end(session: Option<Box<Session>>, fd: RawFd, in_order: bool) -> Option<Box<Session>> {
    let session = session.filter(|_| in_order)?;
    // A peer that is gone hears nothing.
    let _ = session.close_notify(fd);
    if session.is_pending() {
        return Some(session);
    }
    // A close with unread bytes sends a reset, which would take what was just written along; and a server's tickets
    // are often unread.
    socket::discard(fd);
    None
}

/// Sends what a dropped stream has sealed, within bounds.
pub(super) async fn send_rest(session: &Session, duplex: &Duplex) {
    let fd = duplex.raw_fd();
    let deadline = Deadline::new(fd);
    deadline.arm(clock::now() + LAST_WORDS_NS, Ends::Both);
    while session.is_pending() && !deadline.fired() {
        match session.flush(fd) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if duplex.writable().await.is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    socket::discard(fd);
}

impl Stream {
    /// Shakes hands as the server, until `due`; from then on the stream carries what is inside.
    ///
    /// # Errors
    /// Why there is no TLS; the stream is of no further use, except for what can be said to [`HandshakeError::NotTls`].
    pub async fn accept_tls(&mut self, accept: &Accept, due: Nanos) -> Result<(), HandshakeError> {
        self.deadline().arm(due, Ends::Both);
        let session = tls::accept(self, accept).await?;
        self.deadline().disarm();
        self.tls = Some(Box::new(session));
        Ok(())
    }

    /// Shakes hands as the client, until `due`.
    ///
    /// # Errors
    /// Why there is no TLS; the stream is of no further use.
    pub async fn connect_tls(&mut self, connect: &Connect, due: Nanos) -> Result<(), HandshakeError> {
        self.deadline().arm(due, Ends::Both);
        let session = tls::connect(self, connect).await?;
        self.deadline().disarm();
        self.tls = Some(Box::new(session));
        Ok(())
    }

    /// What the handshake gave; `None` for a plain stream.
    pub fn tls(&self) -> Option<&Rc<Info>> {
        self.tls.as_ref().map(|session| &session.info)
    }

    /// The protocol that ALPN chose, if any.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls().and_then(|info| info.alpn.as_deref())
    }

    /// Asks the peer to change its keys.
    #[cfg(test)]
    pub(crate) fn ask_for_key_update(&self) {
        if let Some(session) = &self.tls {
            session.ask_for_key_update(self.fd).expect("asks");
        }
    }

    /// The bytes from the wire, for rustls, which decrypts in place.
    pub(crate) fn cipher_mut(&mut self) -> &mut [u8] {
        self.buf.as_mut().map_or(&mut [], Buf::data_mut)
    }

    /// Opens what is here; `None` when more bytes are needed first.
    fn open(&mut self, size: Size) -> Option<io::Result<usize>> {
        let session = self.tls.as_mut()?;
        if session.heard_close() {
            self.ended = true;
            return Some(Ok(0));
        }
        let cipher = self.buf.as_mut()?;
        let opened = session.absorb(cipher, size, self.fd);
        if cipher.is_empty() {
            // While it idles, the next read decides how large a buffer it parks.
            self.buf = None;
        }
        match opened {
            Ok(0) if session.heard_close() => {
                self.ended = true;
                Some(Ok(0))
            }
            Ok(0) => None,
            Err(error) => {
                self.ended = true;
                self.failed = true;
                Some(Err(error))
            }
            Ok(count) => Some(Ok(count)),
        }
    }

    pub(super) fn poll_fill_tls(&mut self, cx: &mut Context<'_>, size: Size) -> Poll<io::Result<usize>> {
        loop {
            if self.ended {
                return Poll::Ready(Ok(0));
            }
            if !self.reading
                && let Some(opened) = self.open(size)
            {
                return Poll::Ready(opened);
            }
            if let Some(session) = &self.tls
                && session.is_pending()
            {
                // An answer to the peer (a key update, an end) that did not fit: perhaps it does now.
                let _ = session.flush(self.fd);
            }
            let size = match (&self.tls, &self.buf) {
                (Some(session), Some(cipher)) => session.wants(cipher.data(), size),
                _ => size,
            };
            if let 0 = ready!(self.poll_fill_raw(cx, size))? {
                return Poll::Ready(self.cut());
            }
        }
    }

    /// The socket ended without a close_notify: what came may not be all (RFC 8446 6.1). A deadline looks alike.
    fn cut(&mut self) -> io::Result<usize> {
        if self.timed_out() {
            return Ok(0);
        }
        self.failed = true;
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer ended without a TLS close_notify"))
    }

    pub(super) fn is_quiet_tls(&mut self) -> bool {
        loop {
            if self.open(Size::Small).is_some() {
                return false;
            }
            if socket::is_quiet(self.fd) {
                return true;
            }
            let size = match (&self.tls, &self.buf) {
                (Some(session), Some(cipher)) => session.wants(cipher.data(), Size::Small),
                _ => Size::Small,
            };
            if !matches!(self.try_fill_raw(size), Ok(1..)) {
                return false;
            }
        }
    }
}
