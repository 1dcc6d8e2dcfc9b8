//! The report as one page, and its headline as a picture.

use std::fmt::Write;

use onehop_load::report::plot::{COLOURS, Plot, Scale, Series, escape, page};
use onehop_load::report::{hdr, html as load_html};
use onehop_load::units::show;

use super::analysis::{Analysis, Verdict};
use super::markdown;
use crate::hop::Measured;
use crate::selftest::SelfTest;

fn table(rows: &[Vec<String>]) -> String {
    if rows.len() < 2 {
        return String::new();
    }
    let mut html = "<div class=\"scroll\"><table>".to_owned();
    for (at, row) in rows.iter().enumerate() {
        let tag = if at == 0 { "th" } else { "td" };
        html += "<tr>";
        for cell in row {
            let _ = write!(html, "<{tag}>{}</{tag}>", escape(cell));
        }
        html += "</tr>";
    }
    html + "</table></div>"
}

/// The cells of a Markdown table in a text.
fn cells(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    rows.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// Latency by percentile of every candidate, of the rounds that count.
fn percentiles(measured: &Measured) -> String {
    let mut series = Vec::new();
    for candidate in &measured.candidates {
        let mut merged = onehop_load::record::histogram();
        for block in measured.blocks.iter().filter(|block| !block.closed && block.candidate == candidate.name) {
            if let Ok(histogram) = hdr::decode(&block.latency) {
                merged.add(histogram).expect("all histograms have the same bounds");
            }
        }
        if !merged.is_empty() {
            series.push(Series::line(&candidate.name, load_html::percentiles(&merged)));
        }
    }
    let plot = Plot {
        title: String::new(),
        x_label: "percentile, all rounds together".to_owned(),
        y_label: "latency".to_owned(),
        x: Scale::Nines,
        y: Scale::Log,
        show,
        series,
    };
    plot.svg()
}

/// A name, a value, and the ends of its interval.
type Bar = (String, f64, f64, f64);
/// Height of a bar, and of what stands above them.
const BAR: f64 = 26.0;
const HEAD: f64 = 34.0;

/// Horizontal bars with intervals, so wide.
pub fn bars(width: f64, title: &str, unit: &str, rows: &[Bar]) -> String {
    let (left, right, row) = (110.0, if width < 500.0 { 90.0 } else { 150.0 }, BAR);
    let height = HEAD + rows.len() as f64 * row;
    // One wide interval must not squeeze all bars: it is cut at a third above the longest bar.
    let longest = rows.iter().map(|(_, value, _, _)| *value).fold(0.0f64, f64::max).max(1e-9);
    let most = rows.iter().map(|(_, _, _, high)| *high).fold(longest, f64::max).min(longest * 1.33);
    let x = |value: f64| left + (value.clamp(0.0, most) / most) * (width - left - right);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"currentColor\"><title>{0}</title>\
         <text x=\"0\" y=\"16\" font-weight=\"600\">{0}</text>",
        escape(title)
    );
    for (at, (name, value, low, high)) in rows.iter().enumerate() {
        let y = 30.0 + at as f64 * row;
        let colour = if name.starts_with("onehop") { COLOURS[0] } else { COLOURS[6] };
        let (base, middle) = (y + 13.0, y + 8.0);
        let (start, end, bar) = (x(*low), x(*high), x(*value) - left);
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{left}\" y=\"{y}\" width=\"{bar:.1}\" height=\"16\" rx=\"2\" fill=\"{colour}\"/>\
             <line x1=\"{start:.1}\" x2=\"{end:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"currentColor\" \
             stroke-width=\"1.5\"/><text x=\"{:.1}\" y=\"{base}\">{value:.1} {unit}</text>",
            left - 8.0,
            escape(name),
            end.max(x(*value)) + 8.0,
        );
    }
    svg + "</svg>"
}

fn rows(analysis: &Analysis, figure: impl Fn(&Verdict) -> Option<(f64, f64, f64)>) -> Vec<(String, f64, f64, f64)> {
    let one = |verdict: &Verdict| figure(verdict).map(|(value, low, high)| (verdict.name.clone(), value, low, high));
    analysis.verdicts.iter().filter_map(one).collect()
}

/// What the picture shows, of those that were measured.
const PICTURED: [&str; 4] = ["http-small", "h2-h1-512", "mesh-small", "tls-bulk"];
/// Width of one of its two columns.
const COLUMN: f64 = 400.0;

