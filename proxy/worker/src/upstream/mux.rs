//! HTTP/2 connections to one endpoint on one core, each shared by the requests that are under way: a request takes a
//! stream where there is room, and a new connection is made when there is none. Making one is a task of its own, so
//! that requests which wait for it may come and go.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use onehop_meter::names::Reason;
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::sleep_until;
use onehop_net::h2::Io;
use onehop_net::stream::{Either, first};
use onehop_net::{Stream, runtime};
use onehop_plan::Http2;

use super::lease::Wanted;
use super::parting::Partings;
use super::{ClusterState, EndpointState, life};
use crate::fault::Fault;
use crate::http2::Channel;

/// Bytes that wait to be sent on one stream; beyond it the client is not read.
const SEND_BUFFER: usize = 64 * 1024;
/// How long an upstream may take nothing of what waits to be sent to it.
const WRITE_IDLE_NS: u64 = 60_000_000_000;
/// How long a connection may be taken to an endpoint that is no longer configured.
const LEFT_OPEN_NS: u64 = 1_000_000_000;
/// Streams that clients gave up and that are remembered, so that answers already under way to them are no error.
const REMEMBERED_RESETS: usize = 4096;
/// For how long: answers are under way no longer.
const REMEMBERED_FOR: Duration = Duration::from_secs(1);
/// Streams that are opened before an endpoint's SETTINGS are known, which refuses what goes beyond: RFC 9113 6.5.2 recommends
/// that no fewer are allowed.
const UNTOLD_STREAMS: usize = 100;
/// Header lists of responses; the limit of the listener applies to each response again.
const MAX_HEADER_LIST: u32 = 1 << 20;

/// One connection.
pub struct Mux {
    sender: RefCell<SendRequest<Bytes>>,
    active: Cell<u32>,
    max_streams: u32,
    max_requests: u64,
    requests: Cell<u64>,
    born: Nanos,
    idle_since: Cell<Nanos>,
    closed: Cell<bool>,
    /// The upstream's SETTINGS have come, or never will.
    settled: Cell<bool>,
    settling: RefCell<Vec<Waker>>,
    /// Streams that nobody waits for any more.
    partings: Rc<Partings>,
}

impl Mux {
    /// The peer's SETTINGS are known: how many streams they allow.
    pub(super) fn settle(&self) -> usize {
        self.settled.set(true);
        self.settling.borrow_mut().drain(..).for_each(Waker::wake);
        self.sender.borrow().current_max_send_streams()
    }

    /// It takes no more requests, and ends with its last stream.
    fn close(&self) {
        self.closed.set(true);
        self.partings.wake();
    }

    pub(super) fn has_room(&self) -> bool {
        if self.closed.get() {
            return false;
        }
        let mut sender = self.sender.borrow_mut();
        // A connection that has heard GOAWAY, or is over, takes no more.
        let ready = sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(Err(_)) = ready {
            self.closed.set(true);
        }
        let allowed = self.max_streams as usize;
        ready.is_ready() && (self.active.get() as usize) < allowed.min(sender.current_max_send_streams())
    }
}

/// A place on a connection; given up when it is dropped.
pub struct Ride {
    mux: Rc<Mux>,
    endpoint: Rc<EndpointState>,
}

impl Drop for Ride {
    fn drop(&mut self) {
        self.mux.active.set(self.mux.active.get() - 1);
        self.mux.idle_since.set(clock::now());
        if self.is_deserted() {
            self.mux.partings.wake();
        }
        self.endpoint.muxes.wake_one();
    }
}

impl Ride {
    fn new(mux: Rc<Mux>, endpoint: Rc<EndpointState>) -> Ride {
        mux.active.set(mux.active.get() + 1);
        Ride { mux, endpoint }
    }

    /// Whether it may be given up at once, since few on its connection were.
    pub fn may_cancel(&self, now: Nanos) -> bool {
        self.mux.partings.are_few(now)
    }

    /// Whether its connection takes no more requests, and has only streams that nobody waits for.
    pub(super) fn is_deserted(&self) -> bool {
        self.mux.closed.get() && self.mux.active.get() == self.mux.partings.waiting()
    }

    /// Waits until the upstream's SETTINGS have come: what it allows beyond plain requests stands there.
    pub fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.mux.settled.get() {
            return Poll::Ready(());
        }
        self.mux.settling.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }
}

/// A stream in its place. Dropped before both sides have ended, it is reset, at once or when its upstream bears it.
pub struct Riding {
    channel: Channel,
    ride: Ride,
}

impl Riding {
    /// The stream.
    pub fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }

    /// The same, to look at.
    pub fn peek(&self) -> &Channel {
        &self.channel
    }

    /// The place.
    pub fn ride(&self) -> &Ride {
        &self.ride
    }
}

impl Drop for Riding {
    fn drop(&mut self) {
        let mux = &self.ride.mux;
        if let Some(remains) = self.channel.leave() {
            let again = Ride::new(mux.clone(), self.ride.endpoint.clone());
            if mux.partings.part(remains, again, clock::now()) {
                mux.close();
            }
        }
    }
}

