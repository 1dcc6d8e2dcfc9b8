//! Checks of what is wanted of HTTP/2.

use super::problem::{Place, Problems};
use crate::model::{Cluster, Http2, MAX_WINDOW, Model, Protocol, Route};

pub(super) fn check_http2(http2: &Http2, place: Place, problems: &mut Problems) {
    if !(1..=100_000).contains(&http2.max_streams) {
        problems.add(place, "http2.max_streams must be between 1 and 100000");
    }
    if !(1..=MAX_WINDOW).contains(&http2.window) {
        problems.add(place, "http2.window must be between 1B and 2GiB");
    }
    if let Some(window) = http2.connection_window
        && !(65_535..=MAX_WINDOW).contains(&window)
    {
        problems.add(place, "http2.connection_window must be at least 65535B, which every peer assumes");
    }
    let times = [http2.ping_interval, http2.max_age, Some(http2.header_timeout)];
    if times.into_iter().flatten().any(|time| time.is_zero()) {
        problems.add(place, "a time of http2 is zero: every connection would be closed at once");
    }
}

/// It is the handshake of TLS that says what an endpoint speaks; without one there is nothing to ask.
pub(super) fn check_auto(cluster: &Cluster, at: usize, problems: &mut Problems) {
    if cluster.protocol == Protocol::Auto && cluster.tls.is_none() {
        problems.hint(
            Place::Cluster(at, "protocol"),
            "protocol = \"auto\" is decided by TLS (ALPN), and this cluster has none",
            "add tls = {}, or write protocol = \"http1\" or \"http2\"",
        );
    }
}

/// gRPC-Web becomes gRPC, which needs trailers: HTTP/2.
pub(super) fn check_grpc_web(model: &Model, route: &Route, at: usize, problems: &mut Problems) {
    if !route.grpc_web {
        return;
    }
    let wrong = route.targets.iter().find(|target| {
        let cluster = model.clusters.iter().find(|cluster| cluster.name == target.cluster);
        cluster.is_some_and(|cluster| cluster.protocol == Protocol::Http1)
    });
    if let Some(target) = wrong {
        problems.hint(
            Place::Route(at, "grpc_web"),
            format!("cluster \"{}\" speaks HTTP/1, which carries no gRPC", target.cluster),
            "give the cluster protocol = \"http2\"",
        );
    }
}