/// The headline: added p50 and CPU time of some scenarios, side by side, as one picture.
pub fn picture(results: &[(Measured, Analysis)]) -> Option<String> {
    let drawn = |(measured, _): &&(Measured, Analysis)| PICTURED.contains(&measured.scenario.name.as_str());
    let mut chosen: Vec<_> = results.iter().filter(drawn).collect();
    if chosen.is_empty() {
        chosen.extend(results.iter().find(|(measured, _)| !measured.scenario.idle));
    }
    let (mut body, mut y) = (String::new(), 16.0);
    for (measured, analysis) in &chosen {
        let added = rows(analysis, |verdict| verdict.added.map(|added| added[0].drawn(1e3)));
        let cpu = rows(analysis, |verdict| verdict.cpu_us.map(|cpu| cpu.drawn(1.0)));
        let height = HEAD + added.len().max(cpu.len()) as f64 * BAR;
        let title = escape(&measured.scenario.title);
        let _ = write!(
            body,
            "<text x=\"20\" y=\"{}\" font-family=\"system-ui, sans-serif\" font-size=\"15\" font-weight=\"600\">{title}</text>",
            y + 14.0
        );
        for (x, what, bars_of) in
            [(20.0, "added latency, median", &added), (COLUMN + 40.0, "CPU time per request", &cpu)]
        {
            let inner = bars(COLUMN, what, "us", bars_of);
            let own = HEAD + bars_of.len() as f64 * BAR;
            let at =
                format!("<svg x=\"{x}\" y=\"{}\" width=\"{COLUMN}\" height=\"{own}\" overflow=\"visible\" ", y + 20.0);
            body += &inner.replacen("<svg ", &at, 1).replacen("font-weight=\"600\"", "opacity=\"0.7\"", 1);
        }
        y += height + 44.0;
    }
    let width = 2.0 * COLUMN + 60.0;
    (!chosen.is_empty()).then(|| {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {y}\" width=\"{width}\" height=\"{y}\">\
             <rect width=\"{width}\" height=\"{y}\" fill=\"#ffffff\"/><g fill=\"#1a1a1a\" color=\"#1a1a1a\">{body}</g></svg>\n"
        )
    })
}

/// report.html.
pub fn report(results: &[(Measured, Analysis)], selftest: Option<&SelfTest>, setup: &str) -> String {
    let mut body = "<h1>What the hop costs</h1><p>Added latency is the difference of a candidate's quantile from the \
                    direct one (no quantile of differences), with its 95&nbsp;% interval from a block bootstrap, widened for few lives; n.s.: not \
                    significant. CPU time is that of all the candidate's threads, in the same blocks as the \
                    latency.</p>"
        .to_owned();
    body += "<h2 id=\"headline\">At a glance</h2><p>Median latency that each adds, and its CPU time per request.</p>";
    body += &table(&cells(&markdown::headline(results)));
    let links = results.iter().map(|(measured, _)| {
        format!("<a href=\"#{0}\">{1}</a>", measured.scenario.name, escape(&measured.scenario.title))
    });
    let _ = write!(body, "<p>{}</p>", links.collect::<Vec<_>>().join(" &middot; "));
    for part in super::sides::sides(results).split("## ").skip(1) {
        let (title, rest) = part.split_once('\n').unwrap_or((part, ""));
        let text: String = rest.lines().filter(|line| !line.starts_with('|')).collect::<Vec<_>>().join(" ");
        let _ = write!(body, "<h2>{}</h2><p>{}</p>{}", escape(title), escape(&text), table(&cells(rest)));
    }
    body += "<h2>Self-tests of the instrument</h2>";
    body += &match selftest {
        Some(selftest) => table(&selftest.rows())
            .replacen("<table>", "<table class=\"wrap\">", 1)
            .replace("<td>FAILED</td>", "<td><strong style=\"color:#b00020\">FAILED</strong></td>"),
        None => "<p class=\"note bad\">They have not been run into this folder.</p>".to_owned(),
    };
    for (measured, analysis) in results {
        let scenario = &measured.scenario;
        let _ = write!(
            body,
            "<h2 id=\"{}\">{}</h2><p>{:.0} requests a second, {} connections, {} rounds in {} lives of the \
             processes.</p>",
            scenario.name,
            escape(&scenario.title),
            measured.rate,
            scenario.connections,
            analysis.rounds.0,
            scenario.restarts
        );
        for remark in markdown::remarks(measured, analysis) {
            let class = if remark.starts_with("VOID") { "note bad" } else { "note" };
            let _ = write!(body, "<p class=\"{class}\">{}</p>", escape(&remark));
        }
        if scenario.idle {
            body += &table(&markdown::idle_table(analysis));
            body += &bars(
                760.0,
                "Memory per idle connection",
                "KiB",
                &rows(analysis, |v| v.per_connection_kib.map(|k| (k, k, k))),
            );
            continue;
        }
        body += &bars(
            760.0,
            "Median latency that the hop adds",
            "us",
            &rows(analysis, |verdict| verdict.added.map(|added| added[0].drawn(1e3))),
        );
        body += &bars(760.0, "CPU time per request", "us", &rows(analysis, |v| v.cpu_us.map(|cpu| cpu.drawn(1.0))));
        body += &table(&markdown::latency_table(analysis));
        body += &percentiles(measured);
        body += &table(&markdown::cost_table(analysis));
        body += &table(&markdown::against_table(analysis));
        body += &table(&markdown::ledger_table(analysis));
        let _ = write!(body, "<p>{}</p>", escape(&markdown::lateness(measured, analysis)));
    }
    let _ = write!(body, "<h2>Setup</h2><pre style=\"white-space:pre-wrap\">{}</pre>", escape(setup));
    page("What the hop costs", &body)
}
