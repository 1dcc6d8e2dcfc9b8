//! Smooth weighted round-robin, as nginx does it: each pick adds every weight to its current value, takes the
//! largest and lowers it by the sum, so that heavy endpoints are spread out instead of bunched.

use super::Choice;

/// Picks that a core is ahead of the first one at most: rounds of very large weights are not walked through.
const MAX_AHEAD: usize = 1024;

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

pub(super) fn pick(state: &mut State, choice: &Choice<'_>) -> Option<usize> {
    let count = choice.members.len();
    if count == 0 {
        return None;
    }
    if choice.sums.is_empty() {
        return even(state, choice);
    }
    if state.current.is_empty() {
        // Each core begins at its share of the round: otherwise the first requests of all cores go to the heaviest.
        let round = choice.sums.last().map_or(0, |sum| usize::try_from(*sum).unwrap_or(MAX_AHEAD)).min(MAX_AHEAD);
        for _ in 0..(state.offset * round) >> 16 {
            weighted(state, choice);
        }
    }
    weighted(state, choice)
}

fn even(state: &mut State, choice: &Choice<'_>) -> Option<usize> {
    let count = choice.members.len();
    if state.next == usize::MAX {
        state.next = (state.offset * count) >> 16;
    }
    let start = state.next % count;
    let at =
        (0..count).map(|step| (start + step) % count).find(|at| choice.is_candidate(choice.members[*at] as usize))?;
    state.next = at + 1;
    Some(choice.members[at] as usize)
}

fn weighted(state: &mut State, choice: &Choice<'_>) -> Option<usize> {
    state.current.resize(choice.set.endpoints.len(), 0);
    let mut total = 0;
    let mut best: Option<usize> = None;
    for index in choice.indices() {
        if !choice.is_candidate(index) {
            continue;
        }
        let weight = i64::from(choice.weight(index));
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
