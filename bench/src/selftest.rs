//! Tests of the instrument itself: what it must find is found, what is not there is not, and an instrument that is
//! broken on purpose is caught.

use std::fmt::Write;
use std::time::{Duration, Instant};

use onehop_load::generator::Generator;
use onehop_load::origin::{Behaviour, Service};
use onehop_load::outcome::Outcome;
use onehop_load::plan::{Loop, Plan};
use onehop_load::schedule::Arrivals;
use onehop_load::units::show;
use serde::{Deserialize, Serialize};

use crate::hop::Scenario;
use crate::hop::runner::{self, Life, Place};
use crate::hop::statistics::{Estimate, Place as Round, Sparse, bootstrap, draws, quantiles, sparse};
use crate::lateness;
use crate::peers::{self, Layer};

/// One test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    /// What is tested.
    pub name: String,
    /// What must come out.
    pub wanted: String,
    /// What came out.
    pub found: String,
    /// Whether that is well.
    pub passed: bool,
}

/// All of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SelfTest {
    /// In the order in which they ran.
    pub checks: Vec<Check>,
}

impl SelfTest {
    /// Whether all passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// Column heads and cells.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let mut rows: Vec<Vec<String>> = vec![["self-test", "wanted", "found", ""].map(str::to_owned).to_vec()];
        for check in &self.checks {
            let passed = if check.passed { "passed" } else { "FAILED" };
            rows.push(vec![check.name.clone(), check.wanted.clone(), check.found.clone(), passed.to_owned()]);
        }
        rows
    }

    /// As a table.
    pub fn markdown(&self) -> String {
        let mut text = "## Self-tests of the instrument\n\n".to_owned();
        for (at, row) in self.rows().iter().enumerate() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
            if at == 0 {
                text += "|---|---|---|---|\n";
            }
        }
        text + "\n"
    }
}

const SCENARIO: &str = "name = \"self-test\"\ntitle = \"self-test\"\nkind = \"gateway\"\nprotocol = \"http\"\nsize = \"128\"\n\
                        connections = 32\nrate = \"4000\"\nblock = \"600ms\"\n";
/// What the slowed origin takes longer.
const SLOWER: Duration = Duration::from_micros(50);
/// It is to be found within this part.
const SLOWER_WITHIN: f64 = 0.1;
/// How long the proxy is stopped.
const PAUSE: Duration = Duration::from_millis(100);
/// Differences below this part of the latency are none that anybody would act upon.
const NEGLIGIBLE: f64 = 0.03;
const ROUNDS: usize = 6;
/// How long all of them take, about.
pub const TAKES: Duration = Duration::from_secs(60);
/// How often the pairs of proxies are started anew. It is blocks that are needed, twelve of each at least: at these rates
/// most of a latency is what leaving a halt takes on a virtual machine, and that drifts from block to block (p50 of one
/// process over half a minute: 83, 94, 88 us; of its twin: 76, 90, 90 us). New pairs show that processes add nothing to it.
const LIVES: usize = 6;

struct Bench<'a> {
    scenario: Scenario,
    generator: Generator,
    fast: std::net::SocketAddr,
    slow: std::net::SocketAddr,
    say: &'a mut dyn FnMut(&str),
    result: SelfTest,
}

/// Runs them all.
///
/// # Errors
/// When they cannot be run.
pub fn run(place: &Place, say: &mut dyn FnMut(&str)) -> Result<SelfTest, String> {
    let scenario = Scenario::parse(SCENARIO)?;
    let slowed = Behaviour { service: Service::Fixed(SLOWER), ..Behaviour::default() };
    let (generator, origins) = runner::generator(&scenario, place, &[slowed])?;
    let mut bench = Bench { scenario, generator, fast: origins[0], slow: origins[1], say, result: SelfTest::default() };
    let peer = [peers::named("onehop")?, peers::named("raw-relay")?];
    let peer = peer.into_iter().find(|peer| peer.version(Layer::Http).is_ok());
    let peer = peer.ok_or("neither onehop nor raw-relay is built: cargo build --release --workspace")?;
    bench.floor(place.generator_cpu)?;
    bench.slower()?;
    let start = |origin, label: &str| runner::start(peer, &Scenario::parse(SCENARIO)?, origin, place, label);
    let (fast, slow) = (bench.fast, bench.slow);
    let mut alike = Vec::new();
    for _ in 0..LIVES {
        let (one, two) = (start(fast, "one")?, start(fast, "two")?);
        alike.push(bench.rounds(one.address, two.address, 2)?);
    }
    bench.alike(&alike);
    let one = start(fast, "one")?;
    bench.paused(&one, false)?;
    bench.paused(&one, true)?;
    let mut unlike = Vec::new();
    for _ in 0..LIVES {
        let (one, two) = (start(fast, "one")?, start(slow, "secretly-slowed")?);
        unlike.push(bench.rounds(one.address, two.address, 2)?);
    }
    bench.unlike(&unlike);
    Ok(bench.result)
}

