//! How many requests of a core may be sent more than once, so that an upstream in trouble does not get more load than it
//! had before. Two bounds, each of which catches what the other misses: those under way (waiting ones included) against
//! the others in flight, which holds from the first moment; and those of the last second against the requests of the
//! last second, which holds when failures are quick and hardly anything is in flight. Pure: time is an argument.

/// Whatever the share, so many may be under way, and begin within a second, on each core: else a cluster with little
/// traffic would never see a retry. (Envoy's figure.)
const AT_LEAST: u32 = 3;
/// The span that is looked back on, in nanoseconds: older requests count less and less.
const SPAN_NS: f64 = 1e9;

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
    pub fn take(&mut self, percent: u32, load: Load, holds: bool, untouched: bool) -> bool {
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
        if !holds && f64::from(self.under_way) + 1.0 > (others * share).floor().max(least) {
            return false;
        }
        if !untouched {
            if self.extra + 1.0 > (self.requests * share).max(least) {
                return false;
            }
            self.extra += 1.0;
        }
        self.under_way += u32::from(!holds);
        true
    }

    /// A request that held a place has ended.
    pub fn give_back(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
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
        let mut budget = Budget::default();
        let load = |in_flight, now| Load { in_flight, begun: 100_000, now: now * MS };
        let taken = (0..100).filter(|_| budget.take(20, load(100, 1), false, false)).count();
        // Nothing is known yet of the last second but what is in flight.
        assert_eq!(taken, 16, "a fifth of the other 84");
        budget.give_back();
        assert_eq!(budget.under_way(), 15);
    }

    #[test]
    fn quick_failures_are_bounded_by_the_requests_of_the_last_second() {
        let mut budget = Budget::default();
        let mut again = 0;
        for request in 0..100_000u64 {
            // 1,000 a second, none of which takes any time.
            let load = Load { in_flight: 1, begun: request + 1, now: (request + 1) * MS };
            for holds in [false, true] {
                again += u64::from(budget.take(20, load, holds, false));
            }
            budget.give_back();
        }
        assert!((15_000..=20_300).contains(&again), "{again}");
    }

    #[test]
    fn what_nobody_acted_on_is_bounded_by_what_is_in_flight_alone() {
        let mut budget = Budget::default();
        for request in 1..1000u64 {
            let load = Load { in_flight: 1, begun: request, now: request * MS };
            assert!(budget.take(20, load, false, true), "request {request}");
            budget.give_back();
        }
        let load = Load { in_flight: 4, begun: 1000, now: 1000 * MS };
        let taken = (0..4).filter(|_| budget.take(20, load, false, true)).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn little_traffic_has_a_few_and_none_means_none() {
        let mut budget = Budget::default();
        let load = |now| Load { in_flight: 1, begun: now, now: now * 1000 * MS };
        for second in 1..10 {
            assert!(budget.take(20, load(second), false, false), "second {second}");
            budget.give_back();
        }
        assert!(!budget.take(0, load(11), false, false));
        // A clock that stands still or jumps back takes nothing away.
        assert!(budget.take(20, load(5), false, false));
    }
}
