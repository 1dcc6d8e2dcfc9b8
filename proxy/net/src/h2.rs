//! From our streams to what the `h2` crate polls: reads come from the stream's own posted read, writes are plain calls.
//! On the way in, the nine-byte frame heads are walked and counted, since `h2` tells nobody of PING, SETTINGS,
//! PRIORITY, RST_STREAM or WINDOW_UPDATE frames; a peer that sends more than its budget is named here.
//! Must not know what the frames mean beyond their type.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Stream;
use crate::clock::{self, Nanos};
use crate::deadline::Ends;
use crate::sys::buf::Size;

/// What a peer may flood us with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// RST_STREAM: streams opened only to be given up (CVE-2023-44487).
    Resets,
    /// SETTINGS, each of which wants an answer (CVE-2019-9515).
    Settings,
    /// PING, likewise (CVE-2019-9512).
    Pings,
    /// PRIORITY (CVE-2019-9513); deprecated, and ignored.
    Priorities,
    /// WINDOW_UPDATE.
    WindowUpdates,
    /// HEADERS, CONTINUATION or DATA without content and without an end (CVE-2019-9518).
    EmptyFrames,
    /// CONTINUATION (CVE-2024-27316).
    Continuations,
    /// Frames of unknown types.
    Unknown,
}

/// Why a peer is not listened to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// It sends more than its budget: ENHANCE_YOUR_CALM.
    Flood(Flood),
    /// A frame is not as long as its type must be: FRAME_SIZE_ERROR of the connection (RFC 9113 4.2), which `h2` would
    /// call a PROTOCOL_ERROR.
    Size,
    /// Its first frame is not SETTINGS: PROTOCOL_ERROR of the connection (RFC 9113 3.4), which `h2` does not look at.
    Unsettled,
}

impl Breach {
    /// The error code of GOAWAY (RFC 9113 7).
    fn code(self) -> u8 {
        match self {
            Breach::Flood(_) => 11,
            Breach::Size => 6,
            Breach::Unsettled => 1,
        }
    }
}

/// How many floods there are.
const FLOODS: usize = 8;

impl Flood {
    /// Frames that may come at once, and for how long one of them counts. nghttp2 allows 1000 resets and then 33 a second;
    /// here every second stream may be reset besides, as in Envoy: a client with short deadlines gives many up. The other figures leave room for what busy clients were seen to send.
    fn budget(self) -> (u32, u64) {
        const MS: u64 = 1_000_000;
        match self {
            Flood::Resets => (500, 30 * MS),
            Flood::Settings => (100, 1000 * MS),
            Flood::Pings => (1000, 10 * MS),
            Flood::Priorities => (1000, 10 * MS),
            Flood::WindowUpdates => (50_000, MS / 20),
            Flood::EmptyFrames => (100, 100 * MS),
            Flood::Continuations => (1000, 10 * MS),
            Flood::Unknown => (1000, 10 * MS),
        }
    }
}

/// Walks frame heads and keeps the budgets. Pure: time is an argument.
#[derive(Debug)]
pub struct Walker {
    head: [u8; 9],
    have: usize,
    /// Bytes of the current frame's payload still to pass.
    skip: usize,
    /// Bytes of the connection preface still to pass.
    preface: usize,
    levels: [u32; FLOODS],
    drained_at: [u64; FLOODS],
    /// A frame's head has passed.
    begun: bool,
    /// Every second stream that is opened makes up for a reset.
    odd: bool,
}

/// Length of the client's connection preface (RFC 9113 3.4).
const PREFACE: usize = 24;

impl Walker {
    /// For what a client sends (with its preface), or a server.
    pub fn new(from_client: bool) -> Walker {
        Walker {
            head: [0; 9],
            have: 0,
            skip: 0,
            preface: if from_client { PREFACE } else { 0 },
            levels: [0; FLOODS],
            drained_at: [0; FLOODS],
            begun: false,
            odd: false,
        }
    }

    /// Whether the peer's first frame, its SETTINGS, has passed as a whole.
    pub fn is_settled(&self) -> bool {
        self.begun && self.skip == 0 && self.have == 0
    }

