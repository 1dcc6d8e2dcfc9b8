//! The highest rate that a target bears: all of it answered, no error, and a bounded p99; by bisection, and then
//! confirmed.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::generator::Generator;
use crate::outcome::Outcome;
use crate::plan::{Loop, Plan};
use crate::report::plot::{Plot, Scale, Series, escape, page, trim};
use crate::schedule::Arrivals;
use crate::units::show;

/// How the search is done.
#[derive(Clone, Debug)]
pub struct Search {
    /// How long each rate is tried.
    pub probe: Duration,
    /// The p99 that is still borne.
    pub p99_limit: Duration,
    /// How often the result must hold again.
    pub confirmations: u32,
    /// How arrivals are spread.
    pub arrivals: Arrivals,
}

/// One rate, tried.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Requests a second that were offered.
    pub offered: f64,
    /// Good answers a second.
    pub achieved: f64,
    /// Quantiles 0.5 and 0.99 of the latency, in nanoseconds.
    pub quantiles: [u64; 2],
    /// Failed requests.
    pub failed: u64,
    /// What kept it from being borne; `None`: it was borne.
    pub against: Option<String>,
    /// Whether it was a confirmation.
    pub confirmation: bool,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The rate, if any was borne.
    pub rate: Option<f64>,
    /// What the target answered in a closed loop, which began the search.
    pub closed: f64,
    /// All that was tried, in order.
    pub probes: Vec<Probe>,
}

/// Bisection stops when it knows the rate to this part.
const PRECISION: f64 = 0.02;
/// After a confirmation failed, the next rate is lower by this part.
const STEP_BACK: f64 = 0.93;
/// Confirmations are given up after so many rates.
const RATES: u32 = 8;
/// A p99 of send lateness above this says that the generator is the limit.
const LATE_NS: u64 = 1_000_000;

fn judge(outcome: &Outcome, plan: &Plan, offered: f64, search: &Search, confirmation: bool) -> Probe {
    let latency = outcome.latency();
    let (p50, p99) = (latency.value_at_quantile(0.5), latency.value_at_quantile(0.99));
    let failed = outcome.total.counts.failed();
    let against = if failed > 0 {
        Some(format!("{failed} failed"))
    } else if !outcome.reached(plan) {
        Some(format!("{} were never sent", outcome.unsent))
    } else if p99 > search.p99_limit.as_nanos() as u64 {
        Some(format!("p99 {}", show(p99 as f64)))
    } else {
        outcome.notes.first().cloned()
    };
    let late = outcome.total.lateness.value_at_quantile(0.99) > LATE_NS;
    let against = against.map(|why| if late { format!("{why} (the generator itself was late)") } else { why });
    Probe { offered, achieved: outcome.rate(), quantiles: [p50, p99], failed, against, confirmation }
}

/// Searches.
///
/// # Errors
/// When the target cannot be reached.
pub fn find(generator: &Generator, plan: &Plan, search: &Search, say: &mut dyn FnMut(&Probe)) -> Result<Found, String> {
    let closed =
        Plan { pacing: Loop::Closed, duration: search.probe, warm_up: plan.warm_up.min(search.probe), ..plan.clone() };
    let closed = generator.run(closed, &mut |_, _| {})?;
    if closed.total.counts.ok == 0 {
        return Err(format!("{} answers no request as it should", plan.mix.target()));
    }
    let mut found = Found { rate: None, closed: closed.rate(), probes: Vec::new() };
    let mut attempt = |found: &mut Found, offered: f64, confirmation: bool| -> Result<bool, String> {
        let plan = Plan {
            pacing: Loop::Open { rate: offered, arrivals: search.arrivals },
            duration: search.probe,
            warm_up: search.probe / 5,
            seed: plan.seed + found.probes.len() as u64,
            ..plan.clone()
        };
        let outcome = generator.run(plan.clone(), &mut |_, _| {})?;
        let probe = judge(&outcome, &plan, offered, search, confirmation);
        say(&probe);
        let borne = probe.against.is_none();
        found.probes.push(probe);
        Ok(borne)
    };
    let (mut low, mut high) = (0.0, found.closed * 1.1);
    let mut next = found.closed * 0.5;
    // Six bisections between nothing and the closed loop's rate reach the precision.
    for _ in 0..8 {
        if attempt(&mut found, next, false)? {
            low = next
        } else {
            high = next
        }
        if high - low < PRECISION * high {
            break;
        }
        next = if low == 0.0 { high / 4.0 } else { (low + high) / 2.0 };
    }
    let mut rate = low;
    for _ in 0..RATES {
        if rate <= 0.0 {
            break;
        }
        let mut held = true;
        for _ in 0..search.confirmations {
            // A machine's hiccup is no property of the target: each confirmation may be tried a second time.
            held = attempt(&mut found, rate, true)? || attempt(&mut found, rate, true)?;
            if !held {
                break;
            }
        }
        if held {
            found.rate = Some(rate);
            break;
        }
        rate *= STEP_BACK;
    }
    Ok(found)
}

