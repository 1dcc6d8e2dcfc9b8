//! Routes: their checks and their compiled form.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use onehop_meter::Registry;

use super::problem::{Place, Problems};
use super::{References, nearest, unique};
use crate::filter::{Action, Filters};
use crate::limit::Guards;
use crate::model::{self, Layer, Model, PathMatch, RetryOn};
use crate::resilience::{self, Resilience};
use crate::route::{Conditions, Parts, Pattern};
use crate::snapshot::{ClusterRef, Defaults, Route, Split};

/// The names of a model's clusters.
pub(super) type Names<'a> = HashSet<&'a str>;

/// What is made of a route while it is checked.
pub(super) struct Checked {
    /// For the table.
    pub parts: Vec<Parts>,
    /// For the route itself.
    pub filters: Vec<(Action, Option<Box<Filters>>)>,
    /// What stands before it.
    pub guards: Vec<Option<Arc<Guards>>>,
    /// Bytes of the paths' regular expressions.
    pub expressions: usize,
}

/// What all of the paths' regular expressions may take: thousands of ordinary ones. Each is bounded by itself, but many large ones
/// would take gigabytes, and as many again in the machine that looks for all of them at once.
const MAX_EXPRESSIONS: usize = 64 * 1024 * 1024;

pub(super) fn check_targets(targets: &[model::Target], names: &Names<'_>, place: Place, problems: &mut Problems) {
    for target in targets {
        check_cluster(&target.cluster, names, place, problems);
    }
    if !targets.is_empty() && targets.iter().all(|target| target.weight == 0) {
        problems.add(place, "every weight is zero: nothing could be chosen");
    }
}

fn check_cluster(name: &str, names: &Names<'_>, place: Place, problems: &mut Problems) {
    if names.contains(name) {
        return;
    }
    // In order, so that the hint is the same each time.
    let known: BTreeSet<&str> = names.iter().copied().collect();
    let message = format!("there is no cluster \"{name}\"");
    match nearest(name, known.into_iter()) {
        Some(near) => problems.hint(place, message, format!("did you mean \"{near}\"?")),
        None => problems.hint(place, message, "add a [[cluster]] of that name"),
    }
}

pub(super) fn check_routes(model: &Model, names: &Names<'_>, problems: &mut Problems) -> Checked {
    unique(model.routes.iter().map(|route| route.name.as_str()), "route", |at| Place::Route(at, "name"), problems);
    let mut checked = Checked { parts: Vec::new(), filters: Vec::new(), guards: Vec::new(), expressions: 0 };
    for (at, route) in model.routes.iter().enumerate() {
        let place = |key| Place::Route(at, key);
        check_served(model, route, at, problems);
        match (&route.action, route.targets.is_empty()) {
            (model::Action::Forward, true) => problems.hint(
                place("cluster"),
                "a route needs a cluster",
                "cluster = \"NAME\", or split = [{ cluster = \"NAME\", weight = N }], a redirect or a respond",
            ),
            (model::Action::Redirect(_) | model::Action::Respond(_), false) => {
                problems.add(place("cluster"), "a route that answers by itself has no cluster");
            }
            _ => {}
        }
        check_targets(&route.targets, names, place("cluster"), problems);
        if let Some(mirror) = &route.resilience.mirror {
            check_mirror(route, mirror, names, place("mirror"), problems);
        }
        check_match(route, at, problems);
        check_policy(route, at, problems);
        super::http2::check_grpc_web(model, route, at, problems);
        checked.add(route, at, problems);
    }
    check_mirror_cycles(model, problems);
    checked
}

fn check_served(model: &Model, route: &model::Route, at: usize, problems: &mut Problems) {
    let place = Place::Route(at, "listeners");
    for name in &route.listeners {
        match model.listeners.iter().find(|listener| listener.name == *name) {
            None => {
                let near = nearest(name, model.listeners.iter().map(|listener| listener.name.as_str()));
                let message = format!("there is no listener \"{name}\"");
                match near {
                    Some(near) => problems.hint(place, message, format!("did you mean \"{near}\"?")),
                    None => problems.add(place, message),
                }
            }
            Some(listener) if listener.layer == Layer::Tcp => {
                problems.add(place, format!("listener \"{name}\" speaks TCP: it has no routes"));
            }
            Some(_) => {}
        }
    }
}

