//! Getting a connection to one endpoint of a cluster, for HTTP and TCP alike: choose, reuse or connect, wait in
//! line when the cluster is full, and account for it until it is given back or closed.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use onehop_meter::names::Reason;
use onehop_net::Stream;
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline;
use onehop_net::stream::{Either, first};
use onehop_plan::Protocol;
use onehop_plan::balance::Ask;
use onehop_plan::outlier::Event;

use super::mux::{self, Ride};
use super::pool::Pooled;
use super::{ClusterState, EndpointState, Waiter, nanos, net_address, share};
use crate::exchange::Leg;
use crate::fault::{Fault, Side, Step};
use crate::http2::Channel;
use crate::secure;

/// A request that must not be repeated rides only a connection that was in use this recently.
const FRESH_NS: u64 = 1_000_000_000;

/// What kind of connection an exchange can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Any; the request can be sent again if an idle connection turns out dead.
    Any,
    /// One just used, or a new one: the request must not be sent twice.
    Fresh,
    /// A new one.
    New,
    /// A new one that carries bytes, whatever HTTP version the cluster speaks.
    Bytes,
}

/// What decides on the endpoint beside the cluster's balancing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sought {
    /// Where a captured connection was meant to go.
    pub destination: Option<SocketAddr>,
    /// The hash of the value that the cluster chooses by.
    pub hash: Option<u64>,
}

/// A connection in use. Dropped without [`Lease::give_back`], it is closed and everything is counted down.
pub struct Lease {
    /// The connection.
    pub conn: Conn,
    /// Whether it served a request before: then its upstream may have just closed it.
    pub reused: bool,
    account: Account,
    /// The place on a shared connection; given up after the stream.
    _ride: Option<Ride>,
}

/// What a lease gives the use of.
pub enum Conn {
    /// A connection of its own.
    Http1(Box<Pooled>),
    /// A stream of one that others use too.
    Http2(Box<Channel>),
}

impl Conn {
    /// As a leg of an exchange.
    #[inline]
    pub fn leg(&mut self) -> Leg<'_> {
        match self {
            Conn::Http1(pooled) => Leg::Http1(&mut pooled.stream),
            Conn::Http2(channel) => Leg::Http2(channel),
        }
    }

    /// The byte stream, where the lease has one of its own.
    pub fn stream(&mut self) -> Option<&mut Stream> {
        match self {
            Conn::Http1(pooled) => Some(&mut pooled.stream),
            Conn::Http2(_) => None,
        }
    }
}

/// Counts a lease down, however it ends.
struct Account {
    cluster: Rc<ClusterState>,
    endpoint: Rc<EndpointState>,
    /// The connection is counted; unless it goes back to the pool, its end is.
    open: bool,
}

impl Account {
    fn new(cluster: &Rc<ClusterState>, endpoint: &Rc<EndpointState>) -> Account {
        endpoint.active.set(endpoint.active.get() + 1);
        Account { cluster: cluster.clone(), endpoint: endpoint.clone(), open: false }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.endpoint.active.set(self.endpoint.active.get().saturating_sub(1));
        if self.open {
            self.cluster.closed(&self.endpoint, 1);
        }
    }
}

impl Lease {
    /// Its endpoint.
    pub fn endpoint(&self) -> &Rc<EndpointState> {
        &self.account.endpoint
    }

    /// Gives a connection back that is between two messages.
    pub fn give_back(self, now: Nanos) {
        let Lease { conn: Conn::Http1(mut conn), mut account, .. } = self else {
            return;
        };
        if account.endpoint.retired.get() {
            return;
        }
        conn.stream.deadline().disarm();
        conn.since = now;
        conn.requests += 1;
        let bounds = account.cluster.bounds();
        if account.endpoint.pool.borrow_mut().give_back(conn, &bounds) {
            account.open = false;
            account.cluster.wake_one();
        }
    }
}

