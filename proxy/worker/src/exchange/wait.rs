//! The wait for a response's head, while the request's body moves: an upstream may answer before it has read the whole
//! request. One side alone is waited for at any time, and has its limit.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use onehop_meter::ledger::{Ledger, State, Step as Mark};
use onehop_net::Size;
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::{Alarm, Ends};
use onehop_wire::http1::BodyLength;

use super::attempt::{Attempt, Failure};
use super::body::Broken;
use super::course::HALF_CLOSED_GRACE_NS;
use super::flow::Flow;
use super::hangup;
use super::leg::Leg;
use super::pace::Pace;
use super::response::{Response, bad_response, upload_fault};
use super::tape::Tape;
use crate::http2;
use crate::upstream::Lease;

/// How long a client that expects `100 Continue` is waited with before its body is read all the same: an upstream
/// that ignores the expectation would otherwise wait for the body for ever (RFC 9110 10.1.1).
const EXPECT_NS: u64 = 1_000_000_000;

/// What ended the wait for a response head.
pub(super) enum Heard {
    Head,
    End,
    ClientLeft,
}

impl Attempt<'_> {
    /// Uploads, and waits for a whole response head.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps what it takes twice")]
    pub(super) fn wait(
        &self,
        client: &mut Leg<'_>,
        lease: &mut Lease,
        upload: &mut Flow,
        ledger: &mut Ledger,
        response: &mut Option<Box<Response>>,
        due: Nanos,
    ) -> impl Future<Output = Result<Heard, Failure>> {
        async move {
            // Once a part of the body is here, the client has been told to go on, or did not wait to be.
            let told = response.as_ref().is_some_and(|response| response.continued)
                || self.tape().is_some_and(Tape::has_begun);
            let mut expecting = self.request.head.expect_continue && !told;
            let mut marked = false;
            let mut sink_broken = false;
            let mut left_at: Nanos = 0;
            let mut pace = Pace::default();
            let mut alarm = expecting.then(|| Alarm::at(clock::now() + EXPECT_NS));
            poll_fn(|cx| {
                let long = lease.endpoint().answers_long.get();
                let mut upstream = lease.conn.leg();
                if expecting {
                    if let Poll::Ready(Err(broken)) = upload.poll_head(cx, client, &mut upstream) {
                        sink_broken |= broken == Broken::Sink;
                    }
                    expecting = alarm.as_ref().is_some_and(|alarm| alarm.poll(cx).is_pending());
                }
                if !expecting && !sink_broken && !upload.is_done() {
                    match upload.poll(cx, client, &mut upstream) {
                        Poll::Ready(Err(Broken::Sink)) => sink_broken = true,
                        Poll::Ready(Err(broken)) => {
                            return Poll::Ready(Err(Failure::new(upload_fault(broken, client.timed_out()))));
                        }
                        Poll::Ready(Ok(())) | Poll::Pending => {}
                    }
                    if sink_broken {
                        // The client owes nothing more. The upstream's deadline stays as it is, since it may be what has fired.
                        client.disarm();
                    } else {
                        self.pace_upload(&mut pace, client, upload, &upstream, due);
                    }
                }
                if !marked {
                    marked = true;
                    let now = clock::now();
                    ledger.mark(Mark::RequestWritten, now);
                    ledger.enter(State::UpstreamWait, now);
                }
                if let Poll::Ready(heard) = self.poll_response(cx, &mut upstream, response, long) {
                    return Poll::Ready(heard);
                }
                if upload.is_done() || sink_broken || client.is_http2() {
                    self.watch(cx, client, &upstream, &mut left_at)
                } else if !expecting && upload.sink_is_full() {
                    hangup::poll(cx, &mut alarm, client, upload.to_come()).map(|()| Ok(Heard::ClientLeft))
                } else {
                    Poll::Pending
                }
            })
            .await
        }
    }

    #[inline]
    fn poll_response(
        &self,
        cx: &mut Context<'_>,
        upstream: &mut Leg<'_>,
        slot: &mut Option<Box<Response>>,
        long: bool,
    ) -> Poll<Result<Heard, Failure>> {
        match upstream {
            Leg::Http1(stream) => loop {
                // While a read is posted, the buffer is in the kernel's hands and shows nothing.
                if !stream.is_reading() && !stream.buffered().is_empty() {
                    let response = self.response(slot);
                    if let Some(end) = response.scanner.find_end(stream.buffered()) {
                        response.end = end;
                        return Poll::Ready(Ok(Heard::Head));
                    }
                }
                if stream.buffered().len() > self.request.listener.http.head_bytes {
                    return Poll::Ready(Err(Failure::new(bad_response())));
                }
                // An upstream may take its time: what waits for it is small, unless its answers are known not to fit.
                let is_first = !long && stream.buffered().is_empty();
                let size = if is_first { Size::Small } else { Size::Medium };
                match ready!(stream.poll_fill(cx, size)) {
                    Ok(1..) => {}
                    _ => return Poll::Ready(Ok(Heard::End)),
                }
            },
            Leg::Http2(channel) => {
                let taken = match ready!(channel.poll_answer(cx)) {
                    http2::Heard::Broken => return Poll::Ready(Ok(Heard::End)),
                    http2::Heard::Interim(head) => self.response(slot).take_http2(head, false, self.request),
                    http2::Heard::Final { response: head, ends } => self.take_final(head, ends, self.response(slot)),
                };
                Poll::Ready(taken.map(|()| Heard::Head))
            }
            Leg::Nobody => Poll::Ready(Ok(Heard::End)),
        }
    }

    /// While the client owes us its body, its deadline runs; while it does not, the upstream's does. Never both: they would
    /// go off together, and an upstream that has nothing to answer yet would be blamed for its client. What the route gives the
    /// upstream for its answer begins at the request's end; before it, the upstream has as long for each piece.
    fn pace_upload(&self, pace: &mut Pace, client: &Leg<'_>, upload: &Flow, upstream: &Leg<'_>, due: Nanos) {
        if upload.is_done() {
            client.disarm();
            if self.request.head.body != BodyLength::None {
                upstream.arm(self.due_once_sent(due), Ends::Both);
            }
        } else if upload.sink_is_full() {
            let idle = self.body_timeout();
            let span = self.patience.map_or(idle, |patience| patience.min(idle));
            if pace.receiver(upload.sent(), span) {
                client.disarm();
                let until = self.request.deadline.map_or(Nanos::MAX, |deadline| deadline.at);
                upstream.arm_while_full(clock::now(), span, until);
            }
        } else if pace.giver(upload.bytes()) {
            upstream.disarm();
            client.arm(clock::after(clock::now(), self.body_timeout()), Ends::Read);
        }
    }

    /// A time-out counts from the request's end, if that has come only now.
    fn due_once_sent(&self, due: Nanos) -> Nanos {
        let ended = self.tape().map(Tape::ended_at).filter(|at| *at != 0).unwrap_or_else(clock::now);
        let later = self.patience.map_or(Nanos::MAX, |patience| clock::after(ended, patience)).max(due);
        later.min(self.request.deadline.map_or(Nanos::MAX, |deadline| deadline.at))
    }

    /// The client's next read is posted early: its end or reset shows that it has left. Bytes are the next request.
    fn watch(
        &self,
        cx: &mut Context<'_>,
        client: &mut Leg<'_>,
        upstream: &Leg<'_>,
        left_at: &mut Nanos,
    ) -> Poll<Result<Heard, Failure>> {
        let stream = match client {
            Leg::Http1(stream) => stream,
            Leg::Http2(channel) => return channel.poll_left(cx).map(|()| Ok(Heard::ClientLeft)),
            Leg::Nobody => return Poll::Pending,
        };
        loop {
            if stream.failed() {
                return Poll::Ready(Ok(Heard::ClientLeft));
            }
            if stream.ended() {
                if *left_at == 0 {
                    *left_at = clock::now();
                    upstream.arm(*left_at + HALF_CLOSED_GRACE_NS, Ends::Both);
                }
                return Poll::Pending;
            }
            if !stream.buffered().is_empty() || stream.poll_fill(cx, Size::Small).is_pending() || !stream.ended() {
                return Poll::Pending;
            }
        }
    }
}
