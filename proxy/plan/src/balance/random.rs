//! By chance, in proportion to the weights.

use super::Choice;

/// A small generator (splitmix64), seeded per core and cluster.
pub struct State {
    seed: u64,
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        State { seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

pub(super) fn pick(state: &mut State, choice: &Choice<'_>) -> Option<usize> {
    let candidates = || choice.indices().filter(|index| choice.is_candidate(*index));
    let total: u64 = candidates().map(|index| u64::from(choice.weight(index))).sum();
    if total == 0 {
        return None;
    }
    let mut at = state.next() % total;
    candidates().find(|index| {
        let weight = u64::from(choice.weight(*index));
        let found = at < weight;
        at = at.wrapping_sub(weight);
        found
    })
}
