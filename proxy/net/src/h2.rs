//! From our streams to what the `h2` crate polls: reads come from the stream's own posted read, writes are plain calls.
//! On the way in, the nine-byte frame heads are walked and counted, since `h2` tells nobody of PING, SETTINGS,
//! PRIORITY, RST_STREAM or WINDOW_UPDATE frames; a peer that sends more than its budget is named here.
//! Must not know what the frames mean beyond their type.

#[cfg(any(test, feature = "fuzzing"))]
pub mod pieces;
mod walker;

pub use walker::{Breach, Flood, Walker};

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Stream;
use crate::clock::{self, Nanos};
use crate::deadline::Ends;
use crate::sys::buf::Size;

/// What answers the PING of `h2`'s orderly end: that a peer sends it is not waited for without an end.
const SHUTDOWN_PONG: [u8; 17] = [0, 0, 8, 6, 1, 0, 0, 0, 0, 0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];

/// What the adapter tells the task that drives the connection.
#[derive(Default)]
pub struct Heard {
    breach: Cell<Option<Breach>>,
    bytes: Cell<u64>,
    stalled: Cell<bool>,
    settled: Cell<bool>,
    /// SETTINGS of ours that the peer has acknowledged.
    acknowledged: Cell<u32>,
    /// What is to be sent waits for the peer.
    blocked: Cell<bool>,
    /// When the header block began that the peer has not ended.
    block_since: Cell<Option<Nanos>>,
    overdue: Cell<bool>,
    turn: Cell<Turn>,
    /// The peer is taken to have acknowledged the PING of an orderly end.
    presumed: Cell<bool>,
}

/// What is known of reading in this poll of the connection's task. `h2` reads once more for each stream that is accepted;
/// no read completes in between.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Turn {
    /// Nobody says when a poll begins.
    #[default]
    Untold,
    /// Nothing is known yet.
    Fresh,
    /// A read is posted, and its waker is this task's.
    Waits,
}

impl Heard {
    /// A poll of the task that drives the connection begins; told once, it must be told each time.
    pub fn begin_turn(&self) {
        self.turn.set(Turn::Fresh);
    }

    /// From here on it is as if the peer had acknowledged the PING with which `h2` begins an orderly end: without that it
    /// would never say which stream is the last, and never close.
    pub fn presume_pong(&self) {
        self.presumed.set(true);
    }

    /// Whether the peer's SETTINGS have come.
    pub fn is_settled(&self) -> bool {
        self.settled.get()
    }

    /// How many SETTINGS of ours the peer has acknowledged: it has read what was sent before them.
    pub fn acknowledged(&self) -> u32 {
        self.acknowledged.get()
    }

    /// Whether some of what is to be sent waits for the peer.
    pub fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// When the header block began that has not come to its end: until it does, no other frame of the connection can come
    /// (RFC 9113 4.3), and no stream is there to run out of time.
    pub fn block_since(&self) -> Option<Nanos> {
        self.block_since.get()
    }

    /// The open header block has taken too long: the next read ends as with a breach.
    pub fn give_up_block(&self) {
        self.overdue.set(true);
    }

    /// What the peer has done, once. Nothing is read from it any more.
    pub fn take_breach(&self) -> Option<Breach> {
        self.breach.take()
    }

    /// Bytes that have come.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether the peer took nothing for so long that the connection was given up.
    pub fn stalled(&self) -> bool {
        self.stalled.get()
    }
}

/// A stream as `h2` polls it.
pub struct Io {
    stream: Stream,
    walker: Walker,
    heard: Rc<Heard>,
    /// How long the peer may take nothing of what waits to be sent.
    write_idle_ns: u64,
    busy: bool,
    deaf: bool,
    /// What was written so far ends with a whole frame.
    aligned: bool,
    /// Bytes that `h2` is to read before all others: a head that came in pieces, or a presumed PONG.
    owed: [u8; 17],
    /// Where they begin; at the array's end there are none.
    owed_from: usize,
    /// The peer is a client: whoever drives the connection tells it what it did.
    from_client: bool,
    /// Our side has ended: bytes that are still read of the other.
    parting: Option<usize>,
}

impl Io {
    /// Wraps a stream that stands at the beginning of HTTP/2. `from_client`: the peer begins with the preface.
    pub fn new(stream: Stream, from_client: bool, write_idle_ns: u64) -> (Io, Rc<Heard>) {
        let heard = Rc::new(Heard::default());
        stream.deadline().disarm();
        let io = Io {
            stream,
            walker: Walker::new(from_client),
            heard: heard.clone(),
            write_idle_ns,
            busy: false,
            deaf: false,
            aligned: true,
            owed: [0; 17],
            owed_from: 17,
            from_client,
            parting: None,
        };
        (io, heard)
    }

