//! One try of a request at one endpoint: lease a connection, send, wait for the response.

use std::cell::{Cell, OnceCell};
use std::num::NonZeroU64;
use std::ops::Deref;
use std::time::Duration;

use onehop_meter::ledger::{Ledger, State, Step as Mark};
use onehop_meter::names::Reason;
use onehop_net::Size;
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::Ends;
use onehop_wire::http1::{BodyLength, Edits, Limits, encode_request};

use super::Outcome;
use super::course::Course;
use super::flow::Flow;
use super::leave;
use super::leg::Leg;
use super::pour::Pour;
use super::response::{Response, bad_response, upload_fault};
use super::tape::Tape;
use super::wait::Heard;
use crate::fault::{Fault, Side, Step};
use crate::http1::forward;
use crate::http2::message;
use crate::http2::web::{self, Translated, Web};
use crate::upstream::{self, Begun, Conn, Lease, Sought, Wanted};

/// Answers up to so many bytes fit a small buffer, as a TLS record too.
const SHORT: usize = Size::Small.bytes() - 64;
/// Interim responses in front of a final one; more are an attack.
pub(super) const MAX_INTERIM: usize = 16;

/// One try.
pub struct Attempt<'a> {
    /// The exchange that it is one of.
    pub course: &'a Course<'a>,
    /// What kind of connection it may ride on.
    pub wanted: Wanted,
    /// Where the request's body is kept to be sent again; once all of it is, the client's leg is not read. An empty cell is
    /// filled when the try goes to an HTTP/2 upstream.
    pub tape: Option<&'a OnceCell<Tape>>,
    /// When it is over: its own time, the route's for all attempts, or the client's.
    pub due: Nanos,
    /// How long it waits for the response's head from the request's end, if that comes while it is under way; nothing: without
    /// an end.
    pub patience: Option<Duration>,
    /// Its number, from 1, of which the upstream is told; zero: it is not.
    pub number: u32,
    /// The endpoint that it went to, by its index in the cluster.
    pub picked: Cell<usize>,
    /// The response's body is to flow at so many bytes a second.
    pub slow: Option<NonZeroU64>,
}

/// What is the same for all attempts of an exchange.
impl<'a> Deref for Attempt<'a> {
    type Target = Course<'a>;

    fn deref(&self) -> &Course<'a> {
        self.course
    }
}

/// A try that failed before any byte of a final response went to the client.
pub struct Failure {
    /// What happened.
    pub fault: Fault,
    /// It died on a connection that had served before, without a byte of response.
    pub stale: bool,
    /// The request can be sent again: all of it is still here.
    pub replayable: bool,
    /// How often a request to which this happened may be sent again beside its retries: its connection's GOAWAY left it
    /// out, or its stream was refused.
    pub free: u32,
}

impl Failure {
    pub(super) fn new(fault: Fault) -> Failure {
        Failure { fault, stale: false, replayable: false, free: 0 }
    }
}

/// A try that was answered: the final response head is here, the rest of both bodies is still to pass.
pub struct Answer {
    pub(super) lease: Lease,
    pub(super) upload: Flow,
    pub(super) response: Box<Response>,
    /// The whole request was sent at once.
    pub(super) replayed: bool,
    /// It answers a gRPC call.
    pub(super) is_call: bool,
}

