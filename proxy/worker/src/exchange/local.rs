//! Answers that need no upstream: redirects, fixed responses, preflights. They go to the client the way any response
//! does, whatever its version.

use std::future::poll_fn;

use bytes::Bytes;
use onehop_meter::ledger::{Ledger, Step as Mark};
use onehop_meter::names::Reason;
use onehop_net::clock::{self, Nanos};
use onehop_plan::Route;
use onehop_plan::filter::Action;
use onehop_plan::route::Normal;
use onehop_wire::http1::{BodyLength, Method, encode_response};

use super::body::{Body, Framing};
use super::changes::{Changes, captures, cors, header, values};
use super::flow::Flow;
use super::leg::Leg;
use super::pace::Pace;
use super::pour::Pour;
use super::reader::Reader;
use super::response::{Response, download_fault};
use super::{Outcome, Request, begins_tunnel};
use crate::fault::{Fault, Side, Step};
use crate::http1::{forward, limits, reply};
use crate::http2::{grpc, message};
use crate::shard::Shard;

/// An answer in preparation: a whole head in HTTP/1's form, and its body.
pub struct Local {
    head: Vec<u8>,
    body: Bytes,
    /// What it says to a gRPC call.
    grpc_status: Option<u16>,
    /// No limit bounds it: to refuse it would cost as much.
    is_free: bool,
}

impl Local {
    /// Whether it is given whatever the limits say.
    pub fn is_free(&self) -> bool {
        self.is_free
    }
}

/// Bytes of a text that a gRPC call is told in a field.
const MAX_MESSAGE: usize = 1024;

fn begin(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} {}\r\n", reply::phrase(status)).into_bytes()
}

fn field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

