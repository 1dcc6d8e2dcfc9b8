//! The response head as it arrives, and what can be wrong with a response.

use std::cell::Cell;

use http::HeaderMap;
use onehop_meter::ledger::Ledger;
use onehop_meter::names::Reason;
use onehop_net::{Stream, clock};
use onehop_wire::http1::{HeadScanner, Limits, Method, Reject, ResponseHead};

use super::Request;
use super::attempt::{Attempt, Failure};
use super::body::Broken;
use super::leg::Leg;
use crate::fault::{Fault, Side, Step};
use crate::upstream::Lease;

/// The response head as it arrives.
#[derive(Default)]
pub struct Response {
    /// The parsed head.
    pub head: ResponseHead,
    /// The head's bytes: the stream's buffer goes on to other things.
    pub bytes: Vec<u8>,
    /// Where its end was looked for.
    pub scanner: HeadScanner,
    /// Its length, once it is whole.
    pub end: usize,
    /// The client was told to go on with its body.
    pub continued: bool,
    /// The HTTP/2 stream ended with it.
    pub ends: bool,
    /// The fields of a final response that came by HTTP/2, as they came: to an HTTP/2 client they may go on as they are.
    pub fields: Cell<Option<HeaderMap>>,
}

impl Response {
    /// Copies the head out and parses it.
    pub fn parse(&mut self, upstream: &Stream, request: &Request<'_>) -> Result<(), Failure> {
        let limits = crate::http1::limits(&request.listener.http);
        self.read(upstream, request.head.method, &limits).map_err(refused)
    }

    /// The same for a request that is over.
    pub fn read(&mut self, upstream: &Stream, method: Method, limits: &Limits) -> Result<(), Reject> {
        self.bytes.clear();
        self.bytes.extend_from_slice(&upstream.buffered()[..self.end]);
        self.head.parse(&self.bytes, method, limits)
    }

    /// Writes down a head that came by HTTP/2.
    pub fn take_http2(
        &mut self,
        response: http::Response<()>,
        ends: bool,
        request: &Request<'_>,
    ) -> Result<(), Failure> {
        self.bytes.clear();
        self.ends = ends;
        let limits = crate::http1::limits(&request.listener.http);
        let method = request.head.method;
        crate::http2::message::response(&response, method, ends, &limits, &mut self.head, &mut self.bytes)
            .map_err(refused)?;
        self.fields.set((self.head.status >= 200).then(|| response.into_parts().0.headers));
        Ok(())
    }

    /// Makes ready for another exchange.
    pub fn renew(&mut self) {
        self.next();
        self.continued = false;
        self.fields.set(None);
    }

    /// Makes ready for the head that follows an interim one.
    pub fn next(&mut self) {
        self.scanner.reset();
        self.end = 0;
    }
}

fn refused(reject: Reject) -> Failure {
    Failure::new(Fault { reject: Some(reject), ..bad_response() })
}

/// The upstream's answer cannot be read.
pub fn bad_response() -> Fault {
    Fault::new(Side::Upstream, Step::Wait, Reason::UpstreamBadResponse)
}

/// Why a response could not be passed on.
pub fn download_fault(broken: Broken, upstream: &Leg<'_>, client: &Leg<'_>) -> Fault {
    let (side, reason) = match broken {
        Broken::Sink if client.timed_out() => (Side::Downstream, Reason::WriteTimeout),
        Broken::Sink => (Side::Downstream, Reason::ClientLeft),
        Broken::Source if upstream.timed_out() => (Side::Upstream, Reason::UpstreamIdleTimeout),
        Broken::Source => (Side::Upstream, Reason::UpstreamTruncated),
        Broken::Framing(_) | Broken::TooLarge => (Side::Upstream, Reason::UpstreamBadResponse),
    };
    Fault::new(side, Step::Response, reason)
}

/// Why a request's body did not come, or could not be sent.
pub fn upload_fault(broken: Broken, timed_out: bool) -> Fault {
    match broken {
        Broken::Source if timed_out => Fault::new(Side::Downstream, Step::Request, Reason::BodyTimeout),
        Broken::Source => Fault::new(Side::Downstream, Step::Request, Reason::ClientLeft),
        Broken::Framing(reject) => Fault { step: Step::Request, ..Fault::rejected(reject) },
        Broken::TooLarge => Fault::new(Side::Downstream, Step::Request, Reason::BodyTooLarge),
        Broken::Sink => Fault::new(Side::Upstream, Step::Request, Reason::UpstreamReset),
    }
}

/// What this hop took so far, as browsers and curl show it.
pub fn server_timing(ledger: &Ledger) -> Vec<u8> {
    let now = clock::now();
    let account = ledger.finish(now);
    let ms = |ns: u64| ns as f64 / 1e6;
    format!("onehop;dur={:.3}, upstream;dur={:.3}", ms(account.hop_ns), ms(account.upstream_wait_ns)).into_bytes()
}

impl Attempt<'_> {
    /// The upstream ended without a response head.
    pub(super) fn no_response(&self, lease: &mut Lease, replayable: bool) -> Failure {
        let leg = lease.conn.leg();
        let timed_out = leg.timed_out();
        let (reason, untouched) = match &leg {
            Leg::Http2(channel) => channel.failure(),
            _ if !leg.buffered().is_empty() => (Reason::UpstreamBadResponse, false),
            _ if leg.failed() => (Reason::UpstreamReset, true),
            _ => (Reason::UpstreamClosed, true),
        };
        // Nobody can have acted on it: another try costs nothing, whatever the method.
        let refused = matches!(&leg, Leg::Http2(channel) if channel.is_untouched());
        let config = self.cluster.cluster.borrow();
        let meters = config.meters.core(self.shard.outfit.core);
        if timed_out {
            meters.timeouts.add(1);
            return Failure::new(Fault::new(Side::Upstream, Step::Wait, Reason::UpstreamTimeout));
        }
        meters.resets.add(1);
        let fault = Fault { retryable: refused && replayable, ..Fault::new(Side::Upstream, Step::Wait, reason) };
        let free = match &leg {
            Leg::Http2(channel) if fault.retryable && channel.is_left_out() => super::MAX_LEFT_OUT,
            Leg::Http2(channel) if fault.retryable && channel.is_refused() => super::MAX_REFUSED,
            _ => 0,
        };
        Failure { fault, stale: lease.reused && untouched, replayable, free }
    }
}
