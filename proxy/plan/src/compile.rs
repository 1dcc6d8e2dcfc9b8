//! The only validator: a model becomes a snapshot, or a list of everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use onehop_meter::Registry;

use crate::model::{self, Layer, Model, PathMatch, RetryOn};
use crate::route::HostTable;
use crate::snapshot::{
    Cluster, ClusterRef, ConnectionLimits, EndpointSet, HttpPolicy, Listener, Pool, Retry, Route, Snapshot, Split,
    TcpPolicy, endpoint, written_down,
};

/// What a problem is about; `config` knows where in the file that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// `[runtime]`.
    Runtime(&'static str),
    /// The n-th listener and one of its keys.
    Listener(usize, &'static str),
    /// The n-th route and one of its keys.
    Route(usize, &'static str),
    /// The n-th cluster and one of its keys.
    Cluster(usize, &'static str),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// About what.
    pub place: Place,
    /// What.
    pub message: String,
    /// What was probably meant, or what to do.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, place: Place, message: impl Into<String>) {
        self.0.push(Problem { place, message: message.into(), hint: None });
    }

    fn hint(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Problem { place, message: message.into(), hint: Some(hint.into()) });
    }
}

/// Compiles a model. Parts that did not change are shared with the previous snapshot where that matters: endpoints
/// keep their health.
///
/// # Errors
/// Everything that is wrong, in the model's order.
pub fn compile(model: &Model, registry: &Registry, previous: Option<&Snapshot>) -> Result<Snapshot, Vec<Problem>> {
    let mut problems = Problems::default();
    check_runtime(model, &mut problems);
    check_listeners(model, &mut problems);
    check_clusters(model, &mut problems);
    check_routes(model, &mut problems);
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    let ids: BTreeMap<&str, u32> =
        model.clusters.iter().enumerate().map(|(at, cluster)| (cluster.name.as_str(), at as u32)).collect();
    let ourselves = |address: &SocketAddr| model.listeners.iter().any(|listener| listener.address == *address);
    let clusters =
        model.clusters.iter().map(|wanted| Arc::new(cluster(wanted, registry, previous, &ourselves))).collect();
    let listeners = listeners(model, registry, &ids);
    Ok(Snapshot {
        generation: previous.map_or(1, |previous| previous.generation + 1),
        listeners,
        clusters,
        access_log: model.access_log.clone(),
        busy_poll: model.runtime.busy_poll,
        drain: model.runtime.drain,
        max_connections: model.runtime.max_connections,
    })
}

fn check_runtime(model: &Model, problems: &mut Problems) {
    let runtime = &model.runtime;
    if runtime.workers == Some(0) || runtime.workers.is_some_and(|workers| workers > 1024) {
        problems.add(Place::Runtime("workers"), "workers must be between 1 and 1024");
    }
    if runtime.busy_poll > std::time::Duration::from_millis(100) {
        problems.hint(
            Place::Runtime("busy_poll"),
            "busy_poll is longer than 100ms",
            "it is the time a core spins before it sleeps; \"50us\" is usual",
        );
    }
    if runtime.max_connections == 0 {
        problems.add(Place::Runtime("max_connections"), "max_connections must be at least 1");
    }
}

fn unique<'a>(
    names: impl Iterator<Item = &'a str>,
    kind: &str,
    place: impl Fn(usize) -> Place,
    problems: &mut Problems,
) {
    let mut seen = BTreeSet::new();
    for (at, name) in names.enumerate() {
        if name.is_empty() {
            problems.add(place(at), format!("a {kind} needs a name"));
        } else if !seen.insert(name) {
            problems.hint(
                place(at),
                format!("there are two {kind}s named \"{name}\""),
                "names tell them apart in metrics and in routes",
            );
        }
    }
}

