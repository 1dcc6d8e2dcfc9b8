//! Clusters: their checks and their compiled form.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use onehop_meter::Registry;

use super::http2::{check_auto, check_http2};
use super::problem::{Place, Problems};
use super::unique;
use crate::balance::MAX_TIERS;
use crate::model::{self, BalanceKind, ClusterPolicy, Model};
use crate::snapshot::{Cluster, ConnectionLimits, EndpointSet, Pool, Wanted, departed, endpoint, written_down};
use crate::tls::ClientTls;

pub(super) fn check_clusters(model: &Model, problems: &mut Problems) {
    unique(
        model.clusters.iter().map(|cluster| cluster.name.as_str()),
        "cluster",
        |at| Place::Cluster(at, "name"),
        problems,
    );
    for (at, cluster) in model.clusters.iter().enumerate() {
        let place = |key| Place::Cluster(at, key);
        if cluster.endpoints.is_empty() && cluster.original.is_none() {
            problems.hint(
                place("endpoints"),
                format!("cluster \"{}\" has no endpoints", cluster.name),
                "endpoints = [\"HOST:PORT\"]",
            );
        }
        let mut seen = Vec::new();
        for endpoint in &cluster.endpoints {
            if seen.contains(&&endpoint.target) {
                problems.hint(place("endpoints"), "the same endpoint is listed twice", "give it a weight instead");
            }
            seen.push(&endpoint.target);
        }
        let tiers: BTreeSet<u32> = cluster.endpoints.iter().map(|endpoint| endpoint.placement.priority).collect();
        if tiers.len() > MAX_TIERS {
            let found =
                format!("{} different priorities: the endpoints of at most {MAX_TIERS} could be used", tiers.len());
            problems.add(place("endpoints"), found);
        }
        if !cluster.endpoints.is_empty() && cluster.endpoints.iter().all(|endpoint| endpoint.weight == 0) {
            problems.add(place("endpoints"), "every weight is zero: nothing could be chosen");
        }
        check_http2(&cluster.http2, place("http2"), problems);
        check_auto(cluster, at, problems);
        if cluster.connect_timeout.is_zero() {
            problems.add(place("connect_timeout"), "connect_timeout must not be zero");
        }
        let policy = &cluster.policy;
        let limits =
            [cluster.max_connections, cluster.max_requests, policy.endpoint_requests, policy.endpoint_connections];
        if limits.contains(&Some(0)) || policy.queue_age.is_some_and(|age| age.is_zero()) {
            problems.add(place("limits"), "a limit of zero would refuse everything");
        }
        check_cluster_policy(cluster, at, problems);
    }
}

fn check_cluster_policy(cluster: &model::Cluster, at: usize, problems: &mut Problems) {
    let place = |key| Place::Cluster(at, key);
    let policy = &cluster.policy;
    let by_value = matches!(cluster.balance, BalanceKind::RingHash | BalanceKind::Maglev);
    if by_value && policy.hash_on.is_none() {
        problems.hint(place("balance"), "it chooses by a value: say by which", "hash_on = { source = true }");
    }
    if !by_value && policy.hash_on.is_some() {
        problems.hint(place("hash_on"), "this balance does not look at a value", "balance = \"maglev\"");
    }
    if policy.panic_percent > 100 || policy.retry_percent > 100 {
        problems.add(place("name"), "a percentage is between 0 and 100");
    }
    if let Some(outlier) = &policy.outlier {
        let never = [outlier.consecutive_5xx, outlier.consecutive_gateway, outlier.consecutive_connect];
        if never.contains(&Some(0)) {
            problems.add(place("outlier"), "an endpoint that is ejected after no failure never serves");
        }
        if outlier.max_percent > 100 || outlier.base.is_zero() || outlier.interval.is_zero() {
            problems.add(place("outlier"), "max_ejected is at most 100, and the times are not zero");
        }
        if outlier.success_rate.is_some_and(|rate| rate > 1.0)
            || outlier.latency_factor.is_some_and(|factor| factor <= 1.0)
        {
            problems.add(place("outlier"), "success_rate is at most 1, latency_factor more than 1");
        }
    }
    if let Some(adaptive) = &policy.adaptive {
        super::limits::check_adaptive(adaptive, place("adaptive"), problems);
    }
    if let Some(probe) = &policy.probe {
        check_probe(probe, place("health"), problems);
    }
}

