//! The power of two choices: of two endpoints chosen at random, the one that costs less. Nearly as even as looking at
//! all of them, and it does not herd. The cost is the requests in flight for the weight, or the expected latency.

use super::{Choice, random};

pub(super) fn pick(state: &mut random::State, choice: &Choice<'_>, cost: &dyn Fn(usize) -> f64) -> Option<usize> {
    let count = choice.members.len() as u64;
    if count == 0 {
        return None;
    }
    let random = state.next();
    let first = (random % count) as usize;
    let second = ((random >> 32) % count) as usize;
    let second = if second == first { (second + 1) % count as usize } else { second };
    let (first, second) = (choice.members[first] as usize, choice.members[second] as usize);
    match (choice.is_candidate(first), choice.is_candidate(second)) {
        (true, true) => Some(if cost(second) < cost(first) { second } else { first }),
        (true, false) => Some(first),
        (false, true) => Some(second),
        // Bad luck, or few are left: look at all of them.
        (false, false) => {
            let candidates = choice.indices().filter(|index| choice.is_candidate(*index));
            candidates.min_by(|one, other| cost(*one).total_cmp(&cost(*other)))
        }
    }
}
