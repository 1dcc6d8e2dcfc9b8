//! Clusters and endpoints in their compiled form.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use onehop_meter::{ClusterMeters, EndpointMeters, PerCore, Registry};

use super::{Sticky, Subset};
use crate::balance::HashTable;
use crate::limit::Gate;
use crate::model::{
    Address, BalanceKind, ClusterPolicy, EndpointTarget, Http2, Original, Placement, Protocol, ProxyProtocol,
};
use crate::outlier::{DRAINED, Ejector, Vitals};
use crate::resilience::Floors;
use crate::tls::ClientTls;

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
    /// Its endpoint is where each captured connection was meant to go; what those are counted in.
    pub original: Option<(Original, Arc<PerCore<EndpointMeters>>)>,
    /// They are reached from the client's own address.
    pub keep_source: bool,
    /// TLS towards its endpoints.
    pub tls: Option<Arc<ClientTls>>,
    /// The version that its endpoints are spoken to in.
    pub protocol: Protocol,
    /// How HTTP/2 is spoken to them.
    pub http2: Http2,
    /// How its endpoints are chosen, judged and checked.
    pub policy: Arc<ClusterPolicy>,
    /// Where those stand that its names are resolved into, in the names' order.
    pub(crate) placements: Vec<Placement>,
    /// What is known of addresses that it had before: a name that flaps brings them back.
    pub(crate) departed: Vec<Departed>,
    /// Its endpoints by label, where routes ask for that.
    pub subsets: Vec<Subset>,
    /// Keeps clients at their endpoints.
    pub sticky: Option<Sticky>,
    /// What cores may send again beyond their shares.
    pub floors: Arc<Floors>,
    /// Ejects its endpoints.
    pub ejector: Arc<Ejector>,
    /// Its meters.
    pub meters: Arc<PerCore<ClusterMeters>>,
}

/// A cluster's endpoints.
pub struct EndpointSet {
    /// Tells it from every other set of this process: an address in memory may be another set's the next moment.
    pub id: u64,
    /// In order; the index is what balancers choose.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// For choices by a value.
    pub table: Option<Arc<HashTable>>,
}

impl EndpointSet {
    /// With the table that the kind of balancing needs; the previous set's where nothing has changed for it.
    pub(crate) fn new(endpoints: Vec<Arc<Endpoint>>, balance: BalanceKind, old: Option<&EndpointSet>) -> EndpointSet {
        let kept = old.filter(|old| {
            let alike = |(one, other): (&Arc<Endpoint>, &Arc<Endpoint>)| Arc::ptr_eq(one, other);
            old.endpoints.len() == endpoints.len() && old.endpoints.iter().zip(&endpoints).all(alike)
        });
        let table = match kept.and_then(|old| old.table.clone()) {
            Some(table) if table.serves(balance) => Some(table),
            _ => HashTable::build(balance, endpoints.iter().map(|endpoint| &**endpoint)).map(Arc::new),
        };
        static IDS: AtomicU64 = AtomicU64::new(1);
        EndpointSet { id: IDS.fetch_add(1, Ordering::Relaxed), endpoints, table }
    }

    /// These endpoints and all others of their zones; `None` where no endpoint has one.
    pub fn zones_of(&self, indices: &[usize]) -> Option<Vec<usize>> {
        let zone = |index: usize| self.endpoints.get(index).and_then(|endpoint| endpoint.placement.zone.as_ref());
        if !indices.iter().any(|index| zone(*index).is_some()) {
            return None;
        }
        let shares =
            |index: usize| indices.iter().any(|avoided| zone(index).is_some() && zone(*avoided) == zone(index));
        let others = (0..self.endpoints.len()).filter(|index| !indices.contains(index) && shares(*index));
        Some(indices.iter().copied().chain(others).collect())
    }

    /// The tier of an endpoint.
    pub fn priority(&self, index: usize) -> u32 {
        self.endpoints.get(index).map_or(0, |endpoint| endpoint.placement.priority)
    }
}

