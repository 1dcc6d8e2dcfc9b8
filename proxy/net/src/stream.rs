//! A connection's byte stream: it owns its read buffer and at most one posted read, which outlives every future
//! that waits for it, so that waiting can be dropped and taken up again without losing a byte.
//! Writes are plain non-blocking calls from any slice; only a full socket waits.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::address::Address;
use crate::clock::Nanos;
use crate::core;
use crate::deadline::{Deadline, Ends};
use crate::sys::buf::{Buf, Size};
use crate::sys::duplex::Duplex;
use crate::sys::socket;
use crate::tls::Session;

mod secure;

/// What the stream and its read pump exchange: a buffer to fill, then the result.
enum Slot {
    Idle,
    Wanted(Buf),
    Reading,
    Done(io::Result<usize>, Buf),
}

type Wait = Pin<Box<dyn Future<Output = io::Result<()>>>>;
type Pump = Pin<Box<dyn Future<Output = ()>>>;

/// A connection, plain or TLS: above this crate they are used alike.
pub struct Stream {
    duplex: Option<Duplex>,
    fd: RawFd,
    slot: Rc<RefCell<Slot>>,
    pump: Option<Pump>,
    reading: bool,
    /// The posted wait for room to write; kept here, so that no operation is ever dropped half-way.
    writing: RefCell<Option<Wait>>,
    buf: Option<Buf>,
    /// With TLS, `buf` holds records, and the session the plaintext.
    tls: Option<Box<Session>>,
    ended: bool,
    failed: bool,
    resets: Cell<bool>,
    deadline: Deadline,
}

/// One coroutine per stream posts all its reads, so that a read costs no allocation.
fn pump(duplex: Duplex, slot: Rc<RefCell<Slot>>) -> Pump {
    Box::pin(async move {
        loop {
            let buf = poll_fn(|_| {
                let mut slot = slot.borrow_mut();
                // Looked at first: to move a buffer out and in again costs more than the question.
                if !matches!(*slot, Slot::Wanted(_)) {
                    return Poll::Pending;
                }
                match std::mem::replace(&mut *slot, Slot::Reading) {
                    Slot::Wanted(buf) => Poll::Ready(buf),
                    _ => Poll::Pending,
                }
            })
            .await;
            let (result, buf) = duplex.read(buf).await;
            *slot.borrow_mut() = Slot::Done(result, buf);
        }
    })
}

impl Stream {
    /// Takes a connected socket.
    ///
    /// # Errors
    /// When the engine cannot register the descriptor.
    pub fn new(fd: OwnedFd) -> io::Result<Stream> {
        Stream::over(Duplex::new(fd)?)
    }

    /// Takes a socket that this core's [`crate::listener::Listener`] accepted: its options are as they should be.
    ///
    /// # Errors
    /// As [`Stream::new`].
    pub fn accepted(fd: OwnedFd) -> io::Result<Stream> {
        Stream::over(Duplex::accepted(fd)?)
    }

    fn over(duplex: Duplex) -> io::Result<Stream> {
        let fd = duplex.raw_fd();
        let slot = Rc::new(RefCell::new(Slot::Idle));
        let pump = pump(duplex.clone(), slot.clone());
        Ok(Stream {
            duplex: Some(duplex),
            fd,
            slot,
            pump: Some(pump),
            reading: false,
            writing: RefCell::new(None),
            buf: None,
            tls: None,
            ended: false,
            failed: false,
            resets: Cell::new(false),
            deadline: Deadline::new(fd),
        })
    }

    /// Connects, with the socket made here so that its options can be set before.
    ///
    /// # Errors
    /// What the kernel says (refused, unreachable, no descriptors), or `TimedOut` at the deadline.
    pub async fn connect(address: &Address, due: Nanos) -> io::Result<Stream> {
        Stream::connect_from(address, None, due).await
    }

    /// Connects from an address that need not be this host's (IP_TRANSPARENT, which needs CAP_NET_ADMIN).
    ///
    /// # Errors
    /// As [`Stream::connect`]; `PermissionDenied` without the capability.
    pub async fn connect_from(address: &Address, source: Option<IpAddr>, due: Nanos) -> io::Result<Stream> {
        let (fd, connected) = socket::begin_connect(address, source)?;
        let stream = Stream::new(fd)?;
        if !connected {
            stream.deadline.arm(due, Ends::Both);
            stream.writable().await?;
            let error = socket::pending_error(stream.fd);
            if stream.deadline.fired() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            error?;
            stream.deadline.disarm();
        }
        core::completed();
        Ok(stream)
    }

    /// The bytes that were read and not consumed; none while a read is posted, which takes the buffer along.
    #[inline]
    pub fn buffered(&self) -> &[u8] {
        match &self.tls {
            None => self.buf.as_ref().map_or(&[], Buf::data),
            Some(session) => session.buffered(),
        }
    }

