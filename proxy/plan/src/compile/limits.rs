//! Limits of routes and listeners: their checks, and their counts, which outlive a change of configuration.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::problem::{Place, Problems};
use crate::limit::{Gate, Guards, MAX_RATES, Rate};
use crate::model::{self, Model, Priority};
use crate::snapshot::Snapshot;

/// Keys of one rate limit at most: 320 MiB.
const MAX_KEYS: u32 = 5_000_000;

pub(super) fn check_route(route: &model::Route, at: usize, problems: &mut Problems) {
    let place = Place::Route(at, "rate_limits");
    if route.rate_limits.len() > MAX_RATES {
        problems.add(place, format!("a route has at most {MAX_RATES} rate limits"));
    }
    for rate in &route.rate_limits {
        if rate.requests == 0 || rate.burst == 0 {
            problems.hint(place, "a rate limit of zero would refuse everything", "respond = { status = 429 } does");
        }
        if rate.per < Duration::from_millis(1) || rate.per > Duration::from_secs(366 * 24 * 3600) {
            problems.add(place, "the time of a rate limit is between a millisecond and a year");
        }
        if !(1..=MAX_KEYS).contains(&rate.keys) {
            problems.add(place, format!("a rate limit remembers between 1 and {MAX_KEYS} keys"));
        }
    }
    if route.max_in_flight == Some(0) {
        problems.add(Place::Route(at, "limits"), "a limit of zero would refuse everything");
    }
}

pub(super) fn check_listener(listener: &model::Listener, at: usize, problems: &mut Problems) {
    if listener.http.max_in_flight == Some(0) {
        problems.add(Place::Listener(at, "limits"), "a limit of zero would refuse everything");
    }
}

pub(super) fn check_adaptive(wanted: &model::Adaptive, place: Place, problems: &mut Problems) {
    let bounded = wanted.min >= 1 && wanted.min <= wanted.max && wanted.max <= 1_000_000;
    if !bounded || !(0.01..=100.0).contains(&wanted.tolerance) || wanted.window.is_zero() {
        problems.add(place, "min is at least 1 and at most max, tolerance is between 0.01 and 100, window is not zero");
    }
}

/// What stands before each route, in order, and by name for the next change.
type All = (Vec<Option<Arc<Guards>>>, HashMap<Arc<str>, Arc<Guards>>);

/// The guards of all routes; counts go on where the limit is the same.
pub(super) fn guards(model: &Model, previous: Option<&Snapshot>) -> All {
    let mut by_name = HashMap::new();
    let list = model.routes.iter().map(|route| {
        if route.rate_limits.is_empty() && route.max_in_flight.is_none() && route.priority == Priority::Normal {
            return None;
        }
        let old = previous.and_then(|previous| previous.guards.get(route.name.as_str()));
        let rate = |wanted: &model::RateLimit| {
            let known = old.and_then(|old| old.rates.iter().find(|(rate, _)| rate.wanted.counts_as(wanted)));
            let rate = known.map_or_else(|| Arc::new(Rate::new(wanted)), |(rate, _)| rate.clone());
            (rate, wanted.fields)
        };
        let gate = route.max_in_flight.map(|limit| {
            let known = old.and_then(|old| old.gate.as_ref()).map(|(_, gate)| gate.clone());
            (limit, known.unwrap_or_default())
        });
        let rates = route.rate_limits.iter().map(rate).collect();
        let guards = Arc::new(Guards { rates, gate, priority: route.priority });
        by_name.insert(Arc::from(route.name.as_str()), guards.clone());
        Some(guards)
    });
    (list.collect(), by_name)
}

/// The gate of a listener.
pub(super) fn gate(wanted: &model::Listener, previous: Option<&Snapshot>) -> Option<(u32, Arc<Gate>)> {
    let limit = wanted.http.max_in_flight?;
    let old = previous.and_then(|old| old.listeners.iter().find(|listener| *listener.name == *wanted.name));
    let known = old.and_then(|old| old.gate.as_ref()).map(|(_, gate)| gate.clone());
    Some((limit, known.unwrap_or_default()))
}
