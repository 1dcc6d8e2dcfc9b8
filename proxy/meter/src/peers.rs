//! Which identities a core has met at a listener or in a cluster: a bounded table with one writer, read by the scrape.

use std::sync::OnceLock;

use crate::core::Counter;

/// Identities that are told apart per core; further ones share one figure.
const SLOTS: usize = 64;

#[derive(Debug, Default)]
struct Slot {
    name: OnceLock<Box<str>>,
    count: Counter,
}

/// Connections by the peer's identity.
#[derive(Debug, Default)]
pub struct PeerMeters {
    slots: OnceLock<Box<[Slot]>>,
    others: Counter,
}

impl PeerMeters {
    /// Counts one connection. Only one thread may.
    pub fn add(&self, name: &str) {
        let slots = self.slots.get_or_init(|| (0..SLOTS).map(|_| Slot::default()).collect());
        for slot in slots {
            if &**slot.name.get_or_init(|| Box::from(name)) == name {
                slot.count.add(1);
                return;
            }
        }
        self.others.add(1);
    }

    /// Every identity met and its connections.
    pub fn each(&self) -> impl Iterator<Item = (&str, u64)> {
        let slots = self.slots.get().map(|slots| &**slots).unwrap_or_default();
        let named = slots.iter().map_while(|slot| Some((&**slot.name.get()?, slot.count.get())));
        named.chain((self.others.get() > 0).then(|| ("others", self.others.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded() {
        let peers = PeerMeters::default();
        for at in 0..SLOTS + 3 {
            peers.add(&format!("spiffe://td/{at}"));
        }
        peers.add("spiffe://td/0");
        let all: Vec<_> = peers.each().collect();
        assert_eq!((all.len(), all[0], all[SLOTS]), (SLOTS + 1, ("spiffe://td/0", 2), ("others", 3)));
    }
}
