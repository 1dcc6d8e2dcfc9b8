//! One stream of an HTTP/2 connection as a leg of an exchange: chunks in with credit given as they are consumed,
//! chunks out as credit comes, a deadline that ends the stream alone.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use onehop_meter::names::Reason as Fault;
use onehop_net::clock::Nanos;
use onehop_net::deadline::Alarm;
use onehop_wire::http1::Limits;

use super::message;
use crate::exchange::body::Broken;

/// What has come of a body.
pub enum Incoming {
    /// Bytes, in [`Channel::buffered`]; `last`: the stream ended with them.
    Data { last: bool },
    /// The end, with trailers.
    Trailers(HeaderMap),
    /// The end.
    End,
    /// The stream was reset, its connection died, or its deadline passed.
    Broken,
}

/// What has come instead of, or as, a response head.
pub enum Heard {
    /// A 1xx.
    Interim(Response<()>),
    /// The final one; `ends`: without a body.
    Final { response: Response<()>, ends: bool },
    /// None will come.
    Broken,
}

enum Turn {
    /// We answer.
    Server(SendResponse<Bytes>),
    /// We are going to ask.
    Open(SendRequest<Bytes>),
    /// We are answered.
    Client(ResponseFuture),
    /// Heads have passed.
    Over,
}

/// One stream.
pub struct Channel {
    turn: Turn,
    recv: Option<RecvStream>,
    send: Option<SendStream<Bytes>>,
    chunk: Bytes,
    alarm: Alarm,
    error: Option<Box<h2::Error>>,
    unsent: bool,
    /// Nothing more is to be sent.
    ended: bool,
    /// We have reset it.
    is_reset: bool,
}

/// What is left of a stream that is to be reset: that happens when it is dropped.
pub struct Remains {
    turn: Turn,
    _recv: Option<RecvStream>,
    _send: Option<SendStream<Bytes>>,
}

impl Remains {
    /// Whether the peer has answered.
    pub fn is_answered(&self) -> bool {
        matches!(self.turn, Turn::Over)
    }
}

impl Channel {
    /// A stream that a client opened.
    pub fn server(recv: RecvStream, respond: SendResponse<Bytes>) -> Channel {
        Channel::new(Turn::Server(respond), Some(recv))
    }

    /// A stream that we are going to open; `sender` is ready.
    pub fn client(sender: SendRequest<Bytes>) -> Channel {
        Channel::new(Turn::Open(sender), None)
    }

    fn new(turn: Turn, recv: Option<RecvStream>) -> Channel {
        Channel {
            turn,
            recv,
            send: None,
            chunk: Bytes::new(),
            alarm: Alarm::new(),
            error: None,
            unsent: false,
            ended: false,
            is_reset: false,
        }
    }

    /// Whether the peer takes extended CONNECT (RFC 8441 3); asked before the stream is opened.
    pub fn allows_connect(&self) -> bool {
        matches!(&self.turn, Turn::Open(sender) if sender.is_extended_connect_protocol_enabled())
    }

    /// Opens the stream; `ends`: the request has no body. A failure shows when the answer is waited for.
    pub fn send_request(&mut self, request: Request<()>, ends: bool) {
        let Turn::Open(sender) = &mut self.turn else {
            return;
        };
        match sender.send_request(request, ends) {
            Ok((answer, send)) => {
                self.turn = Turn::Client(answer);
                self.send = Some(send);
                self.ended = ends;
            }
            Err(error) => {
                self.unsent = true;
                self.broken(error);
            }
        }
    }

    /// Whether the peer can have acted on the request: not one that was never sent, that it refused, or that its
    /// GOAWAY leaves out (RFC 9113 8.7).
    pub fn is_untouched(&self) -> bool {
        self.unsent
            || self.error.as_deref().is_some_and(|error| {
                error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
            })
    }

    /// Whether its connection ends in order, and leaves it out.
    pub fn is_left_out(&self) -> bool {
        let goes = |error: &h2::Error| error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
        self.unsent || self.error.as_deref().is_some_and(|error| error.is_remote() && goes(error))
    }

