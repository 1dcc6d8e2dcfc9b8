//! Patterns by hash in one flat array: a slot fills a cache line and holds the whole key of most patterns, so that a
//! look-up among a hundred thousand routes touches a line for the host and one for each shape of path that the host
//! has. Hashes are seeded in each process: nobody outside can make keys collide.

use ahash::RandomState;

/// Bytes of a key that fit its slot; the rest of a longer one stands in the arena.
const INLINE: usize = 44;
/// Slots per entry, in tenths.
const SPACE: usize = 16;

/// What a slot leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// A host's number, or the first of a pattern's rules.
    pub first: u32,
    /// How many rules, or the host's set of shapes.
    pub count: u32,
}

#[repr(align(64))]
#[derive(Clone)]
struct Slot {
    tag: u32,
    space: u32,
    value: Value,
    /// Length of the key; zero and `used` unset: the slot is free.
    len: u16,
    used: bool,
    bytes: [u8; INLINE],
}

const FREE: Slot =
    Slot { tag: 0, space: 0, value: Value { first: 0, count: 0 }, len: 0, used: false, bytes: [0; INLINE] };

/// The array. Keys live in numbered spaces: hosts, wildcards, and one per host and shape of path.
#[derive(Default)]
pub struct FlatTable {
    slots: Vec<Slot>,
    arena: Vec<u8>,
    pub hashes: Hashes,
}

/// The process's hash function.
pub struct Hashes(RandomState);

impl Default for Hashes {
    fn default() -> Hashes {
        Hashes(RandomState::new())
    }
}

/// Folds a part's hash into the hash of the parts before it.
#[inline]
pub fn fold(hash: u64, part: u64) -> u64 {
    let product = u128::from(hash.rotate_left(23) ^ part) * 0x9e37_79b9_7f4a_7c15;
    (product as u64) ^ ((product >> 64) as u64)
}

impl Hashes {
    /// The hash of some bytes.
    #[inline]
    pub fn of(&self, bytes: &[u8]) -> u64 {
        self.0.hash_one(bytes)
    }
}

impl FlatTable {
    /// For so many entries.
    pub fn with_capacity(entries: usize) -> FlatTable {
        let slots = (entries * SPACE / 10 + 8).next_multiple_of(8);
        FlatTable { slots: vec![FREE; slots], arena: Vec::new(), hashes: Hashes::default() }
    }

    #[inline]
    fn start(&self, hash: u64) -> usize {
        // The upper half of the product spreads over any size (Lemire's reduction).
        ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize
    }

    fn mix(space: u32, hash: u64) -> u64 {
        fold(hash, u64::from(space).wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// Enters a key that is not there yet; `hash` as the look-up will compute it.
    pub fn insert(&mut self, space: u32, hash: u64, key: &[u8], value: Value) {
        let hash = Self::mix(space, hash);
        let mut at = self.start(hash);
        while self.slots[at].used {
            at = (at + 1) % self.slots.len();
        }
        let mut slot = Slot { tag: hash as u32, space, value, len: key.len() as u16, used: true, ..FREE };
        if key.len() <= INLINE {
            slot.bytes[..key.len()].copy_from_slice(key);
        } else {
            let start = self.arena.len() as u32;
            slot.bytes[..4].copy_from_slice(&start.to_le_bytes());
            self.arena.extend_from_slice(key);
        }
        self.slots[at] = slot;
    }

    /// Looks a key up. `is_key` compares the stored bytes, which need not lie together in the request.
    #[inline]
    pub fn find(&self, space: u32, hash: u64, is_key: impl Fn(&[u8]) -> bool) -> Option<Value> {
        if self.slots.is_empty() {
            return None;
        }
        let hash = Self::mix(space, hash);
        let mut at = self.start(hash);
        loop {
            let slot = &self.slots[at];
            if !slot.used {
                return None;
            }
            if slot.tag == hash as u32 && slot.space == space && is_key(self.key(slot)) {
                return Some(slot.value);
            }
            at += 1;
            if at == self.slots.len() {
                at = 0;
            }
        }
    }

    fn key<'a>(&'a self, slot: &'a Slot) -> &'a [u8] {
        let len = usize::from(slot.len);
        if len <= INLINE {
            return &slot.bytes[..len];
        }
        let start = u32::from_le_bytes([slot.bytes[0], slot.bytes[1], slot.bytes[2], slot.bytes[3]]) as usize;
        &self.arena[start..start + len]
    }

    /// Bytes that it occupies.
    pub fn size(&self) -> usize {
        self.slots.len() * size_of::<Slot>() + self.arena.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_entered_is_found_and_nothing_else() {
        assert_eq!(size_of::<Slot>(), 64);
        let keys: Vec<String> = (0..5000).map(|at| format!("{}/{at}", "x".repeat(at % 90))).collect();
        let mut table = FlatTable::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            let hash = table.hashes.of(key.as_bytes());
            table.insert(at as u32 % 7, hash, key.as_bytes(), Value { first: at as u32, count: 1 });
        }
        for (at, key) in keys.iter().enumerate() {
            let find =
                |space: u32| table.find(space, table.hashes.of(key.as_bytes()), |stored| stored == key.as_bytes());
            assert_eq!(find(at as u32 % 7), Some(Value { first: at as u32, count: 1 }));
            assert_eq!(find(9), None);
        }
        assert_eq!(FlatTable::default().find(0, 1, |_| true), None);
    }
}
