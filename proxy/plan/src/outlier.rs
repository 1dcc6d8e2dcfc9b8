//! What is known of an endpoint's health, read and written by every core without a lock: passive ejection by what
//! requests experience, and the state that active checks and hands set. Pure over atomics; time is an argument.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

/// Drained by hand.
pub const DRAINED: u32 = 1;
/// Ejected for what requests experienced.
pub const EJECTED: u32 = 2;
/// Failed its active checks.
pub const UNHEALTHY: u32 = 4;

/// Ejects endpoints that fail; see the model's cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// So many 5xx answers in a row; failures count as such.
    pub consecutive_5xx: Option<u32>,
    /// So many 502, 503, 504 or failures in a row.
    pub consecutive_gateway: Option<u32>,
    /// So many failed connections in a row.
    pub consecutive_connect: Option<u32>,
    /// Below this share of successes over an interval.
    pub success_rate: Option<f64>,
    /// So many times as slow as the median of the others over an interval.
    pub latency_factor: Option<f64>,
    /// Requests in an interval for the two figures above to mean something.
    pub min_requests: u64,
    /// Their interval.
    pub interval: Duration,
    /// The first ejection; each further one doubles it.
    pub base: Duration,
    /// At most.
    pub longest: Duration,
    /// How many of a hundred endpoints may be ejected at once; one always may.
    pub max_percent: u32,
}

impl Outlier {
    /// How many of so many endpoints may be out at once: their share, but always one; an only endpoint has nobody to take
    /// its place.
    pub fn allowed(&self, endpoints: usize) -> usize {
        (endpoints * self.max_percent as usize / 100).max(1).min(endpoints.saturating_sub(1))
    }
}

/// What a request experienced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An answer below 500.
    Success,
    /// 500, 501, 505 and above.
    ServerError,
    /// 502, 503, 504, a reset, a timeout.
    GatewayError,
    /// No connection.
    ConnectFailure,
}

/// Why an endpoint was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in Outlier")]
pub enum Cause {
    Consecutive5xx = 1,
    ConsecutiveGateway,
    ConsecutiveConnect,
    SuccessRate,
    Latency,
}

impl Cause {
    const ALL: [Cause; 5] = [
        Cause::Consecutive5xx,
        Cause::ConsecutiveGateway,
        Cause::ConsecutiveConnect,
        Cause::SuccessRate,
        Cause::Latency,
    ];

    /// As `/clusters` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Consecutive5xx => "consecutive-5xx",
            Cause::ConsecutiveGateway => "consecutive-gateway-errors",
            Cause::ConsecutiveConnect => "consecutive-connect-failures",
            Cause::SuccessRate => "success-rate",
            Cause::Latency => "latency",
        }
    }
}

/// One endpoint's state, on a cache line of its own.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct Vitals {
    /// Health bits that every core reads; zero is healthy.
    pub health: AtomicU32,
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    connect_failures: AtomicU32,
    ejections: AtomicU32,
    cause: AtomicU32,
    ejected_until: AtomicU64,
    since: AtomicU64,
}

impl Vitals {
    /// When it began to serve, or came back, in nanoseconds of the monotonic clock; zero: with the cluster.
    pub fn since_ns(&self) -> u64 {
        self.since.load(Relaxed)
    }

    /// It begins to serve.
    pub fn begins(&self, now: u64) {
        self.since.store(now, Relaxed);
    }