/// One endpoint. Its identity is the cluster and the address: what is known of that outlives every other change.
pub struct Endpoint {
    /// Where.
    pub address: Address,
    /// Its weight.
    pub weight: u32,
    /// One of our own listeners: sending there would go round in circles.
    pub is_ourselves: bool,
    /// It was not written down: a name says so, for now.
    pub is_named: bool,
    /// Where it stands among the others.
    pub placement: Placement,
    /// Its health, and what requests experienced with it.
    pub vitals: Arc<Vitals>,
    /// Requests and TCP connections in flight, counted where they are limited.
    pub gate: Arc<Gate>,
    /// Its meters.
    pub meters: Arc<PerCore<EndpointMeters>>,
}

impl Endpoint {
    /// One that appears while a core runs.
    pub fn at_run_time(address: Address, meters: Arc<PerCore<EndpointMeters>>) -> Endpoint {
        Endpoint {
            address,
            weight: 1,
            is_ourselves: false,
            is_named: false,
            placement: Placement::default(),
            vitals: Arc::default(),
            gate: Arc::default(),
            meters,
        }
    }

    /// Whether requests may go there.
    pub fn is_usable(&self) -> bool {
        self.vitals.health.load(Ordering::Relaxed) == 0
    }

    /// Whether requests may go there when hardly any endpoint is healthy: whatever is known, except by hand.
    pub fn may_panic(&self) -> bool {
        self.vitals.health.load(Ordering::Relaxed) & DRAINED == 0
    }
}

/// What is known of an address that its name does not give at the moment.
#[derive(Clone)]
pub(crate) struct Departed {
    address: Address,
    vitals: Arc<Vitals>,
    gate: Arc<Gate>,
}

/// Addresses of a cluster that are remembered at most.
const MAX_DEPARTED: usize = 256;

impl Cluster {
    pub(super) fn resolve(
        &self,
        resolved: &HashMap<String, Vec<std::net::IpAddr>>,
        registry: &Registry,
        ourselves: impl Fn(&SocketAddr) -> bool,
        now: u64,
    ) -> Cluster {
        // What was written down stays as it is.
        let mut endpoints: Vec<_> =
            self.endpoints.endpoints.iter().filter(|endpoint| !endpoint.is_named).cloned().collect();
        let mut seen: HashSet<Address> = endpoints.iter().map(|endpoint| endpoint.address.clone()).collect();
        for ((name, port, weight), placement) in self.names.iter().zip(&self.placements) {
            for ip in resolved.get(name).into_iter().flatten() {
                let address = Address::Tcp(SocketAddr::new(*ip, *port));
                if !seen.insert(address.clone()) {
                    continue;
                }
                let wanted = Wanted { address, weight: *weight, placement, is_named: true };
                let is_new = !self.knows(&wanted.address);
                let endpoint = endpoint(&self.name, wanted, Some(self), registry, &ourselves);
                // The first ones serve with the cluster, the later ones begin slowly.
                if is_new && !self.endpoints.endpoints.is_empty() {
                    endpoint.vitals.begins(now);
                }
                endpoints.push(endpoint);
            }
        }
        let mut resolved = Cluster {
            name: self.name.clone(),
            departed: departed(&endpoints, self),
            endpoints: Arc::new(EndpointSet::new(endpoints, self.balance, Some(&self.endpoints))),
            policy: self.policy.clone(),
            placements: self.placements.clone(),
            names: self.names.clone(),
            balance: self.balance,
            connect_timeout: self.connect_timeout,
            pool: self.pool,
            limits: self.limits,
            proxy_protocol: self.proxy_protocol,
            original: self.original.clone(),
            keep_source: self.keep_source,
            tls: self.tls.clone(),
            protocol: self.protocol,
            http2: self.http2.clone(),
            subsets: Vec::new(),
            sticky: None,
            floors: self.floors.clone(),
            ejector: self.ejector.clone(),
            meters: self.meters.clone(),
        };
        let labels: Vec<_> = self.subsets.iter().map(|subset| subset.labels.clone()).collect();
        resolved.narrow(&labels, Some(self));
        resolved
    }

