//! Requests in flight, counted over all cores on a cache line of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::Rate;
use crate::model::{Priority, RateFields};

/// A count of what is in flight.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct Gate(AtomicU32);

impl Gate {
    /// Takes a place, unless `limit` are taken.
    pub fn enter(&self, limit: u32) -> bool {
        let free = self.0.fetch_add(1, Relaxed) < limit;
        if !free {
            self.0.fetch_sub(1, Relaxed);
        }
        free
    }

    /// Takes a place, however many are taken.
    pub fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Gives a place back.
    pub fn leave(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Places taken.
    pub fn taken(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// Rate limits of one route at most.
pub const MAX_RATES: usize = 8;

/// What stands before a route.
#[derive(Debug, Default)]
pub struct Guards {
    /// Rate limits, and when clients are told of each; the first that refuses decides.
    pub rates: Vec<(Arc<Rate>, RateFields)>,
    /// Requests in flight at most, and their count.
    pub gate: Option<(u32, Arc<Gate>)>,
    /// Who is refused first by a saturated core.
    pub priority: Priority,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_over_all_cores() {
        let gate = Gate::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if gate.enter(3) {
                            // Refused ones are counted for an instant; those that are in never exceed the limit.
                            gate.leave();
                        }
                    }
                });
            }
        });
        assert_eq!(gate.taken(), 0);
        assert!(gate.enter(2) && gate.enter(2) && !gate.enter(2));
        gate.leave();
        assert!(gate.enter(2));
    }
}
