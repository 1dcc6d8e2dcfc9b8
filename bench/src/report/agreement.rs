//! Whether two runs say the same: for each figure, whether the confidence intervals of both have values in common.

use std::fmt::Write;

use super::analysis::{Analysis, QUANTILES, Verdict};
use super::markdown::{figure, micros};
use crate::hop::Measured;
use crate::hop::statistics::Estimate;

/// The share of figures that must agree. Of intervals of 95 % a few miss each other by chance.
pub const AGREE: f64 = 0.95;

type Named = (String, Estimate, String);

/// What is compared of a candidate: the added quantiles and the CPU time, as name, estimate and text.
fn figures(verdict: &Verdict) -> Vec<Named> {
    let mut figures = Vec::new();
    for (at, (quantile, _)) in QUANTILES.iter().enumerate() {
        if let Some(added) = verdict.added.filter(|_| !verdict.void[at]) {
            figures.push((format!("{} added {quantile}", verdict.name), added[at], micros(&added[at]) + " us"));
        }
    }
    if let Some(cpu) = verdict.cpu_us {
        figures.push((format!("{} CPU", verdict.name), cpu, figure(&cpu, 1) + " us"));
    }
    figures
}

/// Pairs of a figure in both runs.
fn pairs(one: &Analysis, two: &Analysis) -> Vec<(Named, Named)> {
    let others: Vec<Named> = two.verdicts.iter().flat_map(figures).collect();
    let pair = |figure: Named| others.iter().find(|other| other.0 == figure.0).cloned().map(|other| (figure, other));
    let pairs = one.verdicts.iter().flat_map(figures).filter_map(pair);
    pairs.filter(|(one, two)| one.1.has_interval() && two.1.has_interval()).collect()
}

/// The comparison of two runs as Markdown, and whether they agree.
pub fn compare(one: &[(Measured, Analysis)], two: &[(Measured, Analysis)]) -> (String, bool) {
    let mut text = "# Two runs\n\nFigures whose 95 % intervals have values in common, by scenario. Void scenarios and figures, \
                    and those of a single round, are left out.\n\n| scenario | rates | figures | agree | those that do not: first run, second run |\n\
                    |---|---|---|---|---|\n"
        .to_owned();
    let (mut all, mut agreed) = (0, 0);
    for (measured, analysis) in one {
        let name = &measured.scenario.name;
        let Some((again, second)) = two.iter().find(|(again, _)| again.scenario.name == *name) else {
            let _ = writeln!(text, "| {name} | {:.0} | only in the first run | | |", measured.rate);
            continue;
        };
        let rates = format!("{:.0} and {:.0}", measured.rate, again.rate);
        if analysis.void.is_some() || second.void.is_some() {
            let _ = writeln!(text, "| {name} | {rates} | void | | |");
            continue;
        }
        let pairs = pairs(analysis, second);
        let apart: Vec<String> = pairs
            .iter()
            .filter(|(one, two)| !one.1.overlaps(&two.1))
            .map(|(one, two)| format!("{}: {}, {}", one.0, one.2, two.2))
            .collect();
        let agree = pairs.len() - apart.len();
        let _ = writeln!(text, "| {name} | {rates} | {} | {agree} | {} |", pairs.len(), apart.join("; "));
        (all, agreed) = (all + pairs.len(), agreed + agree);
    }
    let share = if all == 0 { 0.0 } else { f64::from(agreed as u32) / f64::from(all as u32) };
    let well = share >= AGREE;
    let _ = writeln!(
        text,
        "\n{agreed} of {all} figures agree ({:.0} %; wanted: {:.0} %): the runs {}.",
        share * 100.0,
        AGREE * 100.0,
        if well { "say the same" } else { "do NOT say the same" }
    );
    (text, well)
}