fn check_mirror(
    route: &model::Route,
    mirror: &model::Mirror,
    names: &Names<'_>,
    place: Place,
    problems: &mut Problems,
) {
    check_cluster(&mirror.cluster, names, place, problems);
    if route.targets.iter().any(|target| target.cluster == mirror.cluster) {
        problems.add(place, "the mirror is a cluster that the route sends to: it would get every request twice");
    }
}

/// A mirrored request goes to an endpoint; one that is a listener of our own could be mirrored again, for ever.
fn check_mirror_cycles(model: &Model, problems: &mut Problems) {
    for (at, route) in model.routes.iter().enumerate() {
        let Some(mirror) = &route.resilience.mirror else { continue };
        let cluster = model.clusters.iter().find(|cluster| cluster.name == mirror.cluster);
        let ourselves = cluster.into_iter().flat_map(|cluster| &cluster.endpoints).find_map(|endpoint| {
            let model::EndpointTarget::Address(model::Address::Tcp(address)) = &endpoint.target else {
                return None;
            };
            model.listeners.iter().find(|listener| {
                let bound = listener.address;
                let everywhere = bound.ip().is_unspecified() && address.ip().is_loopback();
                bound.port() != 0 && bound.port() == address.port() && (everywhere || bound.ip() == address.ip())
            })
        });
        if let Some(listener) = ourselves {
            problems.add(
                Place::Route(at, "mirror"),
                format!("the mirror leads back to listener \"{}\": copies would be copied again", listener.name),
            );
        }
    }
}

impl Checked {
    fn add(&mut self, route: &model::Route, at: usize, problems: &mut Problems) {
        let place = |key| Place::Route(at, key);
        let pattern = Pattern::new(&route.path).unwrap_or_else(|error| {
            problems.add(place("path"), format!("the path's pattern cannot be used: {error}"));
            Pattern::Exact("/".into())
        });
        if let Pattern::Regex(expression) = &pattern {
            let before = self.expressions;
            self.expressions += expression.regex.memory_usage();
            if before <= MAX_EXPRESSIONS && self.expressions > MAX_EXPRESSIONS {
                let error = format!(
                    "with this one, the regular expressions of all paths are larger than {} MiB; templates and prefixes take a few bytes each",
                    MAX_EXPRESSIONS / 1024 / 1024
                );
                problems.add(place("path"), error);
            }
        }
        let conditions = Conditions::new(route).unwrap_or_else(|(key, error)| {
            problems.add(place(key), error);
            Conditions::default()
        });
        let filters = Filters::new(route, &pattern).unwrap_or_else(|(key, error)| {
            problems.add(place(key), error);
            (Action::Forward, None)
        });
        self.filters.push(filters);
        self.parts.push(Parts {
            conditions: (!conditions.is_empty()).then(|| Arc::new(conditions)),
            pattern: Arc::new(pattern),
        });
    }

    /// The compiled routes, in order.
    pub(super) fn routes(&mut self, model: &Model, registry: &Registry, ids: &References<'_>) -> Vec<Arc<Route>> {
        let filters = std::mem::take(&mut self.filters);
        let guards = std::mem::take(&mut self.guards).into_iter().chain(std::iter::repeat(None));
        // Most routes allow the same: they share it.
        let mut known: HashSet<Arc<[String]>> = HashSet::new();
        let mut shared = |upgrades: &[String]| {
            known.get(upgrades).cloned().unwrap_or_else(|| {
                let new: Arc<[String]> = upgrades.into();
                known.insert(new.clone());
                new
            })
        };
        let compiled = model.routes.iter().zip(&self.parts).zip(filters).zip(guards);
        compiled
            .map(|(((route, parts), (action, filters)), guards)| {
                Arc::new(Route {
                    name: Arc::from(route.name.as_str()),
                    pattern: parts.pattern.clone(),
                    action,
                    filters,
                    split: split(&route.targets, ids),
                    split_by: route.split_by.clone(),
                    timeout: route.timeout,
                    retry: defaults(&route.resilience.retry),
                    resilience: Resilience::new(&route.resilience, ids),
                    upgrades: shared(&route.upgrades),
                    allow_connect: route.connect,
                    grpc_web: route.grpc_web,
                    max_body: route.max_body,
                    guards,
                    meters: registry.route(&route.name),
                })
            })
            .collect()
    }
}

