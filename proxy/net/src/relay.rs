//! Bytes both ways between two streams, with half-close and backpressure: nothing is read before what was read
//! last has been written. Each direction stops by itself; an idle deadline ends both.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::clock;
use crate::deadline::Ends;
use crate::stream::Stream;
use crate::sys::buf::Size;

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides ended in order.
    Closed,
    /// Nothing moved for the idle time.
    Idle,
    /// The downstream side failed.
    DownstreamReset,
    /// The upstream side failed.
    UpstreamReset,
}

/// What passed through a relay.
#[derive(Debug, Clone, Copy)]
pub struct Passed {
    /// Bytes from downstream to upstream.
    pub up: u64,
    /// Bytes from upstream to downstream.
    pub down: u64,
    /// How it ended.
    pub end: End,
}

/// Which side failed.
enum Failed {
    Reading,
    Writing,
}

#[derive(Default)]
struct Way {
    done: bool,
    passed: u64,
    large: bool,
}

impl Way {
    /// Moves what it can without waiting; `Ready` when this direction has ended.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &Stream) -> Poll<Result<(), Failed>> {
        while !self.done {
            if from.buffered().is_empty() {
                let size = if self.large { Size::Large } else { Size::Medium };
                match from.poll_fill(cx, size) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Failed::Reading)),
                    Poll::Ready(Ok(0)) => {
                        self.done = true;
                        from.release();
                        let _ = to.shutdown_write();
                    }
                    // A full buffer says that the sender outruns us: larger reads cost less per byte.
                    Poll::Ready(Ok(count)) => self.large |= count >= size.bytes(),
                }
            } else {
                match to.try_write(from.buffered()) {
                    Ok(count) => {
                        from.consume(count);
                        from.release();
                        self.passed += count as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => match to.poll_writable(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(Failed::Writing)),
                        Poll::Ready(Ok(())) => {}
                    },
                    Err(_) => return Poll::Ready(Err(Failed::Writing)),
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Relays until both sides have ended, one has failed, or nothing moved for `idle`. A failure resets the other side
/// when the streams are dropped, so that a cut transfer never looks complete.
pub async fn relay(downstream: &mut Stream, upstream: &mut Stream, idle: Duration) -> Passed {
    let mut up = Way::default();
    let mut down = Way::default();
    let mut moved = u64::MAX;
    let end = poll_fn(|cx| {
        let ways = (up.poll(cx, downstream, upstream), down.poll(cx, upstream, downstream));
        // Checked before the results: a deadline shows as an end or an error of either side.
        if downstream.timed_out() || upstream.timed_out() {
            return Poll::Ready(End::Idle);
        }
        match ways {
            (Poll::Ready(Err(Failed::Reading)), _) | (_, Poll::Ready(Err(Failed::Writing))) => {
                return Poll::Ready(End::DownstreamReset);
            }
            (Poll::Ready(Err(Failed::Writing)), _) | (_, Poll::Ready(Err(Failed::Reading))) => {
                return Poll::Ready(End::UpstreamReset);
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Closed),
            _ => {}
        }
        if moved != up.passed + down.passed {
            moved = up.passed + down.passed;
            let due = clock::after(clock::now(), idle);
            downstream.deadline().arm(due, Ends::Both);
            upstream.deadline().arm(due, Ends::Both);
        }
        Poll::Pending
    })
    .await;
    match end {
        End::DownstreamReset => upstream.reset_on_close(),
        End::UpstreamReset => downstream.reset_on_close(),
        End::Closed | End::Idle => {}
    }
    downstream.deadline().disarm();
    upstream.deadline().disarm();
    Passed { up: up.passed, down: down.passed, end }
}
