//! Keys of `[sidecar]`.

use super::{Key, Kind::*, key};

pub const SIDECAR: &[Key] = &[
    key(
        "outbound",
        Texts,
        "Where the app's connections are redirected to; [\"127.0.0.1:15001\"] without it, [] for none.",
    ),
    key("inbound", Texts, "Where the app's clients are redirected to; [\"0.0.0.0:15006\"] without it, [] for none."),
    key(
        "mode",
        OneOf(&["strict", "permissive", "disabled"]),
        "Inbound: mutual TLS alone, plain connections as well, or plain ones alone.",
    ),
    key(
        "unknown",
        OneOf(&["allow", "refuse"]),
        "Outbound to destinations that are no [[sidecar.service]]: passed on as they are, or refused.",
    ),
    key(
        "transparent",
        Flag,
        "Interception is by TPROXY instead of REDIRECT; the app, reached at its own address, sees its clients' addresses.",
    ),
    key(
        "detect_timeout",
        Duration,
        "How long a client's first bytes are waited for before its server may speak first.",
    ),
    key(
        "app",
        OneOf(&["loopback", "original"]),
        "Where the app listens: on loopback, or on the address that its clients use.",
    ),
    key(
        "alpn",
        Texts,
        "Application protocols between sidecars, best first; with h2, services are reached by HTTP/2 where HTTP is spoken and their sidecars take it, else by HTTP/1.1.",
    ),
    key("max_age", Duration, "Connections between sidecars are renewed at this age."),
    key("port", Tables(PORT), "What is different for a port of the app."),
    key("service", Tables(SERVICE), "Services that are reached by mutual TLS."),
];

pub const PORT: &[Key] = &[
    key("port", Number, "The port that clients use."),
    key("listen", Text, "An address of its own instead of interception: \"0.0.0.0:8443\"."),
    key(
        "protocol",
        OneOf(&["sniff", "http", "tcp"]),
        "What it speaks; tcp for protocols where the server speaks first.",
    ),
    key("mode", OneOf(&["strict", "permissive", "disabled"]), "As above, for this port."),
    key("app", Text, "Where the app is: \"127.0.0.1:3000\", \"unix:/run/app.sock\"."),
];

pub const SERVICE: &[Key] = &[
    key("name", Text, "Its name, unique."),
    key("addresses", Texts, "The addresses that the app connects to: \"10.0.0.2:80\"; \":6379\" for any address."),
    key("listen", Text, "An address of its own for the app, instead of interception: \"127.0.0.1:9001\"."),
    key("endpoints", Texts, "Where its sidecars are; where the app wanted to connect to without them."),
    key("identity", Texts, "SPIFFE IDs, one of which the other side must have; any of the trust domain without it."),
    key(
        "protocol",
        OneOf(&["sniff", "http", "tcp"]),
        "What it speaks; tcp for protocols where the server speaks first.",
    ),
    key("mode", OneOf(&["strict", "disabled"]), "disabled: it has no sidecar and is reached without TLS."),
];
