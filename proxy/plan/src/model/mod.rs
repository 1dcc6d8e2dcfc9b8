//! What is wanted, as whoever configures us says it: plain data, not yet checked. Defaults stand here, each with
//! what justifies it.

mod cluster;
mod filter;
mod http2;
mod limits;
mod listener;
mod policy;
mod resilience;
mod route;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use crate::authz::Rule;
pub use cluster::{Address, BalanceKind, Cluster, Endpoint, EndpointTarget, Original};
pub use filter::{Cors, FieldEdits, Filters};
pub use http2::{Http2, MAX_WINDOW, Protocol};
pub use limits::{Adaptive, Priority, RateFields, RateLimit};
pub use listener::{ClientCert, Destination, Http, Layer, Listener, ProxyProtocol, RequestId};
pub use policy::{ClusterPolicy, Fallback, Labels, Placement, Probe, ProbeKind, Sticky};
pub use resilience::{Disturbance, Hedge, Injection, Mirror, Resilience, Retry, RetryOn};
pub use route::{Action, FieldMatch, HashOn, PathMatch, PathRewrite, Redirect, Respond, Route, Target, ValueMatch};
pub use tls::{ClientAuth, ClusterTls, Files, Identity, KeyPair, ListenerTls, MinVersion, system_roots};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// The process.
    pub runtime: Runtime,
    /// Where access records go, if anywhere.
    pub access_log: Option<AccessLog>,
    /// Where clients come in.
    pub listeners: Vec<Listener>,
    /// What is done with their requests.
    pub routes: Vec<Route>,
    /// Where they go.
    pub clusters: Vec<Cluster>,
    /// Who this process is.
    pub identity: Option<Identity>,
    /// Who may do what.
    pub access: Vec<Rule>,
    /// A part of it comes from a sidecar preset.
    pub sidecar: bool,
    /// The contents of the files that the above names.
    pub files: Files,
}

/// The process itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// Worker threads; by default one per core that the process may use.
    pub workers: Option<usize>,
    /// Pins worker i to the i-th of these.
    pub cpus: Vec<usize>,
    /// The admin endpoint.
    pub admin: Option<SocketAddr>,
    /// How long a core polls after its last completion before it sleeps.
    pub busy_poll: Duration,
    /// How long a drain may take.
    pub drain: Duration,
    /// Downstream connections of one core.
    pub max_connections: usize,
    /// Marks the sockets of our own connections (SO_MARK), so that interception leaves them alone.
    pub mark: Option<u32>,
    /// A ready task that waits longer than this for its turn means that the core is saturated, which then refuses
    /// requests, the lowest priority first.
    pub shed_after: Option<Duration>,
    /// The Unix socket over which a successor takes the listening sockets.
    pub takeover: Option<PathBuf>,
}

/// Polling pays where a core's sleep and wake cost more than a short spin; see `results/`.
pub const DEFAULT_BUSY_POLL: Duration = Duration::from_micros(50);

impl Default for Runtime {
    fn default() -> Runtime {
        Runtime {
            workers: None,
            cpus: Vec::new(),
            admin: None,
            busy_poll: DEFAULT_BUSY_POLL,
            drain: Duration::from_secs(30),
            max_connections: 100_000,
            mark: None,
            shed_after: None,
            takeover: None,
        }
    }
}

/// Where access records go.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// A file; standard output without one.
    pub path: Option<PathBuf>,
    /// How a record is written.
    pub format: LogFormat,
}

/// How a record is written.
#[derive(Clone, Debug, PartialEq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// A line with `{name}` replaced.
    Template(String),
}
