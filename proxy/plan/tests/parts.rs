//! A snapshot in parts: what a change of addresses replaces, and what it leaves alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use onehop_meter::Registry;
use onehop_plan::model::{
    Address, BalanceKind, Cluster, Endpoint, EndpointTarget, HashOn, Listener, Model, PathMatch, Placement, Route,
    Target,
};
use onehop_plan::outlier::{Cause, DRAINED, EJECTED, Outlier};
use onehop_plan::{Place, Snapshot, compile};

fn cluster(name: &str, target: EndpointTarget) -> Cluster {
    let mut cluster = Cluster {
        name: name.to_owned(),
        endpoints: vec![Endpoint { target, weight: 1, placement: Placement::default() }],
        balance: BalanceKind::Maglev,
        ..Cluster::default()
    };
    cluster.policy.hash_on = Some(HashOn::Source);
    cluster
}

fn route(number: usize) -> Route {
    Route {
        name: format!("r{number}"),
        path: PathMatch::Prefix(format!("/{number}")),
        targets: vec![Target::new(["stays", "moves"][number % 2])],
        max_in_flight: Some(7),
        ..Route::default()
    }
}

#[test]
fn a_change_of_addresses_compiles_no_route_and_no_other_cluster() {
    let model = Model {
        listeners: vec![Listener { name: "l".to_owned(), ..Listener::default() }],
        routes: (0..100).map(route).collect(),
        clusters: vec![
            cluster("stays", EndpointTarget::Address(Address::Tcp(([127, 0, 0, 1], 9).into()))),
            cluster("moves", EndpointTarget::Name("moves.example".to_owned(), 80)),
        ],
        ..Model::default()
    };
    let registry = Registry::new(2);
    let first = compile(&model, &registry, None).unwrap_or_else(|problems| panic!("{problems:?}"));
    let at = |last| HashMap::from([("moves.example".to_owned(), vec![IpAddr::from([192, 0, 2, last])])]);
    let second = first.with_resolved(&at(1), &registry, 2, 1);
    let third = second.with_resolved(&at(2), &registry, 3, 2);
    for (old, new) in [(&first, &second), (&second, &third)] {
        assert!(Arc::ptr_eq(&old.tables[0], &new.tables[0]), "the routes are the very same");
        assert!(Arc::ptr_eq(&old.listeners[0], &new.listeners[0]));
        assert!(Arc::ptr_eq(&old.guards, &new.guards), "and so is what stands before them");
        assert!(Arc::ptr_eq(&old.clusters[0], &new.clusters[0]), "and the cluster that did not move");
        assert!(!Arc::ptr_eq(&old.clusters[1], &new.clusters[1]));
    }
    assert_eq!(third.clusters[1].endpoints.endpoints[0].address.to_string(), "192.0.2.2:80");
    assert_eq!(third.clusters[1].endpoints.endpoints.len(), 1);
}

#[test]
fn a_listener_that_was_replaced_routes_by_its_own_table_as_long_as_there_is_one() {
    let mut model = Model {
        listeners: vec![Listener { name: "l".to_owned(), ..Listener::default() }],
        routes: vec![route(0)],
        clusters: vec![
            cluster("stays", EndpointTarget::Address(Address::Tcp(([127, 0, 0, 1], 9).into()))),
            cluster("moves", EndpointTarget::Name("moves.example".to_owned(), 80)),
        ],
        ..Model::default()
    };
    let registry = Registry::new(1);
    let old = compile(&model, &registry, None).unwrap_or_else(|problems| panic!("{problems:?}"));
    model.routes.push(route(1));
    let new = compile(&model, &registry, Some(&old)).unwrap_or_else(|problems| panic!("{problems:?}"));
    let listener = old.listeners[0].clone();
    let size = |listener| new.with_routes(listener, |table| table.size());
    assert_eq!(size(&listener), Some(old.tables[0].size()));
    assert_ne!(old.tables[0].size(), new.tables[0].size());
    drop(old);
    assert_eq!(size(&listener), Some(new.tables[0].size()), "those in force under its name");
    model.listeners[0].name = "other".to_owned();
    let third = compile(&model, &registry, Some(&new)).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(third.with_routes(&listener, |_| ()), None);
}

#[test]
fn a_cluster_that_says_the_same_stays_the_same_part() {
    let mut model = Model {
        listeners: vec![Listener { name: "l".to_owned(), ..Listener::default() }],
        routes: vec![route(0), route(1)],
        clusters: ["stays", "moves"]
            .map(|name| cluster(name, EndpointTarget::Address(Address::Tcp(([127, 0, 0, 1], 9).into()))))
            .to_vec(),
        ..Model::default()
    };
    let registry = Registry::new(1);
    let mut old = compile(&model, &registry, None).unwrap_or_else(|problems| panic!("{problems:?}"));
    let changes: [&dyn Fn(&mut Cluster); 6] = [
        &|cluster| cluster.connect_timeout *= 2,
        &|cluster| cluster.max_idle += 1,
        &|cluster| cluster.policy.panic_percent = 7,
        &|cluster| cluster.endpoints[0].weight = 9,
        &|cluster| cluster.http2.window *= 2,
        &|cluster| cluster.max_requests = Some(4),
    ];
    for change in changes {
        model.routes.push(route(model.routes.len()));
        change(&mut model.clusters[1]);
        let new = compile(&model, &registry, Some(&old)).unwrap_or_else(|problems| panic!("{problems:?}"));
        assert!(Arc::ptr_eq(&old.clusters[0], &new.clusters[0]));
        assert!(!Arc::ptr_eq(&old.clusters[1], &new.clusters[1]));
        assert!(!Arc::ptr_eq(&old.tables[0], &new.tables[0]));
        old = new;
    }
}