fn check_listeners(model: &Model, problems: &mut Problems) {
    if model.listeners.is_empty() {
        problems.hint(Place::Runtime(""), "there is no listener", "add [[listener]] with name and address");
    }
    unique(
        model.listeners.iter().map(|listener| listener.name.as_str()),
        "listener",
        |at| Place::Listener(at, "name"),
        problems,
    );
    for (at, listener) in model.listeners.iter().enumerate() {
        let place = |key| Place::Listener(at, key);
        for other in &model.listeners[..at] {
            if overlaps(listener.address, other.address) {
                problems.add(
                    place("address"),
                    format!("address {} overlaps with that of listener \"{}\"", listener.address, other.name),
                );
            }
        }
        match (listener.layer, listener.tcp.is_empty()) {
            (Layer::Tcp, true) => problems.hint(place("layer"), "a TCP listener needs a cluster", "cluster = \"NAME\""),
            (Layer::Http, false) => problems.hint(
                place("cluster"),
                "an HTTP listener has no cluster of its own",
                "write a [[route]], or layer = \"tcp\"",
            ),
            _ => {}
        }
        check_targets(&listener.tcp, model, place("cluster"), problems);
        let http = &listener.http;
        if !(1024..=1 << 20).contains(&http.head_bytes) {
            problems.add(place("max_head"), "max_head must be between 1KiB and 1MiB");
        }
        if !(8..=128).contains(&http.fields) {
            problems.add(place("max_fields"), "max_fields must be between 8 and 128");
        }
        if http.header_timeout.is_zero()
            || http.idle_timeout.is_zero()
            || http.body_timeout.is_zero()
            || listener.tcp_idle_timeout.is_zero()
        {
            problems.add(place("name"), "a timeout of a listener is zero: nothing could be received");
        }
    }
}

fn overlaps(one: SocketAddr, other: SocketAddr) -> bool {
    let wild = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port()
        && one.port() != 0
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || wild)
}

fn check_targets(targets: &[model::Target], model: &Model, place: Place, problems: &mut Problems) {
    for target in targets {
        if !model.clusters.iter().any(|cluster| cluster.name == target.cluster) {
            let known = model.clusters.iter().map(|cluster| cluster.name.as_str());
            match nearest(&target.cluster, known) {
                Some(near) => problems.hint(
                    place,
                    format!("there is no cluster \"{}\"", target.cluster),
                    format!("did you mean \"{near}\"?"),
                ),
                None => problems.hint(
                    place,
                    format!("there is no cluster \"{}\"", target.cluster),
                    "add a [[cluster]] of that name",
                ),
            }
        }
    }
    if !targets.is_empty() && targets.iter().all(|target| target.weight == 0) {
        problems.add(place, "every weight is zero: nothing could be chosen");
    }
}

