//! Keys of `[[route]]`.

use super::{Key, Kind::*, key};

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
