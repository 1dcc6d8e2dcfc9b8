//! How many requests of a core may be sent more than once, so that an upstream in trouble does not get more load than it
//! had before. Two bounds, each of which catches what the other misses: those under way (waiting ones included) against
//! the others in flight, which holds from the first moment; and those of the last second against the requests of the
//! last second, which holds when failures are quick and hardly anything is in flight. Pure: time is an argument.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Whatever the share, so many may be under way, and begin within a second, over all cores: else a cluster with little
/// traffic would never see a retry. (Envoy's figure.)
const AT_LEAST: u32 = 3;
/// The span that is looked back on, in nanoseconds: older requests count less and less.
const SPAN_NS: f64 = 1e9;

/// What a core may send beyond its share, counted over all cores: so that a cluster with little traffic gets a few requests
/// more in all, however many cores they come from. Untouched as long as shares suffice.
#[derive(Debug, Default)]
pub struct Floor {
    under_way: AtomicU32,
    /// When the allowance of a second is whole again (GCRA).
    full_at: AtomicU64,
}

/// Those of a cluster, on cache lines of their own; they outlive changes of configuration.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct Floors {
    /// For retries.
    pub retries: Floor,
    /// For hedges.
    pub hedges: Floor,
}

impl Floor {
    fn enter(&self) -> bool {
        let one_more = |taken: u32| (taken < AT_LEAST).then_some(taken + 1);
        self.under_way.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    fn leave(&self) {
        self.under_way.fetch_sub(1, Relaxed);
    }

    /// Whether one more may begin, of so many a second.
    fn begin(&self, now: u64) -> bool {
        let (span, each) = (SPAN_NS as u64, SPAN_NS as u64 / u64::from(AT_LEAST));
        let next = |full_at: u64| {
            // Further ahead than cores' clocks can be apart: the clock has jumped back, and nothing is known.
            let known = if full_at > now.saturating_add(2 * span) { now } else { full_at };
            let next = known.max(now).saturating_add(each);
            (next <= now.saturating_add(span)).then_some(next)
        };
        self.full_at.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

/// What a core has to do for a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests in flight, those that are sent again included.
    pub in_flight: u32,
    /// Requests that have ever begun.
    pub begun: u64,
    /// The monotonic clock, in nanoseconds; zero before anything.
    pub now: u64,
}

/// One core's budget.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    under_way: u32,
    /// Of them in places of the floor.
    on_floor: u32,
    /// Requests and extra attempts of the last span, decayed.
    requests: f64,
    extra: f64,
    /// What was known when they were looked at last.
    begun: u64,
    at: u64,
}

impl Budget {
    /// Takes a place for one more attempt of a request; `holds`: the request has one for an earlier attempt, which it
    /// keeps. The place is given back when the request has ended. `untouched`: nobody can have acted on the request, so
    /// that no work is done twice and the bound on what is quick does not apply. 100 percent and more are no bound.
    pub fn take(&mut self, percent: u32, load: Load, floor: &Floor, holds: bool, untouched: bool) -> bool {
        self.look(load);
        if percent == 0 {
            return false;
        }
        if percent >= 100 {
            self.under_way += u32::from(!holds);
            return true;
        }
        let share = f64::from(percent) / 100.0;
        let least = f64::from(AT_LEAST);
        let others = f64::from(load.in_flight.saturating_sub(self.under_way));
        let next = f64::from(self.under_way) + 1.0;
        let within = holds || next <= (others * share).floor();
        if !within && (next > least || !floor.enter()) {
            return false;
        }
        if !untouched {
            let next = self.extra + 1.0;
            if next > self.requests * share && (next > least || !floor.begin(load.now)) {
                if !within {
                    floor.leave();
                }
                return false;
            }
            self.extra = next;
        }
        self.under_way += u32::from(!holds);
        self.on_floor += u32::from(!within);
        true
    }

    /// A request that held a place has ended; a place of the floor is free first, for the other cores.
    pub fn give_back(&mut self, floor: &Floor) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.on_floor > 0 {
            self.on_floor -= 1;
            floor.leave();
        }
    }

