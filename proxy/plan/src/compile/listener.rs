//! Listeners: their checks and their compiled form.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use onehop_meter::Registry;

use super::http2::check_http2;
use super::limits;
use super::problem::{Place, Problems};
use super::route::{Checked, Names, check_targets, split};
use super::{References, unique};
use crate::authz::{Policy, Rule};
use crate::model::{self, HashOn, Layer, Model, PathMatch};
use crate::route::{HostTable, PathBuffers, Shadowed};
use crate::snapshot::{HttpPolicy, Listener, Snapshot, Split, TcpPolicy};
use crate::tls::ServerTls;

pub(super) fn check_listeners(model: &Model, names: &Names<'_>, problems: &mut Problems) {
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
        for other in model.listeners[..at].iter().filter(|other| other.is_bound() && listener.is_bound()) {
            if overlaps(listener.address, other.address) {
                problems.add(
                    place("address"),
                    format!("address {} overlaps with that of listener \"{}\"", listener.address, other.name),
                );
            }
        }
        for (_, targets) in &listener.tcp_names {
            check_targets(targets, names, place("sni"), problems);
        }
        match (listener.layer, listener.tcp.is_empty() && listener.tcp_names.is_empty()) {
            (Layer::Tcp, true) => problems.hint(place("layer"), "a TCP listener needs a cluster", "cluster = \"NAME\""),
            (Layer::Http, false) => problems.hint(
                place("cluster"),
                "an HTTP listener has no cluster of its own",
                "write a [[route]], or layer = \"tcp\"",
            ),
            _ => {}
        }
        for parent in &listener.parents {
            if !model.listeners.iter().any(|other| other.name == *parent && other.capture && other.is_bound()) {
                problems.hint(
                    place("parents"),
                    format!("no listener \"{parent}\" captures anything"),
                    "capture = true",
                );
            }
        }
        check_targets(&listener.tcp, names, place("cluster"), problems);
        limits::check_listener(listener, at, problems);
        let http = &listener.http;
        check_http2(&http.http2, place("http2"), problems);
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

#[allow(clippy::too_many_arguments, reason = "each is a different part of the model")]
pub(super) fn listeners(
    model: &Model,
    tls: Vec<Option<Arc<ServerTls>>>,
    own: Option<Arc<str>>,
    registry: &Registry,
    ids: &References<'_>,
    checked: &mut Checked,
    warnings: &mut Problems,
    previous: Option<&Snapshot>,
) -> (Vec<Arc<Listener>>, Vec<Arc<HostTable>>) {
    let routes = checked.routes(model, registry, ids);
    let rules: Vec<Arc<Rule>> = model.access.iter().cloned().map(Arc::new).collect();
    let mut listener = |(index, (wanted, tls)): (usize, (&model::Listener, Option<Arc<ServerTls>>))| {
        let served = model
            .routes
            .iter()
            .enumerate()
            .filter(|(_, route)| route.listeners.is_empty() || route.listeners.contains(&wanted.name))
            .map(|(at, route)| (at, route, &checked.parts[at], routes[at].clone()));
        let (hosts, shadowed) = HostTable::build(served);
        let hosts = Arc::new(hosts);
        unreachable(model, wanted, &shadowed, warnings);
        check_chosen(model, wanted, index, warnings);
        let listener = Listener {
            name: Arc::from(wanted.name.as_str()),
            address: wanted.address,
            layer: wanted.layer,
            proxy_protocol: wanted.proxy_protocol,
            max_connections: wanted.max_connections.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
            http: policy(wanted),
            gate: limits::gate(wanted, previous),
            tcp: (!wanted.tcp.is_empty() || !wanted.tcp_names.is_empty()).then(|| TcpPolicy {
                split: split(&wanted.tcp, ids),
                names: by_name(&wanted.tcp_names, |targets| split(targets, ids)),
                idle_timeout: wanted.tcp_idle_timeout,
            }),
            index,
            hosts: Arc::downgrade(&hosts),
            capture: wanted.capture,
            virtuals: virtuals(model, wanted),
            detect_timeout: wanted.detect_timeout,
            access: Policy::new(&rules, &wanted.name, wanted.denies_by_default),
            client_cert: wanted.client_cert,
            own_uri: own.clone(),
            tls,
            meters: registry.listener(&wanted.name),
        };
        (Arc::new(listener), hosts)
    };
    model.listeners.iter().zip(tls).enumerate().map(&mut listener).unzip()
}

/// Warns where a cluster chooses by what the listener's TCP connections do not have.
fn check_chosen(model: &Model, wanted: &model::Listener, index: usize, warnings: &mut Problems) {
    let targets = wanted.tcp.iter().chain(wanted.tcp_names.iter().flat_map(|(_, targets)| targets));
    let named: HashSet<&str> = targets.map(|target| target.cluster.as_str()).collect();
    let by_head =
        |cluster: &&model::Cluster| !matches!(cluster.policy.hash_on, None | Some(HashOn::Source | HashOn::Identity));
    for cluster in model.clusters.iter().filter(|cluster| named.contains(cluster.name.as_str())).filter(by_head) {
        warnings.hint(
            Place::Listener(index, "cluster"),
            format!("cluster \"{}\" chooses by a value that TCP connections do not have: chance decides", cluster.name),
            "hash_on = { source = true }",
        );
    }
}

/// Warns of the routes that a listener never uses.
fn unreachable(model: &Model, wanted: &model::Listener, shadowed: &[Shadowed], warnings: &mut Problems) {
    let never =
        |route: &model::Route| format!("route \"{}\" is never used on listener \"{}\"", route.name, wanted.name);
    for Shadowed { route: at, by, others } in shadowed {
        let route = &model.routes[*at];
        match by {
            Some(by) => warnings.between(
                Place::Route(*at, ""),
                Place::Route(*by, ""),
                format!(
                    "{}: \"{}\" {} all of its requests",
                    never(route),
                    model.routes[*by].name,
                    if *others { "and others take" } else { "takes" }
                ),
            ),
            None => warnings.hint(
                Place::Route(*at, "path"),
                format!("{}: no path matches its expression", never(route)),
                "a path begins with a slash, and all of it must match",
            ),
        }
    }
    let mut buffers = PathBuffers::default();
    let serves = |route: &model::Route| route.listeners.is_empty() || route.listeners.contains(&wanted.name);
    let is_plain = wanted.tls.is_none() && !wanted.capture && wanted.parents.is_empty();
    for (at, route) in model.routes.iter().enumerate().filter(|(_, route)| serves(route)) {
        if is_plain && !route.sni.is_empty() && route.listeners.contains(&wanted.name) {
            warnings.add(Place::Route(at, "sni"), format!("{}: it has no TLS, and no name is told", never(route)));
        }
        let (PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Template(path)) = &route.path else {
            continue;
        };
        match wanted.http.path.apply(path.as_bytes(), &mut buffers) {
            Ok(normal) if normal.matched == path.as_bytes() => {}
            Ok(normal) => warnings.hint(
                Place::Route(at, "path"),
                format!("{}: no path is \"{path}\" once it is in normal form", never(route)),
                format!("\"{}\"", String::from_utf8_lossy(normal.matched)),
            ),
            Err(_) => warnings.add(
                Place::Route(at, "path"),
                format!("{}: requests with the path \"{path}\" are refused", never(route)),
            ),
        }
    }
}

/// Exact names first, then wildcards, the longest first.
fn by_name(
    wanted: &[(String, Vec<model::Target>)],
    split: impl Fn(&[model::Target]) -> Split,
) -> Vec<(Box<str>, Split)> {
    let mut names: Vec<_> = wanted
        .iter()
        .map(|(name, targets)| (name.to_ascii_lowercase().trim_start_matches('*').into(), split(targets)))
        .collect();
    names.sort_by_key(|(name, _): &(Box<str>, Split)| (name.starts_with('.'), std::cmp::Reverse(name.len())));
    names
}

/// Who serves what a listener captures: an address and a port before one of them alone.
fn virtuals(model: &Model, wanted: &model::Listener) -> Vec<(model::Destination, Arc<str>)> {
    let mut virtuals: Vec<_> = model
        .listeners
        .iter()
        .filter(|listener| listener.parents.contains(&wanted.name))
        .map(|listener| (listener.destination, Arc::from(listener.name.as_str())))
        .collect();
    virtuals.sort_by_key(|((ip, port), _)| (ip.is_none(), port.is_none()));
    virtuals
}

fn policy(wanted: &model::Listener) -> HttpPolicy {
    let http = &wanted.http;
    HttpPolicy {
        head_bytes: http.head_bytes,
        fields: http.fields,
        request_line: http.request_line,
        header_timeout: http.header_timeout,
        idle_timeout: http.idle_timeout,
        body_idle_timeout: http.body_timeout,
        tunnel_idle_timeout: wanted.tcp_idle_timeout,
        max_requests: http.max_requests.unwrap_or(u64::MAX),
        forwarded: http.forwarded,
        trusted_hops: http.trusted_hops,
        request_id: http.request_id,
        server_timing: http.server_timing,
        connect_failure_502: http.connect_failure_502,
        trusts_timeout: http.trusts_timeout,
        path: http.path,
        http2: http.http2.clone(),
    }
}
