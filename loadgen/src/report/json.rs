//! The run as JSON, with whole histograms.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::plan::{Loop, Plan, Protocol};
use crate::record::Counts;
use crate::report::{hdr, text};

/// A histogram: quantiles in nanoseconds, and all of it as HdrHistogram's tools read it.
pub fn histogram(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| histogram.value_at_quantile(quantile);
    json!({
        "unit": "ns",
        "count": histogram.len(),
        "min": histogram.min(),
        "mean": histogram.mean(),
        "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999), "p99.99": at(0.9999),
        "max": histogram.max(),
        "hdr": hdr::encode(histogram),
    })
}

/// Counts by name.
pub fn counts(counts: &Counts) -> Value {
    let failures: serde_json::Map<String, Value> = Failure::ALL
        .iter()
        .map(|failure| (failure.name().to_owned(), json!(counts.failures[*failure as usize])))
        .collect();
    json!({
        "sent": counts.sent, "ok": counts.ok, "failed": counts.failed(), "failures": failures,
        "statuses": {
            "1xx": counts.statuses[0], "2xx": counts.statuses[1], "3xx": counts.statuses[2],
            "4xx": counts.statuses[3], "5xx": counts.statuses[4], "other": counts.statuses[5],
        },
        "messages": counts.messages,
        "reset_codes": text::reset_codes(counts).map(|(name, count)| (name.to_owned(), json!(count))).collect::<Value>(),
        "grpc_statuses": text::grpc_statuses(counts).map(|(name, count)| (name, json!(count))).collect::<Value>(),
        "bytes": counts.bytes, "connects": counts.connects, "resumed": counts.resumed, "waited_for_connection": counts.waited,
    })
}

/// The plan as it was carried out.
pub fn plan(plan: &Plan) -> Value {
    let (open, rate, arrivals) = match plan.pacing {
        Loop::Open { rate, arrivals } => (true, Some(rate), Some(arrivals.name())),
        Loop::Closed => (false, None, None),
    };
    json!({
        "target": plan.mix.target().to_string(), "requests": plan.mix.count(), "address": plan.address.to_string(),
        "protocol": match plan.protocol { Protocol::Http1 => "http/1.1", Protocol::Http2 => "h2", Protocol::Echo => "tcp-echo" },
        "streams": plan.http2.streams, "window": plan.http2.window,
        "grpc": plan.http2.call.as_ref().map(|call| json!({ "kind": call.kind.name(), "messages": call.messages })),
        "open_loop": open, "rate": rate, "arrivals": arrivals,
        "connections": plan.connections, "new_connections": plan.new_connections,
        "duration_s": plan.duration.as_secs_f64(), "warm_up_s": plan.warm_up.as_secs_f64(),
        "timeout_s": plan.timeout.as_secs_f64(), "seed": plan.seed,
        "spin_us": if plan.spin == std::time::Duration::MAX { json!("always") } else { json!(plan.spin.as_secs_f64() * 1e6) },
        "coordinated_omission_on_purpose": plan.omit,
    })
}

/// The whole run.
pub fn run(plan_: &Plan, outcome: &Outcome) -> Value {
    let intervals: Vec<Value> = outcome
        .intervals
        .iter()
        .map(|interval| {
            let [p50, p90, p99, p999, max] = interval.quantiles;
            json!({
                "start_s": interval.start, "length_s": interval.length,
                "ok": interval.counts.ok, "failed": interval.counts.failed(),
                "p50": p50, "p90": p90, "p99": p99, "p99.9": p999, "max": max,
                "lateness_p50": interval.lateness[0], "lateness_p99": interval.lateness[1],
                "lateness_max": interval.lateness[2], "hdr": interval.encoded,
            })
        })
        .collect();
    json!({
        "tool": "onehop-load", "version": env!("CARGO_PKG_VERSION"),
        "command": std::env::args().collect::<Vec<_>>(),
        "plan": plan(plan_), "threads": outcome.threads,
        "started": outcome.started, "seconds": outcome.seconds,
        "rate": outcome.rate(), "offered": outcome.offered(), "unsent": outcome.unsent,
        "reached": outcome.reached(plan_), "counts": counts(&outcome.total.counts),
        "latency": histogram(&outcome.total.latency), "service_time": histogram(&outcome.total.service),
        "send_lateness": histogram(&outcome.total.lateness), "connect_time": histogram(&outcome.total.connect),
        "handshake_time": histogram(&outcome.total.handshake),
        "intervals": intervals,
        "generator_cpu_s": { "user": outcome.machine.own_user, "system": outcome.machine.own_system },
        "machine_stolen_s": outcome.machine.stolen,
        "notes": outcome.remarks(plan_),
    })
}
