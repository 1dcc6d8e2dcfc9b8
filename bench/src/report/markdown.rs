//! The tables of a report, as text.

use std::fmt::Write;

use super::analysis::{Analysis, QUANTILES, Verdict, rival};
use crate::hop::Measured;
use crate::hop::scenario::Kind;
use crate::hop::statistics::Estimate;
use crate::selftest::SelfTest;

/// Microseconds with their interval.
pub fn micros(estimate: &Estimate) -> String {
    let us = |ns: f64| {
        let us = ns / 1e3;
        if us.abs() < 100.0 { format!("{us:.1}") } else { format!("{us:.0}") }
    };
    if !estimate.has_interval() {
        return format!("{} [one round]", us(estimate.value));
    }
    format!("{} [{}, {}]", us(estimate.value), us(estimate.low), us(estimate.high))
}

/// A plain figure with its interval.
pub fn figure(estimate: &Estimate, digits: usize) -> String {
    if !estimate.has_interval() {
        return format!("{:.digits$} [one round]", estimate.value);
    }
    format!("{:.digits$} [{:.digits$}, {:.digits$}]", estimate.value, estimate.low, estimate.high)
}

/// A cell of added latency: not significant or void figures say so.
pub fn added(verdict: &Verdict, at: usize) -> String {
    match &verdict.added {
        None => "-".to_owned(),
        Some(_) if verdict.void[at] => "void (lateness)".to_owned(),
        Some(added) if !added[at].is_significant() => format!("{} n.s.", micros(&added[at])),
        Some(added) => micros(&added[at]),
    }
}

/// Column heads and cells of the latency table.
pub fn latency_table(analysis: &Analysis) -> Vec<Vec<String>> {
    let mut rows = vec![
        ["candidate", "p50 us"]
            .into_iter()
            .map(str::to_owned)
            .chain(QUANTILES.map(|(name, _)| format!("added {name}, us")))
            .collect(),
    ];
    for verdict in &analysis.verdicts {
        let mut row = vec![verdict.name.clone(), format!("{:.1}", verdict.latency[0] / 1e3)];
        row.extend((0..QUANTILES.len()).map(|at| added(verdict, at)));
        rows.push(row);
    }
    rows
}

/// Column heads and cells of the cost table.
pub fn cost_table(analysis: &Analysis) -> Vec<Vec<String>> {
    let heads = [
        "candidate",
        "CPU us/request",
        "user",
        "x onehop",
        "x floor",
        "CPU us/request at most",
        "bears, a second",
        "switches/request",
        "at rest MiB",
        "under load MiB",
        "failed",
        "not sent",
    ];
    let mut rows: Vec<Vec<String>> = vec![heads.into_iter().map(str::to_owned).collect()];
    let floor = analysis.verdicts.iter().find(|verdict| verdict.name == "raw-relay").and_then(|v| v.cpu_us);
    let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for verdict in &analysis.verdicts {
        let ratio = verdict.cpu_us.zip(floor).map(|(own, floor)| format!("{:.2}", own.value / floor.value));
        rows.push(vec![
            verdict.name.clone(),
            or(verdict.cpu_us.map(|cpu| figure(&cpu, 1))),
            or(verdict.cpu_us.map(|_| format!("{:.0} %", verdict.user_part * 100.0))),
            or(verdict.cpu_over_onehop.map(|ratio| figure(&ratio, 2))),
            or(ratio),
            or(verdict.busy_cpu_us.map(|us| format!("{us:.1}"))),
            or(verdict.bears.map(|rate| format!("{rate:.0}"))),
            or(verdict.cpu_us.map(|_| format!("{:.2} + {:.2}", verdict.switches[0], verdict.switches[1]))),
            or(verdict.cpu_us.map(|_| format!("{:.1}", verdict.rest_kib / 1024.0))),
            or(verdict.cpu_us.map(|_| format!("{:.1}", verdict.load_kib / 1024.0))),
            verdict.failed.to_string(),
            verdict.unsent.to_string(),
        ]);
    }
    rows
}