    /// Walks on; names the first breach.
    pub fn walk(&mut self, mut bytes: &[u8], now: Nanos) -> Option<Breach> {
        let mut breach = None;
        while !bytes.is_empty() {
            let passed = self.preface.min(bytes.len());
            self.preface -= passed;
            bytes = &bytes[passed..];
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = &bytes[passed..];
            let taken = bytes.len().min(9 - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == 9 {
                self.have = 0;
                self.skip = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]) as usize;
                let begun = std::mem::replace(&mut self.begun, true);
                let settles = self.head[3] == 4 && self.head[4] & 1 == 0;
                let unsettled = (!begun && !settles).then_some(Breach::Unsettled);
                breach = breach.or(unsettled).or_else(|| self.count(now));
            }
        }
        breach
    }

    fn count(&mut self, now: Nanos) -> Option<Breach> {
        let (kind, flags, length) = (self.head[3], self.head[4], self.skip);
        let ends_stream = flags & 1 == 1;
        let padded = usize::from(flags >> 3 & 1);
        let sized = match kind {
            0 => length >= padded,
            1 => length >= padded + if flags & 0x20 == 0 { 0 } else { 5 },
            2 => length == 5,
            3 | 8 => length == 4,
            4 => length.is_multiple_of(6) && (flags & 1 == 0 || length == 0),
            6 => length == 8,
            7 => length >= 8,
            _ => true,
        };
        if !sized {
            return Some(Breach::Size);
        }
        let flood = match kind {
            0 | 1 if length == 0 && !ends_stream => Flood::EmptyFrames,
            1 => {
                self.odd = !self.odd;
                let resets = &mut self.levels[Flood::Resets as usize];
                *resets = resets.saturating_sub(u32::from(self.odd));
                return None;
            }
            0 => return None,
            2 => Flood::Priorities,
            3 => Flood::Resets,
            4 | 6 if flags & 1 == 1 => return None,
            4 => Flood::Settings,
            6 => Flood::Pings,
            5 | 7 => return None,
            8 => Flood::WindowUpdates,
            9 if length == 0 => Flood::EmptyFrames,
            9 => Flood::Continuations,
            _ => Flood::Unknown,
        };
        let index = flood as usize;
        let (burst, each_ns) = flood.budget();
        let drained = (now.saturating_sub(self.drained_at[index])) / each_ns;
        if drained > 0 {
            self.levels[index] = self.levels[index].saturating_sub(u32::try_from(drained).unwrap_or(u32::MAX));
            self.drained_at[index] = now;
        }
        self.levels[index] += 1;
        (self.levels[index] > burst).then_some(Breach::Flood(flood))
    }
}

/// What the adapter tells the task that drives the connection.
#[derive(Default)]
pub struct Heard {
    breach: Cell<Option<Breach>>,
    bytes: Cell<u64>,
    stalled: Cell<bool>,
    settled: Cell<bool>,
    turn: Cell<Turn>,
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

