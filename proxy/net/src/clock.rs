//! One monotonic clock for every stamp and deadline, in nanoseconds since an arbitrary start.

use std::time::Duration;

use crate::sys::process;

/// Nanoseconds on the process's monotonic clock.
pub type Nanos = u64;

/// The time now. One read of the vDSO clock: no system call, and no arithmetic on seconds and their parts beyond one
/// multiplication, since every request reads it several times.
#[inline]
pub fn now() -> Nanos {
    // Since boot, so never zero, which means "never".
    process::monotonic_ns()
}

/// `at` shifted by a duration, saturating.
#[inline]
pub fn after(at: Nanos, wait: Duration) -> Nanos {
    at.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX))
}

/// How long it is until `then`; nothing when that has passed.
pub fn until(then: Nanos) -> Duration {
    Duration::from_nanos(then.saturating_sub(now()))
}
