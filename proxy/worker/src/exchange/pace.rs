//! When the time of a body's two ends begins anew: the giver's with all that moves, the receiver's with what is more than
//! next to nothing, since each byte that it takes once a minute would else hold all that an exchange holds.

use std::time::Duration;

use onehop_net::deadline::least_taken;

/// Who is waited for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Waits {
    #[default]
    Nobody,
    Giver,
    Receiver,
}

/// See the module.
#[derive(Default)]
pub struct Pace {
    waits: Waits,
    /// Bytes that had moved when its time began.
    mark: u64,
}

impl Pace {
    /// The giver is waited for, and so much has moved in all: whether its time begins anew.
    pub fn giver(&mut self, moved: u64) -> bool {
        let anew = self.waits != Waits::Giver || self.mark != moved;
        (self.waits, self.mark) = (Waits::Giver, moved);
        anew
    }

    /// The receiver is waited for, which has taken so much in all and has `span` for what is next: whether its time begins
    /// anew.
    pub fn receiver(&mut self, taken: u64, span: Duration) -> bool {
        let anew = self.waits != Waits::Receiver || taken.saturating_sub(self.mark) >= least_taken(span);
        if anew {
            (self.waits, self.mark) = (Waits::Receiver, taken);
        }
        anew
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_has_to_take_something() {
        let span = Duration::from_secs(10);
        let mut pace = Pace::default();
        assert!(pace.receiver(5, span), "from the beginning");
        for taken in [5, 6, 1204] {
            assert!(!pace.receiver(taken, span), "{taken}: next to nothing");
        }
        assert!(pace.receiver(1205, span) && !pace.receiver(1206, span));
        // Whoever was waited for before: the other's time begins now.
        assert!(pace.giver(1206) && !pace.giver(1206) && pace.giver(1207));
        assert!(pace.receiver(1207, span));
    }
}
