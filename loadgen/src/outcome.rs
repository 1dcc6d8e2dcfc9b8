//! What a run gave: totals, intervals, and what the machine did meanwhile.

use hdrhistogram::Histogram;
use onehop_net::clock::Nanos;

use crate::failure::{FAILURES, Failure};
use crate::generator::unix_time;
use crate::plan::{Loop, Plan};
use crate::record::{Counts, Slice};
use crate::report::hdr;

/// One interval of the run.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Seconds after the start of measuring.
    pub start: f64,
    /// Its length in seconds.
    pub length: f64,
    /// Its counts.
    pub counts: Counts,
    /// Quantiles 0.5, 0.9, 0.99, 0.999 and the maximum of the latency, in nanoseconds.
    pub quantiles: [u64; 5],
    /// Quantiles 0.5 and 0.99 and the maximum of the send lateness, in nanoseconds.
    pub lateness: [u64; 3],
    /// The latency histogram, V2 compressed, base64.
    pub encoded: String,
    /// The largest latency, in nanoseconds.
    pub max: u64,
}

/// CPU times, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    /// Stolen by the hypervisor, of all CPUs.
    pub stolen: f64,
    /// Not idle, of all CPUs.
    pub busy: f64,
    /// Of this process: user and system.
    pub own_user: f64,
    /// See `own_user`.
    pub own_system: f64,
}

/// Kernel ticks a second as /proc shows them: USER_HZ is 100 on every Linux that we run on.
const USER_HZ: f64 = 100.0;

impl Machine {
    /// As the kernel counts now; zeros where it does not tell.
    pub fn now() -> Machine {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let cpu: Vec<f64> = stat.lines().next().unwrap_or("").split_whitespace().skip(1).map(number).collect();
        let at = |index: usize| cpu.get(index).copied().unwrap_or(0.0) / USER_HZ;
        let own = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let own: Vec<f64> = own.rsplit(')').next().unwrap_or("").split_whitespace().skip(11).map(number).collect();
        Machine {
            stolen: at(7),
            busy: at(0) + at(1) + at(2) + at(5) + at(6),
            own_user: own.first().copied().unwrap_or(0.0) / USER_HZ,
            own_system: own.get(1).copied().unwrap_or(0.0) / USER_HZ,
        }
    }

    /// What has passed since.
    #[must_use]
    pub fn since(&self, before: &Machine) -> Machine {
        Machine {
            stolen: self.stolen - before.stolen,
            busy: self.busy - before.busy,
            own_user: self.own_user - before.own_user,
            own_system: self.own_system - before.own_system,
        }
    }
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or(0.0)
}

/// A run's result.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When measuring began, in seconds since 1970.
    pub started: f64,
    /// Measured seconds.
    pub seconds: f64,
    /// Threads that it ran on.
    pub threads: usize,
    /// Everything added up.
    pub total: Slice,
    /// By interval.
    pub intervals: Vec<Interval>,
    /// Arrivals taken from the schedule, the warm-up's included.
    pub taken: u64,
    /// Arrivals that were due and never sent.
    pub unsent: u64,
    /// Connections that could not be made at the start, by way.
    pub unconnected: [u64; FAILURES],
    /// What the machine did meanwhile.
    pub machine: Machine,
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// Below this share of the offered requests, the rate counts as not reached.
pub const REACHED: f64 = 0.999;

impl Outcome {
    pub(crate) fn new(plan: &Plan, threads: usize) -> Outcome {
        Outcome {
            started: unix_time() + plan.warm_up.as_secs_f64(),
            seconds: 0.0,
            threads,
            total: Slice::default(),
            intervals: Vec::new(),
            taken: 0,
            unsent: 0,
            unconnected: [0; FAILURES],
            machine: Machine::default(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub(crate) fn add(&mut self, slice: &Slice, plan: &Plan) {
        let length = plan.slice.as_secs_f64();
        let at = |quantile| slice.latency.value_at_quantile(quantile);
        if slice.counts.sent > 0 || slice.index as f64 * length < plan.duration.as_secs_f64() - 1e-6 {
            self.intervals.push(Interval {
                start: slice.index as f64 * length,
                length,
                counts: slice.counts.clone(),
                quantiles: [at(0.5), at(0.9), at(0.99), at(0.999), slice.latency.max()],
                lateness: [
                    slice.lateness.value_at_quantile(0.5),
                    slice.lateness.value_at_quantile(0.99),
                    slice.lateness.max(),
                ],
                encoded: hdr::encode(&slice.latency),
                max: slice.latency.max(),
            });
        }
        self.total.add(slice);
    }

    pub(crate) fn end(&mut self, start: Nanos, plan: &Plan, ended: Nanos) {
        let measured = ended.saturating_sub(start) as f64 / 1e9 - plan.warm_up.as_secs_f64();
        self.seconds = self.seconds.max(measured.max(0.0));
    }

    /// Good answers a second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.total.counts.ok as f64 / self.seconds } else { 0.0 }
    }

    /// What was asked for, if anything was: offered requests of the measured time.
    pub fn offered(&self) -> u64 {
        self.total.counts.sent + self.unsent
    }

    /// Whether all that was offered was sent, but for a thousandth. Always, where nothing was asked for.
    pub fn reached(&self, plan: &Plan) -> bool {
        match plan.pacing {
            Loop::Closed => true,
            Loop::Open { .. } => self.total.counts.sent as f64 >= self.offered() as f64 * REACHED,
        }
    }

    /// What is to be said of it beside the figures.
    pub fn remarks(&self, plan: &Plan) -> Vec<String> {
        let mut remarks = self.notes.clone();
        if let (Loop::Open { rate, .. }, false) = (plan.pacing, self.reached(plan)) {
            remarks.push(format!(
                "the rate was not reached: {} of {} requests were due and never sent ({rate:.0} a second were asked for); \
                 these latencies are those of a queue that grows, not of the target",
                self.unsent,
                self.offered()
            ));
        }
        let counts = &self.total.counts;
        if counts.waited * 1000 > counts.sent {
            remarks.push(format!(
                "{:.1} % of the requests waited for a free connection (the wait counts as latency): more --connections, \
                 or the target is too slow",
                counts.waited as f64 * 100.0 / counts.sent as f64
            ));
        }
        let unconnected: Vec<String> = Failure::ALL
            .iter()
            .filter(|failure| self.unconnected[**failure as usize] > 0)
            .map(|failure| format!("{} {}", self.unconnected[*failure as usize], failure.name()))
            .collect();
        if !unconnected.is_empty() {
            remarks.push(format!("not all connections could be made at the start: {}", unconnected.join(", ")));
        }
        let cores = self.threads.max(1) as f64 * self.seconds.max(1e-9);
        if self.machine.stolen > 0.01 * cores {
            remarks.push(format!(
                "the hypervisor took {:.1} % of a core away meanwhile",
                self.machine.stolen * 100.0 / self.seconds.max(1e-9)
            ));
        }
        if plan.omit {
            remarks.push("coordinated omission was switched in on purpose: these latencies are not true".to_owned());
        }
        remarks
    }

    /// The latency of good answers.
    pub fn latency(&self) -> &Histogram<u64> {
        &self.total.latency
    }
}
