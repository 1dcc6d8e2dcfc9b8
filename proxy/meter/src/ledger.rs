//! The hop ledger: at every instant an exchange is in exactly one of three states, so the parts sum to the total.

/// Who holds the exchange up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The proxy itself.
    Hop,
    /// The client: it is to send or to take bytes.
    ClientWait,
    /// The upstream: it is to connect, to send or to take bytes.
    UpstreamWait,
}

/// Moments that are stamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The first bytes of the request were readable.
    Readable,
    /// Its head was complete.
    HeadComplete,
    /// The route was chosen.
    Routed,
    /// A connection was leased (reused, or made).
    Leased,
    /// The request was written, or its head with a body still to follow.
    RequestWritten,
    /// The first byte of the response was here.
    FirstByte,
    /// The response was written.
    ResponseWritten,
}

/// How many steps there are.
pub const STEPS: usize = 7;

/// One exchange's times, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Ledger {
    begun: u64,
    since: u64,
    state: State,
    spent: [u64; 3],
    marks: [u64; STEPS],
    latest: u64,
}

/// What an exchange took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// From the first byte to the last.
    pub total_ns: u64,
    /// While the proxy held it.
    pub hop_ns: u64,
    /// While the client was waited for.
    pub client_wait_ns: u64,
    /// While the upstream was waited for.
    pub upstream_wait_ns: u64,
}

impl Ledger {
    /// Begins in the proxy's hands.
    pub fn new(now: u64) -> Ledger {
        let mut marks = [0; STEPS];
        marks[Step::Readable as usize] = now;
        Ledger { begun: now, since: now, state: State::Hop, spent: [0; 3], marks, latest: now }
    }

    /// Passes into another state.
    #[inline]
    pub fn enter(&mut self, state: State, now: u64) {
        let now = now.max(self.since);
        self.spent[self.state as usize] += now - self.since;
        self.since = now;
        self.state = state;
        self.latest = now;
    }

    /// Stamps a moment; of several (retries) the last one stays.
    #[inline]
    pub fn mark(&mut self, step: Step, now: u64) {
        self.marks[step as usize] = now;
        self.latest = now;
    }

    /// The last stamp: for what follows a step at once and does not need a clock read of its own.
    #[inline]
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// When a step was reached, counted from the beginning; `None` if it was not.
    pub fn at(&self, step: Step) -> Option<u64> {
        let mark = self.marks[step as usize];
        (mark != 0).then(|| mark.saturating_sub(self.begun))
    }

    /// The account up to now.
    pub fn finish(&self, now: u64) -> Account {
        let mut done = *self;
        done.enter(State::Hop, now);
        Account {
            total_ns: done.since - done.begun,
            hop_ns: done.spent[State::Hop as usize],
            client_wait_ns: done.spent[State::ClientWait as usize],
            upstream_wait_ns: done.spent[State::UpstreamWait as usize],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_sum_to_the_total_whatever_happens() {
        let mut seed = 1u64;
        for _ in 0..1000 {
            let mut now = 1_000;
            let mut ledger = Ledger::new(now);
            for _ in 0..20 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
                // The clock may stand still; it must not make time negative.
                now += (seed >> 40) % 1000;
                let state = [State::Hop, State::ClientWait, State::UpstreamWait][(seed >> 33) as usize % 3];
                ledger.enter(state, now);
            }
            let account = ledger.finish(now + 5);
            assert_eq!(account.total_ns, account.hop_ns + account.client_wait_ns + account.upstream_wait_ns);
            assert_eq!(account.total_ns, now + 5 - 1_000);
        }
    }
}