fn check_clusters(model: &Model, problems: &mut Problems) {
    unique(
        model.clusters.iter().map(|cluster| cluster.name.as_str()),
        "cluster",
        |at| Place::Cluster(at, "name"),
        problems,
    );
    for (at, cluster) in model.clusters.iter().enumerate() {
        let place = |key| Place::Cluster(at, key);
        if cluster.endpoints.is_empty() {
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
        if !cluster.endpoints.is_empty() && cluster.endpoints.iter().all(|endpoint| endpoint.weight == 0) {
            problems.add(place("endpoints"), "every weight is zero: nothing could be chosen");
        }
        if cluster.connect_timeout.is_zero() {
            problems.add(place("connect_timeout"), "connect_timeout must not be zero");
        }
        if cluster.max_connections == Some(0) || cluster.max_requests == Some(0) {
            problems.add(place("limits"), "a limit of zero would refuse everything");
        }
    }
}

fn check_routes(model: &Model, problems: &mut Problems) {
    unique(model.routes.iter().map(|route| route.name.as_str()), "route", |at| Place::Route(at, "name"), problems);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (at, route) in model.routes.iter().enumerate() {
        let place = |key| Place::Route(at, key);
        for name in &route.listeners {
            match model.listeners.iter().find(|listener| listener.name == *name) {
                None => {
                    let near = nearest(name, model.listeners.iter().map(|listener| listener.name.as_str()));
                    let message = format!("there is no listener \"{name}\"");
                    match near {
                        Some(near) => problems.hint(place("listeners"), message, format!("did you mean \"{near}\"?")),
                        None => problems.add(place("listeners"), message),
                    }
                }
                Some(listener) if listener.layer == Layer::Tcp => {
                    problems.add(place("listeners"), format!("listener \"{name}\" speaks TCP: it has no routes"));
                }
                Some(_) => {}
            }
        }
        if route.targets.is_empty() {
            problems.hint(
                place("cluster"),
                "a route needs a cluster",
                "cluster = \"NAME\", or split = [{ cluster = \"NAME\", weight = N }]",
            );
        }
        check_targets(&route.targets, model, place("cluster"), problems);
        check_match(route, at, problems);
        let key = format!("{:?} {:?} {:?} {:?}", route.listeners, route.host, route.path, route.methods);
        if let Some(first) = seen.insert(key, at) {
            problems.add(
                place("path"),
                format!(
                    "route \"{}\" matches exactly what \"{}\" matches: it would never be used",
                    route.name, model.routes[first].name
                ),
            );
        }
    }
}

fn check_match(route: &model::Route, at: usize, problems: &mut Problems) {
    let place = |key| Place::Route(at, key);
    let (PathMatch::Exact(path) | PathMatch::Prefix(path)) = &route.path;
    if !path.starts_with('/') {
        problems.hint(place("path"), format!("path \"{path}\" does not begin with a slash"), format!("\"/{path}\""));
    }
    if path.bytes().any(|byte| matches!(byte, b'?' | b'#' | 0..=0x20 | 0x7f..)) {
        problems.add(place("path"), "a path has no query, fragment, white space or bytes beyond ASCII");
    }
    if let Some(host) = &route.host {
        let bare = host.strip_prefix("*.").unwrap_or(host);
        if bare.is_empty() || bare.contains('*') {
            problems.hint(
                place("host"),
                format!("host \"{host}\" is no host"),
                "a wildcard stands for the first labels: \"*.example.com\"",
            );
        } else if bare.contains('/') || (bare.contains(':') && !bare.starts_with('[')) {
            problems.hint(
                place("host"),
                format!("host \"{host}\" has more than a name"),
                "write it without scheme and port: any port matches",
            );
        }
    }
    if route.timeout.is_some_and(|timeout| timeout.is_zero()) {
        problems.hint(place("timeout"), "a timeout of zero would fail every request", "timeout = \"off\" turns it off");
    }
    if route.retries > 10 {
        problems.add(place("retry"), "more than 10 attempts multiply load when it hurts most");
    }
    if route.upgrades.iter().any(|protocol| protocol.eq_ignore_ascii_case("h2c")) {
        problems.add(place("upgrade"), "h2c is never forwarded: it would walk around the routes");
    }
}

fn listeners(model: &Model, registry: &Registry, ids: &BTreeMap<&str, u32>) -> Vec<Arc<Listener>> {
    let split = |targets: &[model::Target]| {
        Split::new(targets.iter().map(|target| {
            let id = ids.get(target.cluster.as_str()).copied().unwrap_or(u32::MAX);
            (ClusterRef { id, name: Arc::from(target.cluster.as_str()) }, target.weight)
        }))
    };
    let routes: Vec<Arc<Route>> = model
        .routes
        .iter()
        .map(|route| {
            Arc::new(Route {
                name: Arc::from(route.name.as_str()),
                split: split(&route.targets),
                timeout: route.timeout,
                retry: Retry {
                    attempts: route.retries,
                    on_connect_failure: route.retry_on.contains(&RetryOn::ConnectFailure),
                    on_reset_before_response: route.retry_on.contains(&RetryOn::ResetBeforeResponse),
                },
                upgrades: route.upgrades.clone(),
                allow_connect: route.connect,
                max_body: route.max_body,
                meters: registry.route(&route.name),
            })
        })
        .collect();
    let listener = |wanted: &model::Listener| {
        let mut hosts = HostTable::default();
        for (route, compiled) in model.routes.iter().zip(&routes) {
            if route.listeners.is_empty() || route.listeners.contains(&wanted.name) {
                hosts.add(route.host.as_deref(), &route.path, &route.methods, compiled);
            }
        }
        Arc::new(Listener {
            name: Arc::from(wanted.name.as_str()),
            address: wanted.address,
            layer: wanted.layer,
            proxy_protocol: wanted.proxy_protocol,
            max_connections: wanted.max_connections.map_or(usize::MAX, |limit| limit.div_ceil(registry.cores().max(1))),
            http: policy(&wanted.http),
            tcp: (!wanted.tcp.is_empty())
                .then(|| TcpPolicy { split: split(&wanted.tcp), idle_timeout: wanted.tcp_idle_timeout }),
            hosts: Arc::new(hosts),
            meters: registry.listener(&wanted.name),
        })
    };
    model.listeners.iter().map(listener).collect()
}

fn policy(http: &model::Http) -> HttpPolicy {
    HttpPolicy {
        head_bytes: http.head_bytes,
        fields: http.fields,
        request_line: http.request_line,
        header_timeout: http.header_timeout,
        idle_timeout: http.idle_timeout,
        body_idle_timeout: http.body_timeout,
        max_requests: http.max_requests.unwrap_or(u64::MAX),
        forwarded: http.forwarded,
        trusted_hops: http.trusted_hops,
        request_id: http.request_id,
        server_timing: http.server_timing,
        connect_failure_502: http.connect_failure_502,
    }
}

fn cluster(
    wanted: &model::Cluster,
    registry: &Registry,
    previous: Option<&Snapshot>,
    ourselves: &impl Fn(&SocketAddr) -> bool,
) -> Cluster {
    let old = previous.and_then(|previous| previous.clusters.iter().find(|cluster| *cluster.name == *wanted.name));
    let known = |address: &model::Address, weight: u32| {
        let found =
            old?.endpoints.endpoints.iter().find(|endpoint| endpoint.address == *address && endpoint.weight == weight);
        found
            .filter(|endpoint| {
                endpoint.is_ourselves == matches!(address, model::Address::Tcp(address) if ourselves(address))
            })
            .cloned()
    };
    let names: Vec<(String, u16, u32)> = wanted
        .endpoints
        .iter()
        .filter_map(|endpoint| match &endpoint.target {
            model::EndpointTarget::Name(name, port) => Some((name.clone(), *port, endpoint.weight)),
            model::EndpointTarget::Address(_) => None,
        })
        .collect();
    let mut endpoints: Vec<_> = wanted
        .endpoints
        .iter()
        .filter_map(|wanted| Some((written_down(&wanted.target)?, wanted.weight)))
        .map(|(address, weight)| {
            known(&address, weight)
                .unwrap_or_else(|| Arc::new(endpoint(&wanted.name, address, weight, registry, ourselves)))
        })
        .collect();
    if let Some(old) = old.filter(|old| old.names == names) {
        // Until the names are resolved again, what they last said holds.
        for resolved in &old.endpoints.endpoints {
            if !endpoints.iter().any(|endpoint| endpoint.address == resolved.address) && !names.is_empty() {
                endpoints.push(resolved.clone());
            }
        }
    }
    Cluster {
        name: Arc::from(wanted.name.as_str()),
        endpoints: Arc::new(EndpointSet { endpoints }),
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
        meters: registry.cluster(&wanted.name),
    }
}

/// The known name that is nearest to a misspelt one, if any is near.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|known| (distance(name, known), known)).min()?;
    (near.0 <= 1 + name.len() / 3).then_some(near.1)
}

/// Edits (insert, delete, replace) that turn one word into another.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}
