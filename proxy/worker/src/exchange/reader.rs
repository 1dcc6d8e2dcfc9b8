//! A body pulled as frames from a leg, its HTTP/1 framing taken off. Used wherever the body does not pass from
//! HTTP/1 to HTTP/1: there it is relayed with its framing.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use onehop_net::Size;
use onehop_wire::http1::{BodyLength, ChunkedDecoder, Limits, Part, Reject, ResponseHead};

use super::body::Broken;
use super::inject::Slow;
use super::leg::Leg;
use super::tape::Playback;
use crate::http2::Incoming;
use crate::http2::web::Translated;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// So many bytes at the front of [`Reader::data`]; consume all of them before asking again.
    Data {
        /// Bytes.
        length: usize,
        /// The body ends behind them.
        last: bool,
    },
    /// The end, with trailers as HTTP/1 writes them: field lines and a blank one.
    Trailers(Vec<u8>),
    /// The end.
    End,
}

enum From {
    Nothing,
    Length(u64),
    Chunks(ChunkedDecoder),
    UntilClose,
    Frames,
    /// Frames of a message that may have no content.
    NoContent,
    /// Frames of a tunnel.
    Tunnel,
    /// A body held in memory.
    Held(Bytes),
    /// A body of gRPC-Web, translated as it passes.
    Web(Box<Translated>),
    /// A body that is kept as it streams.
    Kept(Box<Playback>),
    /// A body that is slowed down on purpose.
    Slow(Box<Slow>),
}

/// A body on its way in.
pub struct Reader {
    from: From,
    limits: Limits,
}

impl Reader {
    /// The body of an HTTP/1 message.
    pub fn http1(length: BodyLength, limits: Limits) -> Reader {
        let from = match length {
            BodyLength::None | BodyLength::Length(0) => From::Nothing,
            BodyLength::Length(length) => From::Length(length),
            BodyLength::Chunked => From::Chunks(ChunkedDecoder::new()),
            BodyLength::UntilClose => From::UntilClose,
        };
        Reader { from, limits }
    }

    /// The body of an HTTP/2 message; `empty`: it ended with its head.
    pub fn http2(empty: bool, limits: Limits) -> Reader {
        Reader { from: if empty { From::Nothing } else { From::Frames }, limits }
    }

    /// What follows the head of an HTTP/2 response: nothing but its end, or trailers, where its status allows no content.
    /// Content would be a response of its own to whoever reads HTTP/1 (RFC 9112 6.3).
    pub fn http2_response(head: &ResponseHead, ends: bool, limits: Limits) -> Reader {
        let no_content = head.body == BodyLength::None && !ends && !head.tunnels;
        let from = if no_content { From::NoContent } else { From::Frames };
        Reader { from: if ends || head.tunnels { From::Nothing } else { from }, limits }
    }

    /// What an HTTP/2 stream carries that is a tunnel: DATA alone (RFC 9113 8.5).
    pub fn tunnel(limits: Limits) -> Reader {
        Reader { from: From::Tunnel, limits }
    }

    /// A body that is all here.
    pub fn held(bytes: Bytes, limits: Limits) -> Reader {
        let from = if bytes.is_empty() { From::Nothing } else { From::Held(bytes) };
        Reader { from, limits }
    }

