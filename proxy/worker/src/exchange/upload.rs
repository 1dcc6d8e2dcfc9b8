//! Where a try's upload comes from: the client's leg, or the tape that keeps what it has sent.

use std::cell::OnceCell;

use onehop_wire::http1::BodyLength;

use super::attempt::Attempt;
use super::body::{Body, Framing};
use super::leg::Leg;
use super::reader::Reader;
use super::tape::Tape;
use crate::upstream::{Conn, Lease};

/// Bytes of a request that are kept until an HTTP/2 upstream has begun to answer it: it may refuse a stream, or leave it out
/// by its GOAWAY, whose body it has taken already. Such a promise not to have acted on it is worth nothing without the body.
const KEPT: usize = 64 * 1024;

impl Attempt<'_> {
    /// The request's body, as far as it is kept.
    pub(super) fn tape(&self) -> Option<&Tape> {
        self.tape.and_then(OnceCell::get)
    }

    /// Keeps what an HTTP/2 upstream is going to be sent, where nobody does yet.
    pub(super) fn keep(&self, client: &Leg<'_>) {
        if let Some(cell) = self.tape
            && !self.tunnels()
            && !matches!(client, Leg::Nobody)
            && !matches!(self.request.head.body, BodyLength::None | BodyLength::Length(0))
        {
            cell.get_or_init(|| Tape::passing(self.reader(client), KEPT, self.limits()));
        }
    }

    /// The request cannot be refused any more.
    pub(super) fn let_go(&self) {
        if let Some(tape) = self.tape() {
            tape.answered();
        }
    }

    pub(super) fn wire(&self, client: &Leg<'_>, head: Vec<u8>) -> Body {
        let body = self.request.head.body;
        if self.tape().is_none() && matches!(client, Leg::Http1(_)) {
            return Body::new(body, Framing::Verbatim, head, self.limits(), self.route.max_body);
        }
        let framing = if body == BodyLength::Chunked { Framing::Chunked } else { Framing::Verbatim };
        Body::of_frames(self.reader(client), framing, head, self.limits(), self.route.max_body)
    }

    /// Where the request's body comes from.
    pub(super) fn reader(&self, client: &Leg<'_>) -> Reader {
        let body = self.request.head.body;
        match (self.tape(), client) {
            (Some(tape), _) => Reader::kept(tape.play()),
            (None, Leg::Http2(_)) => Reader::http2(body == BodyLength::None, self.limits()),
            (None, _) => Reader::http1(body, self.limits()),
        }
    }

    /// Whether the whole body is at hand, so that it can be sent again if need be.
    pub(super) fn is_whole(&self, client: &Leg<'_>, lease: &Lease) -> bool {
        match (self.request.head.body, client, &lease.conn) {
            (BodyLength::Length(length), Leg::Http1(stream), Conn::Http1(_)) => {
                self.tape().is_none() && !self.request.head.expect_continue && length <= stream.buffered().len() as u64
            }
            _ => false,
        }
    }
}