/// A stream in its place, and whether its connection has served before.
pub(super) type Taken = (Riding, bool);

/// Someone who waits for a place.
struct Waiter {
    waker: RefCell<Option<Waker>>,
    told: Cell<Option<Result<(), Fault>>>,
}

/// The connections of one endpoint.
#[derive(Default)]
pub struct Muxes {
    list: RefCell<Vec<Rc<Mux>>>,
    connecting: Cell<u32>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
    /// Streams that the endpoint's latest SETTINGS allowed.
    pub(super) allowed: Cell<Option<usize>>,
}

impl Muxes {
    /// A stream on a connection that has room. The fullest but one is not sought: the first keeps the others idle.
    pub(super) fn take(&self, endpoint: &Rc<EndpointState>) -> Option<Taken> {
        let mut list = self.list.borrow_mut();
        list.retain(|mux| !mux.closed.get());
        let mux = list.iter().find(|mux| mux.has_room())?.clone();
        drop(list);
        let before = mux.requests.get();
        let reused = before > 0;
        mux.requests.set(before + 1);
        if before + 1 >= mux.max_requests {
            // It ends with its last stream.
            mux.closed.set(true);
        }
        let channel = Channel::client(mux.sender.borrow().clone());
        Some((Riding { channel, ride: Ride::new(mux, endpoint.clone()) }, reused))
    }

    /// A connection is being made.
    pub(super) fn begins(&self) {
        self.connecting.set(self.connecting.get() + 1);
    }

    /// Whether somebody waits for a place.
    pub(super) fn are_awaited(&self) -> bool {
        !self.waiters.borrow().is_empty()
    }

    /// Whether the endpoint takes no streams at all for now, as a connection to it says (RFC 9113 6.5.2): another one would
    /// not either.
    fn is_barred(&self) -> bool {
        let bars = |mux: &Rc<Mux>| !mux.closed.get() && mux.sender.borrow().current_max_send_streams() == 0;
        self.list.borrow().iter().any(bars)
    }

    /// Whether a request would have to wait until others have ended: there is no room, and no connection is being made or,
    /// as `grows` says, could be.
    pub(super) fn are_full(&self, grows: bool) -> bool {
        let stuck = self.connecting.get() == 0 && (!grows || self.is_barred());
        stuck && !self.list.borrow().iter().any(|mux| mux.has_room())
    }

    pub(super) fn wake_one(&self) {
        let waiter = self.waiters.borrow_mut().pop_front();
        if let Some(waiter) = waiter {
            waiter.tell(Ok(()));
        }
    }

    pub(super) fn tell_all(&self, told: Result<(), Fault>) {
        let waiters: Vec<_> = self.waiters.borrow_mut().drain(..).collect();
        for waiter in waiters {
            waiter.tell(told);
        }
    }

    /// Lets go of the connections that have idled or lived too long: they close when their last stream ends.
    pub fn sweep(&self, now: Nanos, idle_ns: u64, age_ns: u64) {
        self.list.borrow_mut().retain(|mux| {
            let idles = mux.active.get() == 0 && now.saturating_sub(mux.idle_since.get()) > idle_ns;
            let stays =
                !idles && now.saturating_sub(mux.born) <= age_ns && !mux.partings.are_overdue(now) && !mux.closed.get();
            if !stays {
                mux.close();
            }
            stays
        });
    }

    /// Lets go of all of them.
    pub fn clear(&self) {
        for mux in self.list.take() {
            mux.close();
        }
    }

    /// Those without a stream.
    pub fn idle(&self) -> usize {
        self.list.borrow().iter().filter(|mux| mux.active.get() == 0).count()
    }
}

impl Waiter {
    fn tell(&self, told: Result<(), Fault>) {
        self.told.set(Some(told));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Leaves the line when the wait is given up, and passes on what it was told too late.
struct InLine<'a> {
    muxes: &'a Muxes,
    waiter: Rc<Waiter>,
    served: bool,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.served {
            return;
        }
        if self.waiter.told.get().is_some() {
            self.muxes.wake_one();
        } else {
            self.muxes.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiter));
        }
    }
}

/// What making a connection comes to.
pub type Made = Pin<Box<dyn Future<Output = Result<Stream, Fault>>>>;

