//! Passing an answer on: the response head for the client's version, then both bodies at the same time.

use std::future::poll_fn;
use std::task::{Poll, ready};

use onehop_meter::ledger::{Ledger, State, Step as Mark};
use onehop_meter::names::Reason;
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::Ends;
use onehop_plan::outlier::Event;
use onehop_wire::http1::{BodyLength, Edits, Limits, ResponseHead, Version, encode_response};

use super::attempt::{Answer, Attempt, Failure};
use super::body::{Body, Broken, Framing};
use super::course::Asked;
use super::flow::Flow;
use super::hangup;
use super::leave;
use super::leg::Leg;
use super::pace::Pace;
use super::pour::Pour;
use super::reader::{Next, Reader};
use super::response::{Response, bad_response, download_fault, server_timing};
use super::{Outcome, Request, Tunnel, begins_tunnel, upgrade_allowed};
use crate::fault::{Fault, Side, Step};
use crate::http1::forward::{self, Framed};
use crate::http2::web::{self, Translated, Web};
use crate::http2::{grpc, message};
use crate::shard::Shard;
use crate::upstream::{Conn, EndpointState, Lease, outlier};

/// Bytes of an answer that nobody gets; a longer one costs its connection.
const MAX_DRAINED: usize = 1 << 20;

/// What passing an answer on came to.
pub(super) enum Passed {
    /// All of it, or as much as could be; whether the connection is between two messages.
    Whole { reusable: bool },
    /// The client has left; the rest of the body.
    Left(Reader),
}

impl Answer {
    /// The response's head.
    pub fn head(&self) -> &ResponseHead {
        &self.response.head
    }

    /// The bytes that its spans point into.
    pub fn bytes(&self) -> &[u8] {
        &self.response.bytes
    }

    /// Nobody gets it, but its connection is of use: it is read to its end, within bounds. What became of the call that it
    /// answers, where that is known.
    pub async fn drain(mut self, shard: &Shard, limits: Limits, due: Nanos) -> Option<Event> {
        let head = &self.response.head;
        let keeps = head.keep_alive && self.upload.is_done() && head.body != BodyLength::UntilClose;
        let mut leg = self.lease.conn.leg();
        leg.consume(self.response.end);
        leg.arm(due, Ends::Both);
        let mut reader = match leg.is_http2() {
            true => Reader::http2(self.response.ends, limits),
            false => Reader::http1(head.body, limits),
        };
        let mut read = 0;
        let mut status = grpc::status_of_head(&self.response.head, &self.response.bytes);
        let mut event = status.map(grpc::event);
        let whole = keeps
            && poll_fn(|cx| {
                loop {
                    match ready!(reader.poll_next(cx, &mut leg)) {
                        Ok(Next::Data { length, .. }) => {
                            reader.consume(&mut leg, length);
                            read += length;
                            if read > MAX_DRAINED {
                                return Poll::Ready(false);
                            }
                        }
                        Ok(end) => {
                            if let Next::Trailers(lines) = &end {
                                status = status.or(grpc::status_in(lines));
                            }
                            // Without a status it is no whole answer.
                            event = Some(status.map_or(Event::ServerError, grpc::event));
                            return Poll::Ready(true);
                        }
                        Err(_) => {
                            event = Some(Event::GatewayError);
                            return Poll::Ready(false);
                        }
                    }
                }
            })
            .await;
        let is_booked = self.is_call && self.response.head.status == 200;
        let clean = self.lease.conn.stream().is_some_and(|stream| stream.buffered().is_empty() && !stream.ended());
        if whole && clean {
            self.lease.give_back(clock::now());
        }
        shard.give_response(self.response);
        event.filter(|_| is_booked)
    }

    /// Nobody gets it: its connection is kept if all of it is here, else it is closed, or its stream reset.
    pub fn discard(mut self, shard: &Shard, now: Nanos) {
        let length = match self.response.head.body {
            BodyLength::None => Some(0),
            BodyLength::Length(length) => usize::try_from(length).ok(),
            _ => None,
        };
        let keeps = self.response.head.keep_alive && self.upload.is_done();
        let whole = length.and_then(|length| length.checked_add(self.response.end));
        if let (Some(whole), true, Some(stream)) = (whole, keeps, self.lease.conn.stream())
            && stream.buffered().len() == whole
            && !stream.ended()
        {
            stream.consume(whole);
            self.lease.give_back(now);
        }
        shard.give_response(self.response);
    }
}

