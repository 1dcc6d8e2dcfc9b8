//! What a route does about failures, compiled: pure rules over states that the cores own, so that a simulation runs the
//! same code. A route that only has the defaults has none of this, and its requests pay a branch.

pub mod budget;
mod calls;
mod check;
mod quantile;
mod retry;
#[cfg(test)]
mod simulation;

use std::time::Duration;

pub use budget::{Budget, Floor, Floors, Load};
pub use calls::NAMES as CALLS;
pub(crate) use check::check;
pub use quantile::Quantile;
pub use retry::{Happened, Retry, Verdict};

use crate::compile::References;
use crate::model::{self, Disturbance};
use crate::route::{Field, Scratch};
use crate::snapshot::ClusterRef;

/// Compiled.
#[derive(Debug)]
pub struct Resilience {
    /// Retries.
    pub retry: Retry,
    /// Hedges.
    pub hedge: Option<Hedge>,
    /// Copies.
    pub mirror: Option<Mirror>,
    /// Disturbances.
    pub injections: Vec<Injection>,
}

/// When a second try is sent beside the first.
#[derive(Clone, Debug, PartialEq)]
pub struct Hedge {
    /// After this long, at least until the quantile is known.
    pub after: Option<Duration>,
    /// The share of answers within whose time none is sent.
    pub quantile: Option<f64>,
    /// In percent of the requests.
    pub percent: u32,
}

impl Hedge {
    /// How long the first try is left alone, given what was observed; `None`: for ever, as long as nothing is known.
    pub fn wait(&self, observed: Option<u64>) -> Option<u64> {
        let fixed = self.after.map(|after| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
        if self.quantile.is_some() { observed.or(fixed) } else { fixed }
    }
}

/// A copy of some requests.
#[derive(Debug)]
pub struct Mirror {
    /// The cluster that gets it.
    pub cluster: ClusterRef,
    /// How many of a million requests.
    pub per_million: u32,
    /// The copy's host ends with `-shadow`.
    pub shadow_host: bool,
    /// Copies under way on each core.
    pub max_in_flight: u32,
    /// Bytes of a body.
    pub max_body: usize,
}

/// A disturbance, and whom it meets.
#[derive(Debug)]
pub struct Injection {
    /// What.
    pub what: Disturbance,
    per_million: u32,
    headers: Vec<Field>,
}

/// Whether a random number is among so many of a million.
pub fn meets(per_million: u32, random: u64) -> bool {
    // The high bits are the better ones.
    ((u128::from(random) * 1_000_000) >> 64) < u128::from(per_million)
}

impl Injection {
    /// Whether it meets a request with these fields, by a random number.
    pub fn meets<'a>(
        &self,
        random: u64,
        header: impl Fn(&str) -> Option<std::borrow::Cow<'a, [u8]>>,
        scratch: &mut Scratch,
    ) -> bool {
        meets(self.per_million, random)
            && self.headers.iter().all(|field| field.test.holds(header(&field.name).as_deref(), scratch))
    }
}

fn per_million(percent: f64) -> u32 {
    (percent * 10_000.0).round() as u32
}

impl Resilience {
    /// Compiles what goes beyond the defaults; checked before.
    pub(crate) fn new(wanted: &model::Resilience, ids: &References<'_>) -> Option<Box<Resilience>> {
        let plain = wanted.retry == model::Retry::default() || wanted.retry.attempts == 0;
        let limits_a_try = wanted.retry.per_try_timeout.is_some();
        if plain && !limits_a_try && wanted.hedge.is_none() && wanted.mirror.is_none() && wanted.injections.is_empty() {
            return None;
        }
        Some(Box::new(Resilience {
            retry: Retry::new(&wanted.retry),
            hedge: wanted.hedge.as_ref().map(|hedge| Hedge {
                after: hedge.after,
                quantile: hedge.quantile,
                percent: hedge.budget,
            }),
            mirror: wanted.mirror.as_ref().map(|mirror| Mirror {
                cluster: ids.to(&mirror.cluster),
                per_million: per_million(mirror.percent),
                shadow_host: mirror.shadow_host,
                max_in_flight: mirror.max_in_flight,
                max_body: mirror.max_body as usize,
            }),
            injections: wanted
                .injections
                .iter()
                .map(|injection| Injection {
                    what: injection.what,
                    per_million: per_million(injection.percent),
                    headers: Field::headers(&injection.headers).unwrap_or_default(),
                })
                .collect(),
        }))
    }

    /// Bytes of a request body that are kept: enough for retries and copies.
    pub fn kept_body(&self) -> usize {
        self.retry.max_body.max(self.mirror.as_ref().map_or(0, |mirror| mirror.max_body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_compile_to_nothing() {
        let model = model::Model::default();
        let ids = References::new(&model);
        assert!(Resilience::new(&model::Resilience::default(), &ids).is_none());
        let off = model::Retry { attempts: 0, ..model::Retry::default() };
        assert!(Resilience::new(&model::Resilience { retry: off, ..Default::default() }, &ids).is_none());
        let more = model::Retry { attempts: 3, ..model::Retry::default() };
        assert!(Resilience::new(&model::Resilience { retry: more, ..Default::default() }, &ids).is_some());
    }

    #[test]
    fn shares_are_kept() {
        for (percent, wanted) in [(0.0, 0), (0.1, 100), (25.0, 25_000), (100.0, 100_000)] {
            let mut seed = 7u64;
            let met = (0..100_000)
                .filter(|_| {
                    seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    meets(per_million(percent), mixed ^ (mixed >> 27))
                })
                .count();
            assert!(met.abs_diff(wanted) <= wanted / 50 + 20, "{percent} %: {met}");
        }
    }

    #[test]
    fn a_hedge_waits_for_the_quantile_or_a_fixed_time() {
        let hedge = |after, quantile| Hedge { after, quantile, percent: 10 };
        let fixed = Some(Duration::from_micros(50));
        assert_eq!(hedge(fixed, None).wait(Some(9)), Some(50_000));
        assert_eq!(hedge(fixed, Some(0.95)).wait(Some(9)), Some(9));
        assert_eq!(hedge(fixed, Some(0.95)).wait(None), Some(50_000));
        assert_eq!(hedge(None, Some(0.95)).wait(None), None);
    }
}
