//! Whether a request is let in: the core's own saturation, then the limits of its listener and of its route.

use std::sync::Arc;

use onehop_meter::names::Reason;
use onehop_net::clock::Nanos;
use onehop_plan::Route;
use onehop_plan::limit::{Gate, Rate, Refusal};
use onehop_plan::model::{HashOn, Priority};

use super::{Request, routing};
use crate::fault::{Fault, Limited, Side, Step};
use crate::shard::Shard;

/// The places that a request holds until its exchange has ended.
#[derive(Default)]
pub struct Held([Option<Arc<Gate>>; 2]);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.iter().flatten().for_each(|gate| gate.leave());
    }
}

/// Lets a request in, or says why not.
///
/// # Errors
/// A 503 or a 429.
#[inline]
pub fn admit(shard: &Shard, request: &Request<'_>, route: &Route, now: Nanos) -> Result<Held, Fault> {
    if shard.pressure.get().level() == 0.0 && request.listener.gate.is_none() && route.guards.is_none() {
        return Ok(Held::default());
    }
    judge(shard, request, route, now)
}

fn judge(shard: &Shard, request: &Request<'_>, route: &Route, now: Nanos) -> Result<Held, Fault> {
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
    for rate in guards.iter().flat_map(|guards| &guards.rates) {
        if let Err(refusal) = ask(request, rate, now) {
            route.meters.core(shard.outfit.core).limited.add(1);
            return Err(Fault { limited: Some(limited(rate, refusal)), ..refused(Reason::RateLimited) });
        }
    }
    Ok(held)
}

/// Books a request with a rate.
fn ask(request: &Request<'_>, rate: &Rate, now: Nanos) -> Result<(), Refusal> {
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

fn limited(rate: &Rate, refusal: Refusal) -> Limited {
    let name = match rate.wanted.by {
        None => "all",
        Some(HashOn::Header(_)) => "header",
        Some(HashOn::Cookie(_)) => "cookie",
        Some(HashOn::Query(_)) => "query",
        Some(HashOn::Source) => "source",
        Some(HashOn::Path) => "path",
        Some(HashOn::Identity) => "identity",
    };
    let seconds = |ns: u64| u32::try_from(ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1);
    Limited {
        name,
        quota: rate.wanted.requests,
        window_s: seconds(u64::try_from(rate.wanted.per.as_nanos()).unwrap_or(u64::MAX)),
        retry_after_s: seconds(refusal.wait_ns),
    }
}
