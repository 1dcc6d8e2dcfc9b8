//! One direction of a message body on its way to an HTTP/1 receiver, framed and checked as it passes.
//! It is polled, so that both directions of an exchange move at the same time and each stops when its reader is slow.
//! Whatever is already framed as it must be sent is written straight from the buffer it was read into.

use std::io;
use std::task::{Context, Poll, ready};

use onehop_net::{Size, Stream};
use onehop_wire::http1::{BodyLength, ChunkedDecoder, Limits, Part, Reject};

use super::leg::Leg;
use super::reader::{Next, Reader};

/// How the body is to be framed towards its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As it came.
    Verbatim,
    /// A chunked body without its framing, for an HTTP/1.0 client: the close ends it.
    Unchunked,
    /// A body that its sender ends by closing, or whose length HTTP/2 does not tell, chunked, so that a cut one can be
    /// told from a whole one.
    Chunked,
}

/// Why a body stopped early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The sender ended or reset before the end of the body.
    Source,
    /// The sender's framing is wrong.
    Framing(Reject),
    /// The receiver is gone.
    Sink,
    /// More than the route allows.
    TooLarge,
}

/// Up to so many bytes of a body join its head.
const JOINED: usize = 2048;

enum Left {
    Nothing,
    Length(u64),
    Chunks(ChunkedDecoder),
    UntilClose,
    /// Not from an HTTP/1 connection: pulled as frames.
    Frames(Reader),
}

/// A body on its way.
pub struct Body {
    left: Left,
    framing: Framing,
    /// Bytes of our own (a head, a chunk's size line, trailers) that go before `pass`.
    staged: Vec<u8>,
    staged_sent: usize,
    /// Bytes at the front of the source's buffer that were checked and may be written.
    pass: usize,
    /// A chunk that we made needs its end of line after `pass`.
    closes_chunk: bool,
    /// That chunk is the body's last.
    closes_body: bool,
    large: bool,
    limits: Limits,
    /// Payload bytes, framing excluded where it is known.
    bytes: u64,
    max_bytes: u64,
    sink_full: bool,
    grpc_status: Option<u16>,
}

impl Body {
    /// A body whose message head (already encoded in `head`) goes first, in the same write as its first bytes.
    pub fn new(length: BodyLength, framing: Framing, head: Vec<u8>, limits: Limits, max_bytes: Option<u64>) -> Body {
        let left = match length {
            BodyLength::None | BodyLength::Length(0) => Left::Nothing,
            BodyLength::Length(length) => Left::Length(length),
            BodyLength::Chunked => Left::Chunks(ChunkedDecoder::new()),
            BodyLength::UntilClose => Left::UntilClose,
        };
        let large = matches!(length, BodyLength::Length(length) if length >= Size::Medium.bytes() as u64 * 4);
        Body { large, ..Body::from(left, framing, head, limits, max_bytes) }
    }

    /// A body that is pulled as frames.
    pub fn of_frames(reader: Reader, framing: Framing, head: Vec<u8>, limits: Limits, max_bytes: Option<u64>) -> Body {
        let left = if reader.is_done() { Left::Nothing } else { Left::Frames(reader) };
        Body::from(left, framing, head, limits, max_bytes)
    }

    fn from(left: Left, framing: Framing, head: Vec<u8>, limits: Limits, max_bytes: Option<u64>) -> Body {
        Body {
            left,
            framing,
            staged: head,
            staged_sent: 0,
            pass: 0,
            closes_chunk: false,
            closes_body: false,
            large: false,
            limits,
            bytes: 0,
            max_bytes: max_bytes.unwrap_or(u64::MAX),
            sink_full: false,
            grpc_status: None,
        }
    }

    /// The `grpc-status` of the trailers that have passed.
    pub fn grpc_status(&self) -> Option<u16> {
        self.grpc_status
    }

    /// Payload bytes that have passed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Those of them that the receiver's connection has taken.
    pub fn sent(&self) -> u64 {
        self.bytes - self.pass as u64
    }

    /// Whether the last poll stopped because the receiver takes no more.
    pub fn sink_is_full(&self) -> bool {
        self.sink_full
    }

    /// Bytes that the sender still has to send, where that is known.
    pub fn to_come(&self) -> Option<u64> {
        match &self.left {
            Left::Length(left) => Some(*left),
            Left::Frames(reader) => reader.left(),
            _ => None,
        }
    }

    /// Whether nothing was written, not even the head.
    pub fn is_unsent(&self) -> bool {
        self.bytes == 0 && self.staged_sent == 0 && !self.staged.is_empty()
    }

    /// Whether everything was written.
    pub fn is_done(&self) -> bool {
        matches!(self.left, Left::Nothing) && self.is_flushed()
    }

