//! One side of an exchange, whichever version it speaks: where bodies are pulled from and pushed to, and what its
//! deadline is. An HTTP/1 leg is a stream; an HTTP/2 leg is one stream of a multiplexed connection.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use onehop_net::Stream;
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::Ends;

use crate::http2::Channel;

/// One side of an exchange.
pub enum Leg<'a> {
    /// A whole connection.
    Http1(&'a mut Stream),
    /// A stream of one.
    Http2(&'a mut Channel),
    /// Nobody: the leg of an attempt whose body is held in memory and whose answer another one may overtake.
    Nobody,
}

impl Leg<'_> {
    /// The bytes that have come and were not consumed. HTTP/1: with their framing; HTTP/2: payload.
    #[inline]
    pub fn buffered(&self) -> &[u8] {
        match self {
            Leg::Http1(stream) => stream.buffered(),
            Leg::Http2(channel) => channel.buffered(),
            Leg::Nobody => &[],
        }
    }

    /// Forgets the first `count` of them, which gives an HTTP/2 sender credit for as many more.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        match self {
            Leg::Http1(stream) => stream.consume(count),
            Leg::Http2(channel) => channel.consume(count),
            Leg::Nobody => {}
        }
    }

    /// Arms the deadline. On HTTP/2 it ends the stream alone, whichever side was meant.
    #[inline]
    pub fn arm(&self, due: Nanos, ends: Ends) {
        match self {
            Leg::Http1(stream) => stream.deadline().arm(due, ends),
            Leg::Http2(channel) => channel.arm(due),
            Leg::Nobody => {}
        }
    }

    /// Arms the deadline of a receiver that takes no more at the moment: it has `span` to go on, and what it takes meanwhile,
    /// where the kernel knows of it, counts. At `until` it ends whatever it takes.
    pub fn arm_while_full(&self, now: Nanos, span: Duration, until: Nanos) {
        match self {
            Leg::Http1(stream) => stream.deadline().arm_while_full(now, span, until),
            Leg::Http2(channel) => channel.arm(clock::after(now, span).min(until)),
            Leg::Nobody => {}
        }
    }

    /// It will not fire.
    #[inline]
    pub fn disarm(&self) {
        match self {
            Leg::Http1(stream) => stream.deadline().disarm(),
            Leg::Http2(channel) => channel.disarm(),
            Leg::Nobody => {}
        }
    }

    /// Whether the deadline has fired since it was armed last.
    #[inline]
    pub fn timed_out(&self) -> bool {
        match self {
            Leg::Http1(stream) => stream.timed_out(),
            Leg::Http2(channel) => channel.timed_out(),
            Leg::Nobody => false,
        }
    }

    /// Whether it ended with an error (a reset), not in order.
    pub fn failed(&self) -> bool {
        match self {
            Leg::Http1(stream) => stream.failed(),
            Leg::Http2(channel) => channel.failed(),
            Leg::Nobody => false,
        }
    }

    /// Whether the peer can send no more and all that it sent was consumed.
    pub fn ended(&self) -> bool {
        match self {
            Leg::Http1(stream) => stream.ended(),
            Leg::Http2(channel) => channel.failed(),
            Leg::Nobody => false,
        }
    }

    /// Waits for something, unless the peer gives its stream up meanwhile: thousands of streams that are opened only to be
    /// reset would else stand in line for connections. Of an HTTP/1 peer that cannot be seen here.
    pub async fn or_left<T>(&mut self, wait: impl Future<Output = T>) -> Option<T> {
        let mut wait = std::pin::pin!(wait);
        poll_fn(|cx| {
            if let Poll::Ready(done) = wait.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            match self {
                Leg::Http2(channel) => channel.poll_left(cx).map(|()| None),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Whether it is a stream of a multiplexed connection.
    #[inline]
    pub fn is_http2(&self) -> bool {
        matches!(self, Leg::Http2(_))
    }
}
