//! The power of two choices: of two endpoints chosen at random, the one with fewer requests in flight for its
//! weight. Nearly as even as looking at all of them, and it does not herd.

use super::{is_candidate, random};
use crate::snapshot::EndpointSet;

pub(super) fn pick(
    state: &mut random::State,
    set: &EndpointSet,
    load: &dyn Fn(usize) -> u32,
    avoid: &[usize],
) -> Option<usize> {
    let count = set.endpoints.len() as u64;
    if count == 0 {
        return None;
    }
    let random = state.next();
    let first = (random % count) as usize;
    let second = ((random >> 32) % count) as usize;
    let second = if second == first { (second + 1) % count as usize } else { second };
    let cost = |index: usize| (u64::from(load(index)) + 1) * 1000 / u64::from(set.endpoints[index].weight.max(1));
    match (is_candidate(set, first, avoid), is_candidate(set, second, avoid)) {
        (true, true) => Some(if cost(second) < cost(first) { second } else { first }),
        (true, false) => Some(first),
        (false, true) => Some(second),
        // Bad luck, or few are left: look at all of them.
        (false, false) => {
            (0..count as usize).filter(|index| is_candidate(set, *index, avoid)).min_by_key(|index| cost(*index))
        }
    }
}
