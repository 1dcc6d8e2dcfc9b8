//! The compiled form: immutable parts behind Arcs. An exchange keeps the parts of its route and cluster and nothing else.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use onehop_meter::{ClusterMeters, EndpointMeters, ListenerMeters, PerCore, Registry, RouteMeters};

use crate::model::{AccessLog, Address, BalanceKind, EndpointTarget, Layer, ProxyProtocol, RequestId};
use crate::route::HostTable;

/// Everything that the cores execute.
pub struct Snapshot {
    /// Counts up with every change.
    pub generation: u64,
    /// Listeners.
    pub listeners: Vec<Arc<Listener>>,
    /// Clusters; the index is the id that routes refer to.
    pub clusters: Vec<Arc<Cluster>>,
    /// Where access records go.
    pub access_log: Option<AccessLog>,
    /// How long cores poll.
    pub busy_poll: Duration,
    /// How long a drain may take.
    pub drain: Duration,
    /// Downstream connections of one core.
    pub max_connections: usize,
}

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
}

/// Where TCP connections go.
pub struct TcpPolicy {
    /// By weight.
    pub split: Split,
    /// Ends one on which nothing moves.
    pub idle_timeout: Duration,
}

/// A route's reference to a cluster.
#[derive(Clone, Debug)]
pub struct ClusterRef {
    /// Its index in the snapshot that the route was compiled in.
    pub id: u32,
    /// Its name, which outlives that snapshot.
    pub name: Arc<str>,
}

/// A weighted choice of clusters.
#[derive(Debug)]
pub struct Split {
    targets: Vec<(u64, ClusterRef)>,
    total: u64,
}

impl Split {
    /// From references and weights; those of weight zero are never chosen.
    pub fn new(weighted: impl IntoIterator<Item = (ClusterRef, u32)>) -> Split {
        let mut total = 0;
        let targets = weighted
            .into_iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(reference, weight)| {
                total += u64::from(weight);
                (total, reference)
            })
            .collect();
        Split { targets, total }
    }

    /// Chooses by a random number. `None` only when every weight is zero.
    pub fn pick(&self, random: u64) -> Option<&ClusterRef> {
        if let [(_, only)] = self.targets.as_slice() {
            return Some(only);
        }
        let at = random % self.total.max(1);
        self.targets.iter().find(|(bound, _)| at < *bound).map(|(_, reference)| reference)
    }
}

/// When an attempt may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts beyond the first.
    pub attempts: u32,
    /// A connection could not be made.
    pub on_connect_failure: bool,
    /// A reused connection ended before any byte of a response.
    pub on_reset_before_response: bool,
}

/// A route.
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// Where its requests go.
    pub split: Split,
    /// Until the response head is here.
    pub timeout: Option<Duration>,
    /// Retries.
    pub retry: Retry,
    /// Protocols that may be upgraded to.
    pub upgrades: Vec<String>,
    /// CONNECT is tunnelled.
    pub allow_connect: bool,
    /// Bytes of a request body.
    pub max_body: Option<u64>,
    /// Its meters.
    pub meters: Arc<PerCore<RouteMeters>>,
}

/// Bounds of the connection pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Idle connections per endpoint and core.
    pub max_idle: usize,
    /// How long one may idle.
    pub idle_timeout: Duration,
    /// How long one may live.
    pub max_age: Option<Duration>,
    /// Requests on one.
    pub max_requests: Option<u64>,
}

/// Limits over all cores, of which each core holds an even share; so a core may refuse while another has room: the
/// error is at most the limit divided by the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections.
    pub connections: Option<u32>,
    /// Requests in flight.
    pub requests: Option<u32>,
}

/// A cluster.
pub struct Cluster {
    /// Its name.
    pub name: Arc<str>,
    /// Its endpoints.
    pub endpoints: Arc<EndpointSet>,
    /// Names to be resolved into further endpoints.
    pub names: Vec<(String, u16, u32)>,
    /// How one is chosen.
    pub balance: BalanceKind,
    /// Until a connection is made.
    pub connect_timeout: Duration,
    /// Bounds of its pools.
    pub pool: Pool,
    /// Its limits.
    pub limits: ConnectionLimits,
    /// Begins each connection with a PROXY header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Its meters.
    pub meters: Arc<PerCore<ClusterMeters>>,
}

