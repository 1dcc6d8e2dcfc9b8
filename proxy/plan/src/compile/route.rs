//! Routes: their checks.

use std::collections::BTreeMap;

use super::problem::{Place, Problems};
use super::{nearest, unique};
use crate::model::{self, Layer, Model, PathMatch};

pub(super) fn check_targets(targets: &[model::Target], model: &Model, place: Place, problems: &mut Problems) {
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

pub(super) fn check_routes(model: &Model, problems: &mut Problems) {
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
