//! One request of an HTTP/2 client: the same exchange as HTTP/1's, then the books, the answer to a failure, the tunnel.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use h2::Reason as Code;
use onehop_meter::ledger::{Ledger, State, Step as Mark};
use onehop_meter::names::Reason;
use onehop_net::clock::{self, Nanos};
use onehop_plan::Listener;
use onehop_wire::http1::{Method, Reject, RequestHead};

use super::serve::Client;
use super::{Channel, grpc, message, reply, tunnel};
use crate::access_log;
use crate::exchange::deadline::Deadline;
use crate::exchange::manner::Manner;
use crate::exchange::{self, Leg, Outcome, Request};
use crate::fault::{Fault, Step};
use crate::http1::forward::Identity;

/// Bytes of a head whose room is kept for the next one.
const KEPT_BYTES: usize = 4096;

/// A stream that a client opened, as `h2` gives it.
pub type Asked = (http::Request<h2::RecvStream>, h2::server::SendResponse<Bytes>);

/// A stream that a client opened, and its head as it was read. Its room serves one stream after another.
#[derive(Default)]
pub struct Opened {
    /// The stream as a leg.
    channel: Option<Channel>,
    head: RequestHead,
    /// The bytes that its spans point into.
    bytes: Vec<u8>,
    /// What is wrong with it. The head is then no more than the gist of it, if that could be told.
    refused: Option<(Reject, bool)>,
    begun: Nanos,
}

impl Opened {
    /// Takes a stream on and reads its head. (Not in the future, which would keep the parts of the request to its end.)
    pub fn begin(&mut self, client: &Client, (request, respond): Asked) {
        self.begun = clock::now();
        let shard = &client.shard;
        let (parts, recv) = request.into_parts();
        let ends = recv.is_end_stream();
        self.channel = Some(Channel::server(recv, respond));
        let asks = parts.extensions.get::<h2::ext::Protocol>();
        let key = asks.map(|_| tunnel::handshake_key(shard.random(), shard.random())).unwrap_or_default();
        let limits = crate::http1::limits(&client.listener().http);
        self.bytes.clear();
        let read = message::request(&parts, ends, &key, &limits, &mut self.head, &mut self.bytes);
        self.refused = read.err().map(|reject| (reject, message::gist(&parts, &mut self.head, &mut self.bytes)));
    }

    /// The stream is over; what it took much room for is let go.
    fn end(&mut self) {
        self.channel = None;
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }
}

/// Serves one stream.
pub async fn serve(client: &Rc<Client>, place: &Cell<Option<Box<Opened>>>) {
    let Some(mut opened) = place.take() else { return };
    if let Opened { channel: Some(channel), head, bytes, refused, begun } = &mut *opened {
        let shard = &client.shard;
        let listener = client.listener();
        let mut ledger = Ledger::new(*begun);
        ledger.mark(Mark::HeadComplete, clock::now());
        if let Some((reject, has_gist)) = refused.take() {
            let outcome = Outcome::rejected(Fault::rejected(reject));
            let manner = has_gist.then(|| manner_of_gist(client, &listener, head, bytes));
            conclude(client, &listener, channel, Err(manner), outcome, &mut ledger).await;
        } else {
            let identity = Identity::new(|| shard.random());
            let now = ledger.latest();
            let deadline =
                Deadline::of_call(head, bytes, now).or_else(|| Deadline::of_request(head, bytes, &listener, now));
            let request =
                Request { head, bytes, origin: &client.origin, identity: &identity, listener: &listener, deadline };
            listener.meters.core(shard.outfit.core).requests.add(1);
            let mut outcome = Outcome::default();
            exchange::run_bounded(shard, &request, &mut Leg::Http2(channel), &mut ledger, &mut outcome).await;
            conclude(client, &listener, channel, Ok(&request), outcome, &mut ledger).await;
        }
    }
    opened.end();
    place.set(Some(opened));
}

fn manner_of_gist(client: &Client, listener: &Arc<Listener>, head: &RequestHead, bytes: &[u8]) -> Box<Manner> {
    let identity = Identity::new(|| client.shard.random());
    let gist = Request { head, bytes, origin: &client.origin, identity: &identity, listener, deadline: None };
    Box::new(Manner::of_gist(&client.shard, &gist))
}

async fn conclude(
    client: &Client,
    listener: &Arc<Listener>,
    channel: &mut Channel,
    mut request: Result<&Request<'_>, Option<Box<Manner>>>,
    mut outcome: Outcome,
    ledger: &mut Ledger,
) {
    if let Some(fault) = outcome.fault {
        answer(channel, listener, &mut request, &fault, &mut outcome);
        ledger.mark(Mark::ResponseWritten, clock::now());
    }
    if let Some(mut opened) = outcome.tunnel.take() {
        let idle = listener.http.tunnel_idle_timeout;
        ledger.enter(State::UpstreamWait, clock::now());
        let limits = crate::http1::limits(&listener.http);
        let (up, down) =
            Box::pin(tunnel::relay(&mut Leg::Http2(channel), &mut opened.lease.conn.leg(), limits, idle)).await;
        outcome.bytes_in += up;
        outcome.bytes_out += down;
        ledger.enter(State::Hop, clock::now());
    }
    access_log::conclude(&client.shard, listener, &client.origin, request.ok(), &outcome, ledger);
}

/// Sends the answer to a failed request, or to one whose head was refused as it is to be answered, or resets a stream whose
/// response cannot be completed.
fn answer(
    channel: &mut Channel,
    listener: &Listener,
    request: &mut Result<&Request<'_>, Option<Box<Manner>>>,
    fault: &Fault,
    outcome: &mut Outcome,
) {
    if outcome.started {
        // Part of it is out: only a reset tells the client that it is not whole.
        let client = matches!(fault.reason, Reason::ClientLeft | Reason::WriteTimeout | Reason::UpstreamTimeout);
        channel.reset(if client { Code::CANCEL } else { Code::INTERNAL_ERROR });
        return;
    }
    if fault.reason == Reason::ClientLeft {
        channel.reset(Code::CANCEL);
        return;
    }
    let status = fault.status(listener.http.connect_failure_502);
    let is_malformed = match fault.step {
        Step::Head => !reply::is_answered(status),
        // Its trailers; a body that is no base64 is for its sender to know.
        _ => matches!(fault.reject, Some(Reject::BadFieldName | Reject::BadFieldValue | Reject::ConnectionField)),
    };
    if fault.reason == Reason::Rejected && is_malformed {
        // A malformed request (RFC 9113 8.1.1).
        channel.reset(Code::PROTOCOL_ERROR);
        return;
    }
    let head_only = request.as_ref().is_ok_and(|request| request.head.method == Method::Head);
    let Manner { call, cors } = match request {
        Ok(request) => Manner::of(request, outcome.route.as_deref()),
        Err(manner) => manner.take().map(|manner| *manner).unwrap_or_default(),
    };
    outcome.status = if call.is_some() { 200 } else { status };
    outcome.grpc_status = call.map(|_| grpc::status_of(status));
    reply::send(channel, fault, status, call, head_only, &cors);
}