/// Blocks of two addresses, by round.
type Pair = [Vec<Sparse>; 2];

/// The difference of quantiles, the second less the first, over lives and the rounds in them.
fn difference(lives: &[Pair], quantile: f64) -> Estimate {
    let rounds = |(restart, life): (usize, &Pair)| (0..life[0].len()).map(move |round| Round { restart, round });
    let places: Vec<Round> = lives.iter().enumerate().flat_map(rounds).collect();
    let at = |which: usize, places: &[Round]| {
        let blocks: Vec<&Sparse> = places.iter().map(|place| &lives[place.restart][which][place.round]).collect();
        quantiles(&blocks, &[quantile])[0]
    };
    bootstrap(&places, &draws(&places, 9), |places| at(1, places) - at(0, places))
}

/// The standard deviation of a quantile among blocks of one process, and what that of the pairs' differences says of the
/// same: were two processes of a program unlike, the second would be the larger one.
fn spreads(lives: &[Pair], quantile: f64) -> (f64, f64) {
    let at = |block: &Sparse| quantiles(&[block], &[quantile])[0];
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let (mut within, mut freedom, mut differences, mut rounds) = (0.0, 0.0, Vec::new(), 0.0);
    for life in lives {
        let means = [0, 1].map(|which| {
            let values: Vec<f64> = life[which].iter().map(at).collect();
            let middle = mean(&values);
            within += values.iter().map(|value| (value - middle).powi(2)).sum::<f64>();
            freedom += values.len().saturating_sub(1) as f64;
            rounds = values.len() as f64;
            middle
        });
        differences.push(means[1] - means[0]);
    }
    let middle = mean(&differences);
    let variance =
        differences.iter().map(|d| (d - middle).powi(2)).sum::<f64>() / (differences.len().max(2) - 1) as f64;
    // Of two means over so many blocks each.
    ((within / f64::max(freedom, 1.0)).sqrt(), (variance * rounds / 2.0).sqrt())
}

/// The first one's quantile.
fn size(lives: &[Pair], quantile: f64) -> f64 {
    quantiles(&lives.iter().flat_map(|life| &life[0]).collect::<Vec<_>>(), &[quantile])[0]
}

