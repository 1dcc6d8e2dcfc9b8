//! The life of a client's HTTP/2 connection: streams become tasks; the connection itself keeps the budgets, the idle
//! time, the age, the pings and the drain.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong, Reason as Code};
use onehop_meter::names::Reason;
use onehop_net::Stream;
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::{Alarm, sleep_until};
use onehop_net::h2::{Breach, Flood, Heard, Io};
use onehop_net::stream::{Either, first};
use onehop_plan::{HttpPolicy, Listener};

use crate::connections::{Doing, Listed};
use crate::http1::count_fault;
use crate::http1::forward::Origin;
use crate::shard::Shard;

/// Bytes that wait to be sent on one stream; beyond it the upstream is not read.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that we have reset and remember, so that frames already under way to them are no error.
const REMEMBERED_RESETS: usize = 64;
/// Streams that a client may give up before we have looked at them, all of them in one read: the budget of resets is what
/// bounds them, since they are looked at in the same turn.
const PENDING_RESETS: usize = 1000;
/// How long a client that was told to go may take to close the connection.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long to say that it has heard so, before it is taken to have: longer than any round trip.
const HEARING: Duration = Duration::from_secs(1);
/// Over what time clients are told to go when the core drains, and what share of the drain it is at most: all at once, they
/// would make their new connections at once.
const SPREAD_NS: u64 = 250_000_000;
const SPREAD_SHARE: u64 = 8;

