//! Runs a scenario: origin and generator on one ring and CPU, candidates on another, blocks in random order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onehop_load::generator::{Generator, unix_time};
use onehop_load::origin::{Behaviour, Origin, Size};
use onehop_load::outcome::Outcome;
use onehop_load::plan::{Loop, Plan};
use onehop_load::random::Random;
use onehop_load::report::{hdr, text};
use onehop_load::request::Expect;
use onehop_load::schedule::Arrivals;
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
pub(crate) use super::life::{Life, start};
use super::scenario::{Kind, Rate, Scenario};
use crate::peers::{self, Peer};
use crate::process::Usage;

/// The closed-loop block, which finds what a candidate bears.
const CLOSED: Duration = Duration::from_millis(700);
/// What a candidate bears is found in the first lives; it hardly differs between them.
const CLOSED_LIVES: usize = 2;
/// Each candidate answers for so long before anything counts.
const WARM: Duration = Duration::from_millis(200);
/// The bare loop that shows what the machine allows waits for moments so long.
const FLOOR: Duration = Duration::from_millis(400);
const TIMEOUT: Duration = Duration::from_secs(5);
/// What starting and ending all candidates takes, about.
const STARTING: Duration = Duration::from_secs(2);

/// Where things run.
#[derive(Clone, Debug)]
pub struct Place {
    /// The generator's and the origin's CPU.
    pub generator_cpu: usize,
    /// The candidates' CPU.
    pub proxy_cpu: usize,
    /// Where configurations and logs go.
    pub folder: PathBuf,
}

/// A candidate as it was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Its version.
    pub version: String,
    /// Memory after its start, before any request, of all its hops, in KiB; by life.
    pub rest_kib: Vec<u64>,
}

/// One block of one candidate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Block {
    /// Whose.
    pub candidate: String,
    /// Which life of the processes.
    pub restart: usize,
    /// Which round in it.
    pub round: usize,
    /// Closed loop: what it bears. Its latencies are those of a queue.
    pub closed: bool,
    /// Latency from the intended moment: HdrHistogram V2, base64, nanoseconds.
    pub latency: String,
    /// Service time, likewise.
    pub service: String,
    /// Measured seconds.
    pub seconds: f64,
    /// Good answers.
    pub ok: u64,
    /// Failed requests.
    pub failed: u64,
    /// Requests that waited for a free connection.
    pub waited: u64,
    /// Arrivals that were due and never sent.
    pub unsent: u64,
    /// Requests that the candidate's usage counts, the warm-up's included.
    pub requests: u64,
    /// Quantiles 0.5, 0.9, 0.99 and 0.999 of the send lateness, in nanoseconds.
    pub lateness: [u64; 4],
    /// What the candidate's processes used.
    pub usage: Usage,
    /// Their memory in KiB: at the end of the block; with `idle`, while all connections are open.
    pub memory_kib: u64,
    /// CPU seconds that the hypervisor took.
    pub stolen: f64,
    /// CPU seconds that went to neither the generator nor the candidate.
    pub foreign: f64,
    /// The generator's TLS handshakes: full ones, and those that resumed a session.
    #[serde(default)]
    pub handshakes: [u64; 2],
    /// The candidate's own ledger, where it has one.
    pub ledger: Option<Ledger>,
}

/// A scenario's raw results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// What was run.
    pub scenario: Scenario,
    /// When, in seconds since 1970.
    pub started: f64,
    /// Requests a second of the open-loop blocks.
    pub rate: f64,
    /// What was measured.
    pub candidates: Vec<Candidate>,
    /// What was not, and why.
    pub missing: Vec<(String, String)>,
    /// All blocks, in the order in which they ran.
    pub blocks: Vec<Block>,
    /// Quantiles 0.5, 0.9, 0.99 and 0.999 of what a bare loop on the generator's CPU was late by, in nanoseconds.
    #[serde(default)]
    pub machine_floor: Option<[u64; 4]>,
    /// What went wrong.
    pub notes: Vec<String>,
}

/// The plan of a block against an address; pacing and times are the caller's.
pub(crate) fn plan(scenario: &Scenario, address: SocketAddr, pacing: Loop, seed: u64) -> Result<Plan, String> {
    let bytes = scenario.bytes()?;
    let block = scenario.block()?;
    Ok(Plan {
        address,
        tls: None,
        http2: scenario.http2(),
        protocol: scenario.protocol.spoken(),
        mix: scenario.mix(address)?,
        expect: Expect {
            statuses: vec![200],
            length: scenario.protocol.is_http().then_some(bytes as u64),
            checksum: None,
        },
        pacing,
        connections: scenario.connections,
        new_connections: scenario.new_connections,
        timeout: TIMEOUT,
        duration: block,
        warm_up: (block / 4).min(WARM),
        seed,
        spin: Duration::MAX,
        slice: Duration::from_secs(3600),
        omit: false,
    })
}

