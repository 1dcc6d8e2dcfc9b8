//! A body on its way to an HTTP/2 leg: frames as the receiver gives credit for them, trailers, the end.

use std::task::{Context, Poll, ready};

use onehop_wire::http1::Limits;

use super::body::Broken;
use super::leg::Leg;
use super::reader::{Next, Reader};
use crate::http2::{Channel, grpc};

/// A body on its way out.
pub struct Pour {
    reader: Reader,
    limits: Limits,
    /// Bytes at the front of the reader's data that may be sent.
    pass: usize,
    last: bool,
    ended: bool,
    bytes: u64,
    max_bytes: u64,
    sink_full: bool,
    grpc_status: Option<u16>,
}

impl Pour {
    /// A body whose head was sent; `ended`: with its end.
    pub fn new(reader: Reader, ended: bool, limits: Limits, max_bytes: Option<u64>) -> Pour {
        Pour {
            reader,
            limits,
            pass: 0,
            last: false,
            ended,
            bytes: 0,
            max_bytes: max_bytes.unwrap_or(u64::MAX),
            sink_full: false,
            grpc_status: None,
        }
    }

    /// Payload bytes taken from the sender.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Those of them for which the receiver gave credit.
    pub fn sent(&self) -> u64 {
        self.bytes - self.pass as u64
    }

    /// Whether the last poll stopped because the receiver gives no credit.
    pub fn sink_is_full(&self) -> bool {
        self.sink_full
    }

    /// Bytes that the sender still has to send, where that is known.
    pub fn to_come(&self) -> Option<u64> {
        self.reader.left()
    }

    /// Whether the end was sent.
    pub fn is_done(&self) -> bool {
        self.ended
    }

    /// The `grpc-status` of the trailers.
    pub fn grpc_status(&self) -> Option<u16> {
        self.grpc_status.or_else(|| self.reader.grpc_status())
    }

    /// The receiver is gone: what is left of the body, behind what was at hand for it.
    pub fn rest(&mut self, from: &mut Leg<'_>) -> Reader {
        self.reader.consume(from, std::mem::take(&mut self.pass));
        std::mem::replace(&mut self.reader, Reader::http2(true, self.limits))
    }

    /// Nothing more is to be sent.
    pub fn finish(&mut self) {
        self.ended = true;
        self.reader.finish();
    }

    /// Moves what it can; `Ready` at the end of the body, or when it breaks.
    pub fn poll(&mut self, cx: &mut Context<'_>, from: &mut Leg<'_>, to: &mut Channel) -> Poll<Result<(), Broken>> {
        self.sink_full = false;
        loop {
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            while self.pass > 0 {
                let Poll::Ready(room) = to.poll_room(cx, self.pass) else {
                    self.sink_full = true;
                    return Poll::Pending;
                };
                let count = room.ok_or(Broken::Sink)?.min(self.pass);
                let data = self.reader.take(from, count);
                self.pass -= count;
                let end = self.last && self.pass == 0;
                to.send_data(data, end).ok_or(Broken::Sink)?;
                self.ended = end;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.reader.poll_next(cx, from))? {
                Next::Data { length, last } => {
                    self.bytes += length as u64;
                    if self.bytes > self.max_bytes {
                        return Poll::Ready(Err(Broken::TooLarge));
                    }
                    (self.pass, self.last) = (length, last);
                }
                Next::Trailers(lines) => {
                    self.grpc_status = grpc::status_in(&lines);
                    to.send_trailers(&lines, &self.limits)?;
                    self.ended = true;
                }
                Next::End => {
                    to.send_data(bytes::Bytes::new(), true).ok_or(Broken::Sink)?;
                    self.ended = true;
                }
            }
        }
    }
}
