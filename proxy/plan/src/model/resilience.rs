//! What a route does about failures, its own and those of others: retries, hedges, copies, injected faults.

use std::time::Duration;

use super::FieldMatch;

/// What a retry may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// Nobody can have acted on the request: no connection could be made, or an HTTP/2 upstream refused the stream.
    ConnectFailure,
    /// A connection that had idled ended before any byte of a response: it was closed at the moment of its reuse.
    StaleConnection,
    /// The connection ended, or a try's time was over, before any byte of a response.
    ResetBeforeResponse,
    /// 502, 503, 504, or no response at all.
    GatewayError,
    /// Any 5xx, or no response at all.
    ServerError,
    /// A gRPC call that was answered with this status and nothing else. Whoever names it says that such calls may be
    /// made twice, whatever their method.
    Call(u8),
}

/// When and how an attempt is repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Attempts beyond the first; none: no retries.
    pub attempts: u32,
    /// Upon what.
    pub on: Vec<RetryOn>,
    /// Upon these statuses.
    pub statuses: Vec<u16>,
    /// Upon responses with one of these fields.
    pub headers: Vec<FieldMatch>,
    /// How long one attempt may take to its response head.
    pub per_try_timeout: Option<Duration>,
    /// The first wait is a random part of this, each further one of twice as much.
    pub backoff: Duration,
    /// Of at most this.
    pub max_backoff: Duration,
    /// A `Retry-After` up to this is waited for; a longer one is passed on instead.
    pub max_retry_after: Duration,
    /// Bytes of a request body that are kept to be sent again.
    pub max_body: u64,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            attempts: 2,
            on: vec![RetryOn::ConnectFailure, RetryOn::StaleConnection],
            statuses: Vec::new(),
            headers: Vec::new(),
            per_try_timeout: None,
            // Envoy's.
            backoff: Duration::from_millis(25),
            max_backoff: Duration::from_millis(250),
            max_retry_after: Duration::from_secs(1),
            // Linkerd's.
            max_body: 64 * 1024,
        }
    }
}

/// When a second try is sent beside the first.
#[derive(Clone, Debug, PartialEq)]
pub struct Hedge {
    /// After this long; with `quantile` until enough was observed.
    pub after: Option<Duration>,
    /// After the time within which this share of the cluster's answers came.
    pub quantile: Option<f64>,
    /// Hedges in percent of the requests.
    pub budget: u32,
}

/// A copy of some requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// The cluster that gets it.
    pub cluster: String,
    /// How many of a hundred requests.
    pub percent: f64,
    /// The copy's host ends with `-shadow`, as Envoy's.
    pub shadow_host: bool,
    /// Copies under way on each core; more are dropped.
    pub max_in_flight: u32,
    /// Bytes of a body; longer ones are not copied.
    pub max_body: u64,
}

/// What is done to a request on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// It waits before it goes on.
    Delay(Duration),
    /// It is answered with this status.
    Abort(u16),
    /// Its connection, or stream, is reset.
    Reset,
    /// Its response's body flows at so many bytes a second.
    SlowBody(u64),
}

/// A disturbance, and whom it meets.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// What.
    pub what: Disturbance,
    /// How many of a hundred requests.
    pub percent: f64,
    /// Only those with these fields, all of them.
    pub headers: Vec<FieldMatch>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resilience {
    /// Retries.
    pub retry: Retry,
    /// Hedges.
    pub hedge: Option<Hedge>,
    /// Copies.
    pub mirror: Option<Mirror>,
    /// Disturbances.
    pub injections: Vec<Injection>,
}
