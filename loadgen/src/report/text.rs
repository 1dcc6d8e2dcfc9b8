//! The summary table.

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::failure::Failure;
use crate::http2::code::NAMES;
use crate::outcome::Outcome;
use crate::plan::{Loop, Plan, Protocol};
use crate::record::Counts;
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
    let kind = kind(plan);
    let seconds = plan.duration.as_secs_f64();
    format!("{target}{more}: {kind}, {pace}, {} connections, {threads} threads, {seconds} s", plan.connections)
}

/// What is spoken, and how.
pub fn kind(plan: &Plan) -> String {
    let http2 = &plan.http2;
    let protocol = match (plan.protocol, &http2.call) {
        (Protocol::Http1, _) => "HTTP/1.1".to_owned(),
        (Protocol::Echo, _) => "TCP echo".to_owned(),
        (Protocol::Http2, None) => "HTTP/2".to_owned(),
        (Protocol::Http2, Some(call)) => {
            let messages = call.messages.map_or(String::new(), |messages| format!(", {messages} messages a call"));
            format!("gRPC ({}{messages})", call.kind.name())
        }
    };
    match (plan.new_connections, plan.protocol) {
        (true, _) => protocol + ", a connection per request",
        (false, Protocol::Http2) => {
            format!("{protocol}, {} stream{} a connection", http2.streams, if http2.streams == 1 { "" } else { "s" })
        }
        (false, _) => protocol,
    }
}

/// Failures by kind; empty where there is none.
pub fn failures(counts: &Counts) -> String {
    let ways = Failure::ALL.iter().filter(|failure| counts.failures[**failure as usize] > 0);
    let ways = ways.map(|failure| format!("{} {}", failure.name(), counts.failures[*failure as usize]));
    ways.collect::<Vec<_>>().join(", ")
}

/// What HTTP/2 and gRPC told beside the failures, if anything.
fn codes(counts: &Counts, seconds: f64) -> String {
    let mut parts = Vec::new();
    if counts.messages > 0 {
        parts.push(format!(
            "{} messages ({:.0} a second)",
            counts.messages,
            counts.messages as f64 / seconds.max(1e-9)
        ));
    }
    let resets: Vec<String> = reset_codes(counts).map(|(name, count)| format!("{name} {count}")).collect();
    if !resets.is_empty() {
        parts.push(format!("streams reset with {}", resets.join(", ")));
    }
    let bad = grpc_statuses(counts).filter(|(name, _)| name != "0");
    let bad: Vec<String> = bad.map(|(name, count)| format!("{name} {count}")).collect();
    if !bad.is_empty() {
        parts.push(format!("calls that ended with grpc-status {}", bad.join(", ")));
    }
    if parts.is_empty() { String::new() } else { parts.join("; ") + "\n" }
}

/// Error codes of streams that were reset, and how often.
pub fn reset_codes(counts: &Counts) -> impl Iterator<Item = (&'static str, u64)> {
    let named = counts.reset_codes.iter().enumerate();
    named.map(|(code, count)| (*NAMES.get(code).unwrap_or(&"unknown"), *count)).filter(|(_, count)| *count > 0)
}

/// Statuses of calls, and how often.
pub fn grpc_statuses(counts: &Counts) -> impl Iterator<Item = (String, u64)> {
    let named = counts.grpc_statuses.iter().enumerate().filter(|(_, count)| **count > 0);
    named
        .map(|(status, count)| (if status < 17 { status.to_string() } else { "missing-or-unknown".to_owned() }, *count))
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
    let ways = failures(counts);
    let ways = if ways.is_empty() { ways } else { format!(" ({ways})") };
    let _ = writeln!(
        text,
        "{} failed{ways}, {} never sent, {} connections made meanwhile",
        counts.failed(),
        outcome.unsent,
        counts.connects
    );
    text += &codes(counts, outcome.seconds);
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
