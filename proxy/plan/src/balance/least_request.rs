//! The power of random choices: of a few endpoints chosen at random, the one that costs least. Nearly as even as looking
//! at all of them, and it does not herd. The cost is the requests in flight for the weight, or the expected latency. They
//! are drawn by weight and the first drawn wins a tie, so that idle endpoints get their shares as busy ones do.
//!
//! A core counts only its own requests in flight, so the more cores there are, the less two numbers tell apart: by
//! requests in flight three endpoints are looked at, by latency, which every core learns for itself, two.

use super::{Choice, random};

/// Endpoints looked at by requests in flight.
pub(super) const BY_LOAD: usize = 3;
/// Endpoints looked at by latency.
pub(super) const BY_LATENCY: usize = 2;

pub(super) fn pick(
    state: &mut random::State,
    choice: &Choice<'_>,
    looks: usize,
    cost: &dyn Fn(usize) -> f64,
) -> Option<usize> {
    let count = choice.members.len();
    if count == 0 {
        return None;
    }
    let random = state.next();
    let mut seen = [usize::MAX; BY_LOAD];
    let mut best: Option<(usize, f64)> = None;
    for look in 0..looks.min(count).min(BY_LOAD) {
        let mut at = match choice.sums {
            // Twenty bits each.
            [] => ((random >> (20 * look)) as usize % (1 << 20) * count) >> 20,
            sums => draw(state, sums, &seen[..look]),
        };
        // The next one that was not looked at yet instead of one that was.
        while seen[..look].contains(&at) {
            at = (at + 1) % count;
        }
        seen[look] = at;
        let index = choice.members[at] as usize;
        if choice.is_candidate(index) {
            let cost = cost(index);
            if best.is_none_or(|(_, least)| cost < least) {
                best = Some((index, cost));
            }
        }
    }
    // Bad luck, or few are left: look at all of them.
    best.map(|(index, _)| index).or_else(|| {
        let candidates = choice.indices().filter(|index| choice.is_candidate(*index));
        candidates.min_by(|one, other| cost(*one).total_cmp(&cost(*other)))
    })
}

/// A place by weight, one that was not seen yet if a few draws find one.
fn draw(state: &mut random::State, sums: &[u64], seen: &[usize]) -> usize {
    let total = sums.last().copied().unwrap_or(0);
    let mut once = || {
        let value = (u128::from(state.next()) * u128::from(total)) >> 64;
        sums.partition_point(|sum| u128::from(*sum) <= value).min(sums.len() - 1)
    };
    let first = once();
    if !seen.contains(&first) { first } else { (0..3).map(|_| once()).find(|at| !seen.contains(at)).unwrap_or(first) }
}