/// One cluster, with these endpoints.
fn of(endpoints: &[&str]) -> Model {
    let mut wanted = cluster("c", EndpointTarget::Name(String::new(), 0));
    wanted.endpoints = endpoints
        .iter()
        .map(|endpoint| {
            let target = match endpoint.parse() {
                Ok(address) => EndpointTarget::Address(Address::Tcp(address)),
                Err(_) => EndpointTarget::Name((*endpoint).to_owned(), 8080),
            };
            Endpoint { target, weight: 1, placement: Placement::default() }
        })
        .collect();
    Model {
        listeners: vec![Listener { name: "l".to_owned(), ..Listener::default() }],
        clusters: vec![wanted],
        ..Model::default()
    }
}

fn made(model: &Model, registry: &Registry, old: Option<&Snapshot>) -> Snapshot {
    compile(model, registry, old).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn found(ends: &[u8]) -> HashMap<String, Vec<IpAddr>> {
    HashMap::from([("web.internal".to_owned(), ends.iter().map(|end| IpAddr::from([10, 0, 0, *end])).collect())])
}

fn addresses(snapshot: &Snapshot) -> Vec<String> {
    snapshot.clusters[0].endpoints.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
}

fn health<'a>(snapshot: &'a Snapshot, address: &str) -> &'a AtomicU32 {
    let mut all = snapshot.clusters[0].endpoints.endpoints.iter();
    let found = all.find(|endpoint| endpoint.address.to_string() == address);
    &found.expect("it is there").vitals.health
}

