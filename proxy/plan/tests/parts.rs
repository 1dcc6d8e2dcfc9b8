//! A snapshot in parts: what a change of addresses replaces, and what it leaves alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use onehop_meter::Registry;
use onehop_plan::compile;
use onehop_plan::model::{
    Address, BalanceKind, Cluster, Endpoint, EndpointTarget, HashOn, Listener, Model, PathMatch, Placement, Route,
    Target,
};

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
