//! Clusters as they are wanted.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{ClusterPolicy, ClusterTls, Http2, Placement, Protocol, ProxyProtocol};

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BalanceKind {
    /// In turn, smoothly by weight.
    #[default]
    RoundRobin,
    /// The less loaded of two random ones.
    LeastRequest,
    /// At random, by weight.
    Random,
    /// Of two random ones, the one whose answer is expected first.
    PeakEwma,
    /// By a value, on a ring.
    RingHash,
    /// By a value, from a table.
    Maglev,
}

/// How a captured connection's destination becomes an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Original {
    /// As it is.
    AsIs,
    /// Not at all: what was meant for an unknown destination is refused.
    Refused,
    /// Its port, on this host's loopback address: the app that the sidecar stands before.
    Loopback,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// IP address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(Arc<PathBuf>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An endpoint as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where.
    pub target: EndpointTarget,
    /// Its weight among the others.
    pub weight: u32,
    /// Where it stands among them.
    pub placement: Placement,
}

/// An address, or a name to be resolved.
#[derive(Clone, Debug, PartialEq)]
pub enum EndpointTarget {
    /// Known.
    Address(Address),
    /// Resolved by the agent, again by the record's time to live.
    Name(String, u16),
}

/// One cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Its name, unique.
    pub name: String,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// How one is chosen.
    pub balance: BalanceKind,
    /// Until a connection is made.
    pub connect_timeout: Duration,
    /// Idle connections per endpoint and core.
    pub max_idle: usize,
    /// How long one may idle: below what upstreams usually allow (nginx 75 s, Node 5 s, so watch them too).
    pub idle_timeout: Duration,
    /// How long one may live.
    pub max_age: Option<Duration>,
    /// Requests on one.
    pub max_requests_per_connection: Option<u64>,
    /// Connections over all cores (an even share each); more requests wait in line for the connect timeout.
    pub max_connections: Option<u32>,
    /// Requests in flight over all cores (an even share each); more are refused.
    pub max_requests: Option<u32>,
    /// Begins each connection with a PROXY header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Its endpoint is where each captured connection was meant to go.
    pub original: Option<Original>,
    /// Connections to where captured ones were meant to go begin at the client's own address (IP_TRANSPARENT, which needs
    /// CAP_NET_ADMIN, and rules that bring the answers back: `onehop redirect up --tproxy`).
    pub keep_source: bool,
    /// TLS towards its endpoints.
    pub tls: Option<ClusterTls>,
    /// The version that its endpoints are spoken to in.
    pub protocol: Protocol,
    /// How HTTP/2 is spoken to them.
    pub http2: Http2,
    /// How its endpoints are chosen, judged and checked.
    pub policy: ClusterPolicy,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster {
            name: String::new(),
            endpoints: Vec::new(),
            balance: BalanceKind::RoundRobin,
            connect_timeout: Duration::from_secs(5),
            max_idle: 512,
            idle_timeout: Duration::from_secs(30),
            max_age: None,
            max_requests_per_connection: None,
            max_connections: None,
            max_requests: None,
            proxy_protocol: None,
            original: None,
            keep_source: false,
            tls: None,
            protocol: Protocol::Http1,
            http2: Http2::default(),
            policy: ClusterPolicy::default(),
        }
    }
}
