//! The only validator: a model becomes a snapshot, or a list of everything that is wrong with it.

mod cluster;
mod http2;
mod limits;
mod listener;
mod nearest;
mod problem;
mod route;
mod subset;
mod tls;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use onehop_meter::Registry;

use crate::model::Model;
use crate::snapshot::{Cluster, ClusterRef, Snapshot};
use cluster::{check_clusters, cluster};
use listener::{check_listeners, listeners};
pub use nearest::nearest;
pub(crate) use problem::Problems;
pub use problem::{Place, Problem};
use route::check_routes;

/// Compiles a model. Parts that did not change are shared with the previous snapshot where that matters: endpoints
/// keep their health.
///
/// # Errors
/// Everything that is wrong, in the model's order.
pub fn compile(model: &Model, registry: &Registry, previous: Option<&Snapshot>) -> Result<Snapshot, Vec<Problem>> {
    let mut problems = Problems::default();
    let names = model.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    check_runtime(model, &mut problems);
    check_listeners(model, &names, &mut problems);
    check_clusters(model, &mut problems);
    subset::check(model, &mut problems);
    let mut checked = check_routes(model, &names, &mut problems);
    let secured = tls::secure(model, previous, &mut problems);
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    let ids = References::new(model);
    let ourselves = |address: &SocketAddr| {
        model.listeners.iter().any(|listener| listener.is_bound() && listener.address == *address)
    };
    let known: HashMap<&str, &Arc<Cluster>> = previous
        .map(|previous| previous.clusters.iter().map(|cluster| (&*cluster.name, cluster)).collect())
        .unwrap_or_default();
    let subsets = subset::wanted(model);
    let mut policies = Vec::new();
    let clusters = model
        .clusters
        .iter()
        .zip(secured.clusters)
        .map(|(wanted, tls)| {
            let old = known.get(wanted.name.as_str()).copied();
            let part = old.map(|old| &**old);
            let mut made = cluster(wanted, tls, registry, part, &ourselves, &mut policies);
            made.narrow(subsets.get(wanted.name.as_str()).map(Vec::as_slice).unwrap_or_default(), part);
            // What is the same stays the very same part: cores have nothing to take over.
            old.filter(|old| made.is_same_as(old)).cloned().unwrap_or_else(|| Arc::new(made))
        })
        .collect();
    let own = secured.identity.as_ref().map(|own| Arc::from(own.id.as_str()));
    let mut warnings = Problems::default();
    let (guarded, guards) = limits::guards(model, previous);
    checked.guards = guarded;
    let (listeners, tables) =
        listeners(model, secured.listeners, own, registry, &ids, &mut checked, &mut warnings, previous);
    Ok(Snapshot {
        generation: previous.map_or(1, |previous| previous.generation + 1),
        warnings: warnings.0,
        listeners,
        tables,
        clusters,
        guards: Arc::new(guards),
        identity: secured.identity,
        access_log: model.access_log.clone(),
        busy_poll: model.runtime.busy_poll,
        drain: model.runtime.drain,
        max_connections: model.runtime.max_connections,
        shed_after: model.runtime.shed_after,
    })
}

/// How routes refer to clusters: the id that a name stands for, and the one copy of the name that all of them share.
pub(crate) struct References<'a>(BTreeMap<&'a str, ClusterRef>);

impl<'a> References<'a> {
    pub(crate) fn new(model: &'a Model) -> References<'a> {
        let reference = |(at, cluster): (usize, &'a crate::model::Cluster)| {
            let name = cluster.name.as_str();
            (name, ClusterRef { id: at as u32, name: name.into(), subset: None })
        };
        References(model.clusters.iter().enumerate().map(reference).collect())
    }

    /// What refers to a cluster; it was checked that there is one of that name.
    pub(crate) fn to(&self, cluster: &str) -> ClusterRef {
        let known = self.0.get(cluster).cloned();
        known.unwrap_or_else(|| ClusterRef { id: u32::MAX, name: cluster.into(), subset: None })
    }
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
    if runtime.shed_after.is_some_and(|after| after.is_zero() || after > std::time::Duration::from_secs(10)) {
        problems.hint(Place::Runtime("shed_after"), "shed_after is above zero and at most 10s", "\"20ms\" is usual");
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
