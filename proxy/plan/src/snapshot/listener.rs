//! Listeners in their compiled form.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use onehop_meter::{ListenerMeters, PerCore};

use super::Split;
use crate::authz::Policy;
use crate::limit::Gate;
use crate::model::{ClientCert, Destination, Http2, Layer, RequestId};
use crate::route::{HostTable, PathRule};
use crate::tls::ServerTls;

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
    /// Connections over all cores, an even share each.
    pub max_connections: Option<u32>,
    /// For HTTP.
    pub http: HttpPolicy,
    /// Requests in flight at most, and their count.
    pub gate: Option<(u32, Arc<Gate>)>,
    /// For TCP.
    pub tcp: Option<TcpPolicy>,
    /// Its place in the snapshot that it was compiled in.
    pub index: usize,
    /// Its routes, which the snapshot holds: a connection that stays open for days must not hold thousands of routes that
    /// are in force no longer.
    pub hosts: Weak<HostTable>,
    /// Finds out for whom its connections were meant.
    pub capture: bool,
    /// Listeners without a socket that serve what this one captures: destination and name, the closest match first.
    pub virtuals: Vec<(Destination, Arc<str>)>,
    /// How long the first bytes of a client are waited for before the server speaks first.
    pub detect_timeout: Option<Duration>,
    /// Who may do what; none: everybody everything.
    pub access: Option<Policy>,
    /// What becomes of `X-Forwarded-Client-Cert`.
    pub client_cert: ClientCert,
    /// What `By=` in it says: our own URI.
    pub own_uri: Option<Arc<str>>,
    /// For TLS; without it the listener is plain.
    pub tls: Option<Arc<ServerTls>>,
    /// Its meters.
    pub meters: Arc<PerCore<ListenerMeters>>,
}

impl Listener {
    /// The listener without a socket that serves this destination.
    pub fn serving(&self, destination: &SocketAddr) -> Option<&Arc<str>> {
        let fits = |(ip, port): &Destination| {
            ip.is_none_or(|ip| ip == destination.ip()) && port.is_none_or(|port| port == destination.port())
        };
        self.virtuals.iter().find(|(wanted, _)| fits(wanted)).map(|(_, name)| name)
    }
}

impl TcpPolicy {
    /// Where a connection goes that asks for this server name, in lower case.
    pub fn choose(&self, server_name: Option<&str>) -> &Split {
        let fits = |pattern: &str, name: &str| match pattern.strip_prefix('.') {
            Some(_) => name.len() > pattern.len() && name.ends_with(pattern),
            None => pattern == name,
        };
        let named = |name: &str| self.names.iter().find(|(pattern, _)| fits(pattern, name)).map(|(_, split)| split);
        server_name.and_then(named).unwrap_or(&self.split)
    }
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
    pub tunnel_idle_timeout: Duration,
    pub max_requests: u64,
    pub forwarded: bool,
    pub trusted_hops: u32,
    pub request_id: RequestId,
    pub server_timing: bool,
    pub connect_failure_502: bool,
    pub trusts_timeout: bool,
    pub path: PathRule,
    pub http2: Http2,
}

/// Where TCP connections go.
pub struct TcpPolicy {
    /// By weight; nothing where only names lead on.
    pub split: Split,
    /// By server name: exact ones first, then wildcards (`.example.com`), the longest first.
    pub names: Vec<(Box<str>, Split)>,
    /// Ends one on which nothing moves.
    pub idle_timeout: Duration,
}