fn finish(mut head: Vec<u8>, status: u16, body: Bytes) -> Local {
    // A 204 has no length (RFC 9110 8.6).
    if !matches!(status, 204 | 304) {
        field(&mut head, "Content-Length", body.len().to_string().as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    Local { head, body, grpc_status: None, is_free: false }
}

/// What the same answer is to a gRPC call: a status in the head, and no message, since its clients take no other status
/// than 200 for an answer of gRPC. The text of a fixed response is the call's message, as in Envoy.
fn finish_call(kind: &str, status: u16, text: &[u8], location: Option<&[u8]>) -> Local {
    let grpc_status = grpc::status_of(status);
    let mut head = begin(200);
    field(&mut head, "Content-Type", kind.as_bytes());
    field(&mut head, "grpc-status", grpc_status.to_string().as_bytes());
    if !text.is_empty() {
        field(&mut head, "grpc-message", &grpc::encode_message(text, MAX_MESSAGE));
    }
    if let Some(location) = location {
        field(&mut head, "Location", location);
    }
    Local { grpc_status: Some(grpc_status), ..finish(head, 200, Bytes::new()) }
}

/// The answer that the route gives by itself, if it does.
pub fn answer(request: &Request<'_>, route: &Route, normal: Normal<'_>) -> Option<Local> {
    let call = grpc::call_of(request.head, request.bytes);
    match &route.action {
        Action::Forward => None,
        Action::Redirect(redirect) => {
            let captures = captures(route, normal.matched);
            let id = request.id();
            let values = values(request, &id, route, normal, &captures);
            let mut location = Vec::new();
            redirect.location(&mut location, normal.forwarded, request.head.query.of(request.bytes), &values);
            if let Some(kind) = call {
                return Some(finish_call(kind, redirect.status, b"", Some(&location)));
            }
            let mut head = begin(redirect.status);
            field(&mut head, "Location", &location);
            Some(finish(head, redirect.status, Bytes::new()))
        }
        Action::Respond(respond) => {
            // One that is written for calls is what its author meant.
            if let Some(kind) = call.filter(|_| grpc::call_of_type(respond.content_type.as_bytes()).is_none()) {
                return Some(finish_call(kind, respond.status, respond.body.trim_ascii_end(), None));
            }
            let mut head = begin(respond.status);
            let is_bodiless = matches!(respond.status, 204 | 304);
            if !is_bodiless {
                field(&mut head, "Content-Type", respond.content_type.as_bytes());
            }
            let body = if is_bodiless { Bytes::new() } else { respond.body.clone() };
            Some(finish(head, respond.status, body))
        }
    }
}

/// The answer to a preflight (Fetch standard): `OPTIONS` with an origin and the method that is meant. Browsers send no
/// credentials with it, so that nothing may depend on who asks: it is neither authorized nor counted against any limit.
pub fn preflight(request: &Request<'_>, route: &Route) -> Option<Local> {
    let cors = cors(route)?;
    header(request, "access-control-request-method")?;
    header(request, "origin")?;
    let mut head = begin(204);
    if !cors.methods.is_empty() {
        field(&mut head, "Access-Control-Allow-Methods", cors.methods.as_bytes());
    }
    if !cors.headers.is_empty() {
        field(&mut head, "Access-Control-Allow-Headers", cors.headers.as_bytes());
    }
    if let Some(age) = cors.max_age {
        field(&mut head, "Access-Control-Max-Age", age.to_string().as_bytes());
    }
    Some(Local { is_free: true, ..finish(head, 204, Bytes::new()) })
}

/// A local answer on its way.
pub struct Sending<'a> {
    /// The core.
    pub shard: &'a Shard,
    /// What is answered.
    pub request: &'a Request<'a>,
    /// Its route.
    pub route: &'a Route,
    /// What it changes in the head.
    pub changes: Option<&'a Changes>,
}

impl Sending<'_> {
    /// Sends it.
    pub async fn run(&self, local: Local, client: &mut Leg<'_>, ledger: &mut Ledger, outcome: &mut Outcome) {
        let Sending { shard, request, route, changes } = *self;
        let limits = limits(&request.listener.http);
        let mut response = Response { bytes: local.head, ..Response::default() };
        if response.head.parse(&response.bytes, request.head.method, &limits).is_err() {
            // What a configured text made of it is no response.
            outcome.fault = Some(Fault::new(Side::Proxy, Step::Route, Reason::Internal));
            return;
        }
        let (head, bytes) = (&response.head, &response.bytes);
        if begins_tunnel(request.head, head.status) {
            let is_connect = request.head.method == Method::Connect;
            let reason = if is_connect { Reason::ConnectMethodRefused } else { Reason::UpgradeRefused };
            outcome.fault = Some(Fault::new(Side::Proxy, Step::Route, reason));
            return;
        }
        // What the client still sends is not read: its connection is at no request's beginning then.
        let close = !request.head.keep_alive || shard.is_draining() || request.head.body != BodyLength::None;
        let framed = forward::Framed { close, framing: Framing::Verbatim };
        let body = if request.head.method == Method::Head { Bytes::new() } else { local.body };
        let length = body.len() as u64;
        let edit = forward::ResponseEdits { changes: forward::changed(changes, route), ..Default::default() };
        let mut flow = match client {
            Leg::Http2(channel) => {
                let ends = body.is_empty();
                let encoded = forward::response(request.head, head, bytes, &framed, edit, |edits| {
                    message::to_client(head, bytes, edits)
                });
                if channel.send_response(encoded, ends).is_none() {
                    outcome.fault = Some(Fault::new(Side::Downstream, Step::Response, Reason::ClientLeft));
                    return;
                }
                Flow::Frames(Pour::new(Reader::held(body, limits), ends, limits, None))
            }
            _ => {
                let mut out = shard.take_head();
                forward::response(request.head, head, bytes, &framed, edit, |edits| {
                    encode_response(&mut out, head, bytes, edits);
                });
                Flow::Wire(Body::of_frames(Reader::held(body, limits), Framing::Verbatim, out, limits, None))
            }
        };
        outcome.status = head.status;
        outcome.grpc_status = local.grpc_status;
        outcome.started = true;
        outcome.keep = !close;
        let (idle, mut pace) = (request.listener.http.body_idle_timeout, Pace::default());
        let sent = poll_fn(|cx| {
            let polled = flow.poll(cx, &mut Leg::Nobody, client);
            if polled.is_pending() && pace.receiver(flow.sent(), idle) {
                client.arm_while_full(clock::now(), idle, Nanos::MAX);
            }
            polled
        })
        .await;
        client.disarm();
        match sent {
            Ok(()) => outcome.bytes_out = length,
            Err(broken) => outcome.fault = Some(download_fault(broken, &Leg::Nobody, client)),
        }
        shard.give_head(flow.take_staged());
        ledger.mark(Mark::ResponseWritten, clock::now());
    }
}