    /// Whether it says the same of the same endpoints as its version in the snapshot before.
    pub(crate) fn is_same_as(&self, old: &Cluster) -> bool {
        let (ours, theirs) = (&self.endpoints.endpoints, &old.endpoints.endpoints);
        let plain = |cluster: &Cluster| {
            let original = cluster.original.as_ref().map(|(original, _)| *original);
            (cluster.balance, cluster.connect_timeout, cluster.pool, cluster.limits, original, cluster.keep_source)
        };
        let same_tls = match (&self.tls, &old.tls) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            (new, old) => new.is_none() && old.is_none(),
        };
        ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(new, old)| Arc::ptr_eq(new, old))
            && plain(self) == plain(old)
            && (self.proxy_protocol, self.protocol, &self.http2) == (old.proxy_protocol, old.protocol, &old.http2)
            && (&self.names, &self.placements, &self.policy) == (&old.names, &old.placements, &old.policy)
            && same_tls
            && self.subsets.iter().map(|subset| &subset.labels).eq(old.subsets.iter().map(|subset| &subset.labels))
    }

    fn knows(&self, address: &Address) -> bool {
        self.endpoints.endpoints.iter().any(|endpoint| endpoint.address == *address)
            || self.departed.iter().any(|departed| departed.address == *address)
    }

    /// How many addresses are remembered that its names do not give at the moment.
    pub fn remembered(&self) -> usize {
        self.departed.len()
    }
}

/// The addresses that an older version had or remembered and that are not among these endpoints: those that were out of
/// service go last, then those that left long ago.
pub(crate) fn departed(endpoints: &[Arc<Endpoint>], old: &Cluster) -> Vec<Departed> {
    let present: HashSet<&Address> = endpoints.iter().map(|endpoint| &endpoint.address).collect();
    let left = old.endpoints.endpoints.iter().map(|endpoint| Departed {
        address: endpoint.address.clone(),
        vitals: endpoint.vitals.clone(),
        gate: endpoint.gate.clone(),
    });
    let mut all: Vec<_> =
        left.chain(old.departed.iter().cloned()).filter(|departed| !present.contains(&departed.address)).collect();
    if all.len() > MAX_DEPARTED {
        all.sort_by_key(|departed| departed.vitals.health.load(Ordering::Relaxed) == 0);
        all.truncate(MAX_DEPARTED);
    }
    all
}

/// What an endpoint is to be.
pub(crate) struct Wanted<'a> {
    pub address: Address,
    pub weight: u32,
    pub placement: &'a Placement,
    pub is_named: bool,
}

/// An endpoint's part: the very same where nothing of it has changed, and else one that goes on with what is known of its
/// address.
pub(crate) fn endpoint(
    cluster: &str,
    wanted: Wanted<'_>,
    old: Option<&Cluster>,
    registry: &Registry,
    ourselves: impl Fn(&SocketAddr) -> bool,
) -> Arc<Endpoint> {
    let Wanted { address, weight, placement, is_named } = wanted;
    let is_ourselves = matches!(&address, Address::Tcp(address) if address.port() != 0 && ourselves(address));
    let known = old.and_then(|old| old.endpoints.endpoints.iter().find(|known| known.address == address));
    if let Some(known) = known
        && known.placement == *placement
        && (known.weight, known.is_named, known.is_ourselves) == (weight, is_named, is_ourselves)
    {
        return known.clone();
    }
    let departed = || old.and_then(|old| old.departed.iter().find(|departed| departed.address == address));
    let (vitals, gate) = match known {
        Some(known) => (known.vitals.clone(), known.gate.clone()),
        None => departed().map(|known| (known.vitals.clone(), known.gate.clone())).unwrap_or_default(),
    };
    Arc::new(Endpoint {
        weight,
        is_ourselves,
        is_named,
        placement: placement.clone(),
        vitals,
        gate,
        meters: registry.endpoint(cluster, &address.to_string()),
        address,
    })
}

/// The endpoints that need no resolving.
pub(crate) fn written_down(target: &EndpointTarget) -> Option<Address> {
    match target {
        EndpointTarget::Address(address) => Some(address.clone()),
        EndpointTarget::Name(..) => None,
    }
}
