//! One try of a request at one endpoint: lease a connection, send, wait for the response, pass it on.
//! Both bodies move at the same time, since an upstream may answer before it has read the whole request.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use onehop_meter::ledger::{Ledger, State, Step as Mark};
use onehop_meter::names::Reason;
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::Ends;
use onehop_net::{Size, Stream};
use onehop_plan::Route;
use onehop_wire::http1::{BodyLength, Limits, Version};

use super::body::{Body, Broken, Framing};
use super::response::{Response, bad_response, download_fault, server_timing};
use super::{Outcome, Request, upgrade_allowed};
use crate::fault::{Fault, Side, Step};
use crate::http1::forward;
use crate::shard::Shard;
use crate::upstream::{ClusterState, Lease, Wanted, lease};

/// A client whose end of the connection is closed may only have half-closed it: the answer gets this long to come.
const HALF_CLOSED_GRACE_NS: u64 = 1_000_000_000;
/// How long a client that expects `100 Continue` is waited with before its body is read all the same: an upstream
/// that ignores the expectation would otherwise wait for the body for ever (RFC 9110 10.1.1).
const EXPECT_NS: u64 = 1_000_000_000;
/// Interim responses in front of a final one; more are an attack.
const MAX_INTERIM: usize = 16;

/// One try.
pub struct Attempt<'a> {
    /// The core.
    pub shard: &'a Rc<Shard>,
    /// What is to be sent.
    pub request: &'a Request<'a>,
    /// Its route.
    pub route: &'a Arc<Route>,
    /// Its cluster.
    pub cluster: &'a Rc<ClusterState>,
    /// What kind of connection it may ride on.
    pub wanted: Wanted,
}

/// A try that failed before any byte of a final response went to the client.
pub struct Failure {
    /// What happened.
    pub fault: Fault,
    /// It died on a connection that had served before, without a byte of response.
    pub stale: bool,
    /// The request can be sent again: all of it is still here.
    pub replayable: bool,
}

impl Failure {
    pub(super) fn new(fault: Fault) -> Failure {
        Failure { fault, stale: false, replayable: false }
    }
}

/// What ended the wait for a response head.
enum Heard {
    Bytes,
    End,
    ClientLeft,
}

