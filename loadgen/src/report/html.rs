//! The run as one page: summary, percentiles, throughput and latency over time, send lateness.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::plot::{Plot, Scale, Series, escape, page, trim};
use super::text;
use crate::outcome::{Interval, Outcome};
use crate::plan::{Loop, Plan};
use crate::units::show;

/// Points of a percentile line: evenly spaced by the nines, to 99.99 %.
pub fn percentiles(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let quantiles = (0..=160).map(|step| 1.0 - 10f64.powf(-f64::from(step) / 40.0));
    quantiles.map(|quantile| (quantile, histogram.value_at_quantile(quantile).max(1) as f64)).collect()
}

fn table(plan: &Plan, outcome: &Outcome) -> String {
    let mut rows = vec![("latency", outcome.latency()), ("service time", &outcome.total.service)];
    if plan.pacing != Loop::Closed {
        rows.push(("send lateness", &outcome.total.lateness));
    }
    rows.push(("connecting", &outcome.total.connect));
    rows.push(("TLS handshake", &outcome.total.handshake));
    let mut html = "<div class=\"scroll\"><table><tr><th></th>".to_owned();
    for (name, _) in text::QUANTILES {
        let _ = write!(html, "<th>{name}</th>");
    }
    html += "<th>max</th><th>mean</th></tr>";
    for (name, histogram) in rows.into_iter().filter(|(_, histogram)| !histogram.is_empty()) {
        let _ = write!(html, "<tr><td>{name}</td>");
        for (_, quantile) in text::QUANTILES {
            let _ = write!(html, "<td>{}</td>", show(histogram.value_at_quantile(quantile) as f64));
        }
        let _ = write!(html, "<td>{}</td><td>{}</td></tr>", show(histogram.max() as f64), show(histogram.mean()));
    }
    html + "</table></div>"
}

fn over_time(outcome: &Outcome, figure: impl Fn(&Interval) -> f64) -> Vec<(f64, f64)> {
    outcome.intervals.iter().map(|interval| (interval.start + interval.length, figure(interval))).collect()
}

fn plot(title: &str, x: (&str, Scale), y: (&str, Scale), show: fn(f64) -> String, series: Vec<Series>) -> String {
    let (x_label, x) = (x.0.to_owned(), x.1);
    Plot { title: title.to_owned(), x_label, y_label: y.0.to_owned(), x, y: y.1, show, series }.svg()
}

/// The page.
pub fn run(plan: &Plan, outcome: &Outcome) -> String {
    let title = text::title(plan, outcome.threads);
    let mut body = format!("<h1>Load run</h1><p>{}</p>", escape(&title));
    let counts = &outcome.total.counts;
    let _ = write!(
        body,
        "<p><strong>{:.0} requests a second</strong> answered, {} in {:.2} s; {} failed, {} never sent.</p>",
        outcome.rate(),
        counts.ok,
        outcome.seconds,
        counts.failed(),
        outcome.unsent
    );
    for remark in outcome.remarks(plan) {
        let _ = write!(body, "<p class=\"note\">{}</p>", escape(&remark));
    }
    body += &table(plan, outcome);
    let lines = vec![
        Series::line("from the intended moment", percentiles(outcome.latency())),
        Series::line("from the sending", percentiles(&outcome.total.service)),
    ];
    body += &plot("Latency by percentile", ("percentile", Scale::Nines), ("latency", Scale::Log), show, lines);
    let rates = vec![
        Series::line("answered", over_time(outcome, |interval| interval.counts.ok as f64 / interval.length)),
        Series::line("failed", over_time(outcome, |interval| interval.counts.failed() as f64 / interval.length)),
    ];
    body += &plot("Requests a second over time", ("seconds", Scale::Linear), ("a second", Scale::Linear), trim, rates);
    let latencies = [("p50", 0), ("p90", 1), ("p99", 2), ("p99.9", 3), ("max", 4)];
    let latencies = latencies
        .map(|(name, at)| Series::line(name, over_time(outcome, |interval| interval.quantiles[at].max(1) as f64)));
    body += &plot(
        "Latency over time",
        ("seconds", Scale::Linear),
        ("latency", Scale::Log),
        show,
        latencies.into_iter().collect(),
    );
    if plan.pacing != Loop::Closed {
        let lateness = [("p50", 0), ("p99", 1), ("max", 2)];
        let lateness = lateness
            .map(|(name, at)| Series::line(name, over_time(outcome, |interval| interval.lateness[at].max(1) as f64)));
        body += &plot(
            "Send lateness: how late the generator itself was",
            ("seconds", Scale::Linear),
            ("lateness", Scale::Log),
            show,
            lateness.into_iter().collect(),
        );
    }
    let _ = write!(
        body,
        "<p><small>onehop-load {}; {} seed {}. Failed requests have no latency. <code>{}</code></small></p>",
        env!("CARGO_PKG_VERSION"),
        if plan.pacing == Loop::Closed { "closed loop," } else { "open loop, latency from the intended send time," },
        plan.seed,
        escape(&std::env::args().collect::<Vec<_>>().join(" "))
    );
    page(&title, &body)
}
