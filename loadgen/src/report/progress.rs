//! The line that tells how a run goes: rewritten in place on a terminal, a plain line each time elsewhere.

use std::io::{IsTerminal, Write};

use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::record::Slice;
use crate::units::show;

/// Writes it to standard error.
pub struct Progress {
    terminal: bool,
    shown: bool,
    quiet: bool,
}

impl Progress {
    /// As standard error allows.
    pub fn new(quiet: bool) -> Progress {
        Progress { terminal: std::io::stderr().is_terminal(), shown: false, quiet }
    }

    /// One slice of time is over.
    pub fn slice(&mut self, plan: &Plan, outcome: &Outcome, slice: &Slice) {
        if self.quiet {
            return;
        }
        let done = (slice.index + 1) as f64 * plan.slice.as_secs_f64();
        let left = (plan.duration.as_secs_f64() - done).max(0.0);
        let line = format!(
            "{done:>5.0} s  {:>8.0} req/s  {:>6} failed  p50 {:>8}  p99 {:>8}  {left:.0} s left",
            slice.counts.ok as f64 / plan.slice.as_secs_f64(),
            outcome.total.counts.failed(),
            show(slice.latency.value_at_quantile(0.5) as f64),
            show(slice.latency.value_at_quantile(0.99) as f64),
        );
        let mut error = std::io::stderr().lock();
        // Nobody may be reading: the run goes on.
        let _ = if self.terminal { write!(error, "\r\x1b[2K{line}") } else { writeln!(error, "{line}") };
        let _ = error.flush();
        self.shown = true;
    }

    /// The run is over.
    pub fn end(&self) {
        if self.terminal && self.shown {
            eprintln!();
        }
    }
}
