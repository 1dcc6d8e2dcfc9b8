//! HTTP/2 connections to one endpoint on one core, each shared by the requests that are under way: a request takes a
//! stream where there is room, and a new connection is made when there is none. Making one is a task of its own, so
//! that requests which wait for it may come and go.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong, Reason as Code};
use onehop_meter::names::{Reason, UPSTREAM_FLOODS};
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::{Alarm, sleep_until};
use onehop_net::h2::{Heard, Io};
use onehop_net::stream::{Either, first};
use onehop_net::{Stream, runtime};
use onehop_plan::Http2;

use super::lease::Wanted;
use super::{ClusterState, EndpointState, nanos};
use crate::fault::Fault;
use crate::http2::Channel;

/// Bytes that wait to be sent on one stream; beyond it the client is not read.
const SEND_BUFFER: usize = 64 * 1024;
/// How long an upstream may take nothing of what waits to be sent to it.
const WRITE_IDLE_NS: u64 = 60_000_000_000;
/// How long an upstream may take over one header block, during which nothing else can come of it: as long as clients
/// have by default.
const BLOCK_NS: u64 = 10_000_000_000;
/// Streams that clients gave up and that are remembered, so that answers already under way to them are no error.
const REMEMBERED_RESETS: usize = 4096;
/// For how long: answers are under way no longer.
const REMEMBERED_FOR: Duration = Duration::from_secs(1);
/// Streams that are reset at once where clients give them up; further ones get some time to end by themselves. The `h2`
/// crate takes 20 at once for an attack.
const CANCELS: u32 = 8;
/// Streams that are reset, and how long one counts, before the connection is left to its last streams and another one made:
/// nghttp2 allows 1000 and then 33 a second, Envoy 500.
const RESETS: (u32, u64) = (200, 30_000_000);
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
    /// Streams that were reset lately, and when that was looked at.
    resets: Cell<(u32, Nanos)>,
}

impl Mux {
    /// Streams that were reset lately; one counts for so long as [`RESETS`] says.
    fn resets(&self, now: Nanos) -> u32 {
        let (level, at) = self.resets.get();
        let forgotten = u32::try_from(now.saturating_sub(at) / RESETS.1).unwrap_or(u32::MAX);
        if forgotten > 0 {
            self.resets.set((level.saturating_sub(forgotten), now));
        }
        level.saturating_sub(forgotten)
    }

    /// The peer's SETTINGS are known: how many streams they allow.
    fn settle(&self) -> usize {
        self.settled.set(true);
        self.settling.borrow_mut().drain(..).for_each(Waker::wake);
        self.sender.borrow().current_max_send_streams()
    }

    fn has_room(&self) -> bool {
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
        self.endpoint.muxes.wake_one();
    }
}

impl Ride {
    /// Whether another stream may be reset at once; if so it is counted.
    pub fn may_cancel(&self, now: Nanos) -> bool {
        let few = self.mux.resets(now) < CANCELS;
        if few {
            self.cancelled(now);
        }
        few
    }

    /// Counts a stream that is reset. A connection with too many of them takes no more requests: before its upstream loses
    /// patience with all who share it, it ends with its last stream.
    pub fn cancelled(&self, now: Nanos) {
        let level = self.mux.resets(now) + 1;
        self.mux.resets.set((level, self.mux.resets.get().1));
        if level > RESETS.0 {
            self.mux.closed.set(true);
        }
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

/// A place, the stream there, and whether its connection has served before.
pub(super) type Taken = (Ride, Channel, bool);

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
    allowed: Cell<Option<usize>>,
}

impl Muxes {
    /// A stream on a connection that has room. The fullest but one is not sought: the first keeps the others idle.
    pub(super) fn take(&self, endpoint: &Rc<EndpointState>) -> Option<Taken> {
        let mut list = self.list.borrow_mut();
        list.retain(|mux| !mux.closed.get());
        let mux = list.iter().find(|mux| mux.has_room())?.clone();
        drop(list);
        mux.active.set(mux.active.get() + 1);
        let before = mux.requests.get();
        let reused = before > 0;
        mux.requests.set(before + 1);
        if before + 1 >= mux.max_requests {
            // It ends with its last stream.
            mux.closed.set(true);
        }
        let channel = Channel::client(mux.sender.borrow().clone());
        Some((Ride { mux, endpoint: endpoint.clone() }, channel, reused))
    }

    /// A connection is being made.
    pub(super) fn begins(&self) {
        self.connecting.set(self.connecting.get() + 1);
    }

    /// Whether the endpoint takes no streams at all for now, as a connection to it says (RFC 9113 6.5.2): another one would
    /// not either.
    fn is_barred(&self) -> bool {
        self.list.borrow().iter().any(|mux| mux.sender.borrow().current_max_send_streams() == 0)
    }

    fn wake_one(&self) {
        let waiter = self.waiters.borrow_mut().pop_front();
        if let Some(waiter) = waiter {
            waiter.tell(Ok(()));
        }
    }

    fn tell_all(&self, told: Result<(), Fault>) {
        let waiters: Vec<_> = self.waiters.borrow_mut().drain(..).collect();
        for waiter in waiters {
            waiter.tell(told);
        }
    }

    /// Lets go of the connections that have idled or lived too long: they close when their last stream ends.
    pub fn sweep(&self, now: Nanos, idle_ns: u64, age_ns: u64) {
        self.list.borrow_mut().retain(|mux| {
            let idles = mux.active.get() == 0 && now.saturating_sub(mux.idle_since.get()) > idle_ns;
            !mux.closed.get() && !idles && now.saturating_sub(mux.born) <= age_ns
        });
    }

