//! One monotonic clock for every stamp and deadline, in nanoseconds since an arbitrary start.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Nanoseconds on the process's monotonic clock.
pub type Nanos = u64;

static START: OnceLock<Instant> = OnceLock::new();

/// The time now. One read of the vDSO clock: no system call.
#[inline]
pub fn now() -> Nanos {
    // One second is added so that zero stays free to mean "never".
    START.get_or_init(Instant::now).elapsed().as_nanos() as Nanos + 1_000_000_000
}

/// `at` shifted by a duration, saturating.
#[inline]
pub fn after(at: Nanos, wait: Duration) -> Nanos {
    at.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX))
}
