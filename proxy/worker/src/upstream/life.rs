//! The life of a shared connection to an upstream: it is polled here, asked whether it lives, and given up where its upstream
//! floods us or is silent.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Weak;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::Connection;
use h2::{Ping, PingPong, Reason as Code};
use onehop_meter::names::{Reason, UPSTREAM_FLOODS};
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::Alarm;
use onehop_net::h2::{Heard, Io};
use onehop_plan::Http2;

use super::mux::{Mux, Muxes};
use super::parting::Partings;
use super::{ClusterState, nanos};

/// Polls the connection; an upstream that floods us is left, one that is silent is asked whether it lives.
pub(super) async fn drive(
    connection: &mut Connection<Io, Bytes>,
    heard: &Heard,
    http2: &Http2,
    (mux, partings): (&Weak<Mux>, &Partings),
    (cluster, muxes): (&ClusterState, &Muxes),
) {
    let (ping_ns, block_ns) = (http2.ping_interval.map_or(u64::MAX, nanos), nanos(http2.header_timeout));
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
        let ask = || connection.set_initial_window_size(http2.window).is_ok();
        if partings.poll(cx, heard, clock::now(), ask) {
            return Poll::Ready(());
        }
        if muxes.are_awaited() && mux.upgrade().is_some_and(|mux| mux.has_room()) {
            // Later SETTINGS may allow more.
            muxes.wake_one();
        }
        if ping_ns == u64::MAX && heard.block_since().is_none() {
            return Poll::Pending;
        }
        poll_life(cx, heard, &alarm, &mut ping, &mut seen, &mut pinged, (ping_ns, block_ns), mux)
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
    (ping_ns, block_ns): (u64, u64),
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
        let block_at = heard.block_since().map_or(Nanos::MAX, |begun| begun.saturating_add(block_ns));
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
