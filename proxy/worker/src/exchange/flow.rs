//! One direction of an exchange's bodies, whatever the versions of its two legs.

use std::task::{Context, Poll};

use super::body::{Body, Broken};
use super::leg::Leg;
use super::pour::Pour;

/// One direction.
pub enum Flow {
    /// To an HTTP/1 receiver, which gets the head by the same way.
    Wire(Body),
    /// To an HTTP/2 receiver, which has got the head.
    Frames(Pour),
}

impl Flow {
    /// Payload bytes that have passed.
    pub fn bytes(&self) -> u64 {
        match self {
            Flow::Wire(body) => body.bytes(),
            Flow::Frames(pour) => pour.bytes(),
        }
    }

    /// Those of them that the receiver has taken, as far as can be seen.
    pub fn sent(&self) -> u64 {
        match self {
            Flow::Wire(body) => body.sent(),
            Flow::Frames(pour) => pour.sent(),
        }
    }

    /// Whether the last poll stopped because the receiver takes no more.
    pub fn sink_is_full(&self) -> bool {
        match self {
            Flow::Wire(body) => body.sink_is_full(),
            Flow::Frames(pour) => pour.sink_is_full(),
        }
    }

    /// Whether everything was sent.
    pub fn is_done(&self) -> bool {
        match self {
            Flow::Wire(body) => body.is_done(),
            Flow::Frames(pour) => pour.is_done(),
        }
    }

    /// Whether nothing was written, not even the head.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Flow::Wire(body) if body.is_unsent())
    }

    /// Whether any of the body was taken from the sender.
    pub fn has_started(&self) -> bool {
        self.bytes() > 0
    }

    /// Bytes that the sender still has to send, where that is known.
    pub fn to_come(&self) -> Option<u64> {
        match self {
            Flow::Wire(body) => body.to_come(),
            Flow::Frames(pour) => pour.to_come(),
        }
    }

    /// The `grpc-status` of the trailers that have passed.
    pub fn grpc_status(&self) -> Option<u16> {
        match self {
            Flow::Wire(body) => body.grpc_status(),
            Flow::Frames(pour) => pour.grpc_status(),
        }
    }

    /// Writes the head alone, for a client that expects to be told to go on.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Leg<'_>,
        to: &mut Leg<'_>,
    ) -> Poll<Result<(), Broken>> {
        match (self, to) {
            (Flow::Wire(body), Leg::Http1(stream)) => body.poll_head(cx, from, stream),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Puts the body's first buffered bytes behind the head before the first write.
    ///
    /// # Errors
    /// When what is buffered breaks a rule.
    pub fn prime(&mut self, from: &mut Leg<'_>) -> Result<(), Broken> {
        match self {
            Flow::Wire(body) => body.prime(from),
            Flow::Frames(_) => Ok(()),
        }
    }

    /// Takes the head's buffer back for reuse, once nothing more is to be sent.
    pub fn take_staged(&mut self) -> Vec<u8> {
        match self {
            Flow::Wire(body) => body.take_staged(),
            Flow::Frames(_) => Vec::new(),
        }
    }

    /// Moves what it can; `Ready` at the end of the body, or when it breaks.
    #[inline]
    pub fn poll(&mut self, cx: &mut Context<'_>, from: &mut Leg<'_>, to: &mut Leg<'_>) -> Poll<Result<(), Broken>> {
        match (self, to) {
            (Flow::Wire(body), Leg::Http1(stream)) => body.poll(cx, from, stream),
            (Flow::Frames(pour), Leg::Http2(channel)) => pour.poll(cx, from, channel),
            // A flow is made for its receiver.
            _ => Poll::Ready(Err(Broken::Sink)),
        }
    }
}
