//! The roles: presets that expand to plan's model.

use std::net::SocketAddr;

use onehop_plan::Layer;
use onehop_plan::model::{Cluster, Endpoint, Http, Listener, Model, Route, Target};

use crate::language::endpoint_target;

/// The gateway of a command line: one listener, one route, one cluster.
///
/// # Errors
/// Which endpoint is none, and what to write.
pub fn gateway(listen: SocketAddr, to: &[String]) -> Result<Model, String> {
    let mut endpoints = Vec::new();
    for text in to {
        let target = endpoint_target(text).map_err(|hint| format!("--to \"{text}\" is no address: {hint}"))?;
        endpoints.push(Endpoint { target, weight: 1 });
    }
    Ok(Model {
        listeners: vec![Listener {
            name: "edge".to_owned(),
            address: listen,
            layer: Layer::Http,
            proxy_protocol: false,
            max_connections: None,
            tcp: Vec::new(),
            tcp_idle_timeout: std::time::Duration::from_secs(3600),
            http: Http::default(),
        }],
        routes: vec![Route {
            name: "all".to_owned(),
            targets: vec![Target { cluster: "upstream".to_owned(), weight: 1 }],
            ..Route::default()
        }],
        clusters: vec![Cluster { name: "upstream".to_owned(), endpoints, ..Cluster::default() }],
        ..Model::default()
    })
}