    /// Lets go of all of them.
    pub fn clear(&self) {
        self.list.borrow_mut().clear();
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
/// no more), and `due` bounds the wait for a place. `None`: the endpoint turned out to speak HTTP/1.1.
pub async fn ride(
    cluster: &Rc<ClusterState>,
    endpoint: &Rc<EndpointState>,
    due: Nanos,
    overflow: Fault,
    connect: impl Fn() -> Option<Made>,
) -> Result<Option<Taken>, Fault> {
    let muxes = &endpoint.muxes;
    loop {
        if !cluster.shares(endpoint, Wanted::Any) {
            return Ok(None);
        }
        if let Some(taken) = muxes.take(endpoint) {
            return Ok(Some(taken));
        }
        let places = u64::from(muxes.connecting.get()) * u64::from(cluster.cluster.borrow().http2.max_streams);
        if muxes.waiters.borrow().len() as u64 >= places
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
        resets: Cell::new((0, now)),
    });
    let weak = Rc::downgrade(&mux);
    if !endpoint.is_retired() {
        muxes.list.borrow_mut().push(mux);
    }
    muxes.tell_all(Ok(()));
    drive(&mut connection, &heard, &http2, &weak, (&cluster, muxes)).await;
    drop(connection);
    if let Some(mux) = weak.upgrade() {
        mux.closed.set(true);
        mux.settle();
        muxes.list.borrow_mut().retain(|other| !Rc::ptr_eq(other, &mux));
    }
    cluster.closed(&endpoint, 1);
    // Those who wait for a place need another connection.
    muxes.tell_all(Ok(()));
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

/// Polls the connection; an upstream that floods us is left, one that is silent is asked whether it lives.
async fn drive(
    connection: &mut Connection<Io, Bytes>,
    heard: &Heard,
    http2: &Http2,
    mux: &Weak<Mux>,
    (cluster, muxes): (&ClusterState, &Muxes),
) {
    let ping_ns = http2.ping_interval.map_or(u64::MAX, nanos);
    let mut ping = connection.ping_pong();
    let alarm = Alarm::new();
    let mut seen = (heard.bytes(), clock::now());
    let mut pinged = false;
    let mut connection = Pin::new(connection);
    let mut settled = false;
    poll_fn(|cx| {
        let over = connection.as_mut().poll(cx);
        let breach = heard.take_breach().map(crate::http2::serve::reason_of);
        if let Some(reason) = breach.or_else(|| calmed(&over)) {
            cluster.flooded(reason);
            return Poll::Ready(());
        }
        if over.is_ready() {
            return Poll::Ready(());
        }
        if !settled && heard.is_settled() {
            settled = true;
            if let Some(mux) = mux.upgrade() {
                muxes.allowed.set(Some(mux.settle()));
                // There may be more room than was expected.
                muxes.tell_all(Ok(()));
            }
        }
        if !muxes.waiters.borrow().is_empty() && mux.upgrade().is_some_and(|mux| mux.has_room()) {
            // Later SETTINGS may allow more.
            muxes.wake_one();
        }
        if ping_ns == u64::MAX && heard.block_since().is_none() {
            return Poll::Pending;
        }
        poll_life(cx, heard, &alarm, &mut ping, &mut seen, &mut pinged, ping_ns, mux)
    })
    .await;
}

impl ClusterState {
    /// Counts a connection that was given up for what its upstream sent.
    fn flooded(&self, reason: Reason) {
        if let Some(at) = UPSTREAM_FLOODS.iter().position(|known| *known == reason) {
            self.cluster.borrow().meters.core(self.core).floods[at].add(1);
        }
    }
}

/// What `h2` itself took for a flood.
fn calmed(over: &Poll<Result<(), h2::Error>>) -> Option<Reason> {
    match over {
        Poll::Ready(Err(error)) if !error.is_remote() && error.reason() == Some(Code::ENHANCE_YOUR_CALM) => {
            Some(Reason::FloodOfFrames)
        }
        _ => None,
    }
}

#[allow(clippy::too_many_arguments, reason = "each is a different part of one life")]
fn poll_life(
    cx: &mut Context<'_>,
    heard: &Heard,
    alarm: &Alarm,
    ping: &mut Option<PingPong>,
    seen: &mut (u64, Nanos),
    pinged: &mut bool,
    ping_ns: u64,
    mux: &Weak<Mux>,
) -> Poll<()> {
    if let Some(ping) = ping {
        // An answer makes room for the next question.
        let _ = ping.poll_pong(cx);
    }
    loop {
        let now = clock::now();
        if heard.bytes() != seen.0 {
            *seen = (heard.bytes(), now);
            *pinged = false;
        }
        let waits = if *pinged { ping_ns.saturating_mul(2) } else { ping_ns };
        let silent_at = seen.1.saturating_add(waits);
        let block_at = heard.block_since().map_or(Nanos::MAX, |begun| begun.saturating_add(BLOCK_NS));
        if now >= block_at {
            // Its end comes with the next read.
            heard.give_up_block();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if now < silent_at {
            alarm.arm(silent_at.min(block_at));
            if alarm.poll(cx).is_pending() {
                return Poll::Pending;
            }
            continue;
        }
        if *pinged || mux.upgrade().is_none() {
            return Poll::Ready(());
        }
        *pinged = true;
        if ping.as_mut().is_none_or(|ping| ping.send_ping(Ping::opaque()).is_err()) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
    }
}
