//! What a scenario's blocks say: added latency with intervals, CPU, memory, and whether the instrument can be trusted.

use std::collections::BTreeMap;

use onehop_load::report::hdr;
use serde::{Deserialize, Serialize};

use crate::hop::statistics::{Estimate, Place, Sparse, bootstrap, draws, mean, quantiles, sparse};
use crate::hop::{Block, Measured};

/// The quantiles that are compared.
pub const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// A block is disturbed when the hypervisor took this part of a core away.
const STOLEN: f64 = 0.03;
/// Or when other programs used this part of a core. (Interrupts and the kernel's own threads, which belong to nobody,
/// made up at most 13 % in the blocks of the first full run, and 5 % in nine of ten.)
const FOREIGN: f64 = 0.15;
/// Or when half of its requests were sent later than this.
const LATE_NS: u64 = 10_000;
/// A quantile's figure is void when the generator's own lateness at it is above this part of the figure.
const LATE_PART: f64 = 0.25;
/// Lateness below this is no reason for doubt at any quantile.
const LATE_FLOOR_NS: f64 = 5_000.0;

/// What is said of one candidate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Its name.
    pub name: String,
    /// Latency at the quantiles, in nanoseconds.
    pub latency: [f64; 4],
    /// Difference of the quantiles from direct's, in nanoseconds; not for direct.
    pub added: Option<[Estimate; 4]>,
    /// For each quantile, whether the generator's lateness would swamp the figure.
    pub void: [bool; 4],
    /// Onehop's quantiles less this one's, in nanoseconds; not for direct, the floor and Onehop itself.
    pub against_onehop: Option<[Estimate; 4]>,
    /// Its CPU time over Onehop's, per request.
    pub cpu_over_onehop: Option<Estimate>,
    /// CPU time of a request at the common rate, in microseconds.
    pub cpu_us: Option<Estimate>,
    /// The part of it in user mode.
    pub user_part: f64,
    /// CPU time of a request at what it bears, in microseconds.
    pub busy_cpu_us: Option<f64>,
    /// Most good answers a second, by life; the median.
    pub bears: Option<f64>,
    /// Voluntary and involuntary context switches of a request.
    pub switches: [f64; 2],
    /// Memory at rest, in KiB.
    pub rest_kib: f64,
    /// Memory under load, in KiB.
    pub load_kib: f64,
    /// Memory of each of the connections beyond rest, in KiB; for scenarios about it.
    pub per_connection_kib: Option<f64>,
    /// Failed requests of all blocks.
    pub failed: u64,
    /// Arrivals of the open-loop blocks that were due and never sent, since no connection was free in time.
    #[serde(default)]
    pub unsent: u64,
    /// What its own ledger says, where it has one.
    pub ledger: Option<Beside>,
}

/// The ledger beside the outside view, means of a request in microseconds (means do subtract).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Beside {
    /// In the proxy's own hands, as it says itself.
    pub hop_us: f64,
    /// Waiting for the upstream, as it says itself.
    pub upstream_us: f64,
    /// Mean service time through it less the direct one, as the generator saw it.
    pub outside_us: f64,
    /// Outside less the ledger's hop: the kernel, the wakes and the wire between the two.
    pub unexplained_us: f64,
}

/// What is said of a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Analysis {
    /// By candidate.
    pub verdicts: Vec<Verdict>,
    /// Rounds that were counted, and those left out as disturbed.
    pub rounds: (usize, usize),
    /// Why rounds were left out.
    pub disturbances: Vec<String>,
    /// The whole scenario cannot be trusted.
    pub void: Option<String>,
    /// The generator's send lateness at the quantiles, in nanoseconds: the median over all blocks.
    pub lateness: [f64; 4],
}

struct Decoded<'a> {
    block: &'a Block,
    latency: Sparse,
    service: Sparse,
}

type ByPlace<'a> = BTreeMap<Place, Decoded<'a>>;

/// Why a block's figures are not the candidate's.
pub fn disturbed(block: &Block) -> Option<String> {
    let seconds = block.seconds.max(1e-3);
    if block.stolen > STOLEN * seconds {
        return Some(format!("the hypervisor took {:.0} % of a core", block.stolen * 100.0 / seconds));
    }
    if block.foreign > FOREIGN * seconds {
        return Some(format!("other programs used {:.0} % of a core", block.foreign * 100.0 / seconds));
    }
    (block.lateness[0] > LATE_NS)
        .then(|| format!("half of the requests were sent {} us late", block.lateness[0] / 1000))
}