impl Attempt<'_> {
    /// Leases a connection, sends the request and waits for the final response head; interim ones are passed on.
    /// Dropped half-way, the try is cancelled and what it used is closed or reset.
    ///
    /// # Errors
    /// Why there is no response that could be passed on.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps what it takes twice")]
    pub fn ask(
        &self,
        client: &mut Leg<'_>,
        avoid: &mut Vec<usize>,
        ledger: &mut Ledger,
        outcome: &mut Outcome,
    ) -> impl Future<Output = Result<Answer, Failure>> {
        async move {
            let (mut lease, now) = self.lease(client, avoid, ledger).await?;
            let endpoint = lease.endpoint().clone();
            let core = self.shard.outfit.core;
            endpoint.endpoint.borrow().meters.core(core).requests.add(1);
            if self.shard.logs_access() {
                outcome.endpoint = Some(endpoint.endpoint.borrow().address.to_string().into());
            }
            if self.tunnels() && !Box::pin(self.takes_tunnels(&mut lease)).await {
                return Err(Failure::new(Fault::new(Side::Proxy, Step::Lease, Reason::UpgradeRefused)));
            }
            let answered = self.send(client, lease, ledger, outcome).await;
            self.report(&endpoint, &answered, now, ledger.latest());
            if let Err(failure) = &answered
                && failure.fault.side == Side::Upstream
            {
                endpoint.endpoint.borrow().meters.core(core).failures.add(1);
            }
            answered
        }
    }

    /// A connection, and when it was there. (For itself, so that what it goes through is not kept while an answer is waited for.)
    async fn lease(
        &self,
        client: &mut Leg<'_>,
        avoid: &mut Vec<usize>,
        ledger: &mut Ledger,
    ) -> Result<(Lease, Nanos), Failure> {
        let asked = ledger.latest();
        ledger.enter(State::UpstreamWait, asked);
        let sought = Sought { due: Some(self.due), picked: Some(&self.picked), ..self.choice.sought(self.request) };
        let leased = match upstream::begin(self.cluster, self.wanted, sought, avoid, asked) {
            Ok(Begun::Leased(lease)) => Ok(lease),
            Ok(Begun::Open(chosen)) => {
                // Boxed, so that those who find a pooled connection do not carry its room about.
                let rest = Box::pin(upstream::finish(self.cluster, self.wanted, sought, avoid, asked, chosen));
                let Some(leased) = client.or_left(rest).await else {
                    return Err(Failure::new(Fault::new(Side::Downstream, Step::Lease, Reason::ClientLeft)));
                };
                leased
            }
            Err(fault) => Err(fault),
        };
        // A pooled connection was not waited for.
        let now = if leased.as_ref().is_ok_and(|lease| lease.reused) { asked } else { clock::now() };
        ledger.enter(State::Hop, now);
        ledger.mark(Mark::Leased, now);
        let lease = leased.map_err(|fault| Failure { replayable: true, ..Failure::new(fault) })?;
        Ok((lease, now))
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn keeps what it takes by value twice")]
    fn send(
        &self,
        client: &mut Leg<'_>,
        mut lease: Lease,
        ledger: &mut Ledger,
        outcome: &mut Outcome,
    ) -> impl Future<Output = Result<Answer, Failure>> {
        async move {
            let mut upload = self.begin_upload(client, &mut lease)?;
            let whole = self.is_whole(client, &lease);
            if !self.request.head.expect_continue && !whole {
                upload.prime(client).map_err(|broken| Failure::new(upload_fault(broken, client.timed_out())))?;
            }
            let now = ledger.latest();
            let due = self.due;
            lease.conn.leg().arm(due.min(clock::after(now, self.body_timeout())), Ends::Both);
            // Taken when there is something to put into it: while an answer is waited for, nobody needs its room.
            let mut response = None;
            let replayed = whole && self.send_whole(client, &mut lease, &mut upload).await;
            let mut interim = 0;
            loop {
                let heard = self.wait(client, &mut lease, &mut upload, ledger, &mut response, due).await;
                let now = clock::now();
                ledger.enter(State::Hop, now);
                ledger.mark(Mark::FirstByte, now);
                outcome.bytes_in = upload.bytes();
                match heard {
                    Ok(Heard::Head) => {}
                    Ok(Heard::ClientLeft) => {
                        let whole = (upload.is_done() && !self.tunnels()).then_some(self.request.head.method);
                        leave::before_head(self.shard, self.cluster, lease, response, whole, self.limits());
                        return Err(Failure::new(Fault::new(Side::Downstream, Step::Wait, Reason::ClientLeft)));
                    }
                    Ok(Heard::End) => {
                        let untaken = upload.bytes() == 0 && !upload.has_started();
                        return Err(
                            self.no_response(&mut lease, replayed || untaken || self.tape().is_some_and(Tape::is_kept))
                        );
                    }
                    Err(failure) => {
                        if failure.fault.reason == Reason::UpstreamBadResponse {
                            lease.conn.refuse();
                        }
                        return Err(failure);
                    }
                }
                let response = self.response(&mut response);
                if let Conn::Http1(pooled) = &lease.conn {
                    response.parse(&pooled.stream, self.request)?;
                    lease.endpoint().answers_long.set(pooled.stream.buffered().len() > SHORT);
                }
                if response.head.status >= 200 || response.head.status == 101 {
                    break;
                }
                interim += 1;
                if interim > MAX_INTERIM {
                    return Err(Failure::new(bad_response()));
                }
                Box::pin(self.pass_interim(client, &mut lease, response)).await?;
            }
            self.let_go();
            if let (true, BodyLength::Length(length)) = (replayed, self.request.head.body) {
                // The request's body is no longer needed: the upstream has answered.
                client.consume(length as usize);
                outcome.bytes_in = length;
            }
            let response = response.unwrap_or_else(|| self.shard.take_response());
            Ok(Answer { is_call: self.is_call(&lease), lease, upload, response, replayed })
        }
    }

    pub(super) fn response<'r>(&self, slot: &'r mut Option<Box<Response>>) -> &'r mut Response {
        slot.get_or_insert_with(|| self.shard.take_response())
    }

    pub(super) fn limits(&self) -> Limits {
        crate::http1::limits(&self.request.listener.http)
    }

    pub(super) fn body_timeout(&self) -> std::time::Duration {
        self.request.listener.http.body_idle_timeout
    }

    fn begin_upload(&self, client: &Leg<'_>, lease: &mut Lease) -> Result<Flow, Failure> {
        let request = self.request;
        let upgrade = self.upgrade();
        let is_upgrade = upgrade.is_some();
        let instance = &self.shard.outfit.instance;
        let sent = forward::Sent { instance, upgrade: is_upgrade, attempt: self.number };
        let mut scratch = self.shard.take_head();
        let flow = match &mut lease.conn {
            Conn::Http1(_) => {
                let mut head = self.shard.take_head();
                forward::request(&mut scratch, request, self.changed(), sent, |target, edits| {
                    encode_request(&mut head, request.head, request.bytes, target, edits);
                });
                Flow::Wire(self.wire(client, head))
            }
            Conn::Http2(riding) => {
                let channel = riding.channel();
                let web = self.web();
                self.keep(client);
                let reader = self.reader(client);
                let reader = match web {
                    Some(web) => Translated::request(web, reader),
                    None => reader,
                };
                let ends = reader.is_done();
                let tls = self.cluster.cluster.borrow().tls.is_some();
                let way = message::Way { tls, protocol: upgrade, kept: &self.shard.kept, is_first: !lease.reused };
                let (head, bytes) = (request.head, request.bytes);
                let encoded = forward::request(&mut scratch, request, self.changed(), sent, |target, edits| {
                    let write = |edits: &Edits<'_>| message::to_upstream(head, bytes, target, &way, edits);
                    if web.is_some() { web::request(head, bytes, edits, write) } else { write(edits) }
                });
                let encoded = encoded.map_err(|reject| Failure::new(Fault::rejected(reject)))?;
                // The stream of a tunnel stays open; what it carries is relayed once the upstream has agreed.
                channel.send_request(encoded, ends && !self.tunnels());
                Flow::Frames(Pour::new(reader, ends, self.limits(), self.route.max_body))
            }
        };
        self.shard.give_head(scratch);
        Ok(flow)
    }

    /// What the request is in gRPC-Web's terms, where the route translates it.
    pub(super) fn web(&self) -> Option<Web> {
        if self.route.grpc_web { Web::of(self.request.head, self.request.bytes) } else { None }
    }

    /// Sends head and body in one write, keeping the body in the client's buffer until the upstream has answered.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps what it takes twice")]
    fn send_whole(&self, client: &Leg<'_>, lease: &mut Lease, upload: &mut Flow) -> impl Future<Output = bool> {
        async move {
            let (BodyLength::Length(length), Flow::Wire(upload), Some(upstream)) =
                (self.request.head.body, upload, lease.conn.stream())
            else {
                return false;
            };
            let head = upload.take_staged();
            // A failure shows when the response is read: the upstream may have answered before it closed.
            let _ = upstream.write_all_vectored(&head, &client.buffered()[..length as usize]).await;
            self.shard.give_head(head);
            upload.finish();
            true
        }
    }
}
