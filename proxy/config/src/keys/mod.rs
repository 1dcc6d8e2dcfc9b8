//! Every key of the language, once: the reader takes its spelling from here, the schema its types and texts.

mod access;
mod cluster;
mod http2;
mod limits;
mod listener;
mod resilience;
mod route;
mod sidecar;
mod tls;

pub use access::AUTHORIZATION;
pub use cluster::CLUSTER;
pub use listener::LISTENER;
pub use route::ROUTE;
pub use sidecar::SIDECAR;
pub use tls::IDENTITY;

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
    /// Texts under names that the user chooses.
    Map,
    /// The same, or tables of these keys.
    MapOf(&'static [Key]),
    /// A number that may have a fraction.
    Fraction,
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
    key("identity", Table(IDENTITY), "Who this process is in the mesh: its X.509-SVID and whom it trusts."),
    key("sidecar", Table(SIDECAR), "The mesh sidecar before an app: expands to listeners, routes and clusters."),
    key("authorization", Tables(AUTHORIZATION), "Who may do what."),
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
    key(
        "shed_after",
        Duration,
        "A core on which a ready task waits longer than this for its turn is saturated, and refuses requests with 503, the lowest priority first; no core does without it.",
    ),
    key("mark", Number, "Marks the sockets of our own connections (SO_MARK), so that interception leaves them alone."),
    key("takeover", Text, "Path of the Unix socket over which a successor takes the listening sockets."),
];

pub const ACCESS_LOG: &[Key] = &[
    key("path", Text, "A file; standard output without it."),
    key("format", Text, "\"json\", or a template such as \"{time} {method} {path} {status}\"."),
];