impl Bench<'_> {
    fn check(&mut self, name: &str, wanted: String, found: String, passed: bool) {
        (self.say)(&format!("{} {name}: {found} (wanted: {wanted})", if passed { "passed" } else { "FAILED" }));
        self.result.checks.push(Check { name: name.to_owned(), wanted, found, passed });
    }

    fn plan(&self, address: std::net::SocketAddr, rate: f64, seed: u64) -> Result<Plan, String> {
        runner::plan(&self.scenario, address, Loop::Open { rate, arrivals: Arrivals::Uniform }, seed)
    }

    /// The generator's own floor: its lateness at half of what it and its origin bear together, and its latency.
    fn floor(&mut self, cpu: usize) -> Result<(), String> {
        let mut closed = self.plan(self.fast, 1.0, 1)?;
        closed.pacing = Loop::Closed;
        let most = self.generator.run(closed.clone(), &mut |_, _| {})?.rate();
        let late = lateness::measure(&self.generator, &closed, cpu, most / 2.0)?;
        let two = |of: [u64; 4]| format!("p50 {}, p99 {}", show(of[0] as f64), show(of[2] as f64));
        let met = if late.is_met() { "the target is met" } else { "the target is MISSED" };
        self.check(
            "send lateness at half of the capacity",
            "p50 at most 2 us, p99 at most 20 us; passed up to that above what a bare loop on this CPU is late by"
                .to_owned(),
            format!("{} at {:.0} a second; a bare loop: {}; {met}", two(late.ours), late.rate, two(late.floor)),
            late.is_well(),
        );
        let outcome = self.generator.run(self.plan(self.fast, 4000.0, 2)?, &mut |_, _| {})?;
        let (p50, p99) = (outcome.latency().value_at_quantile(0.5), outcome.latency().value_at_quantile(0.99));
        self.check(
            "the floor: generator to its own origin",
            "p50 below 100 us, nothing failed".to_owned(),
            format!("p50 {}, p99 {}", show(p50 as f64), show(p99 as f64)),
            p50 < 100_000 && outcome.total.counts.failed() == 0,
        );
        Ok(())
    }

    /// Interleaved rounds of two addresses.
    fn rounds(&mut self, one: std::net::SocketAddr, two: std::net::SocketAddr, count: usize) -> Result<Pair, String> {
        let mut blocks = [Vec::new(), Vec::new()];
        for round in 0..count {
            for turn in 0..2 {
                // First one, then the other leads.
                let which = (round + turn) % 2;
                let plan = self.plan([one, two][which], 4000.0, round as u64)?;
                let outcome = self.generator.run(plan, &mut |_, _| {})?;
                blocks[which].push(sparse(outcome.latency()));
            }
        }
        Ok(blocks)
    }

    fn slower(&mut self) -> Result<(), String> {
        let pair = self.rounds(self.fast, self.slow, ROUNDS)?;
        let found = difference(&[pair], 0.5);
        let wanted = SLOWER.as_nanos() as f64;
        self.check(
            "an origin that takes 50 us longer",
            format!("p50 {} longer, within {:.0} %", show(wanted), SLOWER_WITHIN * 100.0),
            format!("{} longer [{}, {}]", show(found.value), show(found.low), show(found.high)),
            (found.value - wanted).abs() <= wanted * SLOWER_WITHIN,
        );
        Ok(())
    }

    fn alike(&mut self, lives: &[Pair]) {
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9)] {
            let (found, size) = (difference(lives, quantile), size(lives, quantile));
            let (blocks, pairs) = spreads(lives, quantile);
            self.check(
                &format!("A/A: the same proxy twice, {name}"),
                format!("no significant difference, or one below {:.0} %", NEGLIGIBLE * 100.0),
                format!(
                    "{} [{}, {}] of {}; one process's blocks spread by {}, pairs by {}",
                    show(found.value),
                    show(found.low),
                    show(found.high),
                    show(size),
                    show(blocks),
                    show(pairs)
                ),
                !found.is_significant() || found.value.abs() < size * NEGLIGIBLE,
            );
        }
    }

    fn unlike(&mut self, lives: &[Pair]) {
        let (found, size) = (difference(lives, 0.5), size(lives, 0.5));
        self.check(
            "broken on purpose: one of the same proxies secretly slowed by 50 us",
            "the A/A test above fails".to_owned(),
            format!("{} [{}, {}]", show(found.value), show(found.low), show(found.high)),
            found.is_significant() && found.value.abs() >= size * NEGLIGIBLE,
        );
    }

    /// The proxy stands still; whoever would have come meanwhile must be seen to wait.
    fn paused(&mut self, life: &Life, omit: bool) -> Result<(), String> {
        let rate = 2000.0;
        let mut plan = self.plan(life.address, rate, 3)?;
        (plan.duration, plan.omit) = (Duration::from_secs(2), omit);
        let lead = plan.warm_up + Duration::from_millis(800);
        let (outcome, pause) = std::thread::scope(|scope| {
            let pausing = scope.spawn(|| {
                std::thread::sleep(lead);
                life.hops.iter().for_each(|hop| hop.signal("STOP"));
                let begun = Instant::now();
                std::thread::sleep(PAUSE);
                let pause = begun.elapsed();
                life.hops.iter().for_each(|hop| hop.signal("CONT"));
                pause
            });
            (self.generator.run(plan, &mut |_, _| {}), pausing.join().unwrap_or(PAUSE))
        });
        let outcome: Outcome = outcome?;
        let least = PAUSE / 2;
        let expected = rate * pause.saturating_sub(least).as_secs_f64();
        let slow = outcome.latency().count_between(least.as_nanos() as u64, u64::MAX / 2) as f64;
        let honest = (slow - expected).abs() <= expected * 0.25;
        let found = format!("{slow:.0} requests, the longest {}", show(outcome.latency().max() as f64));
        let name = if omit {
            "broken on purpose: the same with coordinated omission"
        } else {
            "the proxy stopped for 100 ms (SIGSTOP)"
        };
        let wanted = format!("about {expected:.0} requests took 50 ms or more");
        let wanted = if omit { format!("the test above fails ({wanted})") } else { wanted };
        self.check(name, wanted, found, honest != omit);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(value: u64) -> Sparse {
        vec![(value, 10)]
    }

    #[test]
    fn processes_that_are_unlike_show_in_the_spread_of_pairs() {
        let life = |shift: u64| [vec![block(100), block(110)], vec![block(100 + shift), block(110 + shift)]];
        let alike: Vec<Pair> = (0..6).map(|_| life(0)).collect();
        let (blocks, pairs) = spreads(&alike, 0.5);
        assert!((blocks - 50f64.sqrt()).abs() < 1e-9 && pairs == 0.0);
        let unlike: Vec<Pair> = [0, 90, 10, 70, 30, 50].map(life).to_vec();
        let (blocks, pairs) = spreads(&unlike, 0.5);
        assert!(pairs > 3.0 * blocks, "{blocks} {pairs}");
    }
}