    /// Writes the head alone, for a client that expects to be told to go on.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, from: &mut Leg<'_>, to: &Stream) -> Poll<Result<(), Broken>> {
        if self.is_flushed() { Poll::Ready(Ok(())) } else { self.flush(cx, from, to) }
    }

    /// Hands the head's buffer out, to be written by the caller, or for reuse.
    pub fn take_staged(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.staged)
    }

    /// Everything was written by the caller.
    pub fn finish(&mut self) {
        self.left = Left::Nothing;
    }

    /// Moves what it can; `Ready` at the end of the body, or when it breaks.
    pub fn poll(&mut self, cx: &mut Context<'_>, from: &mut Leg<'_>, to: &Stream) -> Poll<Result<(), Broken>> {
        self.join_frames(cx, from)?;
        loop {
            if !self.is_flushed() {
                match self.flush(cx, from, to) {
                    Poll::Ready(Ok(())) => {}
                    other => return other,
                }
            }
            match &mut self.left {
                Left::Nothing => return Poll::Ready(Ok(())),
                Left::Frames(reader) => {
                    let next = ready!(reader.poll_next(cx, from))?;
                    self.take_frame(next)?;
                    continue;
                }
                _ => {}
            }
            let Leg::Http1(stream) = from else {
                return Poll::Ready(Err(Broken::Source));
            };
            if !stream.buffered().is_empty() {
                // Before a head is sent, what is at hand joins it in one write.
                match self.take(stream) {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(broken) => return Poll::Ready(Err(broken)),
                }
            }
            match stream.poll_fill(cx, if self.large { Size::Large } else { Size::Medium }) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(count @ 1..)) => self.large |= count >= Size::Medium.bytes(),
                Poll::Ready(Ok(_)) if matches!(self.left, Left::UntilClose) => self.end_of_close_delimited(),
                Poll::Ready(_) => return Poll::Ready(Err(Broken::Source)),
            }
        }
    }

    /// Puts the body's first buffered bytes behind the head before the first write.
    pub fn prime(&mut self, from: &mut Leg<'_>) -> Result<(), Broken> {
        if let Leg::Http1(stream) = from
            && !matches!(self.left, Left::Nothing | Left::Frames(_))
            && self.pass == 0
            && !stream.buffered().is_empty()
        {
            self.take(stream)?;
        }
        Ok(())
    }

    /// What has come by frames joins a head that waits to be written.
    #[inline]
    fn join_frames(&mut self, cx: &mut Context<'_>, from: &mut Leg<'_>) -> Result<(), Broken> {
        if let Left::Frames(reader) = &mut self.left
            && self.pass == 0
            && self.staged_sent == 0
            && !self.staged.is_empty()
            && !self.closes_chunk
            && let Poll::Ready(next) = reader.poll_next(cx, from)
        {
            self.take_frame(next?)?;
        }
        Ok(())
    }

    /// Frames what has come of a body that is pulled.
    fn take_frame(&mut self, next: Next) -> Result<(), Broken> {
        match next {
            Next::Data { length, last } => {
                if last && let Left::Frames(reader) = &self.left {
                    self.grpc_status = reader.grpc_status();
                }
                if self.framing == Framing::Chunked {
                    push_size_line(&mut self.staged, length);
                    self.closes_chunk = true;
                    self.closes_body = last;
                }
                self.pass = length;
                self.count(length)
            }
            Next::Trailers(lines) => {
                self.left = Left::Nothing;
                // A body of known length has no place for trailers.
                if self.framing == Framing::Chunked {
                    self.staged.extend_from_slice(b"0\r\n");
                    self.staged.extend_from_slice(&lines);
                }
                Ok(())
            }
            Next::End => {
                self.end_of_close_delimited();
                Ok(())
            }
        }
    }

    fn is_flushed(&self) -> bool {
        self.pass == 0 && self.staged_sent == self.staged.len() && !self.closes_chunk
    }

    /// A small body is copied behind its head: one plain send costs less than a gathering one.
    fn join(&mut self, from: &mut Leg<'_>) {
        if self.staged_sent == 0 && self.pass > 0 && self.pass <= JOINED && !self.staged.is_empty() {
            match &mut self.left {
                Left::Frames(reader) => {
                    self.staged.extend_from_slice(&reader.data(from)[..self.pass]);
                    reader.consume(from, self.pass);
                }
                _ => {
                    self.staged.extend_from_slice(&from.buffered()[..self.pass]);
                    from.consume(self.pass);
                }
            }
            self.pass = 0;
            self.close_chunk();
        }
    }

    /// The end of a chunk that we made, and of the body if it was its last.
    fn close_chunk(&mut self) {
        if !std::mem::take(&mut self.closes_chunk) {
            return;
        }
        self.staged.extend_from_slice(b"\r\n");
        if std::mem::take(&mut self.closes_body) {
            self.end_of_close_delimited();
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>, from: &mut Leg<'_>, to: &Stream) -> Poll<Result<(), Broken>> {
        self.sink_full = false;
        self.join(from);
        loop {
            let staged = &self.staged[self.staged_sent..];
            let ready = match &self.left {
                Left::Frames(reader) => &reader.data(from)[..self.pass],
                _ => &from.buffered()[..self.pass],
            };
            if staged.is_empty() && ready.is_empty() {
                self.staged.clear();
                self.staged_sent = 0;
                if !self.closes_chunk {
                    return Poll::Ready(Ok(()));
                }
                self.close_chunk();
                continue;
            }
            match to.try_write_parts(staged, ready) {
                Ok(sent) => {
                    let from_staged = sent.min(staged.len());
                    self.staged_sent += from_staged;
                    let passed = sent - from_staged;
                    self.pass -= passed;
                    match &mut self.left {
                        Left::Frames(reader) => reader.consume(from, passed),
                        _ => from.consume(passed),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match to.poll_writable(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Sink)),
                    Poll::Pending => {
                        self.sink_full = true;
                        return Poll::Pending;
                    }
                },
                Err(_) => return Poll::Ready(Err(Broken::Sink)),
            }
        }
    }

    /// Checks what is buffered and marks what may be written. False when more bytes are needed first.
    fn take(&mut self, from: &mut Stream) -> Result<bool, Broken> {
        let buffered = from.buffered();
        match &mut self.left {
            Left::Nothing | Left::Frames(_) => Ok(false),
            Left::Length(left) => {
                self.pass = buffered.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= self.pass as u64;
                if *left == 0 {
                    self.left = Left::Nothing;
                }
                self.count(self.pass)?;
                Ok(true)
            }
            Left::UntilClose => {
                self.pass = buffered.len();
                if self.framing == Framing::Chunked {
                    push_size_line(&mut self.staged, self.pass);
                    self.closes_chunk = true;
                }
                self.count(self.pass)?;
                Ok(true)
            }
            Left::Chunks(_) if self.framing == Framing::Unchunked => self.take_unchunked(from),
            Left::Chunks(decoder) => {
                let scan = decoder.scan(buffered).map_err(Broken::Framing)?;
                self.pass = scan.forward;
                self.count(scan.forward)?;
                let Some(trailers) = scan.trailers else {
                    return Ok(scan.forward > 0);
                };
                self.left = Left::Nothing;
                self.take_trailers(from, trailers)?;
                Ok(true)
            }
        }
    }

    /// The end of a chunked body: its trailer section is copied without the fields that may not be there.
    fn take_trailers(&mut self, from: &mut Stream, length: usize) -> Result<(), Broken> {
        let section = &from.buffered()[self.pass..self.pass + length];
        if section == b"\r\n" {
            self.pass += length;
            return Ok(());
        }
        // Rare: everything before it is copied too, since the section that follows is ours.
        let mut copy = from.buffered()[..self.pass].to_vec();
        onehop_wire::http1::trailers(section, &self.limits, &mut copy).map_err(Broken::Framing)?;
        from.consume(self.pass + length);
        self.pass = 0;
        self.staged.extend_from_slice(&copy);
        Ok(())
    }

    fn take_unchunked(&mut self, from: &mut Stream) -> Result<bool, Broken> {
        let mut moved = false;
        loop {
            let Left::Chunks(decoder) = &mut self.left else {
                return Ok(true);
            };
            match decoder.next(from.buffered()).map_err(Broken::Framing)? {
                Part::NeedMore => return Ok(moved),
                Part::Framing(length) => from.consume(length),
                Part::Data(length) => {
                    self.pass = length;
                    self.count(length)?;
                    return Ok(true);
                }
                Part::Trailers(length) => {
                    from.consume(length);
                    self.left = Left::Nothing;
                }
            }
            moved = true;
        }
    }

    fn end_of_close_delimited(&mut self) {
        self.left = Left::Nothing;
        if self.framing == Framing::Chunked {
            self.staged.extend_from_slice(b"0\r\n\r\n");
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), Broken> {
        self.bytes += bytes as u64;
        if self.bytes > self.max_bytes { Err(Broken::TooLarge) } else { Ok(()) }
    }
}

fn push_size_line(out: &mut Vec<u8>, size: usize) {
    use std::io::Write;
    // Writing to a vector cannot fail.
    let _ = write!(out, "{size:x}\r\n");
}
