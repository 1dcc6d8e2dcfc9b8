//! Direct, gateway and mesh side by side: what one hop adds, what two add, and what mutual TLS between them adds to that.

use std::fmt::Write;

use super::analysis::{Analysis, Verdict};
use super::markdown::{added, figure};
use crate::hop::Measured;
use crate::hop::scenario::{Kind, Scenario};

/// Whether a scenario is the plain gateway that goes with a mesh scenario.
fn goes_with(gateway: &Scenario, mesh: &Scenario) -> bool {
    let plain = !gateway.idle && !gateway.new_connections && gateway.session.is_none();
    gateway.kind == Kind::Gateway && plain && gateway.protocol == mesh.protocol && gateway.size == mesh.size
}

fn of<'a>(analysis: &'a Analysis, name: &str) -> Option<&'a Verdict> {
    analysis.verdicts.iter().find(|verdict| verdict.name == name)
}

fn cells(verdict: Option<&Verdict>) -> [String; 2] {
    match verdict {
        Some(verdict) => {
            let latency =
                if verdict.added.is_some() { added(verdict, 0) } else { format!("({:.1})", verdict.latency[0] / 1e3) };
            [latency, verdict.cpu_us.map_or_else(|| "-".to_owned(), |cpu| figure(&cpu, 1))]
        }
        None => ["-".to_owned(), "-".to_owned()],
    }
}

/// The tables, one for each mesh scenario whose gateway was measured as well; empty without one.
pub fn sides(results: &[(Measured, Analysis)]) -> String {
    let mut text = String::new();
    for (mesh, in_mesh) in results.iter().filter(|(m, _)| m.scenario.kind == Kind::Mesh && m.scenario.mutual_tls) {
        let Some((gateway, at_edge)) = results.iter().find(|(m, _)| goes_with(&m.scenario, &mesh.scenario)) else {
            continue;
        };
        let _ = write!(
            text,
            "## Direct, gateway and mesh: {}\n\nGateway: {:.0} requests a second; two sidecars with mutual TLS: {:.0} (the \
             rate is the slowest candidate's, so latencies compare within a column). In brackets, direct's own median.\n\n\
             | candidate | gateway: added p50, us | mesh: added p50, us | gateway: CPU us/request | mesh: CPU us/request | \
             mesh over onehop's |\n|---|---|---|---|---|---|\n",
            gateway.scenario.title, gateway.rate, mesh.rate
        );
        let own = of(in_mesh, "onehop").and_then(|verdict| verdict.cpu_us);
        for verdict in &in_mesh.verdicts {
            let ([one, one_cpu], [two, two_cpu]) = (cells(of(at_edge, &verdict.name)), cells(Some(verdict)));
            let ratio = verdict.cpu_us.zip(own).filter(|(_, own)| own.value > 0.0);
            let ratio = ratio.map_or_else(|| "-".to_owned(), |(cpu, own)| format!("{:.2}", cpu.value / own.value));
            let _ = writeln!(text, "| {} | {one} | {two} | {one_cpu} | {two_cpu} | {ratio} |", verdict.name);
        }
        text.push('\n');
    }
    text
}