    /// Bytes still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match &self.from {
            From::Nothing => Some(0),
            From::Length(left) => Some(*left),
            _ => None,
        }
    }

    /// A body that is translated as it passes.
    pub fn translated(translated: Box<Translated>) -> Reader {
        let limits = translated.limits();
        Reader { from: From::Web(translated), limits }
    }

    /// The limits of its trailers.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The `grpc-status` of trailers that were made part of the body.
    pub fn grpc_status(&self) -> Option<u16> {
        match &self.from {
            From::Web(web) => web.grpc_status(),
            _ => None,
        }
    }

    /// A body that is kept as it streams, from its beginning.
    pub fn kept(playback: Playback) -> Reader {
        Reader { from: From::Kept(Box::new(playback)), limits: Limits::default() }
    }

    /// The same body at so many bytes a second.
    pub fn slowed(self, rate: u64) -> Reader {
        if self.is_done() {
            return self;
        }
        let limits = self.limits;
        Reader { from: From::Slow(Box::new(Slow::new(self, rate))), limits }
    }

    /// Whether nothing is left to come.
    pub fn is_done(&self) -> bool {
        matches!(self.from, From::Nothing)
    }

    /// Nothing more is wanted.
    pub fn finish(&mut self) {
        self.from = From::Nothing;
    }

    /// The bytes that [`Next::Data`] speaks of.
    pub fn data<'x>(&'x self, leg: &'x Leg<'_>) -> &'x [u8] {
        match &self.from {
            From::Held(bytes) => bytes,
            From::Web(web) => web.data(leg),
            From::Kept(playback) => playback.data(),
            From::Slow(slow) => slow.data(leg),
            _ => leg.buffered(),
        }
    }

    /// The first `count` of them were passed on.
    pub fn consume(&mut self, leg: &mut Leg<'_>, count: usize) {
        match &mut self.from {
            From::Held(_) | From::Kept(_) => drop(self.take(leg, count)),
            From::Web(web) => web.consume(leg, count),
            From::Slow(slow) => slow.consume(leg, count),
            _ => leg.consume(count),
        }
    }

    /// The first `count` of them as bytes that can be kept: those of an HTTP/2 leg are not copied.
    pub fn take(&mut self, leg: &mut Leg<'_>, count: usize) -> Bytes {
        match (&mut self.from, leg) {
            (From::Held(bytes), _) => {
                let taken = bytes.split_to(count);
                if bytes.is_empty() {
                    self.from = From::Nothing;
                }
                taken
            }
            (From::Web(web), leg) => web.take(leg, count),
            (From::Slow(slow), leg) => slow.take(leg, count),
            (From::Kept(playback), _) => playback.take(count),
            (_, Leg::Http2(channel)) => channel.take(count),
            (_, Leg::Nobody) => Bytes::new(),
            (_, Leg::Http1(stream)) => {
                let taken = Bytes::copy_from_slice(&stream.buffered()[..count]);
                stream.consume(count);
                taken
            }
        }
    }

    /// Waits for what comes next.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, leg: &mut Leg<'_>) -> Poll<Result<Next, Broken>> {
        match (&mut self.from, leg) {
            (From::Nothing, _) => Poll::Ready(Ok(Next::End)),
            (From::Held(bytes), _) => Poll::Ready(Ok(Next::Data { length: bytes.len(), last: true })),
            (From::Web(web), leg) => web.poll_next(cx, leg),
            (From::Slow(slow), leg) => slow.poll_next(cx, leg),
            (From::Kept(playback), leg) => playback.poll_next(cx, leg),
            (From::Frames | From::NoContent | From::Tunnel, Leg::Http2(channel)) => {
                match ready!(channel.poll_incoming(cx)) {
                    Incoming::Data { .. } if matches!(self.from, From::NoContent) => {
                        Poll::Ready(Err(Broken::Framing(Reject::BadLength)))
                    }
                    Incoming::Data { last } => {
                        let length = channel.buffered().len();
                        if last {
                            self.from = From::Nothing;
                        }
                        Poll::Ready(Ok(Next::Data { length, last }))
                    }
                    Incoming::Trailers(_) if matches!(self.from, From::Tunnel) => {
                        Poll::Ready(Err(Broken::Framing(Reject::ConnectWithBody)))
                    }
                    Incoming::Trailers(map) => {
                        self.from = From::Nothing;
                        let mut lines = Vec::new();
                        let fields = map.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
                        let written = onehop_wire::http2::trailer_lines(fields, &self.limits, &mut lines);
                        Poll::Ready(written.map(|()| Next::Trailers(lines)).map_err(Broken::Framing))
                    }
                    Incoming::End => {
                        self.from = From::Nothing;
                        Poll::Ready(Ok(Next::End))
                    }
                    Incoming::Broken => Poll::Ready(Err(Broken::Source)),
                }
            }
            (_, Leg::Http1(stream)) => loop {
                if let Some(next) = self.take_http1(stream)? {
                    return Poll::Ready(Ok(next));
                }
                match ready!(stream.poll_fill(cx, Size::Medium)) {
                    Ok(1..) => {}
                    Ok(_) if matches!(self.from, From::UntilClose) => {
                        self.from = From::Nothing;
                        return Poll::Ready(Ok(Next::End));
                    }
                    _ => return Poll::Ready(Err(Broken::Source)),
                }
            },
            // A reader is made for its leg.
            (_, Leg::Http2(_) | Leg::Nobody) => Poll::Ready(Err(Broken::Source)),
        }
    }

    /// What is buffered of an HTTP/1 body, its framing taken off; `None` needs more bytes.
    fn take_http1(&mut self, stream: &mut onehop_net::Stream) -> Result<Option<Next>, Broken> {
        loop {
            let buffered = stream.buffered().len();
            if buffered == 0 {
                return Ok(None);
            }
            match &mut self.from {
                From::Length(left) => {
                    let length = buffered.min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= length as u64;
                    let last = *left == 0;
                    if last {
                        self.from = From::Nothing;
                    }
                    return Ok(Some(Next::Data { length, last }));
                }
                From::Chunks(decoder) => match decoder.next(stream.buffered()).map_err(Broken::Framing)? {
                    Part::NeedMore => return Ok(None),
                    Part::Framing(length) => stream.consume(length),
                    Part::Data(length) => return Ok(Some(Next::Data { length, last: false })),
                    Part::Trailers(length) => {
                        let section = stream.buffered()[..length].to_vec();
                        stream.consume(length);
                        self.from = From::Nothing;
                        return Ok(Some(if length == 2 { Next::End } else { Next::Trailers(section) }));
                    }
                },
                _ => return Ok(Some(Next::Data { length: buffered, last: false })),
            }
        }
    }
}
