//! Keys of `[[cluster]]`.

use super::http2::CLUSTER_HTTP2;
use super::tls::CLUSTER_TLS;
use super::{Key, Kind::*, key};

pub const CLUSTER: &[Key] = &[
    key("name", Text, "Its name, unique."),
    key(
        "endpoints",
        TextsOrTables(ENDPOINT),
        "\"10.0.0.1:80\", \"name:80\" (resolved again and again), \"unix:/path\".",
    ),
    key(
        "original",
        OneOf(&["as-is", "loopback"]),
        "Its endpoint is where each captured connection was meant to go, or that port on loopback.",
    ),
    key("tls", Table(CLUSTER_TLS), "TLS with endpoints; {} takes the defaults."),
    key("balance", OneOf(&["round-robin", "least-request", "random"]), "How an endpoint is chosen."),
    key("connect_timeout", Duration, "Until a connection is made."),
    key("pool", Table(POOL), "Connections that are kept for the next request."),
    key("limits", Table(LIMITS), "Bounds over all cores, an even share each."),
    key("proxy_protocol", OneOf(&["v1", "v2"]), "Begins each TCP connection with a PROXY header."),
    key(
        "protocol",
        OneOf(&["http1", "http2"]),
        "The HTTP version of the endpoints; http2 without TLS is spoken by prior knowledge.",
    ),
    key("http2", Table(CLUSTER_HTTP2), "How HTTP/2 is spoken to the endpoints."),
];

pub const ENDPOINT: &[Key] =
    &[key("address", Text, "Where it is."), key("weight", Number, "Its weight among the others.")];

pub const POOL: &[Key] = &[
    key("max_idle", Number, "Idle connections per endpoint and core."),
    key("idle_timeout", Duration, "How long one may idle."),
    key("max_age", Duration, "How long one may live."),
    key("max_requests", Number, "Requests on one."),
];

pub const LIMITS: &[Key] = &[
    key("connections", Number, "Connections; further requests wait for the connect timeout."),
    key("requests", Number, "Requests in flight; further ones are refused with 503."),
];
