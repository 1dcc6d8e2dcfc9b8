//! Keys of `[[listener]]`.

use super::http2::LISTENER_HTTP2;
use super::limits::IN_FLIGHT;
use super::route::TARGET;
use super::tls::LISTENER_TLS;
use super::{Key, Kind::*, key};

pub const LISTENER: &[Key] = &[
    key("name", Text, "Its name, unique."),
    key("address", Text, "Where it listens: \"0.0.0.0:8080\"; port 0 takes a free one."),
    key("layer", OneOf(&["http", "tcp", "sniff"]), "What it expects; sniff decides by the first bytes."),
    key(
        "authorization",
        OneOf(&["allow", "deny"]),
        "What becomes of what no [[authorization]] names; refused without it once a rule allows something.",
    ),
    key(
        "client_cert_header",
        OneOf(&["sanitize", "set", "append", "forward"]),
        "What becomes of X-Forwarded-Client-Cert; sanitize without it.",
    ),
    key("sni", Tables(SNI), "Where TLS connections go by the server name that they ask for, without decrypting them."),
    key("capture", Flag, "Takes connections that were redirected here, and finds out for whom they were meant."),
    key("transparent", Flag, "Takes them by TPROXY, which needs CAP_NET_ADMIN."),
    key(
        "detect_timeout",
        Duration,
        "With layer sniff or permissive TLS: how long a client's first bytes are waited for before the server may speak first.",
    ),
    key("tls", Table(LISTENER_TLS), "TLS with clients; without it the listener is plain."),
    key("cluster", Text, "Where TCP connections go."),
    key("subset", Map, "Only the cluster's endpoints with these labels."),
    key("split", Tables(TARGET), "Where TCP connections go, by weight."),
    key("proxy_protocol", Flag, "Clients must begin with a PROXY header, version 1 or 2."),
    key("max_connections", Number, "Connections over all cores, an even share each (one at least)."),
    key("limits", Table(IN_FLIGHT), "Bounds of the whole listener."),
    key("header_timeout", Duration, "From the first byte of a request head to its last."),
    key("idle_timeout", Duration, "Between two requests of a connection."),
    key(
        "body_timeout",
        Duration,
        "Between two pieces of a body, in either direction; a receiver has to take 240 bytes a second.",
    ),
    key(
        "tcp_idle_timeout",
        Duration,
        "Ends a TCP connection or a tunnel (WebSocket, CONNECT) on which nothing moves; 1h without it.",
    ),
    key("max_requests", Number, "Requests on one connection."),
    key("max_head", Size, "Bytes of a request head; beyond it 431."),
    key("max_fields", Number, "Fields of a request head; beyond it 431."),
    key("max_request_line", Size, "Bytes of a request line; beyond it 414."),
    key("forwarded", Flag, "Adds the Forwarded field (RFC 7239) to requests."),
    key("trusted_hops", Number, "Proxies in front whose X-Forwarded fields are believed."),
    key("request_id", OneOf(&["replace", "keep"]), "What becomes of a client's X-Request-Id."),
    key("server_timing", Flag, "Adds Server-Timing, with what the hop took, to responses."),
    key(
        "trust_request_timeout",
        Flag,
        "Requests may bring their own deadline in X-Request-Timeout (\"250ms\", or seconds), which is passed on less what has passed.",
    ),
    key("path", Table(PATH_RULE), "How paths are read before routes are matched."),
    key("connect_failure_status", Number, "503, or 502 as nginx answers."),
    key("http2", Table(LISTENER_HTTP2), "How clients may speak HTTP/2."),
];

const PATH_RULE: &[Key] = &[
    key("normalise", Flag, "Decodes escapes that need none and removes dot segments; on without it."),
    key("merge_slashes", Flag, "\"//\" is \"/\"; on without it."),
    key("encoded_slash", OneOf(&["slash", "keep", "reject"]), "What %2F, %5C and a backslash are; slash without it."),
];

pub const SNI: &[Key] = &[
    key("name", Text, "A server name, or a wildcard \"*.example.com\"."),
    key("cluster", Text, "Where its connections go."),
    key("subset", Map, "Only the cluster's endpoints with these labels."),
    key("split", Tables(TARGET), "Where its connections go, by weight."),
];