impl Attempt<'_> {
    /// Books what the try experienced with its endpoint.
    pub(super) fn report(
        &self,
        endpoint: &EndpointState,
        answered: &Result<Answer, Failure>,
        asked: Nanos,
        now: Nanos,
    ) {
        let (event, latency) = match answered {
            // What became of a call shows in its trailers.
            Ok(answer) if answer.head().status == 200 && answer.is_call => {
                return outlier::answered(self.cluster, endpoint, now.saturating_sub(asked), now);
            }
            Ok(answer) => match answer.head().status {
                502..=504 => (Event::GatewayError, now.saturating_sub(asked)),
                500.. => (Event::ServerError, now.saturating_sub(asked)),
                _ => (Event::Success, now.saturating_sub(asked)),
            },
            // A connection that died while it idled says nothing about its endpoint.
            Err(failure) if failure.fault.side == Side::Upstream && !failure.stale => {
                outlier::failed(self.cluster, endpoint, now.saturating_sub(asked), now);
                (Event::GatewayError, 0)
            }
            Err(_) => return,
        };
        outlier::report(self.cluster, endpoint, event, latency, now);
    }

    /// Whether the client makes a gRPC call whose status is told as gRPC has it: not by an HTTP/1 upstream that speaks gRPC-Web
    /// itself (`protocol = "auto"`), for which it is a part of the body.
    pub(super) fn is_call(&self, lease: &Lease) -> bool {
        // Not by its leg: a try that may be one of several has none.
        let Request { head, bytes, .. } = self.request;
        let is_translated = matches!(lease.conn, Conn::Http2(_)) && self.web().is_some();
        (head.version == Version::Http2 && grpc::is_grpc(head, bytes)) || is_translated
    }

    /// Books how a call ended that was answered.
    fn report_call(&self, endpoint: &EndpointState, outcome: &Outcome, status: u16, now: Nanos) {
        let event = match (outcome.grpc_status, outcome.fault) {
            // It was booked by the status of its head.
            _ if status != 200 => return,
            (_, Some(fault)) if fault.side == Side::Upstream => Event::GatewayError,
            (_, Some(_)) => return,
            (Some(status), None) => grpc::event(status),
            // Without a status it is no whole answer; clients take it for UNKNOWN.
            (None, None) => Event::ServerError,
        };
        outlier::report(self.cluster, endpoint, event, 0, now);
    }

    /// What the route changes in the heads.
    pub(super) fn changed(&self) -> forward::Changed<'_> {
        forward::changed(self.changes, self.route)
    }

    /// The books of what was passed on, or of why there was nothing to pass on; the connection goes back, or on to the tunnel.
    pub(super) fn conclude(
        &self,
        passed: Option<Result<Passed, Failure>>,
        asked: Asked,
        ledger: &Ledger,
        outcome: &mut Outcome,
    ) {
        let concluded = match (asked, passed) {
            (Err(failure), _) => Err(failure),
            (Ok(answer), Some(passed)) => self.passed(passed, answer, ledger, outcome),
            (Ok(_), None) => return,
        };
        if let Err(failure) = concluded {
            outcome.fault = Some(failure.fault);
        }
    }

    fn passed(
        &self,
        passed: Result<Passed, Failure>,
        answer: Answer,
        ledger: &Ledger,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let Answer { lease, response, .. } = answer;
        self.shard.give_response(response);
        let failed = match &passed {
            Ok(_) => outcome.fault.is_some_and(|fault| fault.side == Side::Upstream),
            Err(failure) => failure.fault.side == Side::Upstream,
        };
        if failed {
            lease.endpoint().endpoint.borrow().meters.core(self.shard.outfit.core).failures.add(1);
        }
        let passed = passed?;
        if outcome.fault.is_some() {
            match passed {
                Passed::Left(rest) => leave::in_body(self.cluster, lease, rest),
                Passed::Whole { .. } => {}
            }
            return Ok(());
        }
        let reusable = matches!(passed, Passed::Whole { reusable: true });
        if outcome.tunnels {
            outcome.tunnel = Some(Box::new(Tunnel { lease, places: None }));
        } else if reusable {
            lease.give_back(ledger.latest());
        }
        Ok(())
    }

    /// Passes the final response on, uploading what is left of the request meanwhile; `None`: there is none. (By reference,
    /// since what an async fn is given by value is kept twice; [`Attempt::conclude`] follows.)
    pub(super) async fn pass_on(
        &self,
        client: &mut Leg<'_>,
        asked: &mut Asked,
        ledger: &mut Ledger,
        outcome: &mut Outcome,
    ) -> Option<Result<Passed, Failure>> {
        let Ok(answer) = asked else { return None };
        Some(self.finish(client, answer, ledger, outcome).await)
    }

    /// # Errors
    /// Before a byte of it went to the client.
    async fn finish(
        &self,
        client: &mut Leg<'_>,
        answer: &mut Answer,
        ledger: &mut Ledger,
        outcome: &mut Outcome,
    ) -> Result<Passed, Failure> {
        let is_call = answer.is_call;
        let Answer { lease, upload, response, replayed, is_call: _ } = answer;
        let response = &**response;
        let head = &response.head;
        if !self.may_answer(head) {
            return Err(Failure::new(bad_response()));
        }
        lease.conn.leg().consume(response.end);
        let uploading = !upload.is_done() && !*replayed;
        let close = !self.request.head.keep_alive || self.shard.is_draining() || uploading;
        let framed = forward::frame(self.request.head, head, close);
        outcome.status = head.status;
        outcome.started = true;
        outcome.tunnels = head.tunnels;
        outcome.keep = !framed.close && !head.tunnels;
        let mut download = match self.begin_download(client, lease, response, &framed, ledger) {
            Ok(download) => download,
            Err(fault) => {
                outcome.fault = Some(fault);
                return Ok(Passed::Whole { reusable: false });
            }
        };
        if let Err(broken) = download.prime(&mut lease.conn.leg()) {
            outcome.fault = Some(download_fault(broken, &lease.conn.leg(), client));
        } else {
            outcome.fault = self.transfer(client, lease, upload, &mut download, ledger).await.err();
        }
        if let Some(fault) = outcome.fault.filter(|fault| fault.side == Side::Upstream && download.is_unsent()) {
            // The head waited for the body's first bytes, and there are none: the client can still be told.
            (outcome.fault, outcome.started, outcome.status) = (None, false, 0);
            return Err(Failure::new(fault));
        }
        if uploading && upload.is_done() && outcome.fault.is_none() {
            outcome.bytes_in = upload.bytes();
        }
        if is_call {
            outcome.grpc_status = grpc::status_of_head(head, &response.bytes).or(download.grpc_status());
            self.report_call(lease.endpoint(), outcome, head.status, ledger.latest());
        }
        outcome.bytes_out = download.bytes();
        let left = outcome.fault.is_some_and(|fault| fault.reason == Reason::ClientLeft);
        if let (Flow::Frames(pour), true, true) = (&mut download, left, upload.is_done() && head.keep_alive) {
            return Ok(Passed::Left(pour.rest(&mut lease.conn.leg())));
        }
        self.shard.give_head(download.take_staged());
        self.shard.give_head(upload.take_staged());
        ledger.mark(Mark::ResponseWritten, ledger.latest());
        let Some(stream) = lease.conn.stream() else {
            return Ok(Passed::Whole { reusable: false });
        };
        let reusable = head.keep_alive && stream.buffered().is_empty() && !stream.ended();
        Ok(Passed::Whole { reusable: reusable && !uploading && !matches!(head.body, BodyLength::UntilClose) })
    }

    /// Whether the status fits what was asked: a tunnel begins only where the client asked for it, and the upstream agreed.
    fn may_answer(&self, head: &ResponseHead) -> bool {
        if head.status != 101 {
            return head.tunnels || !begins_tunnel(self.request.head, head.status);
        }
        let protocol = self.request.head.upgrade;
        protocol.is_some_and(|protocol| upgrade_allowed(self.route, protocol.of(self.request.bytes)))
    }

    /// Encodes the head for the client; to HTTP/2 it is sent at once, to HTTP/1 with the body's first bytes.
    fn begin_download(
        &self,
        client: &mut Leg<'_>,
        lease: &mut Lease,
        response: &Response,
        framed: &Framed,
        ledger: &Ledger,
    ) -> Result<Flow, Fault> {
        let (head, bytes) = (&response.head, &response.bytes);
        let timing = self.request.listener.http.server_timing.then(|| server_timing(ledger));
        let cookie = self.choice.set_cookie(self.cluster, lease.endpoint());
        let cookie = cookie.as_deref().map(str::as_bytes);
        let edit = forward::ResponseEdits { timing: timing.as_deref(), cookie, changes: self.changed() };
        let limits = self.limits();
        let from_http2 = lease.conn.leg().is_http2();
        // Trailers would become content where there may be none.
        let content = head.body != BodyLength::None;
        let is_web = self.route.grpc_web && from_http2 && (content || response.ends) && web::is_translated(head, bytes);
        let web = Web::of_answer(self.request.head, self.request.bytes).filter(|_| is_web);
        let reader = || {
            let reader = match from_http2 {
                true => Reader::http2_response(head, response.ends, limits),
                false => Reader::http1(head.body, limits),
            };
            let reader = match web {
                Some(web) => Translated::response(web, reader),
                None => reader,
            };
            match self.slow {
                Some(rate) => reader.slowed(rate.get()),
                None => reader,
            }
        };
        match client {
            Leg::Http2(channel) => {
                let reader = reader();
                let ends = reader.is_done() && !head.tunnels;
                let encoded = forward::response(self.request.head, head, bytes, framed, edit, |edits| {
                    let write = |edits: &Edits<'_>| match response.fields.take() {
                        Some(fields) if message::passes(head, edits) => message::pass_on(fields, head, edits),
                        _ => message::to_client(head, bytes, edits),
                    };
                    match web {
                        Some(web) => web::response(web, head, bytes, edits, write),
                        None => write(edits),
                    }
                });
                let sent = channel.send_response(encoded, ends);
                sent.ok_or(Fault::new(Side::Downstream, Step::Response, Reason::ClientLeft))?;
                Ok(Flow::Frames(Pour::new(reader, ends || head.tunnels, limits, None)))
            }
            _ => {
                let mut out = self.shard.take_head();
                forward::response(self.request.head, head, bytes, framed, edit, |edits| {
                    let mut write = |edits: &Edits<'_>| encode_response(&mut out, head, bytes, edits);
                    match web {
                        Some(web) => web::response(web, head, bytes, edits, write),
                        None => write(edits),
                    }
                });
                // Pulled as frames, what came in chunks is chunked anew.
                let chunked = head.body == BodyLength::Chunked && framed.framing == Framing::Verbatim;
                let framing = if self.slow.is_some() && chunked { Framing::Chunked } else { framed.framing };
                Ok(Flow::Wire(match from_http2 || self.slow.is_some() {
                    true => Body::of_frames(reader(), framing, out, limits, None),
                    false => Body::new(head.body, framed.framing, out, limits, None),
                }))
            }
        }
    }

    async fn transfer(
        &self,
        client: &mut Leg<'_>,
        lease: &mut Lease,
        upload: &mut Flow,
        download: &mut Flow,
        ledger: &mut Ledger,
    ) -> Result<(), Fault> {
        let idle = self.body_timeout();
        let mut upload_open = !upload.is_done();
        let mut pace = Pace::default();
        let done = poll_fn(|cx| {
            let mut upstream = lease.conn.leg();
            if upload_open {
                // Its failure is of no interest any more: the upstream has answered.
                upload_open = upload.poll(cx, client, &mut upstream).is_pending();
            }
            let polled = download.poll(cx, &mut upstream, client);
            if polled.is_pending() {
                let is_full = download.sink_is_full();
                // A client that leaves while the upstream is silent shows here alone. (While an HTTP/1 client's body is read,
                // or it takes no more, it shows there.)
                let looks = client.is_http2() || !(upload_open || is_full);
                let (left, ended) = if looks { hangup::poll_answered(cx, client) } else { (Poll::Pending, false) };
                if left.is_ready() || (ended && upstream.timed_out()) {
                    return Poll::Ready(Err(Broken::Sink));
                }
                let now = clock::now();
                ledger.enter(if is_full { State::ClientWait } else { State::UpstreamWait }, now);
                // Only the side that is waited for can run out of time.
                if is_full && pace.receiver(download.sent(), idle) {
                    client.arm_while_full(now, idle, Nanos::MAX);
                    upstream.disarm();
                } else if !is_full && pace.giver(download.bytes() + upload.bytes() + upload.sent()) {
                    upstream.arm(clock::after(now, idle), Ends::Both);
                    client.disarm();
                }
                if ended {
                    upstream.arm(clock::after(now, idle).min(now + hangup::SILENT_NS), Ends::Both);
                }
            }
            polled
        })
        .await;
        ledger.enter(State::Hop, clock::now());
        client.disarm();
        done.map_err(|broken| match broken {
            // The upstream was given that little time because the client had ended its side.
            Broken::Source if client.ended() && lease.conn.leg().timed_out() => {
                Fault::new(Side::Downstream, Step::Response, Reason::ClientLeft)
            }
            broken => download_fault(broken, &lease.conn.leg(), client),
        })
    }
}
