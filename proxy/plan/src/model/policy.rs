//! How a cluster's endpoints are chosen, judged and checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Adaptive, HashOn};
use crate::outlier::Outlier;

/// Where an endpoint stands among the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// Its tier; the lowest is used while enough of it is healthy.
    pub priority: u32,
    /// Its labels, by which targets choose subsets.
    pub labels: Labels,
}

/// Names and values that endpoints carry.
pub type Labels = BTreeMap<String, String>;

/// Where requests go that are meant for a subset of which no endpoint can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Nowhere: 503.
    #[default]
    None,
    /// To any endpoint.
    Any,
    /// To another subset.
    Default(Arc<Labels>),
}

/// A cookie of ours that keeps a client at its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Its name.
    pub cookie: String,
    /// How long a client keeps it; none: for its session.
    pub ttl: Option<Duration>,
    /// The paths that it is sent with.
    pub path: String,
    /// Only over TLS.
    pub secure: bool,
    /// Not for scripts.
    pub http_only: bool,
    /// Whether other sites' requests bring it along: `Lax`, `Strict` or `None`.
    pub same_site: Option<String>,
    /// Keys the hash that names an endpoint, so that nobody else can make one up. The same on all proxies that serve
    /// the same clients.
    pub secret: Option<String>,
}

/// What an active check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// GET a path, by HTTP/2 where the cluster speaks it.
    Http {
        /// The path.
        path: String,
        /// The host; the endpoint's address without it.
        host: Option<String>,
        /// The statuses that are healthy: from, to.
        expect: Vec<(u16, u16)>,
    },
    /// Ask by gRPC's health protocol (grpc.health.v1).
    Grpc {
        /// The service's name; empty: the server as a whole.
        service: String,
        /// The authority; the endpoint's address without it.
        host: Option<String>,
    },
    /// Connect.
    Tcp,
}

/// Active checks, made by the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is done.
    pub kind: ProbeKind,
    /// How often; a tenth of it is jitter.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Successes in a row that bring an endpoint back.
    pub healthy: u32,
    /// Failures in a row that take it out.
    pub unhealthy: u32,
    /// Another port than the endpoint's.
    pub port: Option<u16>,
    /// With TLS, where the cluster has it.
    pub tls: bool,
}

impl Default for Probe {
    fn default() -> Probe {
        Probe {
            kind: ProbeKind::Tcp,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            healthy: 2,
            unhealthy: 3,
            port: None,
            tls: true,
        }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterPolicy {
    /// What ring-hash and maglev choose by.
    pub hash_on: Option<HashOn>,
    /// The zone of this process: its endpoints come first.
    pub zone: Option<String>,
    /// Below this share of healthy endpoints, in percent, health is no longer looked at; zero: it always is.
    pub panic_percent: u32,
    /// A new endpoint takes its full share after this long.
    pub slow_start: Option<Duration>,
    /// Ejects endpoints that fail.
    pub outlier: Option<Outlier>,
    /// Active checks.
    pub probe: Option<Probe>,
    /// Retries under way, in percent of the requests in flight.
    pub retry_percent: u32,
    /// Requests that may wait for a connection on each core.
    pub queue: u32,
    /// While the line stands, whoever waits longer than this is refused, the oldest first.
    pub queue_age: Option<Duration>,
    /// Requests and TCP connections in flight at one endpoint, over all cores.
    pub endpoint_requests: Option<u32>,
    /// Open connections to one endpoint, over all cores (an even share each).
    pub endpoint_connections: Option<u32>,
    /// What becomes of requests for a subset that cannot serve.
    pub fallback: Fallback,
    /// Keeps clients at their endpoints.
    pub sticky: Option<Sticky>,
    /// Finds the requests in flight that the cluster bears, on each core.
    pub adaptive: Option<Adaptive>,
}

impl Default for ClusterPolicy {
    fn default() -> ClusterPolicy {
        ClusterPolicy {
            hash_on: None,
            zone: None,
            // Envoy's.
            panic_percent: 50,
            slow_start: None,
            outlier: None,
            probe: None,
            // Envoy's and Linkerd's budgets.
            retry_percent: 20,
            queue: 16_384,
            queue_age: None,
            endpoint_requests: None,
            endpoint_connections: None,
            fallback: Fallback::None,
            sticky: None,
            adaptive: None,
        }
    }
}

impl ClusterPolicy {
    /// The share of its requests that an endpoint takes which began at `since`.
    pub fn slow_start_share(&self, since: u64, now: u64) -> f64 {
        let Some(window) = self.slow_start.filter(|_| since != 0) else {
            return 1.0;
        };
        let passed = now.saturating_sub(since) as f64 / (window.as_nanos() as f64).max(1.0);
        // A tenth at once, so that it is found out whether it serves at all.
        passed.clamp(0.1, 1.0)
    }
}
