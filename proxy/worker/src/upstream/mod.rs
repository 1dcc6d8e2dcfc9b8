//! A core's own view of the clusters: balancer, pools and load per endpoint. It survives configuration changes by
//! identity: the cluster's name, the endpoint's address.

mod auto;
mod budget;
mod lease;
mod life;
mod line;
mod mux;
mod open;
mod original;
pub mod outlier;
mod parting;
mod pick;
mod pool;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use onehop_net::clock::Nanos;
use onehop_plan::BalanceKind;
use onehop_plan::balance::{Ask, Balancer, Ewma, hash_of};
use onehop_plan::limit::{Gradient, Line};
use onehop_plan::model::{Fallback, Labels};
use onehop_plan::resilience::{Budget, Quantile};
use onehop_plan::{Address, Cluster, Endpoint};

use auto::Spoken;
pub use lease::{Begun, Conn, Lease, Sought, Wanted, begin, finish, lease};
use line::Waiter;
use mux::Muxes;
pub use pool::{Bounds, Pool};

/// One endpoint, on this core.
pub struct EndpointState {
    /// The snapshot's part: address, weight, health, meters.
    pub endpoint: RefCell<Arc<Endpoint>>,
    /// The client's address, where connections to it begin there.
    source: Option<IpAddr>,
    pool: RefCell<Pool>,
    /// Its HTTP/2 connections.
    muxes: Muxes,
    /// What it was found to speak, where its cluster does not say.
    spoken: Cell<Spoken>,
    /// Requests in flight.
    pub active: Cell<u32>,
    /// Open connections, busy and idle.
    pub connections: Cell<u32>,
    /// Whether the last answer over HTTP/1 was longer than a small buffer.
    pub answers_long: Cell<bool>,
    /// Latency as this core sees it.
    pub latency: Cell<Ewma>,
    /// No longer configured: what is given back is closed.
    retired: Cell<bool>,
}

impl EndpointState {
    fn is_retired(&self) -> bool {
        self.retired.get()
    }
}

