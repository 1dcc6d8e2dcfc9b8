//! The age at which those who wait for a connection are refused. While the line empties now and then, everybody may
//! wait for the whole time-out. Once it has not been empty for an interval, there is more work than can be done:
//! waiting only makes it late. Then whoever has waited for longer than the target is refused, the oldest first, so that
//! those who are served are served in time (CoDel's judgement, RFC 8289, applied to a line of requests).

/// How long a line must stand before it is overload: CoDel's interval.
const INTERVAL_NS: u64 = 100_000_000;

/// A line's memory of when it was last empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    empty_at: u64,
}

impl Line {
    /// The line is empty at `now`, or somebody enters an empty one.
    pub fn emptied(&mut self, now: u64) {
        self.empty_at = now;
    }

    /// Whether the line stands.
    pub fn stands(&self, now: u64) -> bool {
        now.saturating_sub(self.empty_at) > INTERVAL_NS
    }

    /// Whether someone who has waited since `since` is refused.
    pub fn refuses(&self, since: u64, target_ns: u64, now: u64) -> bool {
        self.stands(now) && now.saturating_sub(since) > target_ns
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MS: u64 = 1_000_000;

    /// Requests that come every `every` for two seconds; one is served every 10 ms. Those served, and how long they
    /// waited in milliseconds, the longest of the second half.
    fn run(every: u64, target: Option<u64>) -> (usize, u64) {
        let (mut line, mut waiting) = (Line::default(), VecDeque::new());
        let (mut served, mut longest) = (0, 0);
        line.emptied(1);
        for now in 1..2000 {
            let now = now * MS;
            if now.is_multiple_of(every) {
                if waiting.is_empty() {
                    line.emptied(now);
                }
                waiting.push_back(now);
            }
            if let Some(target) = target {
                while waiting.front().is_some_and(|since| line.refuses(*since, target, now)) {
                    waiting.pop_front();
                }
            }
            if now.is_multiple_of(10 * MS)
                && let Some(since) = waiting.pop_front()
            {
                served += 1;
                if now > 1000 * MS {
                    longest = longest.max((now - since) / MS);
                }
            }
            if waiting.is_empty() {
                line.emptied(now);
            }
        }
        (served, longest)
    }

    #[test]
    fn under_overload_the_old_are_refused_and_the_served_are_in_time() {
        let (all, late) = run(5 * MS, None);
        let (served, in_time) = run(5 * MS, Some(20 * MS));
        // Twice as much as can be served: without the rule everybody waits for a second, with it nobody does, and as
        // many are served.
        assert!(late > 500, "{late} ms");
        assert!(in_time <= 20, "{in_time} ms");
        assert!(served + 5 >= all, "{served} of {all}");
    }

    #[test]
    fn a_line_that_empties_refuses_nobody() {
        assert_eq!(run(11 * MS, Some(MS)).0, run(11 * MS, None).0);
        let mut line = Line::default();
        line.emptied(1000 * MS);
        assert!(!line.refuses(1000 * MS, MS, 1090 * MS), "a short burst may wait");
        assert!(line.refuses(1000 * MS, MS, 1101 * MS));
        // A clock that jumps back refuses nobody.
        assert!(!line.refuses(1000 * MS, MS, 5));
    }
}