/// A cluster's endpoints.
pub struct EndpointSet {
    /// In order; the index is what balancers choose.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// One endpoint. Its identity is the cluster and the address.
pub struct Endpoint {
    /// Where.
    pub address: Address,
    /// Its weight.
    pub weight: u32,
    /// One of our own listeners: sending there would go round in circles.
    pub is_ourselves: bool,
    /// Health bits that every core reads; zero is healthy.
    pub health: AtomicU32,
    /// Its meters.
    pub meters: Arc<PerCore<EndpointMeters>>,
}

/// Drained by hand.
pub const DRAINED: u32 = 1;

impl Endpoint {
    /// Whether requests may go there.
    pub fn is_usable(&self) -> bool {
        self.health.load(Ordering::Relaxed) == 0
    }
}

impl Snapshot {
    /// The same, with a cluster's names resolved: only that cluster's part is replaced.
    pub fn with_resolved(
        &self,
        resolved: &HashMap<String, Vec<std::net::IpAddr>>,
        registry: &Registry,
        generation: u64,
    ) -> Snapshot {
        let ourselves = |address: &SocketAddr| self.listeners.iter().any(|listener| listener.address == *address);
        let clusters = self
            .clusters
            .iter()
            .map(|cluster| {
                if cluster.names.is_empty() {
                    cluster.clone()
                } else {
                    Arc::new(cluster.resolve(resolved, registry, ourselves))
                }
            })
            .collect();
        Snapshot {
            generation,
            listeners: self.listeners.clone(),
            clusters,
            access_log: self.access_log.clone(),
            busy_poll: self.busy_poll,
            drain: self.drain,
            max_connections: self.max_connections,
        }
    }
}

impl Cluster {
    fn resolve(
        &self,
        resolved: &HashMap<String, Vec<std::net::IpAddr>>,
        registry: &Registry,
        ourselves: impl Fn(&SocketAddr) -> bool,
    ) -> Cluster {
        let mut targets: Vec<(Address, u32)> = Vec::new();
        let named: Vec<SocketAddr> = self
            .names
            .iter()
            .flat_map(|(name, port, _)| resolved.get(name).into_iter().flatten().map(|ip| SocketAddr::new(*ip, *port)))
            .collect();
        for endpoint in &self.endpoints.endpoints {
            let is_static = !self.is_resolved(&endpoint.address);
            if is_static {
                targets.push((endpoint.address.clone(), endpoint.weight));
            }
        }
        let weight = self.names.first().map_or(1, |(_, _, weight)| *weight);
        for address in named {
            if !targets.iter().any(|(known, _)| *known == Address::Tcp(address)) {
                targets.push((Address::Tcp(address), weight));
            }
        }
        let endpoints = targets
            .into_iter()
            .map(|(address, weight)| {
                // What is known of an address stays with it, whatever order the names came in.
                let known =
                    self.endpoints.endpoints.iter().find(|known| known.address == address && known.weight == weight);
                known.cloned().unwrap_or_else(|| Arc::new(endpoint(&self.name, address, weight, registry, &ourselves)))
            })
            .collect();
        Cluster {
            name: self.name.clone(),
            endpoints: Arc::new(EndpointSet { endpoints }),
            names: self.names.clone(),
            balance: self.balance,
            connect_timeout: self.connect_timeout,
            pool: self.pool,
            limits: self.limits,
            proxy_protocol: self.proxy_protocol,
            meters: self.meters.clone(),
        }
    }

    /// Whether an endpoint came from a name: its port is a name's and it was not written down.
    fn is_resolved(&self, address: &Address) -> bool {
        match address {
            Address::Tcp(address) => self.names.iter().any(|(_, port, _)| *port == address.port()),
            Address::Unix(_) => false,
        }
    }
}

/// Makes an endpoint's part.
pub(crate) fn endpoint(
    cluster: &str,
    address: Address,
    weight: u32,
    registry: &Registry,
    ourselves: impl Fn(&SocketAddr) -> bool,
) -> Endpoint {
    Endpoint {
        weight,
        is_ourselves: matches!(&address, Address::Tcp(address) if address.port() != 0 && ourselves(address)),
        health: AtomicU32::new(0),
        meters: registry.endpoint(cluster, &address.to_string()),
        address,
    }
}

/// The endpoints that need no resolving.
pub(crate) fn written_down(target: &EndpointTarget) -> Option<Address> {
    match target {
        EndpointTarget::Address(address) => Some(address.clone()),
        EndpointTarget::Name(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_follows_its_weights_and_skips_zero() {
        let reference = |id| ClusterRef { id, name: Arc::from(format!("c{id}")) };
        let split = Split::new([(reference(0), 90), (reference(1), 10), (reference(2), 0)]);
        let mut counts = [0; 3];
        for random in 0..1000 {
            counts[split.pick(random).expect("some weight").id as usize] += 1;
        }
        assert_eq!(counts, [900, 100, 0]);
        assert!(Split::new([(reference(0), 0)]).pick(5).is_none());
    }
}
