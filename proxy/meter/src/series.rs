//! The blocks of counters that one core writes for each listener, route, cluster and endpoint.

use std::sync::OnceLock;

use crate::core::{Counter, Gauge};
use crate::histogram::LazyHistogram;
use crate::names::REASONS;
use crate::resilience::LazyResilience;
use crate::tls::TlsMeters;

/// Statuses of gRPC calls, 0 to 16.
const STATUSES: usize = 17;

/// How many rules a message can break, at most.
pub const REJECTS: usize = 64;

/// A listener, on one core.
#[derive(Debug)]
pub struct ListenerMeters {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections open.
    pub active: Gauge,
    /// Connections closed at once for a limit.
    pub refused: Counter,
    /// Requests begun.
    pub requests: Counter,
    /// Payload bytes from clients.
    pub bytes_in: Counter,
    /// Payload bytes to clients.
    pub bytes_out: Counter,
    /// Failures by reason.
    pub faults: [Counter; REASONS],
    /// Requests and connections that a rule on trial would have refused.
    pub would_deny: Counter,
    /// Messages refused, by the rule they break (the codec's numbering).
    pub rejected: [Counter; REJECTS],
    /// The proxy's own time, and the waits, of each exchange.
    pub hop: LazyHistogram,
    /// Waiting for the client.
    pub client_wait: LazyHistogram,
    /// Waiting for the upstream.
    pub upstream_wait: LazyHistogram,
    /// Handshakes with clients.
    pub tls: TlsMeters,
}

impl Default for ListenerMeters {
    fn default() -> ListenerMeters {
        ListenerMeters {
            accepted: Counter::default(),
            active: Gauge::default(),
            refused: Counter::default(),
            requests: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            faults: std::array::from_fn(|_| Counter::default()),
            would_deny: Counter::default(),
            rejected: std::array::from_fn(|_| Counter::default()),
            hop: LazyHistogram::default(),
            client_wait: LazyHistogram::default(),
            upstream_wait: LazyHistogram::default(),
            tls: TlsMeters::default(),
        }
    }
}

/// A route, on one core.
#[derive(Debug, Default)]
pub struct RouteMeters {
    /// Requests.
    pub requests: Counter,
    /// Responses by class: 1xx to 5xx, and none.
    pub responses: [Counter; 6],
    /// gRPC calls by their status.
    pub grpc: LazyCalls,
    /// Attempts beyond the first.
    pub retries: Counter,
    /// Requests refused for a rate.
    pub limited: Counter,
    /// Requests refused because the core is saturated.
    pub shed: Counter,
    /// What its policy did about failures.
    pub resilience: LazyResilience,
    /// The proxy's own time of each request.
    pub hop: LazyHistogram,
    /// The whole time of each request.
    pub total: LazyHistogram,
}

impl RouteMeters {
    /// Of a route beyond those whose times are shown by how they are spread.
    pub fn coarse() -> RouteMeters {
        RouteMeters { hop: LazyHistogram::coarse(), total: LazyHistogram::coarse(), ..RouteMeters::default() }
    }
}

/// gRPC calls by their status, made with the first: most routes have none.
#[derive(Debug, Default)]
pub struct LazyCalls(OnceLock<Box<[Counter; STATUSES]>>);

impl LazyCalls {
    /// Counts one; unknown statuses count as unauthenticated, the last that is known.
    pub fn add(&self, status: u16) {
        self.0.get_or_init(Box::default)[usize::from(status).min(STATUSES - 1)].add(1);
    }

    pub(crate) fn read(&self, status: usize) -> u64 {
        self.0.get().map_or(0, |calls| calls[status].get())
    }
}

/// A cluster, on one core.
#[derive(Debug, Default)]
pub struct ClusterMeters {
    /// Requests and TCP connections.
    pub requests: Counter,
    /// Of them under way.
    pub active: Gauge,
    /// Connections open.
    pub connections: Gauge,
    /// Connections made.
    pub connects: Counter,
    /// Connections that could not be made.
    pub connect_failures: Counter,
    /// Requests on a connection that had idled.
    pub pool_hits: Counter,
    /// Idle connections closed: spent, or closed by the upstream.
    pub pool_evicted: Counter,
    /// Requests not answered in time.
    pub timeouts: Counter,
    /// Connections ended before an answer.
    pub resets: Counter,
    /// HTTP/2 connections given up for what the upstream did, as [`crate::names::UPSTREAM_FLOODS`] names it.
    pub floods: [Counter; crate::names::UPSTREAM_FLOODS.len()],
    /// Attempts beyond the first.
    pub retries: Counter,
    /// Requests refused for a limit.
    pub overflow: Counter,
    /// Handshakes with endpoints.
    pub tls: TlsMeters,
    /// Endpoints ejected.
    pub ejections: Counter,
}

/// An endpoint, on one core.
#[derive(Debug, Default)]
pub struct EndpointMeters {
    /// Requests and TCP connections.
    pub requests: Counter,
    /// Of them failed by the endpoint.
    pub failures: Counter,
    /// Failures, and answers with 5xx, where endpoints are watched.
    pub errors: Counter,
    /// Time to the response's head, summed, where endpoints are watched.
    pub latency_ns: Counter,
    /// Connections made.
    pub connects: Counter,
    /// Connections that could not be made.
    pub connect_failures: Counter,
}

/// A core itself.
#[derive(Debug, Default)]
pub struct CoreMeters {
    /// When it beat last, on the monotonic clock.
    pub heartbeat_ns: Gauge,
    /// Operations completed.
    pub completions: Counter,
    /// Turns of polling.
    pub polls: Counter,
    /// Time in polling.
    pub polling_ns: Counter,
    /// Downstream connections.
    pub connections: Gauge,
    /// Read buffers in use.
    pub buffers: Gauge,
    /// Their bytes.
    pub buffer_bytes: Gauge,
    /// Connection tasks that panicked.
    pub panics: Counter,
    /// Times that accepting failed (descriptors exhausted).
    pub accept_errors: Counter,
    /// Pressure on a saturated core in thousandths: at 1000 all requests of low priority are refused.
    pub pressure: Gauge,
    /// Access records lost because the queue was full.
    pub access_dropped: Counter,
    /// Configurations taken over.
    pub installs: Counter,
    /// Time in that.
    pub install_ns: Counter,
    /// The generation of the snapshot in force; zero before the first.
    pub snapshot_generation: Gauge,
}