    /// Whether the peer refused it, or lost its patience with others on the connection before it came to this one.
    pub fn is_refused(&self) -> bool {
        let refused = |error: &h2::Error| match error.reason() {
            Some(Reason::REFUSED_STREAM) => true,
            Some(Reason::ENHANCE_YOUR_CALM) => error.is_go_away(),
            _ => false,
        };
        self.error.as_deref().is_some_and(|error| error.is_remote() && refused(error))
    }

    /// Payload that has come and was not consumed.
    #[inline]
    pub fn buffered(&self) -> &[u8] {
        &self.chunk
    }

    /// Forgets the first `count` bytes; the sender gets credit for as many.
    pub fn consume(&mut self, count: usize) {
        let _ = self.take(count);
    }

    /// Takes the first `count` bytes without copying them; the sender gets credit for as many.
    pub fn take(&mut self, count: usize) -> Bytes {
        self.release(count);
        if count == self.chunk.len() { std::mem::take(&mut self.chunk) } else { self.chunk.split_to(count) }
    }

    fn release(&mut self, count: usize) {
        if let Some(recv) = &mut self.recv {
            // It fails only when more is released than was received, which cannot be.
            let _ = recv.flow_control().release_capacity(count);
        }
    }

    /// Arms the deadline of the stream.
    pub fn arm(&self, due: Nanos) {
        self.alarm.arm(due);
    }

    /// It will not fire.
    pub fn disarm(&self) {
        self.alarm.disarm();
    }

    /// Whether the deadline has fired since it was armed last.
    pub fn timed_out(&self) -> bool {
        self.alarm.fired()
    }

    /// Whether the stream ended with an error.
    pub fn failed(&self) -> bool {
        self.error.is_some()
    }

