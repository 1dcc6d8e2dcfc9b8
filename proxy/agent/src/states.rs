//! The state of each endpoint as metrics show it, and what rate limits had to forget. Reasons are words from short lists;
//! a cluster of very many endpoints is counted, not listed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use onehop_plan::outlier::{Cause, EJECTED, UNHEALTHY};
use onehop_plan::{Cluster, DRAINED, Endpoint, Snapshot};

use crate::probe::Health;

/// Endpoints that are listed one by one, over all clusters; further ones are in their clusters' counts alone.
const LISTED: usize = 10_000;

/// An endpoint's state in a word, and why it is in it.
pub fn state(endpoint: &Endpoint) -> (&'static str, Option<&'static str>) {
    let health = endpoint.vitals.health.load(Ordering::Relaxed);
    match health {
        _ if health & DRAINED != 0 => ("drained", Some("by hand")),
        _ if health & UNHEALTHY != 0 => ("unhealthy", None),
        _ if health & EJECTED != 0 => ("ejected", endpoint.vitals.cause().map(Cause::name)),
        _ => ("healthy", None),
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// As Prometheus reads it.
pub fn text(snapshot: &Snapshot, health: &Health) -> String {
    let mut text = String::new();
    let head = |text: &mut String, name: &str, kind: &str, help: &str| {
        // Writing to a string cannot fail; so below.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    };
    head(&mut text, "onehop_cluster_endpoints", "gauge", "Endpoints by their state.");
    for cluster in &snapshot.clusters {
        let mut counts = BTreeMap::new();
        for endpoint in &cluster.endpoints.endpoints {
            *counts.entry(state(endpoint).0).or_insert(0u32) += 1;
        }
        for (state, count) in counts {
            let name = escape(&cluster.name);
            let _ = writeln!(text, "onehop_cluster_endpoints{{cluster=\"{name}\",state=\"{state}\"}} {count}");
        }
    }
    let all = || {
        snapshot.clusters.iter().flat_map(|cluster| cluster.endpoints.endpoints.iter().map(move |one| (cluster, one)))
    };
    head(&mut text, "onehop_endpoint_healthy", "gauge", "Whether requests go to the endpoint.");
    for (cluster, endpoint) in all().take(LISTED) {
        let _ = writeln!(
            text,
            "onehop_endpoint_healthy{{{}}} {}",
            labels(cluster, endpoint),
            u8::from(endpoint.is_usable())
        );
    }
    head(&mut text, "onehop_endpoint_state", "gauge", "Endpoints that are out, and why.");
    for (cluster, endpoint) in all().take(LISTED).filter(|(_, endpoint)| !endpoint.is_usable()) {
        let (state, reason) = state(endpoint);
        let failed = || health.last_failure(&cluster.name, &endpoint.address).map(|failure| failure.word);
        let reason = reason.or_else(failed).unwrap_or("unknown");
        let labels = labels(cluster, endpoint);
        let _ = writeln!(text, "onehop_endpoint_state{{{labels},state=\"{state}\",reason=\"{reason}\"}} 1");
    }
    let name = "onehop_route_rate_keys_forgotten_total";
    head(&mut text, name, "counter", "Keys of rate limits that were forgotten, for lack of room, while they counted.");
    for (route, guards) in snapshot.guards.iter().filter(|(_, guards)| !guards.rates.is_empty()) {
        let forgotten: u64 = guards.rates.iter().map(|(rate, _)| rate.forgotten()).sum();
        let _ = writeln!(text, "{name}{{route=\"{}\"}} {forgotten}", escape(route));
    }
    text
}

fn labels(cluster: &Cluster, endpoint: &Endpoint) -> String {
    format!("cluster=\"{}\",endpoint=\"{}\"", escape(&cluster.name), escape(&endpoint.address.to_string()))
}
