//! Smooth weighted round-robin, as nginx does it: each pick adds every weight to its current value, takes the
//! largest and lowers it by the sum, so that heavy endpoints are spread out instead of bunched.

use super::Choice;

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
    if state.next == usize::MAX {
        state.next = (state.offset * count) >> 16;
    }
    let weight = choice.weight(choice.members[0] as usize);
    if choice.indices().all(|index| choice.weight(index) == weight) {
        return even(state, choice);
    }
    weighted(state, choice)
}

fn even(state: &mut State, choice: &Choice<'_>) -> Option<usize> {
    let count = choice.members.len();
    let start = state.next % count;
    let at =
        (0..count).map(|step| (start + step) % count).find(|at| choice.is_candidate(choice.members[*at] as usize))?;
    state.next = at + 1;
    Some(choice.members[at] as usize)
}

fn weighted(state: &mut State, choice: &Choice<'_>) -> Option<usize> {
    let count = choice.members.len();
    state.current.resize(choice.set.endpoints.len(), 0);
    let mut total = 0;
    let mut best: Option<usize> = None;
    for step in 0..count {
        let index = choice.members[(state.next + step) % count] as usize;
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