/// Analyses a scenario.
///
/// # Errors
/// When its blocks cannot be read.
pub fn analyse(measured: &Measured) -> Result<Analysis, String> {
    let mut all: BTreeMap<&str, ByPlace<'_>> = BTreeMap::new();
    let mut left_out: BTreeMap<Place, String> = BTreeMap::new();
    for block in measured.blocks.iter().filter(|block| !block.closed) {
        let place = Place { restart: block.restart, round: block.round };
        if let Some(why) = disturbed(block) {
            left_out.entry(place).or_insert_with(|| format!("{} in {}: {why}", block.candidate, describe(place)));
        }
        let (latency, service) = (sparse(&hdr::decode(&block.latency)?), sparse(&hdr::decode(&block.service)?));
        all.entry(&block.candidate).or_default().insert(place, Decoded { block, latency, service });
    }
    let rounds = all.get("direct").map_or(0, BTreeMap::len);
    let mut void = None;
    if left_out.len() * 2 > rounds {
        void = Some(format!(
            "{} of {rounds} rounds were disturbed ({}); all of them are shown, and none of them decides anything",
            left_out.len(),
            left_out.values().next().cloned().unwrap_or_default()
        ));
    } else {
        for blocks in all.values_mut() {
            blocks.retain(|place, _| !left_out.contains_key(place));
        }
    }
    let empty = BTreeMap::new();
    let direct = all.get("direct").unwrap_or(&empty);
    let mut verdicts = Vec::new();
    for candidate in &measured.candidates {
        if let Some(blocks) = all.get(candidate.name.as_str()) {
            let rival = rival(&candidate.name).and_then(|name| all.get(name));
            verdicts.push(verdict(measured, candidate, blocks, direct, rival));
        }
    }
    let blocks: Vec<&Block> = all.values().flat_map(BTreeMap::values).map(|decoded| decoded.block).collect();
    let lateness =
        std::array::from_fn(|at| median(blocks.iter().map(|block| block.lateness[at] as f64).collect()).unwrap_or(0.0));
    let left = if void.is_some() { 0 } else { left_out.len() };
    Ok(Analysis {
        verdicts,
        rounds: (rounds - left, left_out.len()),
        disturbances: left_out.into_values().collect(),
        void,
        lateness,
    })
}

fn describe(place: Place) -> String {
    format!("life {}, round {}", place.restart + 1, place.round + 1)
}

/// Places that both have, so that they are drawn together.
fn shared(one: &ByPlace<'_>, two: &ByPlace<'_>) -> Vec<Place> {
    one.keys().filter(|place| two.contains_key(place)).copied().collect()
}

fn at(blocks: &ByPlace<'_>, places: &[Place], quantile: f64) -> f64 {
    let chosen: Vec<&Sparse> = places.iter().filter_map(|place| blocks.get(place)).map(|d| &d.latency).collect();
    quantiles(&chosen, &[quantile])[0]
}

fn difference(one: &ByPlace<'_>, two: &ByPlace<'_>, seed: u64) -> [Estimate; 4] {
    let places = shared(one, two);
    let drawn = draws(&places, seed);
    QUANTILES
        .map(|(_, quantile)| bootstrap(&places, &drawn, |places| at(one, places, quantile) - at(two, places, quantile)))
}

fn cpu_us(blocks: &ByPlace<'_>, places: &[Place]) -> f64 {
    let (mut ns, mut requests) = (0u64, 0u64);
    for decoded in places.iter().filter_map(|place| blocks.get(place)) {
        ns += decoded.block.usage.cpu_ns;
        requests += decoded.block.requests;
    }
    ns as f64 / 1e3 / requests.max(1) as f64
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Which Onehop a candidate is compared with: one that polls with one that polls.
pub fn rival(name: &str) -> Option<&'static str> {
    match name {
        "direct" | "onehop" => None,
        "haproxy-poll" => Some("onehop-poll"),
        _ => Some("onehop"),
    }
}