/// Memory of idle connections.
pub fn idle_table(analysis: &Analysis) -> Vec<Vec<String>> {
    let heads = ["candidate", "at rest MiB", "with the connections MiB", "KiB per connection", "failed"];
    let mut rows: Vec<Vec<String>> = vec![heads.into_iter().map(str::to_owned).collect()];
    for verdict in analysis.verdicts.iter().filter(|verdict| verdict.per_connection_kib.is_some()) {
        rows.push(vec![
            verdict.name.clone(),
            format!("{:.1}", verdict.rest_kib / 1024.0),
            format!("{:.1}", verdict.load_kib / 1024.0),
            format!("{:.2}", verdict.per_connection_kib.unwrap_or(0.0)),
            verdict.failed.to_string(),
        ]);
    }
    rows
}

/// Onehop against each peer: quantiles of Onehop less the peer's.
pub fn against_table(analysis: &Analysis) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = vec![
        ["onehop less"]
            .into_iter()
            .map(str::to_owned)
            .chain(QUANTILES.map(|(name, _)| format!("{name}, us")))
            .collect(),
    ];
    for verdict in &analysis.verdicts {
        if let Some(against) = &verdict.against_onehop {
            let cell = |estimate: &Estimate| {
                if estimate.is_significant() { micros(estimate) } else { format!("{} n.s.", micros(estimate)) }
            };
            let name = match rival(&verdict.name) {
                Some("onehop") | None => verdict.name.clone(),
                Some(polling) => format!("{} ({polling} less it)", verdict.name),
            };
            rows.push([name].into_iter().chain(against.iter().map(cell)).collect());
        }
    }
    rows
}

/// The ledger beside the outside view.
pub fn ledger_table(analysis: &Analysis) -> Vec<Vec<String>> {
    let heads = ["candidate", "outside, us", "ledger: hop, us", "unexplained rest, us", "ledger: upstream wait, us"];
    let mut rows: Vec<Vec<String>> = vec![heads.into_iter().map(str::to_owned).collect()];
    for verdict in &analysis.verdicts {
        if let Some(ledger) = &verdict.ledger {
            let cells = [ledger.outside_us, ledger.hop_us, ledger.unexplained_us, ledger.upstream_us];
            rows.push([verdict.name.clone()].into_iter().chain(cells.map(|us| format!("{us:.1}"))).collect());
        }
    }
    rows
}

fn table(text: &mut String, rows: &[Vec<String>]) {
    if rows.len() < 2 {
        return;
    }
    for (at, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if at == 0 {
            let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
        }
    }
    text.push('\n');
}

/// What is said of a scenario beside its tables.
pub fn remarks(measured: &Measured, analysis: &Analysis) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(why) = &analysis.void {
        remarks.push(format!("VOID: {why}"));
    } else if analysis.rounds.1 > 0 {
        remarks.push(format!(
            "{} of {} rounds were disturbed and left out ({})",
            analysis.rounds.1,
            analysis.rounds.0 + analysis.rounds.1,
            analysis.disturbances.first().cloned().unwrap_or_default()
        ));
    }
    for (name, why) in &measured.missing {
        remarks.push(format!("{name} was not measured: {why}"));
    }
    if measured.scenario.kind == Kind::Mesh {
        remarks.push(if measured.scenario.mutual_tls {
            "two hops one behind the other, with mutual TLS between them: TLS 1.3, P-256, AES-128-GCM, X25519"
                .to_owned()
        } else {
            "two plain hops one behind the other".to_owned()
        });
    }
    if measured.scenario.session.is_some() {
        remarks.push(handshakes(measured));
    } else if measured.scenario.new_connections {
        remarks.push(
            "raw-relay has an upstream connection per client connection: here it makes one for each request".to_owned(),
        );
    }
    remarks.extend(measured.notes.iter().cloned());
    remarks
}

