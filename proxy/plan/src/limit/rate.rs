//! Rate limits by key: the generic cell rate algorithm (ITU-T I.371, equal to a token bucket) over one atomic word per
//! key, in a table that all cores share and that never grows beyond its bound. A key is known by a keyed hash of 64 bits.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::model;

/// Keys that share a bucket: two cache lines.
const WAYS: usize = 8;
/// Buckets made at once, when the first of their keys comes.
const PAGE: usize = 64;

#[derive(Debug, Default)]
struct Slot {
    /// The key's hash; zero: free.
    key: AtomicU64,
    /// The theoretical arrival time: when everything that the key has used up is replenished.
    full_at: AtomicU64,
}

#[repr(align(128))]
#[derive(Debug, Default)]
struct Bucket([Slot; WAYS]);

/// A request that came too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The same request will pass after so many nanoseconds, if no other comes before it.
    pub wait_ns: u64,
}

/// A request that was let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// After so many nanoseconds everything that its key has used up is replenished.
    pub full_ns: u64,
}

/// One rate limit with all its keys.
#[derive(Debug)]
pub struct Rate {
    /// As it is wanted.
    pub wanted: model::RateLimit,
    /// Nanoseconds that one request uses up.
    each_ns: u64,
    /// How far ahead of the clock a key may be.
    ahead_ns: u64,
    pages: Box<[OnceLock<Box<[Bucket]>>]>,
    hasher: ahash::RandomState,
    forgotten: AtomicU64,
}

