//! Whether a request is let in: the core's own saturation, then the limits of its listener and of its route.

use std::sync::Arc;

use onehop_meter::names::Reason;
use onehop_net::clock::Nanos;
use onehop_plan::Route;
use onehop_plan::limit::{Gate, Guards, MAX_RATES, Rate, Refusal, Taken};
use onehop_plan::model::{HashOn, Priority, RateFields};

use super::changes::Changes;
use super::{Request, routing};
use crate::fault::{Fault, Limited, POLICY_FIELD, Policy, STATE_FIELD, Side, Step};
use crate::shard::Shard;

/// The places that a request holds until its exchange has ended.
#[derive(Default)]
pub struct Held([Option<Arc<Gate>>; 2]);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.iter().flatten().for_each(|gate| gate.leave());
    }
}

/// Lets a request in, or says why not. What is left of its rates goes into the changes of its response, where clients are
/// to be told.
///
/// # Errors
/// A 503 or a 429.
#[inline]
pub fn admit(
    shard: &Shard,
    request: &Request<'_>,
    route: &Route,
    changes: Option<&mut Changes>,
    now: Nanos,
) -> Result<Held, Fault> {
    if shard.pressure.get().level() == 0.0 && request.listener.gate.is_none() && route.guards.is_none() {
        return Ok(Held::default());
    }
    judge(shard, request, route, changes, now)
}

fn judge(
    shard: &Shard,
    request: &Request<'_>,
    route: &Route,
    changes: Option<&mut Changes>,
    now: Nanos,
) -> Result<Held, Fault> {
    let refused = |reason| Fault::new(Side::Proxy, Step::Route, reason);
    let guards = route.guards.as_deref();
    let priority = guards.map_or(Priority::Normal, |guards| guards.priority);
    let pressure = shard.pressure.get();
    if pressure.level() > 0.0 && pressure.refuses(priority, shard.random()) {
        route.meters.core(shard.outfit.core).shed.add(1);
        return Err(refused(Reason::Shed));
    }
    let mut held = Held::default();
    let gates = [request.listener.gate.as_ref(), guards.and_then(|guards| guards.gate.as_ref())];
    for (place, (limit, gate)) in held.0.iter_mut().zip(gates).filter_map(|(place, gate)| Some((place, gate?))) {
        if !gate.enter(*limit) {
            return Err(refused(Reason::Overflow));
        }
        *place = Some(gate.clone());
    }
    let Some(guards) = guards.filter(|guards| !guards.rates.is_empty()) else { return Ok(held) };
    let mut all_taken = [Taken::default(); MAX_RATES];
    for (at, (rate, fields)) in guards.rates.iter().enumerate() {
        match ask(request, rate, now) {
            Ok(taken) => all_taken[at % MAX_RATES] = taken,
            Err(refusal) => {
                route.meters.core(shard.outfit.core).limited.add(1);
                let (policy, is_told) = (policy(guards, at), *fields != RateFields::Off);
                let limited = Limited { policy, retry_after_s: seconds(refusal.wait_ns), is_told };
                return Err(Fault { limited: Some(limited), ..refused(Reason::RateLimited) });
            }
        }
    }
    if let Some(changes) = changes {
        tell(guards, &all_taken, changes);
    }
    Ok(held)
}

/// Tells the client what is left.
fn tell(guards: &Guards, all_taken: &[Taken; MAX_RATES], changes: &mut Changes) {
    let told = || guards.rates.iter().enumerate().filter(|(_, (_, fields))| *fields == RateFields::Always);
    if told().next().is_none() {
        return;
    }
    let list = |out: &mut Vec<u8>, write: &dyn Fn(&mut Vec<u8>, usize, &Rate)| {
        for (nth, (at, (rate, _))) in told().enumerate() {
            out.extend_from_slice(if nth > 0 { b", " } else { b"" });
            write(out, at, rate);
        }
    };
    changes.tell(POLICY_FIELD, |out| list(out, &|out, at, _| policy(guards, at).write(out)));
    changes.tell(STATE_FIELD, |out| {
        list(out, &|out, at, rate| {
            let (left, wait_ns) = rate.left(all_taken[at % MAX_RATES]);
            policy(guards, at).write_state(out, left, seconds(wait_ns));
        });
    });
}

/// Books a request with a rate.
fn ask(request: &Request<'_>, rate: &Rate, now: Nanos) -> Result<Taken, Refusal> {
    match &rate.wanted.by {
        None => rate.take(b"", now),
        Some(HashOn::Source) => match super::changes::client(request) {
            std::net::IpAddr::V4(ip) => rate.take(&ip.octets(), now),
            // One subscriber has a /64 of them (RFC 6177).
            std::net::IpAddr::V6(ip) => rate.take(&ip.octets()[..8], now),
        },
        Some(on) => rate.take(routing::value(request, on).as_deref().unwrap_or_default(), now),
    }
}

fn seconds(ns: u64) -> u32 {
    u32::try_from(ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1)
}

fn counts_by(rate: &Rate) -> &'static str {
    match rate.wanted.by {
        None => "all",
        Some(HashOn::Header(_)) => "header",
        Some(HashOn::Cookie(_)) => "cookie",
        Some(HashOn::Query(_)) => "query",
        Some(HashOn::Source) => "source",
        Some(HashOn::Path) => "path",
        Some(HashOn::Identity) => "identity",
    }
}

/// One of the route's rates as clients are told of it; names are unique in an answer, as the draft asks for.
fn policy(guards: &Guards, at: usize) -> Policy {
    let rate = &guards.rates[at].0;
    let by = counts_by(rate);
    let alike = guards.rates[..at].iter().filter(|(other, _)| counts_by(other) == by).count();
    Policy {
        by,
        number: alike as u8 + 1,
        quota: rate.wanted.requests,
        window_s: seconds(u64::try_from(rate.wanted.per.as_nanos()).unwrap_or(u64::MAX)),
    }
}
