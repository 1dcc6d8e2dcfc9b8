//! Requests that are disturbed on purpose, as their route says: they wait, are answered, are reset, or get their body
//! slowly. Off unless configured, and marked in metrics and access records.

use std::num::NonZeroU64;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use onehop_meter::ledger::{Ledger, State};
use onehop_meter::names::{Injected, Reason};
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::Alarm;
use onehop_plan::Route;
use onehop_plan::model::Disturbance;
use onehop_plan::resilience::Injection;

use super::body::Broken;
use super::changes::header;
use super::course::pause;
use super::leg::Leg;
use super::reader::{Next, Reader};
use super::{Outcome, Request, begins_tunnel};
use crate::fault::{Fault, Side, Step};
use crate::shard::Shard;

/// Disturbs a request before it goes on.
///
/// # Errors
/// It does not go on.
pub async fn disturb(
    shard: &Shard,
    request: &Request<'_>,
    route: &Route,
    injections: &[Injection],
    client: &mut Leg<'_>,
    ledger: &mut Ledger,
    outcome: &mut Outcome,
) -> Result<(), Fault> {
    let fault = Fault::new(Side::Proxy, Step::Route, Reason::FaultInjected);
    let mut done = [false; Injected::ALL.len()];
    for injection in injections {
        let kind = match injection.what {
            Disturbance::Delay(_) => Injected::Delay,
            Disturbance::Abort(_) => Injected::Abort,
            Disturbance::Reset => Injected::Reset,
            Disturbance::SlowBody(_) => Injected::SlowBody,
        };
        // Of each kind the first that fits.
        let meets = !done[kind as usize] && {
            let mut routing = shard.routing.borrow_mut();
            injection.meets(shard.random(), |name| header(request, name), &mut routing.0)
        };
        if !meets {
            continue;
        }
        done[kind as usize] = true;
        route.meters.core(shard.outfit.core).resilience.get().injected[kind as usize].add(1);
        outcome.injected = Some(kind.as_str());
        match injection.what {
            Disturbance::Delay(wait) => {
                let left = pause(client, clock::after(clock::now(), wait)).await;
                ledger.enter(State::Hop, clock::now());
                if left {
                    return Err(Fault::new(Side::Downstream, Step::Wait, Reason::ClientLeft));
                }
            }
            // A success would be a tunnel to who asked for one: to them it is the usual 503.
            Disturbance::Abort(status) if begins_tunnel(request.head, status) => return Err(fault),
            Disturbance::Abort(status) => return Err(Fault { injected: status, ..fault }),
            Disturbance::Reset => {
                // As if a part of the response were out: only a reset is left.
                outcome.started = true;
                return Err(fault);
            }
            Disturbance::SlowBody(rate) => outcome.slow_body = NonZeroU64::new(rate),
        }
    }
    Ok(())
}

/// A body that flows at so many bytes a second, in slices of a twentieth of a second.
pub struct Slow {
    inner: Reader,
    rate: u64,
    /// Bytes at the front of the inner reader's data that were not let through yet.
    pending: usize,
    last: bool,
    next: Nanos,
    alarm: Alarm,
}

impl Slow {
    /// Slows a body down.
    pub fn new(inner: Reader, rate: u64) -> Slow {
        Slow { inner, rate: rate.max(1), pending: 0, last: false, next: 0, alarm: Alarm::new() }
    }

    /// What [`Next::Data`] speaks of.
    pub fn data<'x>(&'x self, leg: &'x Leg<'_>) -> &'x [u8] {
        self.inner.data(leg)
    }

    /// The first `count` bytes were passed on.
    pub fn consume(&mut self, leg: &mut Leg<'_>, count: usize) {
        self.pending = self.pending.saturating_sub(count);
        self.inner.consume(leg, count);
    }

    /// The first `count` bytes.
    pub fn take(&mut self, leg: &mut Leg<'_>, count: usize) -> Bytes {
        self.pending = self.pending.saturating_sub(count);
        self.inner.take(leg, count)
    }

    /// Waits for what comes next.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, leg: &mut Leg<'_>) -> Poll<Result<Next, Broken>> {
        if self.pending == 0 {
            match ready!(self.inner.poll_next(cx, leg))? {
                Next::Data { length, last } => (self.pending, self.last) = (length, last),
                end => return Poll::Ready(Ok(end)),
            }
        }
        let now = clock::now();
        if now < self.next {
            self.alarm.arm(self.next);
            ready!(self.alarm.poll(cx));
        }
        let slice = usize::try_from(self.rate / 20).unwrap_or(usize::MAX).max(1);
        let length = slice.min(self.pending);
        self.next = now.max(self.next) + (length as u64).saturating_mul(1_000_000_000) / self.rate;
        Poll::Ready(Ok(Next::Data { length, last: self.last && length == self.pending }))
    }
}
