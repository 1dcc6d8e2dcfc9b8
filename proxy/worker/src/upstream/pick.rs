//! Choosing an endpoint, and taking a place there: the one that a client sticks to, one in another zone after a failure, or the balancer's.

use std::rc::Rc;
use std::sync::Arc;

use onehop_meter::names::Reason;
use onehop_net::clock::Nanos;
use onehop_plan::Cluster;
use onehop_plan::balance::Ask;
use onehop_plan::model::Labels;

use super::lease::{Place, Sought};
use super::{ClusterState, EndpointState};
use crate::fault::{Fault, Side, Step};

/// An endpoint by its index, and the place there where those are limited.
pub(super) type Chosen = (usize, Rc<EndpointState>, Option<Place>);

/// An endpoint, and a place there where those are limited. `Ok(None)`: there are endpoints, but all are full.
pub(super) fn choose(
    cluster: &ClusterState,
    sought: Sought<'_>,
    avoid: &[usize],
    full: &mut Vec<usize>,
    now: Nanos,
) -> Result<Option<Chosen>, Fault> {
    let limit = cluster.cluster.borrow().policy.endpoint_requests;
    loop {
        let Some(index) = pick(cluster, sought, avoid, full, now) else {
            let nobody = Fault::new(Side::Proxy, Step::Lease, Reason::NoEndpoint);
            return if full.is_empty() { Err(nobody) } else { Ok(None) };
        };
        let endpoint = cluster.endpoints.borrow()[index].clone();
        let Some(limit) = limit else { return Ok(Some((index, endpoint, None))) };
        let gate = endpoint.endpoint.borrow().gate.clone();
        if gate.enter(limit) {
            return Ok(Some((index, endpoint, Some(Place(gate)))));
        }
        full.push(index);
    }
}

/// The index of an endpoint that is neither avoided, if that can be, nor full.
fn pick(cluster: &ClusterState, sought: Sought<'_>, avoid: &[usize], full: &[usize], now: Nanos) -> Option<usize> {
    let config = cluster.cluster.borrow();
    let endpoints = cluster.endpoints.borrow();
    if let Some(stuck) = sought.stuck.filter(|stuck| !avoid.contains(stuck) && !full.contains(stuck))
        && is_fit(&config, stuck, sought.subset)
    {
        return Some(stuck);
    }
    let load = |index: usize| endpoints.get(index).map_or(0, |endpoint| endpoint.active.get());
    let latency = |index: usize| endpoints.get(index).and_then(|endpoint| endpoint.latency.get().expected(now));
    let ask = Ask { load: &load, latency: &latency, avoid, hash: sought.hash, now };
    let picked = if full.is_empty() {
        let elsewhere = if avoid.is_empty() { None } else { in_another_zone(cluster, &config, sought, &ask) };
        elsewhere.or_else(|| cluster.balance(&config, sought.subset, &ask))
    } else {
        let both: Vec<usize> = avoid.iter().chain(full).copied().collect();
        cluster.balance(&config, sought.subset, &Ask { avoid: &both, ..ask })
    };
    let picked = picked.or_else(|| cluster.balance(&config, sought.subset, &Ask { avoid: full, ..ask }));
    picked.filter(|index| *index < endpoints.len())
}

/// After a failure another zone is better, but not a tier that stands by.
fn in_another_zone(cluster: &ClusterState, config: &Cluster, sought: Sought<'_>, ask: &Ask<'_>) -> Option<usize> {
    let avoid = config.endpoints.zones_of(ask.avoid)?;
    let found = cluster.balance(config, sought.subset, &Ask { avoid: &avoid, ..*ask })?;
    let tier = |index| config.endpoints.priority(index);
    (tier(found) <= tier(ask.avoid[0])).then_some(found)
}

/// Whether the endpoint that a client's cookie names can serve it.
fn is_fit(config: &Cluster, index: usize, subset: Option<&Arc<Labels>>) -> bool {
    let Some(endpoint) = config.endpoints.endpoints.get(index) else { return false };
    let labels = &endpoint.placement.labels;
    endpoint.is_usable()
        && endpoint.weight > 0
        && subset.is_none_or(|subset| subset.iter().all(|(key, value)| labels.get(key) == Some(value)))
}