impl Found {
    /// The probes by rate, for reading as a curve.
    fn curve(&self) -> Vec<&Probe> {
        let mut probes: Vec<&Probe> = self.probes.iter().collect();
        probes.sort_by(|one, two| one.offered.total_cmp(&two.offered));
        probes
    }

    /// The knee as a table with bars.
    pub fn text(&self) -> String {
        let mut text = match self.rate {
            Some(rate) => format!("saturation: {rate:.0} requests a second (closed loop: {:.0})\n\n", self.closed),
            None => format!("no rate was borne as asked (closed loop: {:.0} a second)\n\n", self.closed),
        };
        let most = self.probes.iter().map(|probe| probe.quantiles[1]).max().unwrap_or(1).max(2) as f64;
        text += "   offered  achieved       p50       p99\n";
        for probe in self.curve() {
            let bar = 1 + ((probe.quantiles[1].max(1) as f64).ln() / most.ln() * 40.0) as usize;
            let _ = writeln!(
                text,
                "{:>10.0}{:>10.0}{:>10}{:>10}  {} {}",
                probe.offered,
                probe.achieved,
                show(probe.quantiles[0] as f64),
                show(probe.quantiles[1] as f64),
                "#".repeat(bar.min(41)),
                probe.against.as_deref().unwrap_or(if probe.confirmation { "confirmed" } else { "" })
            );
        }
        text
    }

    /// All of it as JSON.
    pub fn json(&self) -> Value {
        let probes: Vec<Value> = self
            .probes
            .iter()
            .map(|probe| {
                json!({
                    "offered": probe.offered, "achieved": probe.achieved, "p50": probe.quantiles[0],
                    "p99": probe.quantiles[1], "failed": probe.failed, "against": probe.against,
                    "confirmation": probe.confirmation,
                })
            })
            .collect();
        json!({ "saturation": self.rate, "closed_loop": self.closed, "probes": probes })
    }

    /// The knee as a page.
    pub fn html(&self, title: &str) -> String {
        let line = |at: usize| self.curve().iter().map(|p| (p.offered, p.quantiles[at] as f64)).collect();
        let knee = Plot {
            title: "Latency by offered rate".to_owned(),
            x_label: "requests a second offered".to_owned(),
            y_label: "latency".to_owned(),
            x: Scale::Linear,
            y: Scale::Log,
            show,
            series: vec![Series::line("p50", line(0)), Series::line("p99", line(1))],
        };
        let achieved = Plot {
            title: "Achieved by offered rate".to_owned(),
            y_label: "answered a second".to_owned(),
            y: Scale::Linear,
            show: trim,
            series: vec![Series::line("answered", self.curve().iter().map(|p| (p.offered, p.achieved)).collect())],
            ..knee.clone()
        };
        let text = escape(&self.text());
        page(
            title,
            &format!("<h1>Saturation</h1><p>{}</p><pre>{text}</pre>{}{}", escape(title), knee.svg(), achieved.svg()),
        )
    }
}
