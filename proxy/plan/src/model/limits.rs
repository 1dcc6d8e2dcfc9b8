//! Limits as they are wanted; [`crate::limit`] says what each counts over, and with what error.

use std::time::Duration;

use super::HashOn;

/// Requests per time, for each key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// So many requests,
    pub requests: u32,
    /// in this time.
    pub per: Duration,
    /// So many at once.
    pub burst: u32,
    /// What tells keys apart; without it all requests share one allowance, as do those that lack the value. Addresses of
    /// IPv6 count by their /64, which is what one subscriber gets (RFC 6177).
    pub by: Option<HashOn>,
    /// Keys remembered; beyond them the oldest are forgotten.
    pub keys: u32,
    /// When clients are told of it.
    pub fields: RateFields,
}

impl RateLimit {
    /// Whether what was counted for another one counts for this one.
    pub fn counts_as(&self, other: &RateLimit) -> bool {
        *other == RateLimit { fields: other.fields, ..self.clone() }
    }
}

/// When clients are told of a rate limit, by `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10). A
/// refusal names its wait in `Retry-After` in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RateFields {
    /// Never.
    Off,
    /// In refusals: who is within the limit pays nothing for it.
    #[default]
    Refusals,
    /// In every answer to a request that was counted.
    Always,
}

/// Who is refused first by a saturated core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// First.
    Low,
    /// Once all of low priority are.
    #[default]
    Normal,
    /// Once all of normal priority are.
    High,
    /// Never.
    Critical,
}

/// Adaptive concurrency towards a cluster, for each core.
#[derive(Clone, Debug, PartialEq)]
pub struct Adaptive {
    /// Requests in flight that are let in at first.
    pub initial: u32,
    /// At least.
    pub min: u32,
    /// At most.
    pub max: u32,
    /// How much slower than the baseline answers may be before less is let in; 0.5 is half as slow again.
    pub tolerance: f64,
    /// The baseline is measured anew when it has not been seen for so long.
    pub window: Duration,
}

impl Default for Adaptive {
    fn default() -> Adaptive {
        // Envoy re-measures every 60 s and Netflix starts at 20.
        Adaptive { initial: 20, min: 3, max: 1000, tolerance: 0.5, window: Duration::from_secs(30) }
    }
}