/// One block.
pub(crate) fn block(generator: &Generator, life: &Life, plan: Plan, idle: bool) -> Result<(Block, Outcome), String> {
    let plan = Plan { tls: life.tls.clone(), ..plan };
    life.resume();
    let closed = plan.pacing == Loop::Closed;
    let whole = plan.warm_up + plan.duration;
    let ledger = life.ledger();
    let before = life.usage();
    let (outcome, memory) = std::thread::scope(|scope| {
        let sampler = idle.then(|| {
            scope.spawn(move || {
                // All connections are open and have been used by then.
                std::thread::sleep(whole.mul_f64(0.85));
                life.memory_kib()
            })
        });
        let outcome = generator.run(plan, &mut |_, _| {});
        (outcome, sampler.and_then(|sampler| sampler.join().ok()))
    });
    let outcome = outcome.map_err(|error| format!("{}: {error}", life.name))?;
    let usage = life.usage().since(&before);
    let ledger = ledger.and_then(|before| Some(life.ledger()?.since(&before)));
    life.pause();
    let machine = outcome.machine;
    let own = machine.own_user + machine.own_system;
    let counts = &outcome.total.counts;
    let handshakes = [outcome.total.handshake.len() - counts.resumed, counts.resumed];
    let late = |quantile| outcome.total.lateness.value_at_quantile(quantile);
    let block = Block {
        candidate: life.name.clone(),
        restart: 0,
        round: 0,
        closed,
        latency: hdr::encode(outcome.latency()),
        service: hdr::encode(&outcome.total.service),
        seconds: outcome.seconds,
        ok: counts.ok,
        failed: counts.failed(),
        waited: counts.waited,
        unsent: outcome.unsent,
        requests: if closed { counts.sent } else { outcome.taken },
        lateness: [late(0.5), late(0.9), late(0.99), late(0.999)],
        usage,
        memory_kib: memory.unwrap_or_else(|| life.memory_kib()),
        stolen: machine.stolen.max(0.0),
        foreign: (machine.busy - own - usage.cpu_ns as f64 / 1e9).max(0.0),
        handshakes,
        ledger,
    };
    Ok((block, outcome))
}

/// Puts names into a random order.
fn shuffled(count: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
    order
}

/// A generator with an origin for the scenario on its own ring.
pub(crate) fn generator(
    scenario: &Scenario,
    place: &Place,
    more: &[Behaviour],
) -> Result<(Generator, Vec<SocketAddr>), String> {
    let bytes = scenario.bytes()?;
    let first = Behaviour { size: Size::Fixed(bytes), echo: !scenario.protocol.is_http(), ..Behaviour::default() };
    let mut bound = Vec::new();
    for behaviour in std::iter::once(&first).chain(more) {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let origin = Origin { listen, behaviour: behaviour.clone(), busy_poll: Duration::ZERO };
        bound.push(origin.bind(1).map_err(|error| format!("the origin cannot listen: {error}"))?);
    }
    let addresses = bound.iter().map(|bound| bound.address).collect();
    let generator = Generator::start(1, &[place.generator_cpu], bound)
        .map_err(|error| format!("the generator cannot start on CPU {}: {error}", place.generator_cpu))?;
    Ok((generator, addresses))
}

struct Run<'a> {
    scenario: &'a Scenario,
    place: &'a Place,
    generator: Generator,
    origin: SocketAddr,
    peers: Vec<&'static dyn Peer>,
    measured: Measured,
    random: Random,
    say: &'a mut dyn FnMut(&str),
}

/// Measures a scenario. After each life of the processes `keep` gets what there is so far.
///
/// # Errors
/// When nothing can be measured.
pub fn measure(
    scenario: &Scenario,
    place: &Place,
    say: &mut dyn FnMut(&str),
    keep: &mut dyn FnMut(&Measured) -> Result<(), String>,
) -> Result<Measured, String> {
    let (generator, origins) = generator(scenario, place, &[])?;
    let mut measured = Measured {
        scenario: scenario.clone(),
        started: unix_time(),
        rate: 0.0,
        candidates: vec![Candidate {
            name: "direct".to_owned(),
            description: "the generator talks to the origin itself, on one ring and CPU".to_owned(),
            version: String::new(),
            rest_kib: Vec::new(),
        }],
        missing: Vec::new(),
        blocks: Vec::new(),
        machine_floor: machine_floor(place),
        notes: Vec::new(),
    };
    let peers = choose(scenario, &mut measured, say)?;
    let random = Random::new(scenario.seed, 3);
    let mut run = Run { scenario, place, generator, origin: origins[0], peers, measured, random, say };
    for restart in 0..scenario.restarts {
        run.life(restart)?;
        keep(&run.measured)?;
    }
    Ok(run.measured)
}

