//! Listeners in their compiled form.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onehop_meter::{ListenerMeters, PerCore};

use super::Split;
use crate::model::{Layer, RequestId};
use crate::route::{HostTable, PathRule};

/// A listener.
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens, as configured.
    pub address: SocketAddr,
    /// What it expects.
    pub layer: Layer,
    /// Clients must begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Connections of one core.
    pub max_connections: usize,
    /// For HTTP.
    pub http: HttpPolicy,
    /// For TCP.
    pub tcp: Option<TcpPolicy>,
    /// Its routes.
    pub hosts: Arc<HostTable>,
    /// Its meters.
    pub meters: Arc<PerCore<ListenerMeters>>,
}

/// How a listener speaks HTTP; the fields are [`crate::model::Http`]'s.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "documented in the model")]
pub struct HttpPolicy {
    pub head_bytes: usize,
    pub fields: usize,
    pub request_line: usize,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub body_idle_timeout: Duration,
    pub max_requests: u64,
    pub forwarded: bool,
    pub trusted_hops: u32,
    pub request_id: RequestId,
    pub server_timing: bool,
    pub connect_failure_502: bool,
    pub path: PathRule,
}

/// Where TCP connections go.
pub struct TcpPolicy {
    /// By weight.
    pub split: Split,
    /// Ends one on which nothing moves.
    pub idle_timeout: Duration,
}