/// A client's connection, as its streams share it.
pub struct Client {
    /// The core.
    pub shard: Rc<Shard>,
    /// Where it came from.
    pub origin: Origin,
    listener: RefCell<Arc<Listener>>,
    generation: Cell<u64>,
    open: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Client {
    /// The listener as it is configured now; one that is gone serves what is under way.
    pub fn listener(&self) -> Arc<Listener> {
        let now = self.shard.generation();
        if self.generation.replace(now) != now {
            let name = self.listener.borrow().name.clone();
            if let Some(current) = self.shard.listener(&name) {
                *self.listener.borrow_mut() = current;
            }
        }
        self.listener.borrow().clone()
    }
}

/// Counts a stream down when its task ends, however it ends.
pub struct Open(Rc<Client>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        if self.0.open.get() == 0
            && let Some(waker) = self.0.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

/// The age at which a connection is told to leave: up to a tenth less than is configured, by a random number, since
/// connections that were made together are not to be made anew together.
fn drawn_age(age_ns: u64, random: u64) -> u64 {
    age_ns - random % (age_ns / 10 + 1)
}

/// How what a peer has done is named.
pub fn reason_of(breach: Breach) -> Reason {
    match breach {
        Breach::Size | Breach::Unsettled | Breach::Pushes | Breach::Window => Reason::BadHttp2,
        Breach::Overdue => Reason::HeaderTimeout,
        Breach::Flood(Flood::Resets) => Reason::FloodOfResets,
        Breach::Flood(Flood::Settings) => Reason::FloodOfSettings,
        Breach::Flood(Flood::Pings) => Reason::FloodOfPings,
        Breach::Flood(Flood::Priorities) => Reason::FloodOfPriorities,
        Breach::Flood(Flood::WindowUpdates) => Reason::FloodOfWindowUpdates,
        Breach::Flood(Flood::EmptyFrames) => Reason::FloodOfEmptyFrames,
        Breach::Flood(Flood::Continuations) => Reason::FloodOfContinuations,
        Breach::Flood(Flood::Unknown) => Reason::FloodOfUnknownFrames,
    }
}

/// When in a drain a client is told to leave.
fn drawn_leave(since: Nanos, until: Nanos, random: u64) -> Nanos {
    since + random % (SPREAD_NS.min(until.saturating_sub(since) / SPREAD_SHARE) + 1)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Serves a connection that begins with the preface, until it ends.
pub async fn serve(shard: &Rc<Shard>, stream: Stream, entry: &Listed<'_>, listener: Arc<Listener>, origin: Origin) {
    entry.doing.set(Doing::Reading);
    let (io, heard) = Io::new(stream, true, nanos(listener.http.body_idle_timeout));
    let due = clock::after(clock::now(), listener.http.header_timeout);
    // Boxed for as long as it takes: the connection that comes of it is kept in this future, and that once.
    let connection = match first(Box::pin(handshake(io, &listener.http)), sleep_until(due)).await {
        Either::Left(Ok(connection)) => connection,
        Either::Left(Err(_)) => return count_fault(shard, &listener, Reason::BadHttp2),
        Either::Right(()) => return count_fault(shard, &listener, Reason::HeaderTimeout),
    };
    let client = Rc::new(Client {
        shard: shard.clone(),
        origin,
        generation: Cell::new(shard.generation()),
        listener: RefCell::new(listener),
        open: Cell::new(0),
        waker: RefCell::new(None),
    });
    let mut life = Life::new(&client, entry, connection, &heard);
    poll_fn(|cx| life.poll(cx)).await;
    if heard.stalled() {
        count_fault(shard, &client.listener(), Reason::WriteTimeout);
    }
}

/// What we allow a client, and the exchange of prefaces.
fn handshake(io: Io, policy: &HttpPolicy) -> h2::server::Handshake<Io, Bytes> {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(policy.http2.max_streams)
        .initial_window_size(policy.http2.window)
        .initial_connection_window_size(policy.http2.whole_window())
        .data_frame_budget(policy.http2.frame_budget())
        .max_header_list_size(u32::try_from(policy.head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .enable_connect_protocol();
    builder.handshake(io)
}

struct Life<'a> {
    client: &'a Rc<Client>,
    entry: &'a Listed<'a>,
    connection: h2::server::Connection<Io, Bytes>,
    heard: &'a Heard,
    ping: Option<PingPong>,
    alarm: Alarm,
    /// How long a header block may take.
    head_ns: u64,
    idle_ns: u64,
    idle_since: Nanos,
    ping_ns: u64,
    /// Bytes that had come when it was last looked at, and when they were found to be more.
    seen: (u64, Nanos),
    pinged: bool,
    /// When the client is told to make a new connection.
    leaves_at: Nanos,
    /// When the connection is closed whatever the client does.
    gone_at: Nanos,
    going: bool,
    /// When the client was told to go.
    went_at: Nanos,
    /// It is taken to have heard that.
    presumed: bool,
    /// The core's drain has been noticed.
    drains: bool,
    max_requests: u64,
}

impl<'a> Life<'a> {
    fn new(
        client: &'a Rc<Client>,
        entry: &'a Listed<'a>,
        connection: h2::server::Connection<Io, Bytes>,
        heard: &'a Heard,
    ) -> Life<'a> {
        let listener = client.listener();
        let policy = &listener.http;
        let now = clock::now();
        let age = policy.http2.max_age.map_or(u64::MAX, |age| drawn_age(nanos(age), client.shard.random()));
        let mut life = Life {
            client,
            entry,
            connection,
            heard,
            ping: None,
            alarm: Alarm::new(),
            head_ns: nanos(policy.header_timeout),
            idle_ns: nanos(policy.idle_timeout),
            idle_since: now,
            ping_ns: policy.http2.ping_interval.map_or(u64::MAX, nanos),
            seen: (heard.bytes(), now),
            pinged: false,
            leaves_at: now.saturating_add(age),
            gone_at: Nanos::MAX,
            going: false,
            went_at: 0,
            presumed: false,
            drains: false,
            max_requests: policy.max_requests,
        };
        life.ping = life.connection.ping_pong();
        life
    }
}

impl Life<'_> {
    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut waker = self.client.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|kept| kept.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
                *self.entry.nudge.borrow_mut() = Some(cx.waker().clone());
            }
        }
        self.heard.begin_turn();
        if let Some(breach) = self.heard.take_breach() {
            self.refuse(breach);
        }
        if !self.drains && self.client.shard.is_draining() {
            let shard = &self.client.shard;
            self.drains = true;
            let leaves_at = drawn_leave(shard.draining_since.get(), shard.drain_until.get(), shard.random());
            self.leaves_at = self.leaves_at.min(leaves_at);
        }
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    if !error.is_remote() && !error.is_io() && !self.going {
                        let calm = error.reason() == Some(Code::ENHANCE_YOUR_CALM);
                        self.count(if calm { Reason::FloodOfFrames } else { Reason::BadHttp2 });
                    }
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        self.look(cx)
    }

    fn begin(&mut self, request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
        let served = self.entry.requests.get() + 1;
        self.entry.requests.set(served);
        if served >= self.max_requests {
            self.go();
        }
        // Given up in the same breath: nobody waits for it, and a flood of such costs no upstream anything.
        if respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        self.client.open.set(self.client.open.get() + 1);
        let open = Open(self.client.clone());
        self.client.shard.lanes.start(self.client.clone(), (request, respond), open);
    }

    /// The clock's part: idle time, age, pings.
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = clock::now();
        let idle = self.client.open.get() == 0;
        match (idle, self.entry.doing.get()) {
            (true, Doing::Idle) | (false, Doing::Exchange) => {}
            (true, _) => {
                self.entry.doing.set(Doing::Idle);
                self.idle_since = now;
            }
            (false, _) => self.entry.doing.set(Doing::Exchange),
        }
        if self.heard.bytes() != self.seen.0 {
            self.seen = (self.heard.bytes(), now);
            self.pinged = false;
        }
        if let Some(ping) = &mut self.ping {
            // An answer makes room for the next question.
            let _ = ping.poll_pong(cx);
        }
        loop {
            let idle_at = match (idle, self.going) {
                (true, false) => self.idle_since.saturating_add(self.idle_ns),
                (true, true) => clock::after(self.idle_since.max(self.went_at), FAREWELL),
                (false, _) => Nanos::MAX,
            };
            let presumed_at =
                if self.going && !self.presumed { clock::after(self.went_at, HEARING) } else { Nanos::MAX };
            let waits = if self.pinged { self.ping_ns.saturating_mul(2) } else { self.ping_ns };
            let silent_at = self.seen.1.saturating_add(waits);
            let head_at = self.head_due();
            if now >= self.gone_at || (self.going && now >= idle_at) || (now >= silent_at && self.pinged) {
                return Poll::Ready(());
            }
            if now >= silent_at {
                self.pinged = true;
                let asked = self.ping.as_mut().is_some_and(|ping| ping.send_ping(Ping::opaque()).is_ok());
                if !asked {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                continue;
            }
            if now >= head_at {
                self.refuse(Breach::Overdue);
                cx.waker().wake_by_ref();
                continue;
            }
            if (now >= idle_at || now >= self.leaves_at) && !self.going {
                self.go();
                cx.waker().wake_by_ref();
                continue;
            }
            if now >= presumed_at {
                // A client that never acknowledges it would otherwise be served for ever.
                self.presumed = true;
                self.heard.presume_pong();
                cx.waker().wake_by_ref();
                continue;
            }
            let leaves_at = if self.going { presumed_at } else { self.leaves_at };
            let next = idle_at.min(leaves_at).min(silent_at).min(head_at).min(self.gone_at);
            if next < Nanos::MAX {
                self.alarm.arm(next);
                if self.alarm.poll(cx).is_ready() {
                    continue;
                }
            }
            return Poll::Pending;
        }
    }

    /// When the open header block is overdue, if there is one and the connection is not given up already.
    fn head_due(&self) -> Nanos {
        let begun = self.heard.block_since().filter(|_| self.gone_at == Nanos::MAX);
        begun.map_or(Nanos::MAX, |begun| begun.saturating_add(self.head_ns))
    }

    /// Tells the client that no more streams are taken; those under way go on (RFC 9113 6.8, in two steps).
    fn go(&mut self) {
        if !self.going {
            self.going = true;
            self.went_at = clock::now();
            self.connection.graceful_shutdown();
        }
    }

    fn refuse(&mut self, breach: Breach) {
        self.count(reason_of(breach));
        self.going = true;
        self.went_at = clock::now();
        self.connection.abrupt_shutdown(match breach {
            Breach::Flood(_) | Breach::Overdue => Code::ENHANCE_YOUR_CALM,
            Breach::Size => Code::FRAME_SIZE_ERROR,
            Breach::Window => Code::FLOW_CONTROL_ERROR,
            Breach::Unsettled | Breach::Pushes => Code::PROTOCOL_ERROR,
        });
        self.gone_at = self.gone_at.min(clock::after(clock::now(), FAREWELL));
    }

    fn count(&self, reason: Reason) {
        count_fault(&self.client.shard, &self.client.listener(), reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_spread_over_a_short_part_of_its_time() {
        const SECOND: u64 = 1_000_000_000;
        let latest = |limit: u64| (0..1000).map(|n| drawn_leave(7, 7 + limit, n * 1_000_003) - 7).max();
        assert!(latest(30 * SECOND).is_some_and(|at| at <= SPREAD_NS && at > SPREAD_NS / 2));
        assert!(latest(SECOND).is_some_and(|at| at <= SECOND / 8 && at > SECOND / 16));
        assert_eq!(latest(0), Some(0));
    }

    #[test]
    fn ages_are_spread_over_the_last_tenth() {
        const HOUR: u64 = 3600 * 1_000_000_000;
        assert_eq!(drawn_age(HOUR, 0), HOUR);
        assert_eq!(drawn_age(HOUR, HOUR / 10), HOUR - HOUR / 10);
        assert_eq!(drawn_age(HOUR, HOUR / 10 + 1), HOUR, "no more than a tenth");
        assert_eq!((drawn_age(0, 7), drawn_age(5, 7)), (0, 5), "nothing is too short");
        // As the core draws: evenly.
        let mut tenths = [0; 10];
        let mut random = 1u64;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let age = drawn_age(HOUR, random);
            assert!((HOUR - HOUR / 10..=HOUR).contains(&age));
            tenths[((HOUR - age) / (HOUR / 100 + 1)) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (800..1200).contains(count)), "{tenths:?}");
    }
}