#[test]
fn an_endpoint_that_is_written_down_stays_beside_a_name_with_its_port() {
    let registry = Registry::new(1);
    let model = of(&["10.0.0.1:8080", "web.internal"]);
    let first = made(&model, &registry, None);
    let second = first.with_resolved(&found(&[2]), &registry, 2, 1);
    assert_eq!(addresses(&second), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    // The name may say the same, and no longer say so.
    let third = second.with_resolved(&found(&[1, 3]), &registry, 3, 2);
    assert_eq!(addresses(&third), ["10.0.0.1:8080", "10.0.0.3:8080"]);
    let fourth = third.with_resolved(&found(&[3]), &registry, 4, 3);
    assert_eq!(addresses(&fourth), ["10.0.0.1:8080", "10.0.0.3:8080"]);
    let reloaded = made(&model, &registry, Some(&fourth));
    assert_eq!(addresses(&reloaded), ["10.0.0.1:8080", "10.0.0.3:8080"]);
    assert_eq!(addresses(&reloaded.with_resolved(&found(&[3]), &registry, 5, 4)), addresses(&reloaded));
}

#[test]
fn an_endpoint_that_is_no_longer_written_down_goes_though_a_name_has_its_port() {
    let registry = Registry::new(1);
    let first = made(&of(&["10.0.0.1:8080", "10.0.0.2:9090", "web.internal"]), &registry, None);
    let second = first.with_resolved(&found(&[3]), &registry, 2, 1);
    let third = made(&of(&["web.internal"]), &registry, Some(&second));
    assert_eq!(addresses(&third), ["10.0.0.3:8080"]);
    // One that the name says as well stays by the name's right, and what is known of it stays with it.
    let both = made(&of(&["10.0.0.3:8080", "web.internal"]), &registry, Some(&third));
    health(&both, "10.0.0.3:8080").store(DRAINED, Relaxed);
    let both = both.with_resolved(&found(&[3]), &registry, 3, 2);
    let fifth = made(&of(&["web.internal"]), &registry, Some(&both)).with_resolved(&found(&[3]), &registry, 4, 3);
    assert_eq!(addresses(&fifth), ["10.0.0.3:8080"]);
    assert_eq!(health(&fifth, "10.0.0.3:8080").load(Relaxed), DRAINED);
}

#[test]
fn what_is_known_of_an_address_outlives_changes_of_all_else() {
    let registry = Registry::new(1);
    let mut model = of(&["10.0.0.1:8080", "10.0.0.2:8080"]);
    let mut old = made(&model, &registry, None);
    let outlier = Outlier {
        consecutive_5xx: None,
        consecutive_gateway: None,
        consecutive_connect: None,
        success_rate: None,
        latency_factor: None,
        min_requests: 1,
        interval: Duration::from_secs(1),
        base: Duration::from_secs(1000),
        longest: Duration::from_secs(1000),
        max_percent: 100,
    };
    let ejected = &old.clusters[0].endpoints.endpoints[1].vitals;
    let all = old.clusters[0].endpoints.endpoints.iter().map(|endpoint| &*endpoint.vitals);
    assert!(old.clusters[0].ejector.eject(&outlier, all, (ejected, Cause::Latency), 5, 0));
    let until = ejected.ejected_until_ns();
    health(&old, "10.0.0.1:8080").fetch_or(DRAINED, Relaxed);
    let changes: [&dyn Fn(&mut Model); 6] = [
        &|model| model.clusters[0].endpoints.iter_mut().for_each(|endpoint| endpoint.weight += 1),
        &|model| model.clusters[0].endpoints.iter_mut().for_each(|endpoint| endpoint.placement.priority += 1),
        &|model| {
            let zone = |endpoint: &mut Endpoint| endpoint.placement.zone = Some("z".into());
            model.clusters[0].endpoints.iter_mut().for_each(zone);
        },
        &|model| {
            let label = |endpoint: &mut Endpoint| {
                endpoint.placement.labels.insert("version".into(), "2".into());
            };
            model.clusters[0].endpoints.iter_mut().for_each(label);
        },
        &|model| model.routes.push(Route { targets: vec![Target::new("c")], ..route(0) }),
        &|model| model.clusters[0].endpoints.reverse(),
    ];
    for (at, change) in changes.iter().enumerate() {
        change(&mut model);
        let new = made(&model, &registry, Some(&old));
        assert_eq!(health(&new, "10.0.0.1:8080").load(Relaxed), DRAINED, "change {at}");
        assert_eq!(health(&new, "10.0.0.2:8080").load(Relaxed), EJECTED, "change {at}");
        let mut all = new.clusters[0].endpoints.endpoints.iter();
        assert!(all.any(|endpoint| endpoint.vitals.ejected_until_ns() == until), "change {at}");
        // What a core that still has the old version books, the new one sees.
        health(&old, "10.0.0.1:8080").store(0, Relaxed);
        assert_eq!(health(&new, "10.0.0.1:8080").swap(DRAINED, Relaxed), 0, "change {at}");
        old = new;
    }
}

#[test]
fn what_is_known_of_an_address_comes_back_with_it_when_its_name_flaps() {
    let registry = Registry::new(1);
    let mut model = of(&["web.internal"]);
    let first = made(&model, &registry, None).with_resolved(&found(&[1, 2]), &registry, 2, 1);
    health(&first, "10.0.0.1:8080").store(DRAINED, Relaxed);
    let gone = first.with_resolved(&found(&[2]), &registry, 3, 2);
    assert_eq!(addresses(&gone), ["10.0.0.2:8080"]);
    let gone = made(&model, &registry, Some(&gone));
    let back = gone.with_resolved(&found(&[1, 2]), &registry, 4, 3);
    assert_eq!(health(&back, "10.0.0.1:8080").load(Relaxed), DRAINED);
    assert_eq!(back.clusters[0].endpoints.endpoints[0].vitals.since_ns(), 0, "it is no new one");
    // A changed weight of the name makes its addresses anew.
    model.clusters[0].endpoints[0].weight = 7;
    let reloaded = made(&model, &registry, Some(&back)).with_resolved(&found(&[1, 2]), &registry, 5, 4);
    assert_eq!(reloaded.clusters[0].endpoints.endpoints[0].weight, 7);
    assert_eq!(health(&reloaded, "10.0.0.1:8080").load(Relaxed), DRAINED);
    // A name that says something else each time does not fill the memory, and what was set by hand is forgotten last.
    let mut other = reloaded;
    for round in 0..2000u32 {
        let [.., high, low] = round.to_be_bytes();
        let new = HashMap::from([("web.internal".to_owned(), vec![IpAddr::from([10, 1, high, low])])]);
        other = other.with_resolved(&new, &registry, 6 + u64::from(round), 5);
    }
    assert!(other.clusters[0].remembered() <= 256);
    let back = other.with_resolved(&found(&[1]), &registry, 9999, 6);
    assert_eq!(health(&back, "10.0.0.1:8080").load(Relaxed), DRAINED);
}

#[test]
fn more_priorities_than_there_are_tiers_are_refused() {
    let mut model = of(&[
        "10.0.0.1:80",
        "10.0.0.2:80",
        "10.0.0.3:80",
        "10.0.0.4:80",
        "10.0.0.5:80",
        "10.0.0.6:80",
        "10.0.0.7:80",
        "10.0.0.8:80",
        "10.0.0.9:80",
    ]);
    let all = &mut model.clusters[0].endpoints;
    // With gaps, which are no matter.
    all.iter_mut().enumerate().for_each(|(at, endpoint)| endpoint.placement.priority = at as u32 * 3);
    let Err(problems) = compile(&model, &Registry::new(1), None) else { panic!("the ninth could never be used") };
    assert_eq!(problems[0].place, Place::Cluster(0, "endpoints"), "{problems:?}");
    model.clusters[0].endpoints[8].placement.priority = 21;
    made(&model, &Registry::new(1), None);
}