    /// Forgets the first `count` buffered bytes; an emptied buffer goes back to the pool before the next wait.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        if let Some(session) = &mut self.tls {
            session.consume(count);
        } else if let Some(buf) = &mut self.buf {
            buf.consume(count);
        }
    }

    /// Whether the peer has ended its side and all that it sent is buffered or consumed.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Whether reading ended with an error (a reset), not in order.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Reads more behind what is buffered, into a buffer of at least `size`. Zero is the end. Safe to drop: the
    /// posted read goes on, and the next call takes it up.
    ///
    /// # Errors
    /// What the kernel says. A deadline shows as an end or an error, and as [`Stream::timed_out`].
    pub fn fill(&mut self, size: Size) -> impl Future<Output = io::Result<usize>> + '_ {
        poll_fn(move |cx| self.poll_fill(cx, size))
    }

    /// [`Stream::fill`] for callers that wait for several things at once.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, size: Size) -> Poll<io::Result<usize>> {
        if self.tls.is_some() {
            return self.poll_fill_tls(cx, size);
        }
        self.poll_fill_raw(cx, size)
    }

    fn poll_fill_raw(&mut self, cx: &mut Context<'_>, size: Size) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        if !self.reading {
            self.post(size);
        }
        let Some(pump) = &mut self.pump else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        // The pump never ends.
        let _ = pump.as_mut().poll(cx);
        let mut slot = self.slot.borrow_mut();
        if !matches!(*slot, Slot::Done(..)) {
            return Poll::Pending;
        }
        let Slot::Done(result, buf) = std::mem::replace(&mut *slot, Slot::Idle) else {
            return Poll::Pending;
        };
        drop(slot);
        self.reading = false;
        core::completed();
        self.buf = Some(buf);
        self.ended = !matches!(result, Ok(1..));
        self.failed = result.is_err();
        Poll::Ready(result)
    }

    fn post(&mut self, size: Size) {
        let mut buf = self.buf.take().unwrap_or_else(|| Buf::take(size));
        if buf.is_empty() && buf.size() != size {
            buf = Buf::take(size);
        } else if buf.room() < size.bytes().min(buf.size().bytes()) / 2 {
            buf.compact();
            if buf.room() == 0 || buf.size() < size {
                buf.grow(if buf.size() < Size::Medium { Size::Medium } else { Size::Large });
            }
        }
        *self.slot.borrow_mut() = Slot::Wanted(buf);
        self.reading = true;
    }

    /// Whether a read is posted; its bytes are not visible until [`Stream::fill`] has taken them up.
    pub fn is_reading(&self) -> bool {
        self.reading
    }

    /// Reads what is there at once, without waiting; only when no read is posted.
    fn try_fill_raw(&mut self, size: Size) -> io::Result<usize> {
        if self.reading {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.post(size);
        self.reading = false;
        let Slot::Wanted(mut buf) = std::mem::replace(&mut *self.slot.borrow_mut(), Slot::Idle) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let result = socket::receive(self.fd, buf.spare());
        if let Ok(count) = result {
            buf.filled(count);
            self.ended = count == 0;
            core::completed();
        }
        self.buf = Some(buf);
        result
    }

    /// Gives an empty buffer back to the pool.
    pub fn release(&mut self) {
        if let Some(session) = &mut self.tls {
            session.release();
        }
        if self.buf.as_ref().is_some_and(Buf::is_empty) {
            self.buf = None;
        }
    }

    /// Whether an idle connection is open and nothing waits on it: no byte, no end, no error. With TLS, tickets and
    /// key updates that wait are taken up first.
    pub fn is_quiet(&mut self) -> bool {
        if self.ended || self.reading || !self.buffered().is_empty() {
            return false;
        }
        if self.tls.is_none() {
            return self.buf.as_ref().is_none_or(Buf::is_empty) && socket::is_quiet(self.fd);
        }
        self.is_quiet_tls()
    }

    /// Writes what fits at once.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is full, else what the kernel says.
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_parts(bytes, &[])
    }

    /// Writes what fits of two slices at once, in one call. After `WouldBlock` the same bytes must be offered again.
    ///
    /// # Errors
    /// As [`Stream::try_write`].
    #[inline]
    pub fn try_write_parts(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        if let Some(session) = &self.tls {
            session.write(self.fd, first, second)
        } else if second.is_empty() {
            socket::send(self.fd, first)
        } else if first.is_empty() {
            socket::send(self.fd, second)
        } else {
            socket::send_vectored(self.fd, &[IoSlice::new(first), IoSlice::new(second)])
        }
    }

    /// Waits until the socket takes bytes again. Safe to drop.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> + '_ {
        poll_fn(|cx| self.poll_writable(cx))
    }

    /// [`Stream::writable`] for callers that wait for several things at once.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(duplex) = &self.duplex else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let mut writing = self.writing.borrow_mut();
        let wait = writing.get_or_insert_with(|| {
            let duplex = duplex.clone();
            Box::pin(async move { duplex.writable().await })
        });
        let polled = wait.as_mut().poll(cx);
        if polled.is_ready() {
            *writing = None;
            core::completed();
        }
        polled
    }

    /// Writes all of it. Dropped in the middle, an unknown part has been written: close the stream then.
    ///
    /// # Errors
    /// What the kernel says; `TimedOut` when the deadline fired meanwhile.
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_all_vectored(bytes, &[]).await
    }

    /// Writes a head and what follows it in as few calls as possible.
    ///
    /// # Errors
    /// As [`Stream::write_all`].
    pub async fn write_all_vectored(&self, mut head: &[u8], mut body: &[u8]) -> io::Result<()> {
        while !head.is_empty() || !body.is_empty() {
            match self.try_write_parts(head, body) {
                Ok(sent) => {
                    let from_head = sent.min(head.len());
                    head = &head[from_head..];
                    body = &body[sent - from_head..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable().await?;
                    if self.deadline.fired() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if self.deadline.fired() => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the write side: the peer reads an end.
    ///
    /// # Errors
    /// When the peer is gone already.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match &self.tls {
            None => socket::shutdown_write(self.fd),
            Some(session) => session.shutdown_write(self.fd),
        }
    }

    /// Whether the peer has left as far as the kernel knows, of a stream that nobody reads at the moment: it was reset, or its end
    /// has come before `to_come` more bytes did. An end by itself is no leaving.
    pub fn has_left(&self, to_come: Option<u64>) -> bool {
        match socket::standing(self.fd) {
            socket::Standing::Open => false,
            socket::Standing::Over => true,
            // What a session has is not counted, nor what a posted read has taken.
            socket::Standing::Ended(waiting) => {
                self.tls.is_none() && !self.reading && to_come.is_some_and(|to_come| waiting < to_come)
            }
        }
    }

    /// Lets the close send a reset: for a response that cannot be completed, so that nobody takes it for whole.
    pub fn reset_on_close(&self) {
        self.resets.set(true);
        socket::reset_on_close(self.fd);
    }

    /// This stream's deadline.
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// Whether its deadline has fired since it was armed last.
    pub fn timed_out(&self) -> bool {
        self.deadline.fired()
    }

    /// Local and remote address, asked of the kernel.
    pub fn names(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        socket::names(self.fd)
    }

    /// Where the connection was meant to go before it was redirected here; its local address where it was not.
    pub fn original_destination(&self) -> Option<SocketAddr> {
        socket::original_destination(self.fd)
    }

    /// Its descriptor, for logs.
    pub fn raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Some(duplex) = self.duplex.take() else {
            return;
        };
        let Some(mut pump) = self.pump.take() else {
            return;
        };
        self.deadline.disarm();
        let mut writing = self.writing.borrow_mut().take();
        // A wait that nobody asked again, since the socket took bytes before, may be over.
        let mut cx = Context::from_waker(Waker::noop());
        if writing.as_mut().is_some_and(|wait| wait.as_mut().poll(&mut cx).is_ready()) {
            writing = None;
        }
        let ending = secure::end(self.tls.take(), self.fd, !self.resets.get() && !self.failed);
        if !self.reading && writing.is_none() && ending.is_none() {
            drop(pump);
            duplex.close();
            return;
        }
        let (fd, reading, slot) = (self.fd, self.reading, self.slot.clone());
        if ending.is_none() {
            // What is to be reset must not say that it ends in order before: a posted read completes without that too. (A
            // write that waits does not, but the end is behind what it waits for, and goes nowhere.)
            socket::shutdown(fd, !self.resets.get() || writing.is_some());
        }
        crate::runtime::spawn(async move {
            if let Some(session) = ending {
                secure::send_rest(&session, &duplex).await;
                socket::shutdown(fd, !reading);
            }
            // A posted operation holds the descriptor: it is waited for, and only then comes the close.
            if let Some(writing) = writing {
                let _ = writing.await;
            }
            if reading {
                poll_fn(|cx| {
                    let _ = pump.as_mut().poll(cx);
                    if matches!(*slot.borrow(), Slot::Done(..) | Slot::Idle) { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            *slot.borrow_mut() = Slot::Idle;
            drop(pump);
            duplex.close();
        });
    }
}

/// Whatever of two waits ends first. Both futures are polled on every wake.
pub enum Either<A, B> {
    /// The first one.
    Left(A),
    /// The second one.
    Right(B),
}

/// Waits for the first of two; the other is dropped, so both must be safe to drop.
pub async fn first<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    let mut a = std::pin::pin!(a);
    let mut b = std::pin::pin!(b);
    poll_fn(|cx| {
        if let Poll::Ready(value) = a.as_mut().poll(cx) {
            return Poll::Ready(Either::Left(value));
        }
        if let Poll::Ready(value) = b.as_mut().poll(cx) {
            return Poll::Ready(Either::Right(value));
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
pub(crate) mod tests;
