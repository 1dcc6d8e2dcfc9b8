//! Getting a connection to one endpoint of a cluster, for HTTP and TCP alike: choose, reuse or connect, wait in
//! line when the cluster is full, and account for it until it is given back or closed.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use onehop_meter::names::Reason;
use onehop_net::Stream;
use onehop_net::clock::{self, Nanos};
use onehop_plan::limit::Gate;
use onehop_plan::model::Labels;

use super::mux::{self, Riding};
use super::open::open;
use super::pick::{Chosen, choose};
use super::pool::Pooled;
use super::{ClusterState, EndpointState, nanos};
use crate::exchange::Leg;
use crate::fault::{Fault, Side, Step};

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
pub struct Sought<'a> {
    /// Where a captured connection was meant to go.
    pub destination: Option<SocketAddr>,
    /// Who asks, for clusters that are reached from the client's own address.
    pub source: Option<IpAddr>,
    /// The hash of the value that the cluster chooses by.
    pub hash: Option<u64>,
    /// Only endpoints with these labels.
    pub subset: Option<&'a Arc<Labels>>,
    /// The endpoint that comes first, if it can be used.
    pub stuck: Option<usize>,
    /// When a connection is of no use any more.
    pub due: Option<Nanos>,
    /// Told the index of the endpoint that was chosen, as soon as it is.
    pub picked: Option<&'a Cell<usize>>,
}

impl Sought<'_> {
    /// Anything, or what a captured connection of that client was meant for.
    pub fn to(destination: Option<SocketAddr>, source: IpAddr) -> Self {
        Sought { destination, source: Some(source), ..Sought::default() }
    }

    /// A time-out in nanoseconds, cut to what is left.
    fn within(&self, timeout: Duration) -> u64 {
        self.due.map_or(u64::MAX, |due| due.saturating_sub(clock::now())).min(nanos(timeout))
    }

    /// What could not be had before all time was over: no other endpoint would help.
    fn late(&self, fault: Fault) -> Fault {
        let waited = matches!(fault.reason, Reason::ConnectTimeout | Reason::Overflow);
        if waited && self.due.is_some_and(|due| clock::now() >= due) {
            return Fault::new(Side::Upstream, Step::Lease, Reason::UpstreamTimeout);
        }
        fault
    }
}

/// A connection in use. Dropped without [`Lease::give_back`], it is closed and everything is counted down.
pub struct Lease {
    /// The connection.
    pub conn: Conn,
    /// Whether it served a request before: then its upstream may have just closed it.
    pub reused: bool,
    account: Account,
}

/// What a lease gives the use of.
pub enum Conn {
    /// A connection of its own.
    Http1(Box<Pooled>),
    /// A stream of one that others use too.
    Http2(Box<Riding>),
}

