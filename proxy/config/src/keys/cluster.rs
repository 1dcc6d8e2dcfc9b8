//! Keys of `[[cluster]]`.

use super::http2::CLUSTER_HTTP2;
use super::limits::ADAPTIVE;
use super::route::HASH_ON;
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
    key(
        "keep_source",
        Flag,
        "Captured connections go on from the client's own address; with `redirect up --tproxy` and CAP_NET_ADMIN.",
    ),
    key("tls", Table(CLUSTER_TLS), "TLS with endpoints; {} takes the defaults."),
    key(
        "balance",
        OneOf(&["round-robin", "least-request", "random", "peak-ewma", "ring-hash", "maglev"]),
        "How an endpoint is chosen.",
    ),
    key("connect_timeout", Duration, "Until a connection is made."),
    key("pool", Table(POOL), "Connections that are kept for the next request."),
    key("hash_on", Table(HASH_ON), "What ring-hash and maglev choose by."),
    key("zone", Text, "The zone of this process: its endpoints come first while enough of them are healthy."),
    key("panic_threshold", Number, "Percent of healthy endpoints below which health is not looked at; 50 without it."),
    key("slow_start", Duration, "How long a new endpoint takes to its full share."),
    key("outlier", Table(OUTLIER), "Ejects endpoints that fail for a while."),
    key("health", Table(HEALTH), "Active checks."),
    key("retry_budget", Number, "Retries under way in percent of the requests in flight; 20 without it."),
    key("limits", Table(LIMITS), "Bounds of the cluster and of each of its endpoints."),
    key(
        "subset_fallback",
        OneOf(&["none", "any", "default"]),
        "Where requests go whose subset cannot serve: nowhere (503), to any endpoint, or to default_subset.",
    ),
    key("default_subset", Map, "The labels of the subset that others fall back to."),
    key("sticky", Table(STICKY), "Keeps a client at its endpoint by a cookie of ours."),
    key(
        "adaptive",
        Table(ADAPTIVE),
        "Finds from latency how many requests in flight the cluster bears, on each core; further ones are refused with 503.",
    ),
    key("proxy_protocol", OneOf(&["v1", "v2"]), "Begins each TCP connection with a PROXY header."),
    key(
        "protocol",
        OneOf(&["http1", "http2", "auto"]),
        "The HTTP version of the endpoints; http2 without TLS is spoken by prior knowledge, auto lets each endpoint's TLS (ALPN) decide.",
    ),
    key("http2", Table(CLUSTER_HTTP2), "How HTTP/2 is spoken to the endpoints."),
];

const ENDPOINT: &[Key] = &[
    key("address", Text, "Where it is."),
    key("weight", Number, "Its weight among the others."),
    key("zone", Text, "Its zone."),
    key("priority", Number, "Its tier: a lower one is used while enough of it is healthy."),
    key("labels", Map, "Names and values by which routes choose subsets."),
];

const OUTLIER: &[Key] = &[
    key("consecutive_5xx", Number, "5xx answers or failures in a row; 5 without it."),
    key("consecutive_gateway_errors", Number, "502, 503, 504 or failures in a row."),
    key("consecutive_connect_failures", Number, "Failed connections, or TLS handshakes, in a row."),
    key("success_rate", Fraction, "The least share of successes over an interval, such as 0.9."),
    key(
        "latency_factor",
        Fraction,
        "How many times as slow as the median of the others over an interval; needs two others with enough requests.",
    ),
    key("min_requests", Number, "Requests in an interval for these two to count; 100 without it."),
    key("interval", Duration, "Their interval; 10s without it."),
    key("ejection", Duration, "The first ejection, doubled by each further one; 30s without it."),
    key("max_ejection", Duration, "The longest; 300s without it."),
    key(
        "max_ejected",
        Number,
        "Percent of the endpoints that may be ejected at once, over all cores; 10 without it, but always one and never all.",
    ),
];

const HEALTH: &[Key] = &[
    key("http", Text, "GET this path, by HTTP/2 where the cluster speaks it."),
    key("expect", Texts, "The statuses that are healthy: [\"200\", \"300-399\"]; 200 to 399 without it."),
    key("grpc", Text, "Ask grpc.health.v1 about this service; \"\" asks about the server as a whole."),
    key("host", Text, "The Host of these requests; the endpoint's address without it."),
    key("tcp", Flag, "Connect only; so it is without http and grpc."),
    key("tls", Flag, "With TLS where the cluster has it; true without it. A check of another port may be plain."),
    key("interval", Duration, "How often; 5s without it."),
    key("timeout", Duration, "How long one may take; 1s without it."),
    key("healthy", Number, "Successes in a row that bring an endpoint back; 2 without it."),
    key("unhealthy", Number, "Failures in a row that take it out; 3 without it."),
    key("port", Number, "Another port than the endpoint's."),
];

pub const POOL: &[Key] = &[
    key("max_idle", Number, "Idle connections per endpoint and core."),
    key("idle_timeout", Duration, "How long one may idle."),
    key("max_age", Duration, "How long one may live."),
    key("max_requests", Number, "Requests on one."),
];

pub const LIMITS: &[Key] = &[
    key(
        "connections",
        Number,
        "Connections over all cores, an even share each (one at least); further requests wait for the connect timeout.",
    ),
    key(
        "requests",
        Number,
        "Requests in flight over all cores, an even share each (one at least); further ones are refused with 503.",
    ),
    key("queue", Number, "Requests that wait for a connection, on each core; 16384 without it."),
    key(
        "queue_age",
        Duration,
        "Once the line has not been empty for 100ms, whoever waits longer than this is refused, the oldest first.",
    ),
    key(
        "endpoint_requests",
        Number,
        "Requests and TCP connections in flight at one endpoint, over all cores; further ones go elsewhere or wait.",
    ),
    key(
        "endpoint_connections",
        Number,
        "Connections to one endpoint, over all cores (an even share each); further requests go elsewhere or wait.",
    ),
];

const STICKY: &[Key] = &[
    key("cookie", Text, "Its name."),
    key("ttl", Duration, "How long a client keeps it; for its session without it."),
    key("path", Text, "The paths that it is sent with; \"/\" without it."),
    key("secure", Flag, "Only over TLS."),
    key("http_only", Flag, "Not for scripts; true without it."),
    key("same_site", OneOf(&["Lax", "Strict", "None"]), "Whether other sites' requests bring it along."),
    key("secret", Text, "Keys the hash that names an endpoint; the same on all proxies that serve the same clients."),
];