/// How long a scenario takes, about, with all candidates.
pub fn estimate(scenario: &Scenario) -> Duration {
    let candidates = match (scenario.kind, scenario.candidates.len()) {
        (Kind::Direct, _) => 1,
        (_, 0) => 1 + peers::all().iter().filter(|peer| peer.by_default()).count(),
        (_, named) => 1 + named,
    };
    let length = scenario.block().unwrap_or_default();
    let round = (length + (length / 4).min(WARM)) * candidates as u32;
    let closed = if scenario.idle { Duration::ZERO } else { (CLOSED + WARM) * candidates as u32 };
    let lives = scenario.restarts as u32;
    (STARTING + round * scenario.rounds as u32) * lives + closed * lives.min(CLOSED_LIVES as u32)
}

/// What the machine itself allows: shown beside the generator's lateness.
fn machine_floor(place: &Place) -> Option<[u64; 4]> {
    let late = onehop_load::floor::measure(place.generator_cpu, 10_000.0, FLOOR, 1).ok()?;
    Some([0.5, 0.9, 0.99, 0.999].map(|quantile| late.value_at_quantile(quantile)))
}

/// The candidates that are installed; the others are noted.
fn choose(
    scenario: &Scenario,
    measured: &mut Measured,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<&'static dyn Peer>, String> {
    let layer = scenario.protocol.layer();
    let mut chosen = Vec::new();
    for peer in peers::all() {
        let wanted = scenario.candidates.is_empty() || scenario.candidates.iter().any(|name| name == peer.name());
        let unasked = scenario.candidates.is_empty() && !peer.by_default();
        if !wanted || unasked || scenario.kind == Kind::Direct || (scenario.certificates_needed() && !peer.speaks_tls())
        {
            continue;
        }
        match peer.version(layer) {
            Ok(version) => {
                chosen.push(peer);
                measured.candidates.push(Candidate {
                    name: peer.name().to_owned(),
                    description: peer.description().to_owned(),
                    version,
                    rest_kib: Vec::new(),
                });
            }
            Err(why) => {
                say(&format!("{}: not measured: {why}", peer.name()));
                measured.missing.push((peer.name().to_owned(), why));
            }
        }
    }
    if chosen.is_empty() && scenario.kind != Kind::Direct {
        return Err(format!("{}: none of the candidates is installed (bench/install-peers)", scenario.name));
    }
    Ok(chosen)
}