    /// Why it was ejected last.
    pub fn cause(&self) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| *cause as u32 == self.cause.load(Relaxed))
    }

    /// How often it was ejected, lately.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Relaxed)
    }

    /// When it comes back.
    pub fn ejected_until_ns(&self) -> u64 {
        self.ejected_until.load(Relaxed)
    }

    /// Books an event; says whether the endpoint is to be ejected, and why. The counts in a row are over all cores.
    pub fn book(&self, policy: &Outlier, event: Event) -> Option<Cause> {
        let reset = |count: &AtomicU32| {
            // A load first: nothing is written while all is well.
            if count.load(Relaxed) != 0 {
                count.store(0, Relaxed);
            }
        };
        let reaches = |count: &AtomicU32, limit: Option<u32>| {
            let reached = count.fetch_add(1, Relaxed) + 1;
            limit.is_some_and(|limit| reached >= limit)
        };
        match event {
            Event::Success => {
                reset(&self.server_errors);
                reset(&self.gateway_errors);
                reset(&self.connect_failures);
                None
            }
            Event::ServerError => {
                reset(&self.gateway_errors);
                reset(&self.connect_failures);
                reaches(&self.server_errors, policy.consecutive_5xx).then_some(Cause::Consecutive5xx)
            }
            Event::GatewayError | Event::ConnectFailure => {
                let connect =
                    event == Event::ConnectFailure && reaches(&self.connect_failures, policy.consecutive_connect);
                let gateway = reaches(&self.gateway_errors, policy.consecutive_gateway);
                let server = reaches(&self.server_errors, policy.consecutive_5xx);
                match (connect, gateway, server) {
                    (true, _, _) => Some(Cause::ConsecutiveConnect),
                    (_, true, _) => Some(Cause::ConsecutiveGateway),
                    (_, _, true) => Some(Cause::Consecutive5xx),
                    _ => None,
                }
            }
        }
    }

    /// A connection was made: those that failed are in a row no longer. For TCP there is no other success; an answer's status
    /// says more, so of the other two counts only what was nothing but failed connections is forgotten.
    pub fn connected(&self) {
        let failed = self.connect_failures.load(Relaxed);
        if failed == 0 {
            return;
        }
        self.connect_failures.store(0, Relaxed);
        for count in [&self.gateway_errors, &self.server_errors] {
            // Another core may book meanwhile: then it stays.
            let _ = count.compare_exchange(failed, 0, Relaxed, Relaxed);
        }
    }

    /// Lets it in by hand, whether it was drained or ejected; what its checks find is theirs to say.
    pub fn restore(&self, now: u64) {
        if self.health.load(Relaxed) & (DRAINED | EJECTED) == 0 {
            return;
        }
        self.forget();
        self.begins(now);
        self.health.fetch_and(!(DRAINED | EJECTED), Relaxed);
    }

    fn forget(&self) {
        for count in [&self.server_errors, &self.gateway_errors, &self.connect_failures] {
            count.store(0, Relaxed);
        }
    }

    /// Whether it is ejected.
    pub fn is_ejected(&self) -> bool {
        self.health.load(Relaxed) & EJECTED != 0
    }

    /// Ejects it, however many others are out; `random` is the jitter, of which a tenth is added, so that endpoints do not
    /// come back together.
    pub(crate) fn eject(&self, policy: &Outlier, cause: Cause, now: u64, random: u64) -> bool {
        if self.health.fetch_or(EJECTED, Relaxed) & EJECTED != 0 {
            return false;
        }
        let times = self.ejections.fetch_add(1, Relaxed).min(20);
        let base = policy.base.saturating_mul(1 << times).min(policy.longest).as_nanos() as u64;
        let jitter = ((u128::from(random) * u128::from(base / 10)) >> 64) as u64;
        self.ejected_until.store(now.saturating_add(base).saturating_add(jitter), Relaxed);
        self.cause.store(cause as u32, Relaxed);
        true
    }

    /// Lets it come back when its time is over.
    pub fn review(&self, now: u64, interval: Duration) -> bool {
        if self.health.load(Relaxed) & EJECTED == 0 {
            // Without trouble for a while the next ejection is a short one again.
            let quiet = now.saturating_sub(self.ejected_until.load(Relaxed)) > interval.as_nanos() as u64 * 10;
            if quiet && self.ejections.load(Relaxed) > 0 {
                self.ejections.fetch_sub(1, Relaxed);
                self.ejected_until.store(now, Relaxed);
            }
            return false;
        }
        if now < self.ejected_until.load(Relaxed) {
            return false;
        }
        self.forget();
        self.begins(now);
        self.health.fetch_and(!EJECTED, Relaxed);
        true
    }
}

/// Ejects the endpoints of one cluster, one at a time, so that cores that find several bad at once do not together pass the
/// share that may be out. It is the cluster's in all of its versions.
#[derive(Debug, Default)]
pub struct Ejector(AtomicBool);

/// How often a core looks whether another one has done: what is in between are a few loads per endpoint.
const MAX_LOOKS: usize = 256;

