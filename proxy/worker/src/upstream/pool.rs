//! Idle connections to one endpoint on one core, the most recently used first: the longer one has idled, the
//! likelier its upstream is about to close it.

use onehop_net::Stream;
use onehop_net::clock::Nanos;

/// A connection to an endpoint, for its life; boxed, so that handing it on moves a pointer.
pub struct Pooled {
    /// The connection; between two exchanges no read is posted on it.
    pub stream: Stream,
    /// When it was given back.
    pub since: Nanos,
    /// When it was connected.
    pub born: Nanos,
    /// Requests it has served.
    pub requests: u64,
}

/// A server that closes does so after its keep-alive time, not within this after an answer that kept the connection.
const JUST_USED_NS: u64 = 500_000;

/// The bounds of a pool, from the cluster's configuration.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Idle connections kept per endpoint and core.
    pub max_idle: usize,
    /// Nanoseconds one may idle.
    pub idle_ns: u64,
    /// Nanoseconds one may live.
    pub age_ns: u64,
    /// Requests one may serve.
    pub max_requests: u64,
}

/// The pool of one endpoint.
#[derive(Default)]
pub struct Pool {
    // Boxed for its users, who pass it on with every exchange.
    #[allow(clippy::vec_box, reason = "a lease hands the box on")]
    idle: Vec<Box<Pooled>>,
}

impl Pool {
    /// Takes the most recently used connection that is still good; the bad ones it meets are closed and counted.
    pub fn take(
        &mut self,
        now: Nanos,
        bounds: &Bounds,
        max_idle_ns: u64,
        repeatable: bool,
    ) -> (Option<Box<Pooled>>, u64) {
        let mut evicted = 0;
        while let Some(mut idle) = self.idle.pop() {
            if now.saturating_sub(idle.since) > max_idle_ns.min(bounds.idle_ns) {
                // Everything below it has idled longer still, but may serve a request that can be repeated.
                if max_idle_ns < bounds.idle_ns {
                    self.idle.push(idle);
                    return (None, evicted);
                }
                evicted += 1;
                continue;
            }
            // One whose close has reached this host is never handed out. The look costs a system call, so a request that
            // may be repeated trusts a connection that was given back within this very burst.
            let just_used = repeatable && now.saturating_sub(idle.since) < JUST_USED_NS;
            if just_used || idle.stream.is_quiet() {
                return (Some(idle), evicted);
            }
            evicted += 1;
        }
        (None, evicted)
    }

    /// Keeps a connection for the next exchange. False when it was closed instead.
    pub fn give_back(&mut self, idle: Box<Pooled>, bounds: &Bounds) -> bool {
        let spent = idle.requests >= bounds.max_requests || idle.since.saturating_sub(idle.born) >= bounds.age_ns;
        if spent || self.idle.len() >= bounds.max_idle {
            return false;
        }
        self.idle.push(idle);
        true
    }

    /// Closes what has idled or lived too long, or was closed by the upstream; returns how many.
    pub fn sweep(&mut self, now: Nanos, bounds: &Bounds) -> u64 {
        let before = self.idle.len();
        self.idle.retain_mut(|idle| {
            now.saturating_sub(idle.since) <= bounds.idle_ns
                && now.saturating_sub(idle.born) <= bounds.age_ns
                && idle.stream.is_quiet()
        });
        if self.idle.is_empty() {
            self.idle.shrink_to_fit();
        }
        (before - self.idle.len()) as u64
    }

    /// Idle connections.
    pub fn len(&self) -> usize {
        self.idle.len()
    }

    /// Whether none idles.
    pub fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }

    /// Closes the one that has idled longest, to make room for another endpoint's connection.
    pub fn drop_oldest(&mut self) -> bool {
        if self.idle.is_empty() {
            return false;
        }
        self.idle.remove(0);
        true
    }
}