    /// `h2` lets a client say no GOAWAY of its own: an upstream is told here, unless a frame is half-way out.
    fn say_goaway(&mut self, breach: Breach) {
        if self.aligned {
            let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, breach.code()];
            // The connection is given up either way.
            let _ = self.stream.try_write_parts(&goaway, &[]);
        }
    }

    fn owe(&mut self, bytes: &[u8]) {
        self.owed_from = self.owed.len() - bytes.len();
        self.owed[self.owed_from..].copy_from_slice(bytes);
    }

    /// Hands out what is owed; false when that is nothing.
    fn pay(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.owed_from == self.owed.len() && self.heard.presumed.get() && self.walker.is_between() {
            self.heard.presumed.set(false);
            self.owe(&SHUTDOWN_PONG);
        }
        let count = buf.remaining().min(self.owed.len() - self.owed_from);
        buf.put_slice(&self.owed[self.owed_from..self.owed_from + count]);
        self.owed_from += count;
        count > 0
    }

    /// Waits for bytes; false at their end.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !self.stream.is_reading() && !self.stream.buffered().is_empty() {
            return Poll::Ready(Ok(true));
        }
        // An idle connection parks a small buffer; a busy one a larger.
        let size = if self.busy { Size::Medium } else { Size::Small };
        let Poll::Ready(filled) = self.stream.poll_fill(cx, size) else {
            if self.heard.turn.get() == Turn::Fresh {
                self.heard.turn.set(Turn::Waits);
            }
            return Poll::Pending;
        };
        let count = filled?;
        if count > 0 {
            self.busy = count >= Size::Small.bytes() / 2;
        }
        Poll::Ready(Ok(count > 0))
    }

    /// `h2` does not see these bytes: whoever drives the connection decides what is said.
    fn hear_breach(&mut self, cx: &Context<'_>, breach: Breach) -> Poll<io::Result<()>> {
        self.deaf = true;
        self.heard.breach.set(Some(breach));
        if self.from_client {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.say_goaway(breach);
        // Its streams hear of it as of a rule that was broken.
        Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
    }

    /// Waits for the socket. The deadline runs while the peer takes nothing.
    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.heard.blocked.replace(true) {
            let span = Duration::from_nanos(self.write_idle_ns);
            self.stream.deadline().arm_while_full(clock::now(), span, Nanos::MAX);
        }
        let waited = ready!(self.stream.poll_writable(cx));
        if self.stream.timed_out() {
            self.heard.stalled.set(true);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Ready(waited)
    }

    fn poll_write_parts(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.try_write_parts(first, second) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_blocked(cx))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if self.stream.timed_out() => {
                    self.heard.stalled.set(true);
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                other => {
                    if self.heard.blocked.take() {
                        self.stream.deadline().disarm();
                    }
                    self.aligned = other.as_ref().is_ok_and(|count| *count == first.len() + second.len());
                    self.walker.sent(*other.as_ref().unwrap_or(&0));
                    return Poll::Ready(other);
                }
            }
        }
    }
}

/// How long a client may take to close its side, once all has been said to it.
const FAREWELL_NS: u64 = 2_000_000_000;
/// Bytes of a client that are read meanwhile: as much as a wide window lets it have on its way.
const FAREWELL_BYTES: usize = 16 << 20;

impl Io {
    /// Ends our side, and waits for a client's end: what it had sent before it heard of ours, credit for the last answer above
    /// all, would else be answered with a reset, and it would take its streams for lost that were answered in full.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.parting.is_none() {
            // A peer that is gone hears nothing.
            if self.stream.shutdown_write().is_err() || !self.from_client {
                return Poll::Ready(());
            }
            self.parting = Some(FAREWELL_BYTES);
            self.stream.deadline().arm(clock::now() + FAREWELL_NS, Ends::Both);
        }
        loop {
            if !self.stream.is_reading() {
                let here = self.stream.buffered().len();
                self.stream.consume(here);
                self.parting = self.parting.map(|left| left.saturating_sub(here));
            }
            if self.stream.ended() || self.parting == Some(0) {
                return Poll::Ready(());
            }
            if !matches!(ready!(self.stream.poll_fill(cx, Size::Small)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.deaf {
            return Poll::Pending;
        }
        if this.heard.overdue.get() {
            return this.hear_breach(cx, Breach::Overdue);
        }
        loop {
            if this.pay(buf) {
                return Poll::Ready(Ok(()));
            }
            if this.heard.turn.get() == Turn::Waits {
                return Poll::Pending;
            }
            if !ready!(this.poll_bytes(cx))? {
                let held = std::mem::take(&mut this.walker.have);
                if held == 0 {
                    return Poll::Ready(Ok(()));
                }
                // What was held back shows that the end came too early.
                this.owe(&{ this.walker.head }[..held]);
                continue;
            }
            let data = this.stream.buffered();
            let taken = this.walker.take(data, buf.remaining(), clock::now());
            this.heard.bytes.set(this.heard.bytes.get() + taken.seen as u64);
            this.heard.block_since.set(this.walker.block_since());
            this.heard.acknowledged.set(this.walker.acknowledged());
            if let Some(breach) = taken.breach {
                return this.hear_breach(cx, breach);
            }
            if !this.heard.settled.get() && this.walker.is_settled() {
                this.heard.settled.set(true);
            }
            buf.put_slice(&data[..taken.passed]);
            this.stream.consume(taken.seen);
            if taken.owes_head {
                this.owe(&{ this.walker.head });
            }
            if taken.passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_parts(cx, buf, &[])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // `h2` has at most two at a time: its own buffer, and the payload of one DATA frame.
        let mut parts = bufs.iter().filter(|part| !part.is_empty());
        let first = parts.next().map_or(&[][..], |part| part);
        let second = parts.next().map_or(&[][..], |part| part);
        self.get_mut().poll_write_parts(cx, first, second)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_farewell(cx).map(Ok)
    }
}