/// Leases a connection at `now`, of an endpoint chosen by `hash` where the cluster chooses by values. `avoid` lists the
/// endpoints that failed this request already; another one is preferred, the same one is used if it is alone.
///
/// # Errors
/// A fault of step `Lease`; those where no byte was sent are retryable.
pub async fn lease(
    cluster: &Rc<ClusterState>,
    wanted: Wanted,
    sought: Sought,
    avoid: &mut Vec<usize>,
    now: Nanos,
) -> Result<Lease, Fault> {
    let mut waited = false;
    loop {
        let (index, endpoint) = if cluster.cluster.borrow().original.is_some() {
            (usize::MAX, cluster.original_endpoint(sought.destination, now)?)
        } else {
            let index = pick(cluster, sought.hash, avoid, now)?;
            (index, cluster.endpoints.borrow()[index].clone())
        };
        if wanted != Wanted::Bytes && cluster.cluster.borrow().protocol == Protocol::Http2 {
            let shared = share_http2(cluster, &endpoint).await;
            if shared.is_err() && !avoid.contains(&index) {
                avoid.push(index);
            }
            return shared;
        }
        if let Some(lease) = reuse(cluster, &endpoint, wanted, now) {
            return Ok(lease);
        }
        let config = cluster.cluster.borrow().clone();
        let full =
            config.limits.connections.is_some_and(|limit| cluster.connections.get() >= share(limit, cluster.cores));
        if !full || (!waited && make_room(cluster)) {
            let connected = connect(cluster, &endpoint, nanos(config.connect_timeout)).await;
            if connected.is_err() && !avoid.contains(&index) {
                avoid.push(index);
            }
            return connected;
        }
        // Another exchange's connection to any endpoint will do once it is free.
        wait_in_line(cluster, nanos(config.connect_timeout)).await?;
        waited = true;
    }
}

fn pick(cluster: &ClusterState, hash: Option<u64>, avoid: &[usize], now: Nanos) -> Result<usize, Fault> {
    let config = cluster.cluster.borrow();
    let endpoints = cluster.endpoints.borrow();
    let load = |index: usize| endpoints.get(index).map_or(0, |endpoint| endpoint.active.get());
    let latency = |index: usize| endpoints.get(index).and_then(|endpoint| endpoint.latency.get().expected(now));
    let mut balancer = cluster.balancer.borrow_mut();
    let ask = Ask { load: &load, latency: &latency, avoid, hash, now };
    let picked = balancer.pick(&config, &ask);
    picked
        .or_else(|| balancer.pick(&config, &Ask { avoid: &[], ..ask }))
        .filter(|index| *index < endpoints.len())
        .ok_or(Fault::new(Side::Proxy, Step::Lease, Reason::NoEndpoint))
}

fn reuse(cluster: &Rc<ClusterState>, endpoint: &Rc<EndpointState>, wanted: Wanted, now: Nanos) -> Option<Lease> {
    let max_idle_ns = match wanted {
        Wanted::Any => u64::MAX,
        Wanted::Fresh => FRESH_NS,
        Wanted::New | Wanted::Bytes => return None,
    };
    if endpoint.pool.borrow().is_empty() {
        return None;
    }
    let bounds = cluster.bounds();
    let (conn, evicted) = endpoint.pool.borrow_mut().take(now, &bounds, max_idle_ns, wanted == Wanted::Any);
    if evicted > 0 {
        cluster.cluster.borrow().meters.core(cluster.core).pool_evicted.add(evicted);
        cluster.closed(endpoint, evicted as u32);
    }
    let conn = conn?;
    cluster.cluster.borrow().meters.core(cluster.core).pool_hits.add(1);
    let mut account = Account::new(cluster, endpoint);
    account.open = true;
    Some(Lease { conn: Conn::Http1(conn), reused: true, account, _ride: None })
}

async fn connect(cluster: &Rc<ClusterState>, endpoint: &Rc<EndpointState>, timeout_ns: u64) -> Result<Lease, Fault> {
    let mut account = Account::new(cluster, endpoint);
    // Counted before the wait, so that a burst cannot pass the limit while it connects.
    cluster.opened(endpoint);
    account.open = true;
    let now = clock::now();
    let stream = open(cluster, endpoint, timeout_ns).await?;
    let conn = Conn::Http1(Box::new(Pooled { stream, since: now, born: now, requests: 0 }));
    Ok(Lease { conn, reused: false, account, _ride: None })
}