impl Attempt<'_> {
    /// Runs the try. On success the outcome says what the client got.
    pub async fn run(
        &self,
        client: &mut Stream,
        avoid: &mut Vec<usize>,
        ledger: &mut Ledger,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let asked = ledger.latest();
        ledger.enter(State::UpstreamWait, asked);
        let leased = lease(self.cluster, self.wanted, avoid, asked).await;
        // A pooled connection was not waited for.
        let now = if leased.as_ref().is_ok_and(|lease| lease.reused) { asked } else { clock::now() };
        ledger.enter(State::Hop, now);
        ledger.mark(Mark::Leased, now);
        let mut lease = leased.map_err(|fault| Failure { replayable: true, ..Failure::new(fault) })?;
        let endpoint = lease.endpoint().clone();
        let core = self.shard.outfit.core;
        endpoint.endpoint.borrow().meters.core(core).requests.add(1);
        if self.shard.logs_access() {
            outcome.endpoint = Some(endpoint.endpoint.borrow().address.to_string());
        }
        let result = self.exchange(client, &mut lease, ledger, outcome).await;
        match result {
            Ok(reusable) => {
                if let Some(fault) = &outcome.fault {
                    if fault.side == Side::Upstream {
                        endpoint.endpoint.borrow().meters.core(core).failures.add(1);
                    }
                } else if outcome.tunnels {
                    outcome.tunnel = Some(lease);
                } else if reusable {
                    lease.give_back(ledger.latest());
                }
                Ok(())
            }
            Err(failure) => {
                if failure.fault.side == Side::Upstream {
                    endpoint.endpoint.borrow().meters.core(core).failures.add(1);
                }
                Err(failure)
            }
        }
    }

    /// Sends the request and passes the response on; says whether the upstream connection can be used again.
    async fn exchange(
        &self,
        client: &mut Stream,
        lease: &mut Lease,
        ledger: &mut Ledger,
        outcome: &mut Outcome,
    ) -> Result<bool, Failure> {
        let mut upload = self.begin_upload();
        let whole = self.is_whole(client);
        if !self.request.head.expect_continue && !whole {
            upload.prime(client).map_err(|broken| Failure::new(self.upload_fault(broken, client)))?;
        }
        let now = ledger.latest();
        let due = self.route.timeout.map_or(Nanos::MAX, |timeout| clock::after(now, timeout));
        lease.conn.stream.deadline().arm(due.min(clock::after(now, self.body_timeout())), Ends::Both);
        let mut response = self.shard.take_response();
        let replay = if whole { self.send_whole(client, &mut lease.conn.stream, &mut upload).await } else { false };
        let mut interim = 0;
        loop {
            let heard = self.wait(client, lease, &mut upload, ledger, &mut response, due).await;
            let now = clock::now();
            ledger.enter(State::Hop, now);
            ledger.mark(Mark::FirstByte, now);
            outcome.bytes_in = upload.bytes();
            match heard {
                Ok(Heard::Bytes) => {}
                Ok(Heard::ClientLeft) => {
                    return Err(Failure::new(Fault::new(Side::Downstream, Step::Wait, Reason::ClientLeft)));
                }
                Ok(Heard::End) => {
                    return Err(self.no_response(lease, replay || upload.bytes() == 0 && !upload.has_started()));
                }
                Err(fault) => return Err(Failure::new(fault)),
            }
            response.parse(&lease.conn.stream, self.request)?;
            if response.head.status >= 200 || response.head.status == 101 {
                break;
            }
            interim += 1;
            if interim > MAX_INTERIM {
                return Err(Failure::new(bad_response()));
            }
            self.pass_interim(client, &mut lease.conn.stream, &mut response).await?;
        }
        if replay {
            // The request's body is no longer needed: the upstream has answered.
            if let BodyLength::Length(length) = self.request.head.body {
                client.consume(length as usize);
                outcome.bytes_in = length;
            }
        }
        let finished = self.finish(client, lease, upload, &response, ledger, outcome, replay).await;
        self.shard.give_response(response);
        finished
    }

    fn limits(&self) -> Limits {
        crate::http1::limits(&self.request.listener.http)
    }

    fn body_timeout(&self) -> std::time::Duration {
        self.request.listener.http.body_idle_timeout
    }

    fn begin_upload(&self) -> Body {
        let mut head = self.shard.take_head();
        let mut scratch = self.shard.take_head();
        let request = self.request;
        let upgrade =
            request.head.upgrade.is_some_and(|protocol| upgrade_allowed(self.route, protocol.of(request.bytes)));
        forward::request(&mut head, &mut scratch, request, &self.shard.outfit.instance, upgrade);
        self.shard.give_head(scratch);
        Body::new(request.head.body, Framing::Verbatim, head, self.limits(), self.route.max_body)
    }

    /// Whether the whole body is at hand, so that it can be sent again if need be.
    fn is_whole(&self, client: &Stream) -> bool {
        match self.request.head.body {
            BodyLength::Length(length) => {
                !self.request.head.expect_continue && length <= client.buffered().len() as u64
            }
            _ => false,
        }
    }

    /// Sends head and body in one write, keeping the body in the client's buffer until the upstream has answered.
    async fn send_whole(&self, client: &mut Stream, upstream: &mut Stream, upload: &mut Body) -> bool {
        let BodyLength::Length(length) = self.request.head.body else {
            return false;
        };
        let head = upload.take_staged();
        // A failure shows when the response is read: the upstream may have answered before it closed.
        let _ = upstream.write_all_vectored(&head, &client.buffered()[..length as usize]).await;
        self.shard.give_head(head);
        upload.finish();
        true
    }

    /// Uploads, and waits for a whole response head.
    async fn wait(
        &self,
        client: &mut Stream,
        lease: &mut Lease,
        upload: &mut Body,
        ledger: &mut Ledger,
        response: &mut Response,
        due: Nanos,
    ) -> Result<Heard, Fault> {
        let mut expecting = self.request.head.expect_continue && !response.continued;
        let mut marked = false;
        let mut sink_broken = false;
        let mut left_at: Nanos = 0;
        let expect_until = if expecting { clock::now() + EXPECT_NS } else { 0 };
        let mut expect_timer = std::pin::pin!(onehop_net::deadline::sleep_until(expect_until));
        let max_head = self.limits().head_bytes;
        poll_fn(|cx| {
            if expecting {
                if let Poll::Ready(Err(broken)) = upload.poll_head(cx, client, &lease.conn.stream) {
                    sink_broken |= broken == Broken::Sink;
                }
                expecting = expect_timer.as_mut().poll(cx).is_pending();
            }
            if !expecting && !sink_broken && !upload.is_done() {
                match upload.poll(cx, client, &lease.conn.stream) {
                    Poll::Ready(Err(Broken::Sink)) => sink_broken = true,
                    Poll::Ready(Err(broken)) => {
                        return Poll::Ready(Err(self.upload_fault(broken, client)));
                    }
                    Poll::Ready(Ok(())) | Poll::Pending => {}
                }
                self.pace_upload(client, upload, &lease.conn.stream, due);
            }
            if !marked {
                marked = true;
                let now = clock::now();
                ledger.mark(Mark::RequestWritten, now);
                ledger.enter(State::UpstreamWait, now);
            }
            loop {
                // While a read is posted, the buffer is in the kernel's hands and shows nothing.
                if !lease.conn.stream.is_reading()
                    && let Some(end) = response.scanner.find_end(lease.conn.stream.buffered())
                {
                    response.end = end;
                    return Poll::Ready(Ok(Heard::Bytes));
                }
                if lease.conn.stream.buffered().len() > max_head {
                    return Poll::Ready(Err(bad_response()));
                }
                match lease.conn.stream.poll_fill(cx, Size::Medium) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(Ok(Heard::End)),
                }
            }
            if upload.is_done() || sink_broken { self.watch(cx, client, lease, &mut left_at) } else { Poll::Pending }
        })
        .await
    }

    /// While the client owes us its body, its deadline runs; while it does not, the upstream's does.
    fn pace_upload(&self, client: &Stream, upload: &Body, upstream: &Stream, due: Nanos) {
        if upload.is_done() {
            client.deadline().disarm();
        } else {
            let idle = clock::after(clock::now(), self.body_timeout());
            client.deadline().arm(idle, Ends::Read);
            upstream.deadline().arm(if upload.sink_is_full() { idle.min(due) } else { idle }, Ends::Both);
        }
    }

    /// The client's next read is posted early: its end or reset shows that it has left. Bytes are the next request.
    fn watch(
        &self,
        cx: &mut Context<'_>,
        client: &mut Stream,
        lease: &Lease,
        left_at: &mut Nanos,
    ) -> Poll<Result<Heard, Fault>> {
        if client.failed() {
            return Poll::Ready(Ok(Heard::ClientLeft));
        }
        if client.ended() {
            if *left_at == 0 {
                *left_at = clock::now();
                lease.conn.stream.deadline().arm(*left_at + HALF_CLOSED_GRACE_NS, Ends::Both);
            }
            return Poll::Pending;
        }
        if client.buffered().is_empty() {
            if client.poll_fill(cx, Size::Small).is_pending() {
                return Poll::Pending;
            }
            if client.ended() {
                return self.watch(cx, client, lease, left_at);
            }
        }
        Poll::Pending
    }

    /// The upstream ended without a response head.
    fn no_response(&self, lease: &Lease, replayable: bool) -> Failure {
        let reason = if lease.conn.stream.timed_out() {
            Reason::UpstreamTimeout
        } else if lease.conn.stream.failed() {
            Reason::UpstreamReset
        } else {
            Reason::UpstreamClosed
        };
        let config = self.cluster.cluster.borrow();
        let meters = config.meters.core(self.shard.outfit.core);
        if reason == Reason::UpstreamTimeout {
            meters.timeouts.add(1);
        } else {
            meters.resets.add(1);
        }
        let untouched = lease.conn.stream.buffered().is_empty() && reason != Reason::UpstreamTimeout;
        let reason = if lease.conn.stream.buffered().is_empty() { reason } else { Reason::UpstreamBadResponse };
        let reason = if lease.conn.stream.timed_out() { Reason::UpstreamTimeout } else { reason };
        Failure { fault: Fault::new(Side::Upstream, Step::Wait, reason), stale: lease.reused && untouched, replayable }
    }

    fn upload_fault(&self, broken: Broken, client: &Stream) -> Fault {
        match broken {
            Broken::Source if client.timed_out() => Fault::new(Side::Downstream, Step::Request, Reason::BodyTimeout),
            Broken::Source => Fault::new(Side::Downstream, Step::Request, Reason::ClientLeft),
            Broken::Framing(reject) => Fault { step: Step::Request, ..Fault::rejected(reject) },
            Broken::TooLarge => Fault::new(Side::Downstream, Step::Request, Reason::BodyTooLarge),
            Broken::Sink => Fault::new(Side::Upstream, Step::Request, Reason::UpstreamReset),
        }
    }

    async fn pass_interim(
        &self,
        client: &mut Stream,
        upstream: &mut Stream,
        response: &mut Response,
    ) -> Result<(), Failure> {
        response.continued |= response.head.status == 100;
        // HTTP/1.0 knows no interim responses (RFC 9110 15.2); 100 goes only to who asked for it.
        let wanted = response.head.status != 100 || self.request.head.expect_continue;
        if self.request.head.version == Version::Http11 && wanted {
            let mut out = self.shard.take_head();
            let framed = forward::Framed { close: false, framing: Framing::Verbatim };
            forward::response(&mut out, self.request.head, &response.head, &response.bytes, &framed, None);
            client.deadline().arm(clock::after(clock::now(), self.body_timeout()), Ends::Both);
            let written = client.write_all(&out).await;
            client.deadline().disarm();
            self.shard.give_head(out);
            written.map_err(|_| Failure::new(Fault::new(Side::Downstream, Step::Wait, Reason::ClientLeft)))?;
        }
        upstream.consume(response.end);
        response.next();
        Ok(())
    }

    /// Passes the final response on, uploading what is left of the request meanwhile.
    #[allow(clippy::too_many_arguments, reason = "each is a different part of one exchange")]
    async fn finish(
        &self,
        client: &mut Stream,
        lease: &mut Lease,
        mut upload: Body,
        response: &Response,
        ledger: &mut Ledger,
        outcome: &mut Outcome,
        replayed: bool,
    ) -> Result<bool, Failure> {
        let head = &response.head;
        if head.status == 101 {
            let allowed = self
                .request
                .head
                .upgrade
                .is_some_and(|protocol| upgrade_allowed(self.route, protocol.of(self.request.bytes)));
            if !allowed {
                return Err(Failure::new(bad_response()));
            }
        }
        lease.conn.stream.consume(response.end);
        let uploading = !upload.is_done() && !replayed;
        let close = !self.request.head.keep_alive || self.shard.is_draining() || uploading;
        let framed = forward::frame(self.request.head, head, close);
        let timing = self.request.listener.http.server_timing.then(|| server_timing(ledger));
        let mut out = self.shard.take_head();
        forward::response(&mut out, self.request.head, head, &response.bytes, &framed, timing.as_deref());
        outcome.status = head.status;
        outcome.started = true;
        outcome.tunnels = head.tunnels;
        outcome.keep = !framed.close && !head.tunnels;
        let mut download = Body::new(head.body, framed.framing, out, self.limits(), None);
        if let Err(broken) = download.prime(&mut lease.conn.stream) {
            outcome.fault = Some(download_fault(broken, &lease.conn.stream, client));
        } else {
            outcome.fault = self.transfer(client, lease, &mut upload, &mut download, ledger).await.err();
        }
        if uploading && upload.is_done() && outcome.fault.is_none() {
            outcome.bytes_in = upload.bytes();
        }
        outcome.bytes_out = download.bytes();
        self.shard.give_head(download.into_staged());
        self.shard.give_head(upload.into_staged());
        ledger.mark(Mark::ResponseWritten, ledger.latest());
        let reusable = head.keep_alive && lease.conn.stream.buffered().is_empty() && !lease.conn.stream.ended();
        Ok(reusable && !uploading && !matches!(head.body, BodyLength::UntilClose))
    }

    async fn transfer(
        &self,
        client: &mut Stream,
        lease: &mut Lease,
        upload: &mut Body,
        download: &mut Body,
        ledger: &mut Ledger,
    ) -> Result<(), Fault> {
        let idle = self.body_timeout();
        let mut upload_open = !upload.is_done();
        let mut moved = u64::MAX;
        let done = poll_fn(|cx| {
            if upload_open {
                // Its failure is of no interest any more: the upstream has answered.
                upload_open = upload.poll(cx, client, &lease.conn.stream).is_pending();
            }
            let polled = download.poll(cx, &mut lease.conn.stream, client);
            if polled.is_pending() {
                let now = clock::now();
                ledger.enter(if download.sink_is_full() { State::ClientWait } else { State::UpstreamWait }, now);
                if moved != download.bytes() {
                    moved = download.bytes();
                    let due = clock::after(now, idle);
                    // Only the side that is waited for can run out of time.
                    if download.sink_is_full() {
                        client.deadline().arm(due, Ends::Both);
                        lease.conn.stream.deadline().disarm();
                    } else {
                        lease.conn.stream.deadline().arm(due, Ends::Both);
                        client.deadline().disarm();
                    }
                }
            }
            polled
        })
        .await;
        ledger.enter(State::Hop, clock::now());
        client.deadline().disarm();
        done.map_err(|broken| download_fault(broken, &lease.conn.stream, client))
    }
}