fn defaults(retry: &model::Retry) -> Defaults {
    let on = |what| retry.attempts > 0 && retry.on.contains(&what);
    Defaults {
        attempts: retry.attempts,
        on_connect_failure: on(RetryOn::ConnectFailure),
        on_stale_connection: on(RetryOn::StaleConnection) || on(RetryOn::ResetBeforeResponse),
    }
}

pub(super) fn split(targets: &[model::Target], ids: &References<'_>) -> Split {
    Split::new(targets.iter().map(|target| {
        let subset = (!target.subset.is_empty()).then(|| Arc::new(target.subset.clone()));
        (ClusterRef { subset, ..ids.to(&target.cluster) }, target.weight)
    }))
}

/// Text of a path that can match at all.
fn check_path(path: &str, place: Place, problems: &mut Problems) {
    if !path.starts_with('/') {
        problems.hint(place, format!("path \"{path}\" does not begin with a slash"), format!("\"/{path}\""));
    }
    if path.bytes().any(|byte| matches!(byte, b'?' | b'#' | 0..=0x20 | 0x7f..)) {
        problems.add(place, "a path has no query, fragment, white space or bytes beyond ASCII");
    }
}

fn check_match(route: &model::Route, at: usize, problems: &mut Problems) {
    let place = |key| Place::Route(at, key);
    match &route.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Template(path) => {
            check_path(path, place("path"), problems);
        }
        PathMatch::Regex(_) => {}
    }
    for host in &route.hosts {
        let place = if route.hosts.len() == 1 { place("host") } else { place("hosts") };
        let bare = host.strip_prefix("*.").unwrap_or(host);
        if bare.is_empty() || bare.contains('*') {
            problems.hint(
                place,
                format!("host \"{host}\" is no host"),
                "a wildcard stands for the first labels: \"*.example.com\"",
            );
        } else if bare.contains('/') || (bare.contains(':') && !bare.starts_with('[')) {
            problems.hint(
                place,
                format!("host \"{host}\" has more than a name"),
                "write it without scheme and port: any port matches",
            );
        }
    }
    for (key, fields) in [("headers", &route.headers), ("query", &route.queries)] {
        for (index, field) in fields.iter().enumerate() {
            let contradicts = |other: &&model::FieldMatch| {
                let same =
                    other.name == field.name || (key == "headers" && other.name.eq_ignore_ascii_case(&field.name));
                same && other.value != field.value
            };
            if fields[..index].iter().any(|other| contradicts(&other)) {
                problems.add(place(key), format!("\"{}\" is asked to be two things at once", field.name));
            }
            if key == "headers" && !crate::filter::is_token(&field.name) {
                problems.add(place(key), format!("\"{}\" is no field name", field.name));
            }
        }
    }
}

fn check_policy(route: &model::Route, at: usize, problems: &mut Problems) {
    super::limits::check_route(route, at, problems);
    let place = |key| Place::Route(at, key);
    if route.timeout.is_some_and(|timeout| timeout.is_zero()) {
        problems.hint(place("timeout"), "a timeout of zero would fail every request", "timeout = \"off\" turns it off");
    }
    resilience::check(&route.resilience, at, problems);
    if route.upgrades.iter().any(|protocol| protocol.eq_ignore_ascii_case("h2c")) {
        problems.add(place("upgrade"), "h2c is never forwarded: it would walk around the routes");
    }
}