/// A place on a connection to this endpoint; `connect` makes a connection when none has room (or says that there may be
/// no more), and `due` bounds the wait for a place. `None`: the endpoint turned out to speak HTTP/1.1, or to be full.
pub async fn ride(
    cluster: &Rc<ClusterState>,
    endpoint: &Rc<EndpointState>,
    due: Nanos,
    overflow: Fault,
    connect: impl Fn() -> Option<Made>,
) -> Result<Option<Taken>, Fault> {
    let muxes = &endpoint.muxes;
    let mut told_before = false;
    loop {
        if !cluster.shares(endpoint, Wanted::Any) {
            return Ok(None);
        }
        if let Some(taken) = muxes.take(endpoint) {
            return Ok(Some(taken));
        }
        if std::mem::replace(&mut told_before, true) && muxes.are_full(cluster.may_grow(endpoint)) {
            // What it waited for brings it no place: there may be another endpoint.
            return Ok(None);
        }
        let each =
            muxes.allowed.get().unwrap_or(UNTOLD_STREAMS).min(cluster.cluster.borrow().http2.max_streams as usize);
        let places = (muxes.connecting.get() as usize).saturating_mul(each.max(1));
        if muxes.waiters.borrow().len() >= places
            && !muxes.is_barred()
            && let Some(made) = connect()
        {
            muxes.begins();
            runtime::spawn(make(cluster.clone(), endpoint.clone(), made));
        }
        let waiter = Rc::new(Waiter { waker: RefCell::new(None), told: Cell::new(None) });
        muxes.waiters.borrow_mut().push_back(waiter.clone());
        let mut line = InLine { muxes, waiter: waiter.clone(), served: false };
        let told = poll_fn(|cx| match waiter.told.get() {
            Some(told) => Poll::Ready(told),
            None => {
                *waiter.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        });
        match first(told, sleep_until(due)).await {
            Either::Left(told) => {
                line.served = true;
                told?;
            }
            Either::Right(()) => return Err(overflow),
        }
    }
}

/// Makes one connection and drives it to its end.
pub(super) async fn make(cluster: Rc<ClusterState>, endpoint: Rc<EndpointState>, made: Made) {
    let muxes = &endpoint.muxes;
    let made = made.await;
    muxes.connecting.set(muxes.connecting.get() - 1);
    let stream = match made {
        Ok(stream) => stream,
        Err(fault) => return muxes.tell_all(Err(fault)),
    };
    let Some(stream) = cluster.sort(&endpoint, stream) else {
        return muxes.tell_all(Ok(()));
    };
    let http2 = cluster.cluster.borrow().http2.clone();
    let (io, heard) = Io::new(stream, false, WRITE_IDLE_NS);
    let Ok((sender, mut connection)) = Box::pin(handshake(io, &http2, muxes.allowed.get())).await else {
        cluster.closed(&endpoint, 1);
        let fault = Fault::retryable(crate::fault::Side::Upstream, crate::fault::Step::Lease, Reason::ConnectFailed);
        return muxes.tell_all(Err(fault));
    };
    let now = clock::now();
    let mux = Rc::new(Mux {
        sender: RefCell::new(sender),
        active: Cell::new(0),
        max_streams: http2.max_streams,
        max_requests: cluster.bounds().max_requests,
        requests: Cell::new(0),
        born: now,
        idle_since: Cell::new(now),
        closed: Cell::new(false),
        settled: Cell::new(false),
        settling: RefCell::default(),
        partings: Rc::default(),
    });
    let partings = mux.partings.clone();
    let weak = Rc::downgrade(&mux);
    muxes.list.borrow_mut().push(mux);
    muxes.tell_all(Ok(()));
    if endpoint.is_retired() {
        // Nobody sweeps there any more: it is for those who waited for it.
        runtime::spawn(let_go(endpoint.clone()));
    }
    let driven = async {
        life::drive(&mut connection, &heard, &http2, (&weak, &partings), (&cluster, muxes)).await;
        drop(connection);
    };
    // It ends this connection, and not its core.
    if let Err(panic) = crate::conn::guard(pin!(driven)).await {
        let name = cluster.cluster.borrow().name.clone();
        let said = crate::conn::message(&*panic);
        eprintln!(
            "onehop: core {}: the task of a connection to cluster \"{name}\" panicked: {said}; the connection was closed",
            cluster.core
        );
    }
    partings.end();
    if let Some(mux) = weak.upgrade() {
        mux.closed.set(true);
        mux.settle();
        muxes.list.borrow_mut().retain(|other| !Rc::ptr_eq(other, &mux));
    }
    cluster.closed(&endpoint, 1);
    // Those who wait for a place need another connection.
    muxes.tell_all(Ok(()));
}

/// An endpoint that was taken out of the configuration while a connection to it was made.
async fn let_go(endpoint: Rc<EndpointState>) {
    sleep_until(clock::now().saturating_add(LEFT_OPEN_NS)).await;
    endpoint.muxes.clear();
}

/// What we ask of an upstream, and the preface.
async fn handshake(
    io: Io,
    http2: &Http2,
    allowed: Option<usize>,
) -> Result<(SendRequest<Bytes>, Connection<Io, Bytes>), h2::Error> {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(http2.window)
        .initial_connection_window_size(http2.whole_window())
        .data_frame_budget(http2.frame_budget())
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(REMEMBERED_FOR)
        // `h2` counts them over a connection's whole life, and clients that give up cause them: one such client could end
        // the connection that all others share.
        .max_local_error_reset_streams(None)
        .initial_max_send_streams(allowed.unwrap_or(UNTOLD_STREAMS).min(http2.max_streams as usize));
    // It waits for nothing of the upstream's: requests may follow the preface at once (RFC 9113 3.4).
    builder.handshake(io).await
}
