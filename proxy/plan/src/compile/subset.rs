//! Subsets that routes and listeners ask clusters for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::problem::{Place, Problems};
use crate::model::{self, Fallback, Labels, Model};

/// Subsets of one cluster at most: each has tables of its own.
const MAX_SUBSETS: usize = 256;

fn asked(model: &Model) -> impl Iterator<Item = (Place, &model::Target)> {
    let routes = model.routes.iter().enumerate();
    let routes =
        routes.flat_map(|(at, route)| route.targets.iter().map(move |target| (Place::Route(at, "cluster"), target)));
    let listeners = model.listeners.iter().enumerate().flat_map(|(at, listener)| {
        let named = listener.tcp_names.iter().flat_map(|(_, targets)| targets);
        listener.tcp.iter().chain(named).map(move |target| (Place::Listener(at, "cluster"), target))
    });
    routes.chain(listeners).filter(|(_, target)| !target.subset.is_empty())
}

/// The subsets that each cluster has to have, by its name.
pub(super) fn wanted(model: &Model) -> HashMap<&str, Vec<Arc<Labels>>> {
    let mut sets: HashMap<&str, BTreeSet<&Labels>> = HashMap::new();
    for (_, target) in asked(model) {
        sets.entry(target.cluster.as_str()).or_default().insert(&target.subset);
    }
    for cluster in &model.clusters {
        if let (Fallback::Default(labels), Some(set)) = (&cluster.policy.fallback, sets.get_mut(cluster.name.as_str()))
        {
            set.insert(labels);
        }
    }
    sets.into_iter().map(|(name, set)| (name, set.into_iter().cloned().map(Arc::new).collect())).collect()
}

pub(super) fn check(model: &Model, problems: &mut Problems) {
    for (place, target) in asked(model) {
        let Some(cluster) = model.clusters.iter().find(|cluster| cluster.name == target.cluster) else { continue };
        if !cluster.endpoints.iter().any(|endpoint| carries(&endpoint.placement.labels, &target.subset)) {
            problems.hint(
                place,
                format!("no endpoint of cluster \"{}\" has the labels {}", target.cluster, shown(&target.subset)),
                "endpoints = [{ address = \"HOST:PORT\", labels = { NAME = \"VALUE\" } }]",
            );
        }
    }
    for (at, cluster) in model.clusters.iter().enumerate() {
        if let Fallback::Default(labels) = &cluster.policy.fallback
            && !cluster.endpoints.iter().any(|endpoint| carries(&endpoint.placement.labels, labels))
        {
            let place = Place::Cluster(at, "default_subset");
            problems.add(place, format!("no endpoint of it has the labels {}", shown(labels)));
        }
        if let Some(sticky) = &cluster.policy.sticky {
            check_sticky(sticky, Place::Cluster(at, "sticky"), problems);
        }
    }
    for (name, sets) in wanted(model) {
        if sets.len() > MAX_SUBSETS {
            let at = model.clusters.iter().position(|cluster| cluster.name == name).unwrap_or(0);
            problems.add(Place::Cluster(at, "name"), format!("more than {MAX_SUBSETS} subsets of it are asked for"));
        }
    }
}

fn carries(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn shown(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key} = \"{value}\"")).collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn check_sticky(sticky: &model::Sticky, place: Place, problems: &mut Problems) {
    if !crate::filter::is_token(&sticky.cookie) {
        problems.add(place, format!("\"{}\" is no cookie's name", sticky.cookie));
    }
    // RFC 6265 4.1.1: anything but control characters and semicolons.
    if !sticky.path.starts_with('/') || sticky.path.bytes().any(|byte| matches!(byte, b';' | 0..=0x20 | 0x7f..)) {
        problems.add(place, format!("\"{}\" is no path that a cookie can have", sticky.path));
    }
    if sticky.same_site.as_deref() == Some("None") && !sticky.secure {
        problems.hint(place, "browsers refuse SameSite=None without Secure", "secure = true");
    }
    if sticky.secret.as_ref().is_some_and(|secret| secret.len() < 16) {
        problems.add(place, "the secret has fewer than 16 bytes");
    }
}