impl Conn {
    /// As a leg of an exchange.
    #[inline]
    pub fn leg(&mut self) -> Leg<'_> {
        match self {
            Conn::Http1(pooled) => Leg::Http1(&mut pooled.stream),
            Conn::Http2(riding) => Leg::Http2(riding.channel()),
        }
    }

    /// What it answered is malformed (RFC 9113 8.1.1); an HTTP/1 connection is closed for that.
    pub fn refuse(&mut self) {
        if let Conn::Http2(riding) = self {
            riding.channel().reset(h2::Reason::PROTOCOL_ERROR);
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
    /// The place at the endpoint, where those are limited.
    place: Option<Place>,
}

/// A place at an endpoint, counted over all cores.
pub struct Place(pub(super) Arc<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Account {
    fn new(cluster: &Rc<ClusterState>, endpoint: &Rc<EndpointState>, place: Option<Place>) -> Account {
        endpoint.active.set(endpoint.active.get() + 1);
        Account { cluster: cluster.clone(), endpoint: endpoint.clone(), open: false, place }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.endpoint.active.set(self.endpoint.active.get().saturating_sub(1));
        let had_place = self.place.take().is_some();
        if self.open {
            self.cluster.closed(&self.endpoint, 1);
        } else if had_place {
            self.cluster.wake_one();
        }
    }
}

impl Lease {
    /// Its endpoint.
    pub fn endpoint(&self) -> &Rc<EndpointState> {
        &self.account.endpoint
    }

    /// Waits until a shared connection's upstream has said what it allows.
    pub fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.conn {
            Conn::Http1(_) => Poll::Ready(()),
            Conn::Http2(riding) => riding.ride().poll_settled(cx),
        }
    }

    /// Whether the request may be cancelled at once, since few were on its connection.
    pub fn may_cancel(&self, now: Nanos) -> bool {
        matches!(&self.conn, Conn::Http2(riding) if riding.ride().may_cancel(now))
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

/// What a lease began with.
pub enum Begun {
    /// A pooled connection, or a stream of a shared one: nothing had to be waited for.
    Leased(Lease),
    /// It takes [`finish`] to go on with this endpoint, or to find one.
    Open(Option<Chosen>),
}

/// Leases a connection at `now`, of an endpoint chosen by `hash` where the cluster chooses by values. `avoid` lists the
/// endpoints that failed this request already; another one is preferred, the same one is used if it is alone.
///
/// # Errors
/// A fault of step `Lease`; those where no byte was sent are retryable.
pub async fn lease(
    cluster: &Rc<ClusterState>,
    wanted: Wanted,
    sought: Sought<'_>,
    avoid: &mut Vec<usize>,
    now: Nanos,
) -> Result<Lease, Fault> {
    match begin(cluster, wanted, sought, avoid, now)? {
        Begun::Leased(lease) => Ok(lease),
        Begun::Open(chosen) => finish(cluster, wanted, sought, avoid, now, chosen).await,
    }
}

/// The part of a lease that never waits, and is all that most requests need: they carry no future of the rest about.
///
/// # Errors
/// As [`lease`].
pub fn begin(
    cluster: &Rc<ClusterState>,
    wanted: Wanted,
    sought: Sought<'_>,
    avoid: &[usize],
    now: Nanos,
) -> Result<Begun, Fault> {
    if cluster.cluster.borrow().original.is_some() {
        return Ok(Begun::Open(None));
    }
    let Some((index, endpoint, place)) = choose(cluster, sought, avoid, &mut Vec::new(), now)? else {
        return Ok(Begun::Open(None));
    };
    let begun = match cluster.shares(&endpoint, wanted) {
        true => share_now(cluster, &endpoint, place),
        false => reuse(cluster, &endpoint, wanted, place, now),
    };
    Ok(match begun {
        Ok(lease) => {
            sought.picked.inspect(|picked| picked.set(index));
            Begun::Leased(lease)
        }
        Err(place) => Begun::Open(Some((index, endpoint, place))),
    })
}

/// The rest of a lease: waits, connects, or shares a connection.
///
/// # Errors
/// As [`lease`].
pub async fn finish(
    cluster: &Rc<ClusterState>,
    wanted: Wanted,
    sought: Sought<'_>,
    avoid: &mut Vec<usize>,
    now: Nanos,
    mut chosen: Option<Chosen>,
) -> Result<Lease, Fault> {
    let mut waited = false;
    // Endpoints at a limit of their own, and those whose connections take no more streams and do not get more.
    let (mut full, mut stuck) = (Vec::new(), Vec::new());
    loop {
        let (index, endpoint, place) = if let Some(chosen) = chosen.take() {
            chosen
        } else if cluster.cluster.borrow().original.is_some() {
            (usize::MAX, cluster.original_endpoint(sought, now)?, None)
        } else {
            match choose(cluster, sought, avoid, &mut full, now)? {
                Some(chosen) => chosen,
                None => {
                    wait_for_place(cluster, sought).await?;
                    full.clear();
                    continue;
                }
            }
        };
        sought.picked.inspect(|picked| picked.set(index));
        let place = if cluster.shares(&endpoint, wanted) {
            chosen = elsewhere(cluster, sought, avoid, (&full, &mut stuck), (index, &endpoint), now);
            if chosen.is_some() {
                continue;
            }
            let shared = share_http2(cluster, &endpoint, place, sought).await.map_err(|fault| sought.late(fault));
            note(avoid, index, &shared);
            match shared? {
                Shared::Yes(lease) => return Ok(lease),
                Shared::No(place) if cluster.shares(&endpoint, wanted) => {
                    chosen = Some((index, endpoint, place));
                    continue;
                }
                Shared::No(place) => place,
            }
        } else {
            place
        };
        let place = match reuse(cluster, &endpoint, wanted, place, now) {
            Ok(lease) => return Ok(lease),
            Err(place) => place,
        };
        let config = cluster.cluster.borrow().clone();
        if let Some(limit) = config.policy.endpoint_connections
            && endpoint.connections.get() >= cluster.share(limit)
            && !cluster.drop_oldest(&endpoint)
        {
            full.push(index);
            continue;
        }
        let at_limit = config.limits.connections.is_some_and(|limit| cluster.connections.get() >= cluster.share(limit));
        if !at_limit || (!waited && cluster.make_room()) {
            let connected = connect(cluster, &endpoint, place, wanted, sought).await;
            note(avoid, index, &connected);
            return connected.map_err(|fault| sought.late(fault));
        }
        drop(place);
        // Another exchange's connection to any endpoint will do once it is free.
        let timeout = sought.within(config.connect_timeout);
        cluster.wait_in_line(timeout, None).await.map_err(|fault| sought.late(fault))?;
        waited = true;
    }
}

/// Another endpoint, where streams on this one's shared connections have to end first; where there is none, this one is
/// waited for.
fn elsewhere(
    cluster: &ClusterState,
    sought: Sought<'_>,
    avoid: &[usize],
    (full, stuck): (&[usize], &mut Vec<usize>),
    (index, endpoint): (usize, &EndpointState),
    now: Nanos,
) -> Option<Chosen> {
    if index == usize::MAX || !endpoint.muxes.are_full(cluster.may_grow(endpoint)) {
        return None;
    }
    if !stuck.contains(&index) {
        stuck.push(index);
    }
    let mut others = [full, &stuck[..]].concat();
    choose(cluster, sought, avoid, &mut others, now).ok().flatten()
}

/// An endpoint that failed this request is avoided from now on.
fn note<T>(avoid: &mut Vec<usize>, index: usize, had: &Result<T, Fault>) {
    if had.is_err() && !avoid.contains(&index) {
        avoid.push(index);
    }
}

/// Waits until some endpoint may have a place again.
async fn wait_for_place(cluster: &ClusterState, sought: Sought<'_>) -> Result<(), Fault> {
    let (timeout, requests, connections) = {
        let config = cluster.cluster.borrow();
        (sought.within(config.connect_timeout), config.policy.endpoint_requests, config.policy.endpoint_connections)
    };
    let has_room = || {
        let endpoints = cluster.endpoints.borrow();
        let has_place = |endpoint: &Rc<EndpointState>| {
            let part = endpoint.endpoint.borrow();
            let is_open = connections.is_none_or(|limit| endpoint.connections.get() < cluster.share(limit));
            part.may_panic()
                && requests.is_none_or(|limit| part.gate.taken() < limit)
                && (is_open || !endpoint.pool.borrow().is_empty())
        };
        endpoints.iter().any(has_place)
    };
    cluster.wait_in_line(timeout, Some(&has_room)).await.map_err(|fault| sought.late(fault))
}

/// A pooled connection, or the place back.
fn reuse(
    cluster: &Rc<ClusterState>,
    endpoint: &Rc<EndpointState>,
    wanted: Wanted,
    place: Option<Place>,
    now: Nanos,
) -> Result<Lease, Option<Place>> {
    let max_idle_ns = match wanted {
        Wanted::Any => u64::MAX,
        Wanted::Fresh => FRESH_NS,
        Wanted::New | Wanted::Bytes => return Err(place),
    };
    if endpoint.pool.borrow().is_empty() {
        return Err(place);
    }
    let bounds = cluster.bounds();
    let (conn, evicted) = endpoint.pool.borrow_mut().take(now, &bounds, max_idle_ns, wanted == Wanted::Any);
    if evicted > 0 {
        cluster.cluster.borrow().meters.core(cluster.core).pool_evicted.add(evicted);
        cluster.closed(endpoint, evicted as u32);
    }
    let Some(conn) = conn else { return Err(place) };
    cluster.cluster.borrow().meters.core(cluster.core).pool_hits.add(1);
    let mut account = Account::new(cluster, endpoint, place);
    account.open = true;
    Ok(Lease { conn: Conn::Http1(conn), reused: true, account })
}

async fn connect(
    cluster: &Rc<ClusterState>,
    endpoint: &Rc<EndpointState>,
    place: Option<Place>,
    wanted: Wanted,
    sought: Sought<'_>,
) -> Result<Lease, Fault> {
    let mut account = Account::new(cluster, endpoint, place);
    // Counted before the wait, so that a burst cannot pass the limit while it connects.
    cluster.opened(endpoint);
    account.open = true;
    let now = clock::now();
    let (turns, timeout_ns) = (cluster.may_turn(wanted), sought.within(cluster.cluster.borrow().connect_timeout));
    let mut stream = open(cluster, endpoint, !turns, timeout_ns).await?;
    if turns {
        match cluster.turn(endpoint, stream) {
            Some(alone) => stream = alone,
            None => {
                // Its end is the shared connection's affair now.
                account.open = false;
                return match Box::pin(share_http2(cluster, endpoint, account.place.take(), sought)).await? {
                    Shared::Yes(lease) => Ok(lease),
                    Shared::No(_) => Err(Fault::retryable(Side::Upstream, Step::Lease, Reason::ConnectFailed)),
                };
            }
        }
    }
    let conn = Conn::Http1(Box::new(Pooled { stream, since: now, born: now, requests: 0 }));
    Ok(Lease { conn, reused: false, account })
}

/// What sharing a connection comes to.
enum Shared {
    Yes(Lease),
    /// The endpoint turned out to speak HTTP/1.1, or to be full; the place back.
    No(Option<Place>),
}

/// A stream on an HTTP/2 connection to this endpoint.
async fn share_http2(
    cluster: &Rc<ClusterState>,
    endpoint: &Rc<EndpointState>,
    place: Option<Place>,
    sought: Sought<'_>,
) -> Result<Shared, Fault> {
    let mut account = Account::new(cluster, endpoint, place);
    let waits_ns = sought.within(cluster.cluster.borrow().connect_timeout);
    let timeout_ns = nanos(cluster.cluster.borrow().connect_timeout);
    let due = clock::now().saturating_add(waits_ns);
    let overflow = Fault::new(Side::Proxy, Step::Lease, Reason::Overflow);
    let connect = || -> Option<mux::Made> {
        if !cluster.may_grow(endpoint) {
            return None;
        }
        cluster.opened(endpoint);
        let (cluster, endpoint) = (cluster.clone(), endpoint.clone());
        Some(Box::pin(async move {
            let made = open(&cluster, &endpoint, false, timeout_ns).await;
            if made.is_err() {
                cluster.closed(&endpoint, 1);
            }
            made
        }))
    };
    Ok(match mux::ride(cluster, endpoint, due, overflow, connect).await? {
        Some(taken) => Shared::Yes(shared(account, taken)),
        None => Shared::No(account.place.take()),
    })
}

/// A stream on a connection that is there and has room, or the place back.
fn share_now(
    cluster: &Rc<ClusterState>,
    endpoint: &Rc<EndpointState>,
    place: Option<Place>,
) -> Result<Lease, Option<Place>> {
    match endpoint.muxes.take(endpoint) {
        Some(taken) => Ok(shared(Account::new(cluster, endpoint, place), taken)),
        None => Err(place),
    }
}

fn shared(account: Account, (riding, reused): mux::Taken) -> Lease {
    if reused {
        account.cluster.cluster.borrow().meters.core(account.cluster.core).pool_hits.add(1);
    }
    Lease { conn: Conn::Http2(Box::new(riding)), reused, account }
}
