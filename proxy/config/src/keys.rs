//! Every key of the language, once: the reader takes its spelling from here, the schema its types and texts.

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Duration,
    /// A duration, or "off".
    OptionalDuration,
    Size,
    Number,
    Flag,
    Texts,
    Numbers,
    OneOf(&'static [&'static str]),
    Table(&'static [Key]),
    Tables(&'static [Key]),
    /// Texts, or tables of these keys.
    TextsOrTables(&'static [Key]),
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, help }
}

use Kind::*;

pub const ROOT: &[Key] = &[
    key("runtime", Table(RUNTIME), "The process itself."),
    key("access_log", Table(ACCESS_LOG), "Where access records go; none are written without it."),
    key("listener", Tables(LISTENER), "Where clients come in."),
    key("route", Tables(ROUTE), "What is done with their requests."),
    key("cluster", Tables(CLUSTER), "Where they go."),
];

pub const RUNTIME: &[Key] = &[
    key("workers", Number, "Worker threads; by default one per core that the process may use."),
    key("cpus", Numbers, "Pins worker i to the i-th of these CPUs."),
    key("admin", Text, "Address of the admin endpoint, \"127.0.0.1:9901\"."),
    key("busy_poll", Duration, "How long a core polls after its last completion before it sleeps; \"0s\": not at all."),
    key("drain", Duration, "How long a shutdown may take."),
    key("max_connections", Number, "Downstream connections of one core."),
    key("takeover", Text, "Path of the Unix socket over which a successor takes the listening sockets."),
];

pub const ACCESS_LOG: &[Key] = &[
    key("path", Text, "A file; standard output without it."),
    key("format", Text, "\"json\", or a template such as \"{time} {method} {path} {status}\"."),
];

pub const LISTENER: &[Key] = &[
    key("name", Text, "Its name, unique."),
    key("address", Text, "Where it listens: \"0.0.0.0:8080\"; port 0 takes a free one."),
    key("layer", OneOf(&["http", "tcp", "sniff"]), "What it expects; sniff decides by the first bytes."),
    key("cluster", Text, "Where TCP connections go."),
    key("split", Tables(TARGET), "Where TCP connections go, by weight."),
    key("proxy_protocol", Flag, "Clients must begin with a PROXY header, version 1 or 2."),
    key("max_connections", Number, "Connections over all cores."),
    key("header_timeout", Duration, "From the first byte of a request head to its last."),
    key("idle_timeout", Duration, "Between two requests of a connection."),
    key("body_timeout", Duration, "Between two pieces of a body, in either direction."),
    key("tcp_idle_timeout", Duration, "Ends a TCP connection or a tunnel on which nothing moves."),
    key("max_requests", Number, "Requests on one connection."),
    key("max_head", Size, "Bytes of a request head; beyond it 431."),
    key("max_fields", Number, "Fields of a request head; beyond it 431."),
    key("max_request_line", Size, "Bytes of a request line; beyond it 414."),
    key("forwarded", Flag, "Adds the Forwarded field (RFC 7239) to requests."),
    key("trusted_hops", Number, "Proxies in front whose X-Forwarded fields are believed."),
    key("request_id", OneOf(&["replace", "keep"]), "What becomes of a client's X-Request-Id."),
    key("server_timing", Flag, "Adds Server-Timing, with what the hop took, to responses."),
    key("connect_failure_status", Number, "503, or 502 as nginx answers."),
];

pub const TARGET: &[Key] =
    &[key("cluster", Text, "A cluster's name."), key("weight", Number, "Its weight among the others.")];

pub const ROUTE: &[Key] = &[
    key("name", Text, "Its name; \"route-N\" by default."),
    key("listeners", Texts, "The listeners it serves; every HTTP listener without it."),
    key("host", Text, "An exact host, or a wildcard \"*.example.com\"."),
    key("path", Table(PATH), "The path; every path without it."),
    key("method", Text, "A method; every method without it."),
    key("methods", Texts, "Methods; every method without them."),
    key("cluster", Text, "Where requests go."),
    key("split", Tables(TARGET), "Where requests go, by weight."),
    key("timeout", OptionalDuration, "Until the response head is here; \"off\": for ever."),
    key("retry", Table(RETRY), "When a failed attempt is repeated."),
    key("upgrade", Texts, "Protocols that may be upgraded to; [\"websocket\"] without it."),
    key("connect", Flag, "CONNECT is tunnelled to the cluster."),
    key("max_body", Size, "Bytes of a request body; beyond it 413."),
];

pub const PATH: &[Key] =
    &[key("exact", Text, "All of the path."), key("prefix", Text, "Its beginning, on a segment boundary.")];

pub const RETRY: &[Key] = &[
    key("attempts", Number, "Attempts beyond the first; 0 turns retries off."),
    key("on", Texts, "\"connect-failure\", \"reset-before-response\"."),
];

pub const CLUSTER: &[Key] = &[
    key("name", Text, "Its name, unique."),
    key(
        "endpoints",
        TextsOrTables(ENDPOINT),
        "\"10.0.0.1:80\", \"name:80\" (resolved again and again), \"unix:/path\".",
    ),
    key("balance", OneOf(&["round-robin", "least-request", "random"]), "How an endpoint is chosen."),
    key("connect_timeout", Duration, "Until a connection is made."),
    key("pool", Table(POOL), "Connections that are kept for the next request."),
    key("limits", Table(LIMITS), "Bounds over all cores, an even share each."),
    key("proxy_protocol", OneOf(&["v1", "v2"]), "Begins each TCP connection with a PROXY header."),
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