    /// Places taken.
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Brings the figures of the last span up to now, as if the requests since had come evenly.
    fn look(&mut self, load: Load) {
        let passed = load.now.saturating_sub(self.at) as f64 / SPAN_NS;
        let new = load.begun.saturating_sub(self.begun) as f64;
        if self.at == 0 {
            // Nothing is known of how long they took to come: no more than a span's worth of them counts.
            self.requests = f64::from(load.in_flight).max(1.0).min(new.max(1.0));
        } else if passed > 0.0 {
            let kept = (-passed).exp();
            self.requests = self.requests * kept + new * (1.0 - kept) / passed;
            self.extra *= kept;
        } else {
            self.requests += new;
        }
        self.at = load.now.max(self.at);
        self.begun = load.begun;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn those_under_way_are_a_fifth_of_the_others() {
        let (mut budget, floor) = (Budget::default(), Floor::default());
        let load = |in_flight, now| Load { in_flight, begun: 100_000, now: now * MS };
        let taken = (0..100).filter(|_| budget.take(20, load(100, 1), &floor, false, false)).count();
        // Nothing is known yet of the last second but what is in flight.
        assert_eq!(taken, 16, "a fifth of the other 84");
        budget.give_back(&floor);
        assert_eq!(budget.under_way(), 15);
    }

    #[test]
    fn quick_failures_are_bounded_by_the_requests_of_the_last_second() {
        let (mut budget, floor) = (Budget::default(), Floor::default());
        let mut again = 0;
        for request in 0..100_000u64 {
            // 1,000 a second, none of which takes any time.
            let load = Load { in_flight: 1, begun: request + 1, now: (request + 1) * MS };
            for holds in [false, true] {
                again += u64::from(budget.take(20, load, &floor, holds, false));
            }
            budget.give_back(&floor);
        }
        assert!((15_000..=20_300).contains(&again), "{again}");
    }

    #[test]
    fn what_nobody_acted_on_is_bounded_by_what_is_in_flight_alone() {
        let (mut budget, floor) = (Budget::default(), Floor::default());
        for request in 1..1000u64 {
            let load = Load { in_flight: 1, begun: request, now: request * MS };
            assert!(budget.take(20, load, &floor, false, true), "request {request}");
            budget.give_back(&floor);
        }
        let load = Load { in_flight: 4, begun: 1000, now: 1000 * MS };
        let taken = (0..4).filter(|_| budget.take(20, load, &floor, false, true)).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn little_traffic_has_a_few_and_none_means_none() {
        let (mut budget, floor) = (Budget::default(), Floor::default());
        let load = |now| Load { in_flight: 1, begun: now, now: now * 1000 * MS };
        for second in 1..10 {
            assert!(budget.take(20, load(second), &floor, false, false), "second {second}");
            budget.give_back(&floor);
        }
        assert!(!budget.take(0, load(11), &floor, false, false));
        // A clock that stands still or jumps back takes nothing away.
        assert!(budget.take(20, load(5), &floor, false, false));
    }

    #[test]
    fn the_floor_is_one_for_all_cores() {
        let (mut cores, floor) = ([Budget::default(); 16], Floor::default());
        // One request a second on each of 16 cores, and each fails at once: a fifth of 16, and what the floor adds.
        let mut again = 0;
        for second in 1..=100u64 {
            for (core, budget) in cores.iter_mut().enumerate() {
                let now = second * 1000 * MS + core as u64 * 60 * MS;
                let load = Load { in_flight: 1, begun: second, now };
                if budget.take(20, load, &floor, false, false) {
                    again += 1;
                    budget.give_back(&floor);
                }
            }
        }
        assert!((290..=310).contains(&again), "{again} of 1600: three a second in all");
        // Nor are more under way at once, and a place that is given back is free for another core.
        let floor = Floor::default();
        let mut cores = [Budget::default(); 16];
        let load = Load { in_flight: 1, begun: 1, now: MS };
        let taken: Vec<bool> = cores.iter_mut().map(|core| core.take(20, load, &floor, false, true)).collect();
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 3);
        cores[0].give_back(&floor);
        assert!(cores[9].take(20, load, &floor, false, true) && !cores[10].take(20, load, &floor, false, true));
    }
}
