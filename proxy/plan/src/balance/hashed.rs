//! Choices by a value: a ketama ring with bounded loads, or a maglev table. Both are built once per endpoint set, off
//! the cores, and shared by all of them. Key of an endpoint and hash are Envoy's, and so are the defaults: XXH64 of
//! the address, at least 1024 points on a ring, 65537 places in a table.

use super::{Choice, hash_of};
use crate::model::BalanceKind;
use crate::snapshot::Endpoint;

/// Points of a ring at least, and at most.
const RING_POINTS: (f64, f64) = (1024.0, 8_388_608.0);
/// Places of a maglev table; a prime.
const MAGLEV_PLACES: usize = 65_537;
/// An endpoint takes at most this much of the average load before its requests go on along the ring (Mirrokni,
/// Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads).
const BOUND: f64 = 1.25;

/// A table of an endpoint set.
#[derive(Debug)]
pub enum HashTable {
    /// Points in order, each with its endpoint.
    Ring(Box<[(u64, u32)]>),
    /// Endpoints by place.
    Maglev(Box<[u32]>),
}

impl HashTable {
    /// Whether it is what a kind of balancing needs.
    pub fn serves(&self, kind: BalanceKind) -> bool {
        matches!(
            (self, kind),
            (HashTable::Ring(_), BalanceKind::RingHash) | (HashTable::Maglev(_), BalanceKind::Maglev)
        )
    }

    /// Builds the table that a kind of balancing needs.
    pub fn build<'a>(kind: BalanceKind, endpoints: impl Iterator<Item = &'a Endpoint>) -> Option<HashTable> {
        let mut weighted: Vec<(u32, String, f64)> = endpoints
            .enumerate()
            .filter(|(_, endpoint)| endpoint.weight > 0)
            .map(|(index, endpoint)| (index as u32, endpoint.address.to_string(), f64::from(endpoint.weight)))
            .collect();
        // By their keys, as Envoy does, so that every proxy has the same table whatever order it learned them in.
        weighted.sort_by(|one, other| one.1.cmp(&other.1));
        match kind {
            _ if weighted.is_empty() => None,
            BalanceKind::RingHash => Some(HashTable::Ring(ring(&weighted))),
            BalanceKind::Maglev => Some(HashTable::Maglev(maglev(&weighted))),
            _ => None,
        }
    }
}

fn ring(endpoints: &[(u32, String, f64)]) -> Box<[(u64, u32)]> {
    let total: f64 = endpoints.iter().map(|(_, _, weight)| weight).sum();
    let least = endpoints.iter().map(|(_, _, weight)| weight / total).fold(f64::MAX, f64::min);
    let scale = ((least * RING_POINTS.0).ceil() / least).min(RING_POINTS.1);
    let mut points = Vec::with_capacity(scale as usize);
    let (mut current, mut target) = (0.0, 0.0);
    for (index, key, weight) in endpoints {
        target += scale * weight / total;
        let mut replica = 0;
        while current < target {
            points.push((hash_of(format!("{key}_{replica}").as_bytes()), *index));
            replica += 1;
            current += 1.0;
        }
    }
    points.sort_unstable();
    points.into()
}

fn maglev(endpoints: &[(u32, String, f64)]) -> Box<[u32]> {
    let size = MAGLEV_PLACES as u64;
    let most = endpoints.iter().map(|(_, _, weight)| *weight).fold(0.0, f64::max);
    // Offset, step, how far, and the weight to be reached before the next turn.
    let mut entries: Vec<(u64, u64, u64, f64)> = endpoints
        .iter()
        .map(|(_, key, _)| {
            let skip = xxhash_rust::xxh64::xxh64(key.as_bytes(), 1) % (size - 1) + 1;
            (hash_of(key.as_bytes()) % size, skip, 0, 0.0)
        })
        .collect();
    let mut places = vec![u32::MAX; MAGLEV_PLACES];
    let mut filled = 0;
    for turn in 1.. {
        for (entry, (index, _, weight)) in entries.iter_mut().zip(endpoints) {
            if f64::from(turn) * weight / most < entry.3 {
                continue;
            }
            entry.3 += 1.0;
            loop {
                let place = ((entry.0 + entry.1 * entry.2) % size) as usize;
                entry.2 += 1;
                if places[place] == u32::MAX {
                    places[place] = *index;
                    break;
                }
            }
            filled += 1;
            if filled == MAGLEV_PLACES {
                return places.into();
            }
        }
    }
    places.into()
}

pub(super) fn pick(hash: u64, choice: &Choice<'_>, load: &dyn Fn(usize) -> u32) -> Option<usize> {
    // Without this, a cluster that is out would be looked for at every place of its table.
    choice.indices().find(|index| choice.is_candidate(*index))?;
    let is_member = |index: u32| choice.members.binary_search(&index).is_ok() && choice.is_candidate(index as usize);
    match choice.set.table.as_deref()? {
        HashTable::Maglev(places) => {
            let start = (hash % places.len() as u64) as usize;
            let place = |step: usize| places[(start + step) % places.len()];
            (0..places.len()).map(place).find(|index| is_member(*index)).map(|index| index as usize)
        }
        HashTable::Ring(points) => {
            let start = points.partition_point(|(point, _)| *point < hash);
            let place = |step: usize| points[(start + step) % points.len()].1;
            let (total, weights) = choice.indices().fold((0u64, 0u64), |(total, weights), index| {
                (total + u64::from(load(index)), weights + u64::from(choice.weight(index)))
            });
            let has_room = |index: u32| {
                let share = f64::from(choice.weight(index as usize)) / weights.max(1) as f64;
                f64::from(load(index as usize)) < ((total + 1) as f64 * share * BOUND).ceil()
            };
            let mut members = (0..points.len()).map(place).filter(|index| is_member(*index));
            let mut first = None;
            let found = members.find(|index| {
                first = first.or(Some(*index));
                has_room(*index)
            });
            found.or(first).map(|index| index as usize)
        }
    }
}
