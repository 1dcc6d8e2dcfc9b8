//! The summary table.

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::plan::{Loop, Plan, Protocol};
use crate::units::show;

/// The quantiles of the table.
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// What a run was, in a line.
pub fn title(plan: &Plan, threads: usize) -> String {
    let target = plan.mix.target();
    let more = if plan.mix.count() > 1 { format!(" and {} more", plan.mix.count() - 1) } else { String::new() };
    let pace = match plan.pacing {
        Loop::Open { rate, arrivals } => format!("{rate:.0} requests a second, {} arrivals", arrivals.name()),
        Loop::Closed => "closed loop".to_owned(),
    };
    let kind = match (plan.protocol, plan.new_connections) {
        (Protocol::Http1, false) => "HTTP/1.1",
        (Protocol::Http1, true) => "HTTP/1.1, a connection per request",
        (Protocol::Echo, false) => "TCP echo",
        (Protocol::Echo, true) => "TCP echo, a connection per request",
    };
    let seconds = plan.duration.as_secs_f64();
    format!("{target}{more}: {kind}, {pace}, {} connections, {threads} threads, {seconds} s", plan.connections)
}

/// The summary of a run.
pub fn summary(plan: &Plan, outcome: &Outcome) -> String {
    let counts = &outcome.total.counts;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:.0} requests a second answered ({} in {:.2} s), {:.2} MiB/s of payload",
        outcome.rate(),
        counts.ok,
        outcome.seconds,
        counts.bytes as f64 / outcome.seconds.max(1e-9) / 1048576.0
    );
    let ways: Vec<String> = Failure::ALL
        .iter()
        .filter(|failure| counts.failures[**failure as usize] > 0)
        .map(|failure| format!("{} {}", failure.name(), counts.failures[*failure as usize]))
        .collect();
    let ways = if ways.is_empty() { String::new() } else { format!(" ({})", ways.join(", ")) };
    let _ = writeln!(
        text,
        "{} failed{ways}, {} never sent, {} connections made meanwhile",
        counts.failed(),
        outcome.unsent,
        counts.connects
    );
    text += "\n                 ";
    for (name, _) in QUANTILES {
        let _ = write!(text, "{name:>10}");
    }
    text += "       max      mean\n";
    row(&mut text, "latency", outcome.latency());
    row(&mut text, "  service time", &outcome.total.service);
    if plan.pacing != Loop::Closed {
        row(&mut text, "  send lateness", &outcome.total.lateness);
    }
    row(&mut text, "connecting", &outcome.total.connect);
    row(&mut text, "TLS handshake", &outcome.total.handshake);
    let machine = &outcome.machine;
    let _ = writeln!(
        text,
        "\ngenerator: {:.1} us of CPU a request (user {:.1}, system {:.1})",
        (machine.own_user + machine.own_system) * 1e6 / counts.sent.max(1) as f64,
        machine.own_user * 1e6 / counts.sent.max(1) as f64,
        machine.own_system * 1e6 / counts.sent.max(1) as f64,
    );
    for remark in outcome.remarks(plan) {
        let _ = writeln!(text, "note: {remark}");
    }
    text
}

fn row(text: &mut String, name: &str, histogram: &Histogram<u64>) {
    if histogram.is_empty() {
        return;
    }
    let _ = write!(text, "{name:<17}");
    for (_, quantile) in QUANTILES {
        let _ = write!(text, "{:>10}", show(histogram.value_at_quantile(quantile) as f64));
    }
    let _ = writeln!(text, "{:>10}{:>10}", show(histogram.max() as f64), show(histogram.mean()));
}
