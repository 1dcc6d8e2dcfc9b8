//! Endpoints that appear at run time: where captured connections were meant to go. The table is bounded, and what has
//! not been used for a while leaves it.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;
use onehop_meter::names::Reason;
use onehop_net::clock::Nanos;
use onehop_plan::{Address, Endpoint, Original};

use super::{ClusterState, EndpointState, Muxes, Pool, Sought};
use crate::fault::{Fault, Side, Step};

/// Destinations of one cluster on one core.
const MAX_DESTINATIONS: usize = 4096;
/// One that nobody has used for so long, and that has no connection, is forgotten.
const FORGET_NS: u64 = 60_000_000_000;

/// The table: by where connections go and, if that is to be a client's address, whence; endpoint and when it was asked
/// for last. A pool of one client's connections serves nobody else.
pub type Destinations = AHashMap<(SocketAddr, Option<IpAddr>), (Rc<EndpointState>, Cell<Nanos>)>;

impl ClusterState {
    /// The endpoint that a captured connection was meant for.
    pub(super) fn original_endpoint(&self, sought: Sought, now: Nanos) -> Result<Rc<EndpointState>, Fault> {
        let fault = |reason| Fault::new(Side::Proxy, Step::Lease, reason);
        let (original, meters) = self.cluster.borrow().original.clone().ok_or(fault(Reason::NoEndpoint))?;
        let destination = sought.destination.ok_or(fault(Reason::DestinationRefused))?;
        let address = match original {
            Original::Refused => return Err(fault(Reason::DestinationRefused)),
            Original::AsIs => destination,
            Original::Loopback if destination.is_ipv4() => {
                (IpAddr::from(Ipv4Addr::LOCALHOST), destination.port()).into()
            }
            Original::Loopback => (IpAddr::from(Ipv6Addr::LOCALHOST), destination.port()).into(),
        };
        let source = sought.source.filter(|source| {
            self.cluster.borrow().keep_source && source.is_ipv4() == address.is_ipv4() && !source.is_loopback()
        });
        let mut table = self.destinations.borrow_mut();
        if let Some((known, used)) = table.get(&(address, source)) {
            used.set(now);
            return Ok(known.clone());
        }
        if table.len() >= MAX_DESTINATIONS {
            forget(&mut table, |_| true);
        }
        if table.len() >= MAX_DESTINATIONS {
            return Err(fault(Reason::Overflow));
        }
        let endpoint = Arc::new(Endpoint::at_run_time(Address::Tcp(address), meters));
        let state = Rc::new(EndpointState {
            endpoint: RefCell::new(endpoint),
            source,
            pool: RefCell::new(Pool::default()),
            muxes: Muxes::default(),
            spoken: Cell::default(),
            active: Cell::new(0),
            connections: Cell::new(0),
            answers_long: Cell::new(false),
            latency: Cell::default(),
            retired: Cell::new(false),
        });
        table.insert((address, source), (state.clone(), Cell::new(now)));
        Ok(state)
    }

    /// Every endpoint that has appeared at run time.
    pub(super) fn run_time_endpoints(&self) -> Vec<Rc<EndpointState>> {
        self.destinations.borrow().values().map(|(endpoint, _)| endpoint.clone()).collect()
    }

    /// Forgets what has not been used for a while.
    pub(super) fn forget_destinations(&self, now: Nanos) {
        forget(&mut self.destinations.borrow_mut(), |used| now.saturating_sub(used) > FORGET_NS);
    }
}

fn forget(table: &mut Destinations, may_go: impl Fn(Nanos) -> bool) {
    table.retain(|_, (endpoint, used)| {
        !may_go(used.get()) || endpoint.active.get() > 0 || endpoint.connections.get() > 0
    });
}