fn check_probe(probe: &model::Probe, place: Place, problems: &mut Problems) {
    let words = match &probe.kind {
        model::ProbeKind::Tcp => Vec::new(),
        model::ProbeKind::Http { path, host, expect } => {
            if !path.starts_with('/') {
                problems.hint(place, format!("path \"{path}\" does not begin with a slash"), format!("\"/{path}\""));
            }
            if expect.is_empty() {
                problems.add(place, "no status would be healthy");
            }
            vec![path.as_str(), host.as_deref().unwrap_or_default()]
        }
        model::ProbeKind::Grpc { service, host } => vec![service.as_str(), host.as_deref().unwrap_or_default()],
    };
    if words.iter().any(|word| word.len() > 1024 || word.bytes().any(|byte| byte <= 0x20 || byte >= 0x7f)) {
        problems
            .add(place, "a path, a host or a service has no white space and no bytes beyond ASCII, and at most 1024");
    }
    if probe.interval < std::time::Duration::from_millis(10)
        || probe.timeout.is_zero()
        || probe.healthy == 0
        || probe.unhealthy == 0
    {
        problems.add(place, "a check is made at most every 10ms, takes some time, and counts at least one result");
    }
}

pub(super) fn cluster(
    wanted: &model::Cluster,
    tls: Option<Arc<ClientTls>>,
    registry: &Registry,
    old: Option<&Cluster>,
    ourselves: &impl Fn(&SocketAddr) -> bool,
    policies: &mut Vec<Arc<ClusterPolicy>>,
) -> Cluster {
    let names = names(wanted);
    let mut endpoints: Vec<_> = wanted
        .endpoints
        .iter()
        .filter_map(|wanted| Some((written_down(&wanted.target)?, wanted)))
        .map(|(address, one)| {
            let one = Wanted { address, weight: one.weight, placement: &one.placement, is_named: false };
            endpoint(&wanted.name, one, old, registry, ourselves)
        })
        .collect();
    if let Some(old) = old.filter(|old| old.names == names) {
        // Until the names are resolved again, what they last said holds.
        for resolved in old.endpoints.endpoints.iter().filter(|endpoint| endpoint.is_named) {
            if !endpoints.iter().any(|endpoint| endpoint.address == resolved.address) {
                endpoints.push(resolved.clone());
            }
        }
    }
    let departed = old.filter(|_| !names.is_empty()).map(|old| departed(&endpoints, old)).unwrap_or_default();
    Cluster {
        name: Arc::from(wanted.name.as_str()),
        endpoints: Arc::new(EndpointSet::new(endpoints, wanted.balance, old.map(|old| &*old.endpoints))),
        policy: old
            .filter(|old| *old.policy == wanted.policy)
            .map_or_else(|| share(policies, &wanted.policy), |old| old.policy.clone()),
        placements: placements(wanted),
        departed,
        names,
        balance: wanted.balance,
        connect_timeout: wanted.connect_timeout,
        pool: Pool {
            max_idle: wanted.max_idle,
            idle_timeout: wanted.idle_timeout,
            max_age: wanted.max_age,
            max_requests: wanted.max_requests_per_connection,
        },
        limits: ConnectionLimits { connections: wanted.max_connections, requests: wanted.max_requests },
        proxy_protocol: wanted.proxy_protocol,
        keep_source: wanted.keep_source,
        original: wanted.original.map(|original| (original, registry.endpoint(&wanted.name, "original-destination"))),
        tls,
        protocol: wanted.protocol,
        http2: wanted.http2.clone(),
        subsets: Vec::new(),
        sticky: None,
        floors: old.map(|old| old.floors.clone()).unwrap_or_default(),
        ejector: old.map(|old| old.ejector.clone()).unwrap_or_default(),
        meters: registry.cluster(&wanted.name),
    }
}

/// What is to be resolved: names, ports, weights.
fn names(wanted: &model::Cluster) -> Vec<(String, u16, u32)> {
    let named = |endpoint: &model::Endpoint| match &endpoint.target {
        model::EndpointTarget::Name(name, port) => Some((name.clone(), *port, endpoint.weight)),
        model::EndpointTarget::Address(_) => None,
    };
    wanted.endpoints.iter().filter_map(named).collect()
}

/// The same policy as another cluster's, where one of the first few has it: most clusters have one of a few.
fn share(known: &mut Vec<Arc<ClusterPolicy>>, wanted: &ClusterPolicy) -> Arc<ClusterPolicy> {
    const LOOKED_AT: usize = 16;
    if let Some(same) = known.iter().find(|policy| ***policy == *wanted) {
        return same.clone();
    }
    let new = Arc::new(wanted.clone());
    if known.len() < LOOKED_AT {
        known.push(new.clone());
    }
    new
}

/// Where those stand that names are resolved into.
fn placements(wanted: &model::Cluster) -> Vec<model::Placement> {
    let named = wanted.endpoints.iter().filter(|endpoint| matches!(endpoint.target, model::EndpointTarget::Name(..)));
    named.map(|endpoint| endpoint.placement.clone()).collect()
}