fn verdict(
    measured: &Measured,
    candidate: &crate::hop::Candidate,
    blocks: &ByPlace<'_>,
    direct: &ByPlace<'_>,
    peer: Option<&ByPlace<'_>>,
) -> Verdict {
    let (name, seed) = (candidate.name.as_str(), measured.scenario.seed);
    let places: Vec<Place> = blocks.keys().copied().collect();
    let is_direct = name == "direct";
    let added = (!is_direct).then(|| difference(blocks, direct, seed));
    let lateness: [f64; 4] = std::array::from_fn(|at| {
        median(blocks.values().map(|decoded| decoded.block.lateness[at] as f64).collect()).unwrap_or(0.0)
    });
    let void = std::array::from_fn(|at| {
        added.is_some_and(|added| lateness[at] > LATE_FLOOR_NS.max(added[at].value.abs() * LATE_PART))
    });
    let proxy = peer.filter(|_| !matches!(name, "raw-relay" | "onehop-poll"));
    let cpu = (!is_direct).then(|| {
        let drawn = draws(&places, seed);
        bootstrap(&places, &drawn, |places| cpu_us(blocks, places))
    });
    let cpu_over_onehop = peer.map(|onehop| {
        let places = shared(blocks, onehop);
        let drawn = draws(&places, seed);
        bootstrap(&places, &drawn, |places| cpu_us(blocks, places) / cpu_us(onehop, places))
    });
    let sum = |figure: fn(&Block) -> u64| blocks.values().map(|d| figure(d.block)).sum::<u64>() as f64;
    let requests = sum(|block| block.requests).max(1.0);
    let ticks = sum(|block| block.usage.user_ticks + block.usage.system_ticks).max(1.0);
    let closed: Vec<&Block> = measured.blocks.iter().filter(|b| b.closed && b.candidate == name).collect();
    let busy = |block: &&Block| block.usage.cpu_ns as f64 / 1e3 / block.requests.max(1) as f64;
    let rest_kib = median(candidate.rest_kib.iter().map(|kib| *kib as f64).collect()).unwrap_or(0.0);
    let load_kib = median(blocks.values().map(|d| d.block.memory_kib as f64).collect()).unwrap_or(0.0);
    let per_connection = (load_kib - rest_kib).max(0.0) / measured.scenario.connections as f64;
    Verdict {
        name: name.to_owned(),
        latency: QUANTILES.map(|(_, quantile)| at(blocks, &places, quantile)),
        added,
        void,
        against_onehop: proxy.map(|onehop| difference(onehop, blocks, seed)),
        cpu_over_onehop,
        cpu_us: cpu,
        user_part: sum(|block| block.usage.user_ticks) / ticks,
        busy_cpu_us: (!is_direct).then(|| median(closed.iter().map(busy).collect())).flatten(),
        bears: median(closed.iter().map(|block| block.ok as f64 / block.seconds.max(1e-9)).collect()),
        switches: [sum(|block| block.usage.voluntary) / requests, sum(|block| block.usage.involuntary) / requests],
        rest_kib,
        load_kib,
        per_connection_kib: (measured.scenario.idle && !is_direct).then_some(per_connection),
        failed: measured.blocks.iter().filter(|b| b.candidate == name).map(|b| b.failed).sum(),
        unsent: sum(|block| block.unsent) as u64,
        ledger: beside(blocks, direct),
    }
}

fn beside(blocks: &ByPlace<'_>, direct: &ByPlace<'_>) -> Option<Beside> {
    let mut ledger = crate::hop::ledger::Ledger::default();
    for decoded in blocks.values() {
        ledger.add(decoded.block.ledger.as_ref()?);
    }
    // A relayed connection is no request: its ledger ends with it, and not with each message.
    if ledger.requests == 0.0 {
        return None;
    }
    let service = |blocks: &ByPlace<'_>| mean(&blocks.values().map(|d| &d.service).collect::<Vec<_>>());
    let outside_us = (service(blocks) - service(direct)) / 1e3;
    // With two hops the requests are counted once in each: the sum of both hops' times belongs to one request.
    let hops =
        (ledger.requests / blocks.values().map(|d| d.block.requests as f64).sum::<f64>().max(1.0)).round().max(1.0);
    let each = |seconds: f64| seconds * 1e6 * hops / ledger.requests.max(1.0);
    let hop_us = each(ledger.hop);
    Some(Beside { hop_us, upstream_us: each(ledger.upstream), outside_us, unexplained_us: outside_us - hop_us })
}
