//! What requests experience, booked where every core sees it: an endpoint that fails is ejected for a while.

use std::cell::Cell;

use onehop_net::clock::Nanos;
use onehop_plan::balance::Ewma;
use onehop_plan::outlier::Event;

use super::{ClusterState, EndpointState};

/// Books what a request experienced with an endpoint. `latency_ns` is the time to the response's head; zero: no answer.
pub fn report(cluster: &ClusterState, endpoint: &EndpointState, event: Event, latency_ns: u64, now: Nanos) {
    if !cluster.watches.get() {
        return;
    }
    if latency_ns > 0 {
        observe(&endpoint.latency, latency_ns, now);
        if let Some(gradient) = cluster.gradient.borrow_mut().as_mut() {
            gradient.observe(latency_ns, now);
        }
    }
    let config = cluster.cluster.borrow();
    let part = endpoint.endpoint.borrow();
    let meters = part.meters.core(cluster.core);
    meters.latency_ns.add(latency_ns);
    if event != Event::Success {
        meters.errors.add(1);
    }
    let Some(policy) = &config.policy.outlier else { return };
    let Some(cause) = part.vitals.book(policy, event) else { return };
    let all = config.endpoints.endpoints.iter().map(|endpoint| &*endpoint.vitals);
    let random = now.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    if config.ejector.eject(policy, all, (&part.vitals, cause), now, random) {
        config.meters.core(cluster.core).ejections.add(1);
    }
}

/// Books that a connection was made.
pub fn connected(cluster: &ClusterState, endpoint: &EndpointState) {
    if cluster.watches.get() {
        endpoint.endpoint.borrow().vitals.connected();
    }
}

/// Books how long an answer took whose outcome is still to come.
pub fn answered(cluster: &ClusterState, endpoint: &EndpointState, latency_ns: u64, now: Nanos) {
    if !cluster.watches.get() {
        return;
    }
    observe(&endpoint.latency, latency_ns, now);
    endpoint.endpoint.borrow().meters.core(cluster.core).latency_ns.add(latency_ns);
}

/// Books that an endpoint was waited for so long in vain, by a try that another one overtook: it is no failure, but it
/// was not quick.
pub fn waited(cluster: &ClusterState, index: usize, waited_ns: u64, now: Nanos) {
    let endpoint = cluster.endpoints.borrow().get(index).cloned();
    let Some(endpoint) = endpoint.filter(|_| cluster.watches.get()) else { return };
    endpoint.endpoint.borrow().meters.core(cluster.core).latency_ns.add(waited_ns);
    if endpoint.latency.get().expected(now).is_none_or(|expected| expected < waited_ns as f64) {
        observe(&endpoint.latency, waited_ns, now);
    }
}

/// Books that an endpoint gave no answer, after so long: it was not quick, however soon it failed.
pub fn failed(cluster: &ClusterState, endpoint: &EndpointState, waited_ns: u64, now: Nanos) {
    if cluster.watches.get() {
        let mut value = endpoint.latency.get();
        value.observe_failure(waited_ns, now);
        endpoint.latency.set(value);
    }
}

fn observe(latency: &Cell<Ewma>, latency_ns: u64, now: Nanos) {
    let mut value = latency.get();
    value.observe(latency_ns, now);
    latency.set(value);
}