impl Run<'_> {
    /// One life of all processes: started, warmed, driven to what they bear, and then the rounds.
    fn life(&mut self, restart: usize) -> Result<(), String> {
        let mut lives = vec![Life::direct(self.origin)];
        for peer in self.peers.clone() {
            match start(peer, self.scenario, self.origin, self.place, peer.name()) {
                Ok(life) => lives.push(life),
                Err(why) => self.give_up(peer.name(), &why),
            }
        }
        if self.scenario.idle {
            self.used(&lives)?;
        }
        // What their start costs is over, and their memory is at rest.
        std::thread::sleep(Duration::from_millis(500));
        for life in &lives {
            if let Some(candidate) = self.measured.candidates.iter_mut().find(|c| c.name == life.name) {
                candidate.rest_kib.push(life.memory_kib());
            }
        }
        if !self.scenario.idle {
            self.closed(&mut lives, restart)?;
        }
        if self.measured.rate <= 0.0 {
            self.choose_rate()?;
        }
        let rate = self.measured.rate;
        let arrivals = Arrivals::named(&self.scenario.arrivals)?;
        for round in 0..self.scenario.rounds {
            for at in shuffled(lives.len(), &mut self.random) {
                // All candidates of a round get the same arrivals.
                let seed = self.scenario.seed * 1_000_003 + (restart * 1000 + round) as u64;
                let plan = plan(self.scenario, lives[at].address, Loop::Open { rate, arrivals }, seed)?;
                match block(&self.generator, &lives[at], plan, self.scenario.idle) {
                    Ok((block, outcome)) => {
                        self.note_failures(&block.candidate, &outcome);
                        self.measured.blocks.push(Block { restart, round, ..block });
                    }
                    Err(why) => self.note(why),
                }
            }
            (self.say)(&format!(
                "{}: life {} of {}, round {} of {}, {rate:.0} requests a second",
                self.scenario.name,
                restart + 1,
                self.scenario.restarts,
                round + 1,
                self.scenario.rounds
            ));
        }
        Ok(())
    }

    /// Lets each answer over one connection: what the first answers cost a program once, such as the pages of its code, is
    /// not what a connection costs.
    fn used(&mut self, lives: &[Life]) -> Result<(), String> {
        for life in lives {
            let mut plan = plan(self.scenario, life.address, Loop::Closed, self.scenario.seed)?;
            plan.tls.clone_from(&life.tls);
            (plan.connections, plan.warm_up, plan.duration) = (1, Duration::ZERO, WARM);
            life.resume();
            let used = self.generator.run(plan, &mut |_, _| {});
            life.pause();
            if let Err(why) = used {
                self.note(format!("{}: {why}", life.name));
            }
        }
        Ok(())
    }

    /// Warms all up and finds what they bear; whoever does not answer as it should is left out of this life.
    fn closed(&mut self, lives: &mut Vec<Life>, restart: usize) -> Result<(), String> {
        let mut broken = Vec::new();
        for at in shuffled(lives.len(), &mut self.random) {
            let life = &lives[at];
            let mut plan = plan(self.scenario, life.address, Loop::Closed, self.scenario.seed)?;
            plan.tls.clone_from(&life.tls);
            (plan.warm_up, plan.duration) = (Duration::ZERO, WARM);
            life.resume();
            let warmed = self.generator.run(plan.clone(), &mut |_, _| {});
            life.pause();
            if let Some(why) = match &warmed {
                Ok(outcome) if outcome.total.counts.failed() == 0 => None,
                Ok(outcome) => Some(format!("{} of its answers were wrong", outcome.total.counts.failed())),
                Err(why) => Some(why.clone()),
            } {
                broken.push((at, why));
                continue;
            }
            if restart >= CLOSED_LIVES {
                continue;
            }
            plan.duration = CLOSED;
            match block(&self.generator, life, plan, false) {
                Ok((block, outcome)) => {
                    self.note_failures(&block.candidate, &outcome);
                    self.measured.blocks.push(Block { restart, ..block });
                }
                Err(why) => self.note(why),
            }
        }
        broken.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        for (at, why) in broken {
            if at == 0 {
                return Err(format!("the origin itself does not answer: {why}"));
            }
            let life = lives.remove(at);
            self.give_up(&life.name, &why);
        }
        Ok(())
    }

    fn choose_rate(&mut self) -> Result<(), String> {
        self.measured.rate = match self.scenario.rate()? {
            Rate::Absolute(rate) => rate,
            Rate::OfSlowest(part) => {
                let borne = |block: &Block| block.ok as f64 / block.seconds.max(1e-9);
                let slowest = self.measured.blocks.iter().filter(|b| b.closed).map(borne).fold(f64::INFINITY, f64::min);
                // Two digits: the second run of a scenario shall have the same rate if it can.
                let rate = if slowest.is_finite() { slowest * part } else { 1000.0 };
                let unit = 10f64.powf(rate.log10().floor() - 1.0);
                (rate / unit).floor() * unit
            }
        };
        Ok(())
    }

    fn give_up(&mut self, name: &str, why: &str) {
        self.note(format!("{name} was left out of a life of the processes: {why}"));
        let measured = self.measured.blocks.iter().any(|block| block.candidate == name);
        if !measured && !self.measured.missing.iter().any(|(other, _)| other == name) {
            self.measured.missing.push((name.to_owned(), why.to_owned()));
        }
    }

    /// Failed requests are counted in their blocks; of which kind they were is said here.
    fn note_failures(&mut self, name: &str, outcome: &Outcome) {
        if outcome.total.counts.failed() > 0 {
            self.note(format!("{name}: {}", text::failures(&outcome.total.counts)));
        }
    }

    fn note(&mut self, note: String) {
        (self.say)(&note);
        self.measured.notes.push(note);
    }
}

/// Writes a scenario's raw results into a results folder.
///
/// # Errors
/// When it cannot.
pub fn save(measured: &Measured, folder: &Path) -> Result<(), String> {
    let folder = folder.join("scenarios");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let path = folder.join(format!("{}.json", measured.scenario.name));
    let text = serde_json::to_string_pretty(measured).map_err(|error| error.to_string())?;
    std::fs::write(&path, text + "\n").map_err(|error| format!("cannot write {}: {error}", path.display()))
}