impl Rate {
    /// Nobody has asked yet.
    pub fn new(wanted: &model::RateLimit) -> Rate {
        let each_ns = (wanted.per.as_nanos() / u128::from(wanted.requests.max(1))).clamp(1, u128::from(u64::MAX >> 8));
        let each_ns = each_ns as u64;
        // Twice the room, so that buckets seldom overflow while there are no more keys than asked for.
        let buckets = (wanted.keys.max(1) as usize * 2).div_ceil(WAYS).next_power_of_two();
        Rate {
            wanted: wanted.clone(),
            each_ns,
            ahead_ns: each_ns.saturating_mul(u64::from(wanted.burst.max(1))),
            pages: (0..buckets.div_ceil(PAGE)).map(|_| OnceLock::new()).collect(),
            hasher: ahash::RandomState::new(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// The most that its keys can occupy, in bytes.
    pub fn max_bytes(&self) -> usize {
        self.pages.len() * (size_of::<OnceLock<Box<[Bucket]>>>() + self.page_len() * size_of::<Bucket>())
    }

    /// Keys forgotten, for lack of room, that had not replenished everything.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    fn page_len(&self) -> usize {
        let buckets = (self.wanted.keys.max(1) as usize * 2).div_ceil(WAYS).next_power_of_two();
        buckets.min(PAGE)
    }

    /// A request of `key` comes at `now`.
    ///
    /// # Errors
    /// It comes too early.
    pub fn take(&self, key: &[u8], now: u64) -> Result<Taken, Refusal> {
        let hash = self.hasher.hash_one(key).max(1);
        let at = (hash >> 32) as usize;
        let page = &self.pages[at / PAGE % self.pages.len()];
        let buckets = match page.get() {
            Some(buckets) => buckets,
            None => {
                // Another core may be first; its page is as good.
                let _ = page.set((0..self.page_len()).map(|_| Bucket::default()).collect());
                page.get().map_or(&[][..], |buckets| &**buckets)
            }
        };
        let Some(bucket) = buckets.get(at % self.page_len()) else { return Ok(Taken::default()) };
        let slot = self.slot(bucket, hash, now);
        let mut full_at = slot.full_at.load(Relaxed);
        loop {
            // No key is further ahead than a full burst, unless the clock was set back: then it would be refused for ever.
            let most = now.saturating_add(self.ahead_ns);
            if full_at > most {
                full_at = match slot.full_at.compare_exchange(full_at, most, Relaxed, Relaxed) {
                    Ok(_) => most,
                    Err(other) => other.min(most),
                };
            }
            let next = full_at.max(now).saturating_add(self.each_ns);
            let ahead = next - now;
            if ahead > self.ahead_ns {
                return Err(Refusal { wait_ns: ahead - self.ahead_ns });
            }
            match slot.full_at.compare_exchange_weak(full_at, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(Taken { full_ns: ahead }),
                Err(other) => full_at = other,
            }
        }
    }

    /// How many more of its key would pass at once, and after how many nanoseconds: all of them are there again, or, where
    /// none is left, one is.
    pub fn left(&self, taken: Taken) -> (u32, u64) {
        let free = self.ahead_ns.saturating_sub(taken.full_ns);
        match u32::try_from(free / self.each_ns).unwrap_or(u32::MAX) {
            0 => (0, self.each_ns - free),
            left => (left, taken.full_ns),
        }
    }

    /// The key's own slot, or a free one, or that of the key which has been replenished the longest.
    fn slot<'a>(&self, bucket: &'a Bucket, hash: u64, now: u64) -> &'a Slot {
        if let Some(slot) = bucket.0.iter().find(|slot| slot.key.load(Relaxed) == hash) {
            return slot;
        }
        let age = |slot: &&Slot| match slot.key.load(Relaxed) {
            0 => 0,
            _ => slot.full_at.load(Relaxed).max(1),
        };
        let oldest = bucket.0.iter().min_by_key(age).unwrap_or(&bucket.0[0]);
        let (key, full_at) = (oldest.key.load(Relaxed), oldest.full_at.load(Relaxed));
        if key != 0 && full_at > now {
            self.forgotten.fetch_add(1, Relaxed);
        }
        // Of two cores that take the same slot one wins; what the other booked is lost, which is the stated error.
        if oldest.key.compare_exchange(key, hash, Relaxed, Relaxed).is_ok() {
            let _ = oldest.full_at.compare_exchange(full_at, now, Relaxed, Relaxed);
        }
        oldest
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(requests: u32, burst: u32, keys: u32) -> Rate {
        Rate::new(&model::RateLimit {
            requests,
            per: Duration::from_secs(1),
            burst,
            by: None,
            keys,
            fields: model::RateFields::Off,
        })
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = rate(10, 5, 1);
        let now = 100 * SECOND;
        let passed = |at| (0..20).filter(|_| rate.take(b"a", at).is_ok()).count();
        assert_eq!(passed(now), 5);
        assert_eq!(rate.take(b"a", now), Err(Refusal { wait_ns: SECOND / 10 }));
        assert_eq!(passed(now + SECOND / 10), 1);
        assert_eq!(passed(now + SECOND / 2), 4);
        assert_eq!(passed(now + 60 * SECOND), 5);
        // Another key has its own allowance.
        assert_eq!((0..20).filter(|_| rate.take(b"b", now + 60 * SECOND).is_ok()).count(), 5);
    }

    #[test]
    fn what_is_left_is_known() {
        let rate = rate(10, 3, 1);
        let now = 100 * SECOND;
        let left = |at| rate.left(rate.take(b"a", at).expect("it passes"));
        assert_eq!(left(now), (2, SECOND / 10));
        assert_eq!(left(now), (1, SECOND / 5));
        // Nothing is left: one more passes after the time of one.
        assert_eq!(left(now), (0, SECOND / 10));
        assert_eq!(left(now + SECOND / 10), (0, SECOND / 10));
        assert_eq!(left(now + 60 * SECOND), (2, SECOND / 10));
    }

    #[test]
    fn a_clock_that_jumps_refuses_nobody_for_ever() {
        let rate = rate(10, 5, 1);
        let passed = |at| (0..20).filter(|_| rate.take(b"a", at).is_ok()).count();
        assert_eq!(passed(1000 * SECOND), 5);
        // Back by a quarter of an hour: what was used up stays used up, and is replenished at the usual pace.
        assert_eq!(passed(100 * SECOND), 0);
        assert_eq!(passed(101 * SECOND), 5);
        assert_eq!(passed(1 << 60), 5);
        assert_eq!(passed(7), 0);
        assert_eq!(passed(2 * SECOND), 5);
    }

    #[test]
    fn it_is_exact_over_all_cores() {
        let rate = rate(1000, 1000, 100);
        let now = 50 * SECOND;
        assert!(rate.take(b"shared", now).is_ok());
        let passed = std::sync::atomic::AtomicUsize::new(1);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if rate.take(b"shared", now).is_ok() {
                            passed.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 1000);
    }

    #[test]
    fn a_new_key_on_several_cores_at_once_errs_by_one_for_each() {
        for round in 0..200u32 {
            let rate = rate(1, 1, 1000);
            let passed = std::sync::atomic::AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..50 {
                            if rate.take(&round.to_le_bytes(), SECOND).is_ok() {
                                passed.fetch_add(1, Relaxed);
                            }
                        }
                    });
                }
            });
            let passed = passed.into_inner();
            assert!((1..=4).contains(&passed), "{passed}");
        }
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_keys_are_forgotten() {
        let rate = rate(1, 1, 100_000);
        assert!(rate.max_bytes() < 5 << 20, "{}", rate.max_bytes());
        let key = |number: u32| number.to_le_bytes();
        for number in 0..100_000 {
            assert!(rate.take(&key(number), u64::from(number) * 1000 + SECOND).is_ok());
        }
        // All of them are remembered, but for the few whose buckets overflowed.
        let now = 2 * SECOND - 1;
        let known = (0..100_000).filter(|number| rate.take(&key(*number), now).is_err()).count();
        assert!(known > 97_000, "{known}");
        // Ten times as many more: the memory stays, the last ones are known, the first ones are not.
        for number in 100_000..1_100_000 {
            let _ = rate.take(&key(number), 2 * SECOND + u64::from(number));
        }
        assert!(rate.forgotten() > 0);
        let known =
            |range: std::ops::Range<u32>| range.filter(|at| rate.take(&key(*at), 2 * SECOND + 2_000_000).is_err());
        assert!(known(1_090_000..1_100_000).count() > 9_900);
        assert!(known(100_000..110_000).count() < 100);
    }
}