    /// Whether the peer's SETTINGS have come.
    pub fn is_settled(&self) -> bool {
        self.settled.get()
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
    blocked: bool,
    busy: bool,
    deaf: bool,
    /// What was written so far ends with a whole frame.
    aligned: bool,
    /// The peer is a client: whoever drives the connection tells it what it did.
    from_client: bool,
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
            blocked: false,
            busy: false,
            deaf: false,
            aligned: true,
            from_client,
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

    /// Waits for the socket. The deadline runs while the peer takes nothing.
    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.blocked {
            self.blocked = true;
            self.stream.deadline().arm(clock::now().saturating_add(self.write_idle_ns), Ends::Both);
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
                    if std::mem::take(&mut self.blocked) {
                        self.stream.deadline().disarm();
                    }
                    self.aligned = other.as_ref().is_ok_and(|count| *count == first.len() + second.len());
                    return Poll::Ready(other);
                }
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.deaf || this.heard.turn.get() == Turn::Waits {
            return Poll::Pending;
        }
        if this.stream.is_reading() || this.stream.buffered().is_empty() {
            // An idle connection parks a small buffer; a busy one a larger.
            let size = if this.busy { Size::Medium } else { Size::Small };
            let filled = this.stream.poll_fill(cx, size);
            let Poll::Ready(filled) = filled else {
                if this.heard.turn.get() == Turn::Fresh {
                    this.heard.turn.set(Turn::Waits);
                }
                return Poll::Pending;
            };
            match filled {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(count) => this.busy = count >= Size::Small.bytes() / 2,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let data = this.stream.buffered();
        let count = data.len().min(buf.remaining());
        this.heard.bytes.set(this.heard.bytes.get() + count as u64);
        if let Some(breach) = this.walker.walk(&data[..count], clock::now()) {
            // `h2` does not see these bytes: whoever drives the connection decides what is said.
            this.deaf = true;
            this.heard.breach.set(Some(breach));
            if !this.from_client {
                this.say_goaway(breach);
                // Its streams hear of it as of a rule that was broken.
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !this.heard.settled.get() && this.walker.is_settled() {
            this.heard.settled.set(true);
        }
        buf.put_slice(&data[..count]);
        this.stream.consume(count);
        Poll::Ready(Ok(()))
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

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A peer that is gone hears nothing.
        let _ = self.stream.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, (payload >> 8) as u8, payload as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(9 + payload, 7);
        frame
    }

    fn settled() -> Walker {
        let mut walker = Walker::new(false);
        assert_eq!(walker.walk(&frame(4, 0, 0), 5), None);
        walker
    }

    #[test]
    fn settings_come_first() {
        for (kind, flags) in [(0, 0), (1, 5), (4, 1), (6, 0), (99, 0)] {
            assert_eq!(Walker::new(false).walk(&frame(kind, flags, 0), 5), Some(Breach::Unsettled));
            assert_ne!(settled().walk(&frame(kind, flags, 0), 5), Some(Breach::Unsettled));
        }
    }

    #[test]
    fn sizes_are_those_of_their_types() {
        for (kind, flags, right, wrong) in [
            (0, 8, 1, 0),
            (1, 0x28, 6, 5),
            (2, 0, 5, 4),
            (3, 0, 4, 5),
            (4, 0, 12, 13),
            (4, 1, 0, 6),
            (6, 0, 8, 7),
            (7, 0, 8, 7),
            (8, 0, 4, 3),
        ] {
            assert_eq!(settled().walk(&frame(kind, flags, right), 5), None, "{kind}");
            assert_eq!(settled().walk(&frame(kind, flags, wrong), 5), Some(Breach::Size), "{kind}");
        }
    }

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for _ in 0..101 {
            bytes.extend(frame(4, 0, 6));
            bytes.extend(frame(0, 0, 300));
            bytes.extend(frame(6, 1, 8));
        }
        for cut in [1, 2, 7, 9, 10, 64, 1000, bytes.len()] {
            let mut walker = Walker::new(true);
            let floods: Vec<_> = bytes.chunks(cut).filter_map(|part| walker.walk(part, 5)).collect();
            assert_eq!(floods, [Breach::Flood(Flood::Settings)], "cut at {cut}");
        }
    }

    #[test]
    fn budgets_refill_with_time() {
        let mut walker = settled();
        let reset = frame(3, 0, 4);
        let mut now = 1_000_000_000_000;
        for _ in 0..20_000 {
            now += 31_000_000;
            assert_eq!(walker.walk(&reset, now), None);
        }
        let mut floods = 0;
        for _ in 0..501 {
            floods += usize::from(walker.walk(&reset, now) == Some(Breach::Flood(Flood::Resets)));
        }
        assert!((1..=2).contains(&floods), "{floods}");
    }

    #[test]
    fn every_second_stream_may_be_reset() {
        let (head, reset) = (frame(1, 5, 3), frame(3, 0, 4));
        let mut busy = settled();
        for _ in 0..10_000 {
            for frame in [&head, &head, &reset] {
                assert_eq!(busy.walk(frame, 5), None);
            }
        }
        let mut rapid = settled();
        let floods = (0..1010).filter(|_| rapid.walk(&head, 5).or(rapid.walk(&reset, 5)).is_some());
        assert!(floods.count() > 0);
    }

    #[test]
    fn what_ends_a_stream_or_carries_content_is_no_flood() {
        let mut walker = settled();
        for _ in 0..10_000 {
            assert_eq!(walker.walk(&frame(0, 1, 0), 5), None);
            assert_eq!(walker.walk(&frame(1, 5, 3), 5), None);
            assert_eq!(walker.walk(&frame(4, 1, 0), 5), None);
        }
        for number in 0..101 {
            assert_eq!(walker.walk(&frame(0, 0, 0), 5).is_some(), number == 100);
        }
    }
}