/// One cluster, on this core.
pub struct ClusterState {
    /// The snapshot's part.
    pub cluster: RefCell<Arc<Cluster>>,
    balancer: RefCell<Balancer>,
    /// Those of its subsets.
    subsets: RefCell<Vec<Balancer>>,
    endpoints: RefCell<Vec<Rc<EndpointState>>>,
    /// Endpoints that captured connections were meant for.
    destinations: RefCell<original::Destinations>,
    /// Requests in flight or waiting.
    pub active: Cell<u32>,
    connections: Cell<u32>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
    line: Cell<Line>,
    /// Whether what requests experience is of interest.
    watches: Cell<bool>,
    /// The limit that is found from latency.
    gradient: RefCell<Option<Gradient>>,
    /// How many retries there may be.
    retries: Cell<Budget>,
    /// How many hedges.
    hedges: Cell<Budget>,
    /// The time within which a share of the answers come, where a route hedges by it.
    quantile: RefCell<Option<(f64, Box<Quantile>)>>,
    /// Copies of requests under way.
    pub mirroring: Cell<u32>,
    /// Requests under way whose clients have left.
    pub left: Cell<u32>,
    core: usize,
    cores: usize,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl ClusterState {
    /// A cluster that this core has not seen before. Cores start at different offsets, so that they do not march in step.
    pub fn new(cluster: Arc<Cluster>, core: usize, cores: usize, seed: u64) -> ClusterState {
        let state = ClusterState {
            balancer: RefCell::new(Balancer::new(cluster.balance, core, cores, seed)),
            subsets: RefCell::default(),
            cluster: RefCell::new(cluster.clone()),
            endpoints: RefCell::new(Vec::new()),
            destinations: RefCell::default(),
            active: Cell::new(0),
            connections: Cell::new(0),
            waiters: RefCell::new(VecDeque::new()),
            line: Cell::default(),
            watches: Cell::new(false),
            gradient: RefCell::new(None),
            retries: Cell::default(),
            hedges: Cell::default(),
            quantile: RefCell::default(),
            mirroring: Cell::new(0),
            left: Cell::new(0),
            core,
            cores,
        };
        state.install(cluster, seed);
        state
    }

    /// Takes a new version of the cluster over; endpoints with the same address keep their connections and load.
    pub fn install(&self, cluster: Arc<Cluster>, seed: u64) {
        let mut endpoints = self.endpoints.borrow_mut();
        let mut kept: Vec<Rc<EndpointState>> = Vec::with_capacity(cluster.endpoints.endpoints.len());
        for endpoint in &cluster.endpoints.endpoints {
            let known = endpoints.iter().find(|known| known.endpoint.borrow().address == endpoint.address);
            let state = match known {
                Some(known) => {
                    *known.endpoint.borrow_mut() = endpoint.clone();
                    known.clone()
                }
                None => Rc::new(EndpointState {
                    endpoint: RefCell::new(endpoint.clone()),
                    source: None,
                    pool: RefCell::new(Pool::default()),
                    muxes: Muxes::default(),
                    spoken: Cell::default(),
                    active: Cell::new(0),
                    connections: Cell::new(0),
                    answers_long: Cell::new(false),
                    latency: Cell::default(),
                    retired: Cell::new(false),
                }),
            };
            kept.push(state);
        }
        for old in endpoints.iter() {
            if !kept.iter().any(|state| Rc::ptr_eq(state, old)) {
                old.retired.set(true);
                let closed = old.pool.replace(Pool::default()).len() as u32;
                old.muxes.clear();
                self.closed(old, closed);
            }
        }
        *endpoints = kept;
        drop(endpoints);
        if self.cluster.borrow().balance != cluster.balance {
            self.subsets.borrow_mut().clear();
            *self.balancer.borrow_mut() = Balancer::new(cluster.balance, self.core, self.cores, seed);
        }
        let adaptive = cluster.policy.adaptive.as_ref();
        if self.gradient.borrow().as_ref().map(Gradient::wanted) != adaptive {
            *self.gradient.borrow_mut() = adaptive.map(Gradient::new);
        }
        let by_latency = cluster.balance == BalanceKind::PeakEwma || adaptive.is_some();
        self.watches.set(cluster.policy.outlier.is_some() || by_latency);
        *self.cluster.borrow_mut() = cluster;
    }

    /// The cluster is no longer configured: its idle connections are closed.
    pub fn retire(&self) {
        for endpoint in self.endpoints.borrow().iter().chain(&self.run_time_endpoints()) {
            endpoint.retired.set(true);
            let closed = endpoint.pool.replace(Pool::default()).len() as u32;
            endpoint.muxes.clear();
            self.closed(endpoint, closed);
        }
    }

    /// Closes idle connections that are spent or that the upstream has closed. Called about once a second.
    pub fn sweep(&self, now: Nanos) {
        let bounds = self.bounds();
        for endpoint in self.endpoints.borrow().iter() {
            endpoint.muxes.sweep(now, bounds.idle_ns, bounds.age_ns);
            let evicted = endpoint.pool.borrow_mut().sweep(now, &bounds);
            if evicted > 0 {
                self.cluster.borrow().meters.core(self.core).pool_evicted.add(evicted);
                self.closed(endpoint, evicted as u32);
            }
        }
        for endpoint in self.run_time_endpoints() {
            endpoint.muxes.sweep(now, bounds.idle_ns, bounds.age_ns);
            let evicted = endpoint.pool.borrow_mut().sweep(now, &bounds);
            self.closed(&endpoint, evicted as u32);
        }
        self.forget_destinations(now);
    }

    /// This core's part of a limit for the whole process.
    fn share(&self, limit: u32) -> u32 {
        onehop_plan::limit::share(limit, self.core, self.cores)
    }

    /// Whether the limit on requests in flight is reached.
    pub fn requests_full(&self) -> bool {
        let cluster = self.cluster.borrow();
        let active = self.active.get();
        let full = cluster.limits.requests.is_some_and(|limit| active >= self.share(limit))
            || self.gradient.borrow_mut().as_mut().is_some_and(|gradient| !gradient.admits(active));
        if full {
            cluster.meters.core(self.core).overflow.add(1);
        }
        full
    }

    /// The core that this is the state of.
    pub fn core(&self) -> usize {
        self.core
    }

    /// Idle connections of this cluster on this core.
    pub fn idle(&self) -> usize {
        self.endpoints.borrow().iter().map(|endpoint| endpoint.pool.borrow().len() + endpoint.muxes.idle()).sum()
    }

    fn bounds(&self) -> Bounds {
        let cluster = self.cluster.borrow();
        Bounds {
            max_idle: cluster.pool.max_idle,
            idle_ns: nanos(cluster.pool.idle_timeout),
            age_ns: cluster.pool.max_age.map_or(u64::MAX, nanos),
            max_requests: cluster.pool.max_requests.unwrap_or(u64::MAX),
        }
    }

    fn opened(&self, endpoint: &EndpointState) {
        endpoint.connections.set(endpoint.connections.get() + 1);
        self.connections.set(self.connections.get() + 1);
        self.cluster.borrow().meters.core(self.core).connections.add(1);
    }

    fn closed(&self, endpoint: &EndpointState, count: u32) {
        endpoint.connections.set(endpoint.connections.get().saturating_sub(count));
        self.connections.set(self.connections.get().saturating_sub(count));
        self.cluster.borrow().meters.core(self.core).connections.sub(i64::from(count));
        for _ in 0..count {
            self.wake_one();
        }
    }

    /// Whether the limits leave room for another connection to this endpoint.
    fn may_grow(&self, endpoint: &EndpointState) -> bool {
        let cluster = self.cluster.borrow();
        let below = |limit: Option<u32>, count: u32| limit.is_none_or(|limit| count < self.share(limit));
        below(cluster.limits.connections, self.connections.get())
            && below(cluster.policy.endpoint_connections, endpoint.connections.get())
    }

    /// Closes the longest idle connection of some endpoint, so that a new one fits under the limit.
    fn make_room(&self) -> bool {
        let endpoints = self.endpoints.borrow().clone();
        endpoints.iter().any(|endpoint| self.drop_oldest(endpoint))
    }

    fn drop_oldest(&self, endpoint: &EndpointState) -> bool {
        let dropped = endpoint.pool.borrow_mut().drop_oldest();
        if dropped {
            endpoint.connections.set(endpoint.connections.get().saturating_sub(1));
            self.connections.set(self.connections.get().saturating_sub(1));
            self.cluster.borrow().meters.core(self.core).connections.sub(1);
        }
        dropped
    }

    /// The endpoint that the cluster's balancing chooses, among those with these labels where only they will do.
    fn balance(&self, config: &Cluster, labels: Option<&Arc<Labels>>, ask: &Ask<'_>) -> Option<usize> {
        let Some(labels) = labels else { return self.balancer.borrow_mut().pick(config, ask) };
        self.balance_subset(config, labels, ask).or_else(|| match &config.policy.fallback {
            Fallback::None => None,
            Fallback::Any => self.balancer.borrow_mut().pick(config, ask),
            Fallback::Default(labels) => self.balance_subset(config, labels, ask),
        })
    }

    fn balance_subset(&self, config: &Cluster, labels: &Arc<Labels>, ask: &Ask<'_>) -> Option<usize> {
        let (at, subset) = config.subset(labels)?;
        let mut balancers = self.subsets.borrow_mut();
        while balancers.len() <= at {
            let seed = hash_of(config.name.as_bytes()).wrapping_add(balancers.len() as u64);
            balancers.push(Balancer::new(config.balance, self.core, self.cores, seed ^ self.core as u64));
        }
        balancers[at].pick_subset(config, subset, ask)
    }
}

/// What the plan calls an address, as the streams below want it.
pub fn net_address(address: &Address) -> onehop_net::Address {
    match address {
        Address::Tcp(address) => onehop_net::Address::Tcp(*address),
        Address::Unix(path) => onehop_net::Address::Unix(path.clone()),
    }
}
