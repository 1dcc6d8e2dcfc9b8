//! What can go wrong in an exchange, and the one place that turns it into a status.

use std::fmt;
use std::io::Write;

use onehop_meter::names::Reason;
use onehop_wire::http1::Reject;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Downstream,
    /// The upstream's.
    Upstream,
    /// Ours: a limit or the configuration.
    Proxy,
}

/// How far the exchange had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reading or parsing the request head.
    Head,
    /// Choosing a route.
    Route,
    /// Choosing an endpoint and getting a connection.
    Lease,
    /// Sending the request.
    Request,
    /// Waiting for the response head.
    Wait,
    /// Passing the response on.
    Response,
}

/// One failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whose.
    pub side: Side,
    /// When.
    pub step: Step,
    /// What, as metrics, access records and `proxy-status` name it.
    pub reason: Reason,
    /// The rejected rule, when the reason is a malformed message.
    pub reject: Option<Reject>,
    /// No byte of the request can have been acted on.
    pub retryable: bool,
    /// The rate that was exceeded.
    pub limited: Option<Limited>,
    /// The status that was ordered for it; zero: none.
    pub injected: u16,
}

/// A rate that a client has exceeded, as the answer tells it (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// What it is.
    pub policy: Policy,
    /// When the next one will pass, in seconds.
    pub retry_after_s: u32,
    /// Whether it is told what the limit is, and not only when to come again.
    pub is_told: bool,
}

/// What a client's rate limits are.
pub const POLICY_FIELD: &str = "RateLimit-Policy";
/// What is left of them.
pub const STATE_FIELD: &str = "RateLimit";

/// A rate limit, as clients are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it counts by,
    pub by: &'static str,
    /// and which of those of the route that count by it, from 1.
    pub number: u8,
    /// So many requests
    pub quota: u32,
    /// in so many seconds.
    pub window_s: u32,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy { by, number: ..=1, .. } => write!(f, "\"{by}\""),
            Policy { by, number, .. } => write!(f, "\"{by}-{number}\""),
        }
    }
}

impl Policy {
    /// Its part of RateLimit-Policy.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail; so below.
        let _ = write!(out, "{self};q={};w={}", self.quota, self.window_s);
    }

    /// Its part of RateLimit: so many are left, until so many seconds have passed.
    pub fn write_state(&self, out: &mut Vec<u8>, left: u32, seconds: u32) {
        let _ = write!(out, "{self};r={left};t={seconds}");
    }
}

impl Limited {
    /// The fields of a refusal.
    pub fn fields(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut fields = vec![("Retry-After", self.retry_after_s.to_string().into_bytes())];
        if self.is_told {
            let (mut policy, mut state) = (Vec::new(), Vec::new());
            self.policy.write(&mut policy);
            self.policy.write_state(&mut state, 0, self.retry_after_s);
            fields.extend([(POLICY_FIELD, policy), (STATE_FIELD, state)]);
        }
        fields
    }
}

impl Fault {
    /// A failure that must not be retried.
    pub fn new(side: Side, step: Step, reason: Reason) -> Fault {
        Fault { side, step, reason, reject: None, retryable: false, limited: None, injected: 0 }
    }

    /// One that certainly happened before the upstream could act.
    pub fn retryable(side: Side, step: Step, reason: Reason) -> Fault {
        Fault { retryable: true, ..Fault::new(side, step, reason) }
    }

    /// A malformed request.
    pub fn rejected(reject: Reject) -> Fault {
        Fault { reject: Some(reject), ..Fault::new(Side::Downstream, Step::Head, Reason::Rejected) }
    }

    /// The stable name of what happened.
    pub fn name(&self) -> &'static str {
        match self.reject {
            Some(reject) if self.reason == Reason::Rejected => reject.reason(),
            _ => self.reason.as_str(),
        }
    }

    /// The status that the client gets, as Envoy's users expect it; `connect_failure_502` is nginx's way.
    pub fn status(&self, connect_failure_502: bool) -> u16 {
        use Reason::*;
        if let (Rejected, Some(reject)) = (self.reason, self.reject) {
            return reject.status();
        }
        if self.injected != 0 {
            return self.injected;
        }
        match self.reason {
            NoRoute => 404,
            Misdirected => 421,
            AccessDenied => 403,
            RateLimited => 429,
            Shed | FaultInjected => 503,
            TlsFailed | ConnectRefused | ConnectTimeout | ConnectFailed | NoEndpoint if connect_failure_502 => 502,
            TlsFailed | DestinationRefused => 503,
            NoEndpoint | ConnectRefused | ConnectTimeout | ConnectFailed | Overflow | QueueAge | OverCapacity
            | ShuttingDown => 503,
            UpstreamReset | UpstreamClosed if connect_failure_502 => 502,
            UpstreamReset | UpstreamClosed => 503,
            UpstreamBadResponse | UpstreamTruncated => 502,
            UpstreamTimeout | UpstreamIdleTimeout => 504,
            HeaderTimeout | BodyTimeout => 408,
            BodyTooLarge => 413,
            Loop => 508,
            UpgradeRefused => 403,
            ConnectMethodRefused => 405,
            Rejected | BadPath => 400,
            _ => 500,
        }
    }
}