/// How many handshakes of each kind there were, of a scenario whose generator speaks TLS.
fn handshakes(measured: &Measured) -> String {
    let mut text =
        "mutual TLS between the generator and the hop (TLS 1.3, P-256, AES-128-GCM, X25519), plain to the origin; \
                    \"direct\" is plain. Handshakes resumed:"
            .to_owned();
    for candidate in measured.candidates.iter().filter(|candidate| candidate.name != "direct") {
        let blocks = measured.blocks.iter().filter(|block| block.candidate == candidate.name);
        let [full, resumed] =
            blocks.fold([0, 0], |sum, block| [sum[0] + block.handshakes[0], sum[1] + block.handshakes[1]]);
        let _ = write!(text, " {} {resumed} of {},", candidate.name, full + resumed);
    }
    text.trim_end_matches(',').to_owned()
}

/// headline.md: the median that each candidate adds and its CPU time, by scenario.
pub fn headline(results: &[(Measured, Analysis)]) -> String {
    let mut names = vec!["raw-relay", "onehop", "onehop-poll", "nginx", "haproxy", "haproxy-poll", "envoy"];
    names.retain(|name| results.iter().any(|(measured, _)| measured.candidates.iter().any(|c| c.name == *name)));
    let mut text =
        format!("| added p50 / CPU per request, us | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (measured, analysis) in results {
        let of = |name: &str| analysis.verdicts.iter().find(|verdict| verdict.name == name);
        let cell = |name: &&str| match of(name) {
            None => "-".to_owned(),
            Some(verdict) if measured.scenario.idle => {
                verdict.per_connection_kib.map_or_else(|| "-".to_owned(), |kib| format!("{kib:.1} KiB"))
            }
            Some(verdict) => match (verdict.added, verdict.cpu_us) {
                (Some(added), Some(cpu)) => format!("{:.0} / {:.1}", added[0].value / 1e3, cpu.value),
                _ => "-".to_owned(),
            },
        };
        let title = &measured.scenario.title;
        let title = if measured.scenario.idle { format!("{title}: memory of each") } else { title.clone() };
        let void = if analysis.void.is_some() { " (void: the machine was busy)" } else { "" };
        let _ = writeln!(text, "| {title}{void} | {} |", names.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
    text
}

/// How late the generator sent, beside what the machine allows.
pub fn lateness(measured: &Measured, analysis: &Analysis) -> String {
    let us = |quantiles: [f64; 4]| quantiles.map(|ns| format!("{:.1}", ns / 1e3)).join(" / ");
    let floor = measured.machine_floor.map_or_else(String::new, |floor| {
        let floor = us(floor.map(|ns| ns as f64));
        format!("; a bare loop on its CPU that only waits, which is the machine's own floor: {floor} us")
    });
    let ours = us(analysis.lateness);
    format!("Send lateness of the generator at the same quantiles (median of the blocks): {ours} us{floor}.")
}

/// summary.md.
pub fn summary(results: &[(Measured, Analysis)], selftest: Option<&SelfTest>) -> String {
    let mut text = "# What the hop costs\n\nAdded latency is the difference of a candidate's quantile from the direct one \
                    (which is no quantile of differences), in microseconds, with its 95 % interval from a block bootstrap, widened \
                    for how few the lives of the processes are; n.s.: not significant. CPU time is that of all the candidate's threads, in the same blocks.\n\n"
        .to_owned();
    text += &match selftest {
        Some(selftest) => selftest.markdown(),
        None => {
            "The instrument's self-tests have not been run into this folder (`onehop-bench self-test`).\n\n".to_owned()
        }
    };
    text += &super::sides::sides(results);
    for (measured, analysis) in results {
        let scenario = &measured.scenario;
        let _ = write!(
            text,
            "## {}\n\n{:.0} requests a second, {} connections, {} rounds in {} lives.\n\n",
            scenario.title, measured.rate, scenario.connections, analysis.rounds.0, scenario.restarts
        );
        for remark in remarks(measured, analysis) {
            let _ = writeln!(text, "> {remark}\n");
        }
        if scenario.idle {
            table(&mut text, &idle_table(analysis));
            continue;
        }
        table(&mut text, &latency_table(analysis));
        table(&mut text, &cost_table(analysis));
        table(&mut text, &against_table(analysis));
        table(&mut text, &ledger_table(analysis));
        let _ = writeln!(text, "{}\n", lateness(measured, analysis));
    }
    text
}