impl Ejector {
    /// Ejects an endpoint if not too many of all of the cluster's are out. A core that finds another one at it for too long
    /// leaves it at that: the next failure, which is as much one too many, comes back to it.
    pub fn eject<'a>(
        &self,
        policy: &Outlier,
        all: impl ExactSizeIterator<Item = &'a Vitals>,
        (bad, cause): (&Vitals, Cause),
        now: u64,
        random: u64,
    ) -> bool {
        if bad.is_ejected() || !self.enter() {
            return false;
        }
        let allowed = policy.allowed(all.len());
        let has_room = all.filter(|vitals| vitals.is_ejected()).count() < allowed;
        let is_new = has_room && bad.eject(policy, cause, now, random);
        self.0.store(false, Release);
        is_new
    }

    fn enter(&self) -> bool {
        (0..MAX_LOOKS).any(|_| {
            let is_free = self.0.compare_exchange(false, true, Acquire, Relaxed).is_ok();
            if !is_free {
                std::hint::spin_loop();
            }
            is_free
        })
    }
}

/// What an endpoint did in one interval.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    /// Requests.
    pub requests: u64,
    /// Of them failed, or answered with 5xx.
    pub failures: u64,
    /// Time to the response's head, summed.
    pub latency_ns: u64,
}

/// The endpoints that stand out over an interval.
pub fn stand_out(policy: &Outlier, windows: &[Window]) -> Vec<(usize, Cause)> {
    let judged = |window: &Window| window.requests >= policy.min_requests.max(1);
    let mean = |window: &Window| window.latency_ns as f64 / window.requests as f64;
    let mut found = Vec::new();
    for (index, window) in windows.iter().enumerate().filter(|(_, window)| judged(window)) {
        let success = 1.0 - window.failures as f64 / window.requests as f64;
        if policy.success_rate.is_some_and(|least| success < least) {
            found.push((index, Cause::SuccessRate));
            continue;
        }
        let Some(factor) = policy.latency_factor else { continue };
        let mut peers: Vec<f64> = windows
            .iter()
            .enumerate()
            .filter(|(at, peer)| *at != index && judged(peer))
            .map(|(_, peer)| mean(peer))
            .collect();
        peers.sort_by(f64::total_cmp);
        // Two peers are the least that a comparison can rest on.
        if peers.len() >= 2 && mean(window) > peers[peers.len() / 2] * factor {
            found.push((index, Cause::Latency));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Outlier {
        Outlier {
            consecutive_5xx: Some(5),
            consecutive_gateway: Some(3),
            consecutive_connect: Some(2),
            success_rate: Some(0.8),
            latency_factor: Some(5.0),
            min_requests: 10,
            interval: Duration::from_secs(10),
            base: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            max_percent: 10,
        }
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let book = |events: &[Event]| {
            let vitals = Vitals::default();
            events.iter().map(|event| vitals.book(&policy(), *event)).last().flatten()
        };
        use Event::*;
        assert_eq!(book(&[ServerError; 4]), None);
        assert_eq!(book(&[ServerError; 5]), Some(Cause::Consecutive5xx));
        assert_eq!(book(&[ServerError, ServerError, ServerError, ServerError, Success, ServerError]), None);
        assert_eq!(book(&[GatewayError; 3]), Some(Cause::ConsecutiveGateway));
        assert_eq!(book(&[GatewayError, GatewayError, ServerError, GatewayError]), None);
        assert_eq!(book(&[ConnectFailure; 2]), Some(Cause::ConsecutiveConnect));
    }

    #[test]
    fn a_connection_ends_the_row_of_those_that_failed() {
        let vitals = Vitals::default();
        let book = |event| vitals.book(&policy(), event);
        for _ in 0..20 {
            assert_eq!(book(Event::ConnectFailure), None);
            vitals.connected();
        }
        // What connects and then fails goes on failing.
        assert_eq!(book(Event::GatewayError), None);
        vitals.connected();
        assert_eq!(book(Event::ConnectFailure), None);
        vitals.connected();
        assert_eq!(book(Event::GatewayError), Some(Cause::ConsecutiveGateway));
    }

    #[test]
    fn who_is_let_in_by_hand_begins_anew() {
        let vitals = Vitals::default();
        assert!(vitals.book(&policy(), Event::ConnectFailure).is_none());
        assert!(vitals.book(&policy(), Event::ConnectFailure).is_some());
        assert!(vitals.eject(&policy(), Cause::ConsecutiveConnect, 5, 0));
        vitals.health.fetch_or(DRAINED | UNHEALTHY, Relaxed);
        vitals.restore(7);
        assert_eq!((vitals.health.load(Relaxed), vitals.since_ns()), (UNHEALTHY, 7));
        assert!(vitals.book(&policy(), Event::ConnectFailure).is_none(), "what it did before is forgotten");
        vitals.restore(9);
        assert_eq!(vitals.since_ns(), 7, "nothing was to be restored");
    }

    #[test]
    fn ejections_back_off_and_end() {
        let vitals = Vitals::default();
        let second = 1_000_000_000;
        let mut now = 1000 * second;
        let mut lasted = Vec::new();
        for _ in 0..6 {
            assert!(vitals.eject(&policy(), Cause::Latency, now, u64::MAX / 2));
            assert!(!vitals.eject(&policy(), Cause::Latency, now, 0), "once is enough");
            let begun = now;
            while !vitals.review(now, policy().interval) {
                now += second;
            }
            lasted.push((now - begun) / second);
        }
        assert_eq!(lasted, [32, 63, 126, 252, 315, 315]);
        assert_eq!(vitals.health.load(Relaxed), 0);
        // A clock that jumps back neither ejects nor frees anything.
        assert!(vitals.eject(&policy(), Cause::Latency, now, 0));
        assert!(!vitals.review(5, policy().interval));
    }

    #[test]
    fn the_share_that_may_be_out_is_bounded_both_ways() {
        let allowed = |percent, endpoints| Outlier { max_percent: percent, ..policy() }.allowed(endpoints);
        assert_eq!([allowed(10, 30), allowed(10, 2), allowed(100, 4), allowed(0, 4)], [3, 1, 3, 1]);
        // A name may resolve into nothing while requests are under way.
        assert_eq!([allowed(50, 1), allowed(50, 0)], [0, 0]);
    }

    /// Another core finds another endpoint bad at the worst moment: when this one has counted those that are out, and has
    /// not yet added its own.
    #[test]
    fn two_cores_do_not_pass_the_share_together() {
        let (ejector, all) = (Ejector::default(), [Vitals::default(), Vitals::default(), Vitals::default()]);
        let eject = |bad: &Vitals| ejector.eject(&policy(), all.iter(), (bad, Cause::Latency), 1, 0);
        let (mut looked_at, mut other_did) = (0, None);
        let counted = all.iter().inspect(|_| {
            looked_at += 1;
            if looked_at == all.len() {
                other_did = Some(eject(&all[1]));
            }
        });
        assert!(ejector.eject(&policy(), counted, (&all[0], Cause::Latency), 1, 0));
        assert_eq!(other_did, Some(false));
        assert!(!eject(&all[1]), "one of three is out");
        assert!(all[0].review(u64::MAX, policy().interval) && eject(&all[1]), "the place is free again");
    }

    #[test]
    fn sixteen_cores_do_not_pass_the_share_together() {
        let policy = Outlier { max_percent: 25, consecutive_5xx: Some(1), ..policy() };
        for _ in 0..50 {
            let (ejector, start) = (Ejector::default(), std::sync::Barrier::new(16));
            let all: [Vitals; 32] = std::array::from_fn(|_| Vitals::default());
            let core = |core: usize| {
                start.wait();
                for at in (0..all.len()).map(|at| (at * 7 + core * 2) % all.len()) {
                    if let Some(cause) = all[at].book(&policy, Event::ServerError) {
                        ejector.eject(&policy, all.iter(), (&all[at], cause), 1, 0);
                    }
                    assert!(all.iter().filter(|vitals| vitals.is_ejected()).count() <= 8);
                }
            };
            std::thread::scope(|scope| (0..16).for_each(|at| drop(scope.spawn(move || core(at)))));
            // Whoever was left out for another core's sake is out at its next failure.
            core_alone(&policy, &ejector, &all);
            assert_eq!(all.iter().filter(|vitals| vitals.is_ejected()).count(), 8);
        }
    }

    fn core_alone(policy: &Outlier, ejector: &Ejector, all: &[Vitals]) {
        for vitals in all {
            if let Some(cause) = vitals.book(policy, Event::ServerError) {
                ejector.eject(policy, all.iter(), (vitals, cause), 1, 0);
            }
        }
    }

    #[test]
    fn who_stands_out_is_found() {
        let window = |requests, failures, ms: u64| Window { requests, failures, latency_ns: requests * ms * 1_000_000 };
        let windows =
            [window(100, 1, 10), window(100, 50, 10), window(100, 0, 12), window(100, 0, 100), window(5, 5, 900)];
        assert_eq!(stand_out(&policy(), &windows), [(1, Cause::SuccessRate), (3, Cause::Latency)]);
    }
}