/// Connects, with TLS where the cluster has it, and counts how it went.
async fn open(cluster: &ClusterState, endpoint: &EndpointState, timeout_ns: u64) -> Result<Stream, Fault> {
    let address = net_address(&endpoint.endpoint.borrow().address);
    let due = clock::now().saturating_add(timeout_ns);
    let connected = Stream::connect(&address, due).await;
    let config = cluster.cluster.borrow().clone();
    let meters = config.meters.core(cluster.core);
    let peer = endpoint.endpoint.borrow().clone();
    let connected = match (connected, &config.tls) {
        (Ok(mut stream), Some(tls)) => {
            let secured = secure::connect(&mut stream, tls, &peer.address, &config.name, &meters.tls, due);
            if let Err(reason) = Box::pin(secured).await {
                meters.connect_failures.add(1);
                peer.meters.core(cluster.core).connect_failures.add(1);
                return Err(Fault::retryable(Side::Upstream, Step::Lease, reason));
            }
            Ok(stream)
        }
        (connected, _) => connected,
    };
    match connected {
        Ok(stream) => {
            meters.connects.add(1);
            peer.meters.core(cluster.core).connects.add(1);
            Ok(stream)
        }
        Err(error) => {
            meters.connect_failures.add(1);
            peer.meters.core(cluster.core).connect_failures.add(1);
            super::outlier::report(cluster, endpoint, Event::ConnectFailure, 0, clock::now());
            let reason = match error.kind() {
                io::ErrorKind::ConnectionRefused => Reason::ConnectRefused,
                io::ErrorKind::TimedOut => Reason::ConnectTimeout,
                _ => Reason::ConnectFailed,
            };
            Err(Fault::retryable(Side::Upstream, Step::Lease, reason))
        }
    }
}

/// A stream on an HTTP/2 connection to this endpoint.
async fn share_http2(cluster: &Rc<ClusterState>, endpoint: &Rc<EndpointState>) -> Result<Lease, Fault> {
    let account = Account::new(cluster, endpoint);
    let (timeout_ns, limit) = {
        let config = cluster.cluster.borrow();
        (nanos(config.connect_timeout), config.limits.connections)
    };
    let due = clock::now().saturating_add(timeout_ns);
    let overflow = Fault::new(Side::Proxy, Step::Lease, Reason::Overflow);
    let connect = || -> Option<mux::Made> {
        if limit.is_some_and(|limit| cluster.connections.get() >= share(limit, cluster.cores)) {
            return None;
        }
        cluster.opened(endpoint);
        let (cluster, endpoint) = (cluster.clone(), endpoint.clone());
        Some(Box::pin(async move {
            let made = open(&cluster, &endpoint, timeout_ns).await;
            if made.is_err() {
                cluster.closed(&endpoint, 1);
            }
            made
        }))
    };
    let (ride, channel, reused) = mux::ride(cluster, endpoint, due, overflow, connect).await?;
    if reused {
        cluster.cluster.borrow().meters.core(cluster.core).pool_hits.add(1);
    }
    Ok(Lease { conn: Conn::Http2(Box::new(channel)), reused, account, _ride: Some(ride) })
}

/// Closes the longest idle connection of some endpoint, so that a new one fits under the limit.
fn make_room(cluster: &ClusterState) -> bool {
    let endpoints = cluster.endpoints.borrow().clone();
    for endpoint in endpoints.iter() {
        if endpoint.pool.borrow_mut().drop_oldest() {
            endpoint.connections.set(endpoint.connections.get().saturating_sub(1));
            cluster.connections.set(cluster.connections.get().saturating_sub(1));
            cluster.cluster.borrow().meters.core(cluster.core).connections.sub(1);
            return true;
        }
    }
    false
}

/// Leaves the line when the wait is given up, and passes a grant on that came too late.
struct InLine<'a> {
    cluster: &'a ClusterState,
    waiter: Rc<Waiter>,
    served: Cell<bool>,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.served.get() {
            return;
        }
        if self.waiter.granted.get() {
            self.cluster.wake_one();
        } else {
            self.cluster.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiter));
        }
    }
}

async fn wait_in_line(cluster: &ClusterState, timeout_ns: u64) -> Result<(), Fault> {
    if cluster.waiters.borrow().len() >= cluster.cluster.borrow().policy.queue as usize {
        return Err(Fault::new(Side::Proxy, Step::Lease, Reason::Overflow));
    }
    let waiter = Rc::new(Waiter { waker: RefCell::new(None), granted: Cell::new(false) });
    cluster.waiters.borrow_mut().push_back(waiter.clone());
    let line = InLine { cluster, waiter, served: Cell::new(false) };
    let granted = poll_fn(|cx| {
        if line.waiter.granted.get() {
            return Poll::Ready(());
        }
        *line.waiter.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    });
    match first(granted, deadline::sleep_until(clock::now().saturating_add(timeout_ns))).await {
        Either::Left(()) => {
            line.served.set(true);
            Ok(())
        }
        Either::Right(()) => Err(Fault::new(Side::Proxy, Step::Lease, Reason::Overflow)),
    }
}
