//! Smooth weighted round-robin, as nginx does it: each pick adds every weight to its current value, takes the
//! largest and lowers it by the sum, so that heavy endpoints are spread out instead of bunched.

use super::is_candidate;
use crate::snapshot::EndpointSet;

/// Where the turn is.
pub struct State {
    current: Vec<i64>,
    /// This core's share of a round, in 1/65536.
    offset: usize,
    next: usize,
}

impl State {
    pub(super) fn new(core: usize, cores: usize) -> State {
        State { current: Vec::new(), offset: (core << 16) / cores.max(1), next: usize::MAX }
    }
}

pub(super) fn pick(state: &mut State, set: &EndpointSet, avoid: &[usize]) -> Option<usize> {
    let count = set.endpoints.len();
    if count == 0 {
        return None;
    }
    if state.next == usize::MAX {
        state.next = (state.offset * count) >> 16;
    }
    let weight = set.endpoints[0].weight;
    if set.endpoints.iter().all(|endpoint| endpoint.weight == weight) {
        return even(state, set, avoid);
    }
    weighted(state, set, avoid)
}

fn even(state: &mut State, set: &EndpointSet, avoid: &[usize]) -> Option<usize> {
    let count = set.endpoints.len();
    let start = state.next % count;
    let found = (0..count).map(|step| (start + step) % count).find(|index| is_candidate(set, *index, avoid))?;
    state.next = found + 1;
    Some(found)
}

fn weighted(state: &mut State, set: &EndpointSet, avoid: &[usize]) -> Option<usize> {
    let count = set.endpoints.len();
    state.current.resize(count, 0);
    let mut total = 0;
    let mut best: Option<usize> = None;
    for step in 0..count {
        let index = (state.next + step) % count;
        if !is_candidate(set, index, avoid) {
            continue;
        }
        let weight = i64::from(set.endpoints[index].weight);
        total += weight;
        state.current[index] += weight;
        if best.is_none_or(|best| state.current[index] > state.current[best]) {
            best = Some(index);
        }
    }
    let best = best?;
    state.current[best] -= total;
    Some(best)
}