    /// Why there was no answer, and whether it may be that an idle connection just went away.
    pub fn failure(&self) -> (Fault, bool) {
        match self.error.as_deref() {
            None => (Fault::UpstreamClosed, true),
            // How a connection ends whose peer floods, or gets its frames' sizes wrong (`net::h2`).
            Some(error) if error.get_io().is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData) => {
                (Fault::UpstreamBadResponse, false)
            }
            Some(error) if error.is_io() => (Fault::UpstreamClosed, true),
            Some(error) if error.is_remote() && error.is_go_away() => (Fault::UpstreamClosed, true),
            Some(error) if error.is_remote() => (Fault::UpstreamReset, false),
            // What it sent broke a rule.
            Some(_) => (Fault::UpstreamBadResponse, false),
        }
    }

    fn broken(&mut self, error: h2::Error) {
        self.error.get_or_insert_with(|| Box::new(error));
    }

    /// Waits for a part of the body.
    pub fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        loop {
            let Some(recv) = &mut self.recv else {
                return Poll::Ready(Incoming::End);
            };
            if !self.chunk.is_empty() {
                return Poll::Ready(Incoming::Data { last: recv.is_end_stream() });
            }
            match recv.poll_data(cx) {
                Poll::Pending if self.alarm.poll(cx).is_ready() => return Poll::Ready(Incoming::Broken),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(chunk))) => self.chunk = chunk,
                Poll::Ready(Some(Err(error))) => {
                    self.broken(error);
                    return Poll::Ready(Incoming::Broken);
                }
                Poll::Ready(None) => {
                    return match recv.poll_trailers(cx) {
                        Poll::Pending if self.alarm.poll(cx).is_ready() => Poll::Ready(Incoming::Broken),
                        Poll::Pending => Poll::Pending,
                        Poll::Ready(Ok(Some(map))) => Poll::Ready(Incoming::Trailers(map)),
                        Poll::Ready(Ok(None)) => Poll::Ready(Incoming::End),
                        Poll::Ready(Err(error)) => {
                            self.broken(error);
                            Poll::Ready(Incoming::Broken)
                        }
                    };
                }
            }
        }
    }

    /// Waits until some of `want` bytes may be sent; `None`: none ever will.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Option<usize>> {
        let Some(send) = &mut self.send else {
            return Poll::Ready(None);
        };
        send.reserve_capacity(want);
        let have = send.capacity();
        if have > 0 {
            return Poll::Ready(Some(have));
        }
        loop {
            match send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(0))) => {}
                Poll::Ready(Some(Ok(have))) => return Poll::Ready(Some(have)),
                Poll::Ready(Some(Err(error))) => {
                    self.broken(error);
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if self.alarm.poll(cx).is_ready() => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Sends bytes for which there is credit, and the end with them if asked to. `None`: the receiver is gone.
    pub fn send_data(&mut self, data: Bytes, end: bool) -> Option<()> {
        let sent = self.send.as_mut()?.send_data(data, end);
        self.ended |= end;
        sent.map_err(|error| self.broken(error)).ok()
    }

    /// Sends trailers that HTTP/1 wrote, and the end.
    pub fn send_trailers(&mut self, lines: &[u8], limits: &Limits) -> Result<(), Broken> {
        let map = message::trailers(lines, limits).map_err(Broken::Framing)?;
        let send = self.send.as_mut().ok_or(Broken::Sink)?;
        self.ended = true;
        send.send_trailers(map).map_err(|error| {
            self.broken(error);
            Broken::Sink
        })
    }

    /// Sends an interim response. `None`: the client is gone.
    pub fn send_interim(&mut self, response: Response<()>) -> Option<()> {
        match &mut self.turn {
            Turn::Server(respond) => respond.send_informational(response).ok(),
            _ => None,
        }
    }

    /// Sends the final response head. `None`: the client is gone.
    pub fn send_response(&mut self, response: Response<()>, ends: bool) -> Option<()> {
        let Turn::Server(respond) = &mut self.turn else {
            return None;
        };
        match respond.send_response(response, ends) {
            Ok(send) => {
                self.send = Some(send);
                self.turn = Turn::Over;
                Some(())
            }
            Err(error) => {
                self.broken(error);
                None
            }
        }
    }

    /// Whether the final response head was sent.
    pub fn has_answered(&self) -> bool {
        matches!(self.turn, Turn::Over)
    }

    /// Waits for a response head.
    pub fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        let Turn::Client(answer) = &mut self.turn else {
            return Poll::Ready(Heard::Broken);
        };
        if let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(cx) {
            return Poll::Ready(Heard::Interim(interim));
        }
        match Pin::new(answer).poll(cx) {
            Poll::Ready(Ok(response)) => {
                let (parts, recv) = response.into_parts();
                let ends = recv.is_end_stream();
                self.recv = Some(recv);
                self.turn = Turn::Over;
                Poll::Ready(Heard::Final { response: Response::from_parts(parts, ()), ends })
            }
            Poll::Ready(Err(error)) => {
                self.broken(error);
                Poll::Ready(Heard::Broken)
            }
            Poll::Pending if self.alarm.poll(cx).is_ready() => Poll::Ready(Heard::Broken),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether the peer has given the stream up; else the task is woken when it does.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = match (&mut self.turn, &mut self.send) {
            (Turn::Server(respond), _) => respond.poll_reset(cx),
            (_, Some(send)) => send.poll_reset(cx),
            _ => return Poll::Pending,
        };
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(reason)) => {
                self.broken(reason.into());
                Poll::Ready(())
            }
            Poll::Ready(Err(error)) => {
                self.broken(error);
                Poll::Ready(())
            }
        }
    }

    /// What would be reset if the stream that we opened were dropped now; nothing, if it has ended.
    pub fn leave(&mut self) -> Option<Remains> {
        let is_open = match &self.turn {
            Turn::Client(_) => true,
            Turn::Over => !self.ended || self.recv.as_ref().is_some_and(|recv| !recv.is_end_stream()),
            Turn::Server(_) | Turn::Open(_) => false,
        };
        if !is_open || self.is_reset || self.error.is_some() {
            return None;
        }
        let turn = std::mem::replace(&mut self.turn, Turn::Over);
        Some(Remains { turn, _recv: self.recv.take(), _send: self.send.take() })
    }

    /// Ends the stream at once with an error code.
    pub fn reset(&mut self, reason: Reason) {
        self.is_reset = true;
        if let Some(send) = &mut self.send {
            send.send_reset(reason);
        } else if let Turn::Server(respond) = &mut self.turn {
            respond.send_reset(reason);
        }
    }
}
