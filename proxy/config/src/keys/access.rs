//! Keys of `[[authorization]]`.

use super::{Key, Kind::*, key};

pub const AUTHORIZATION: &[Key] = &[
    key("name", Text, "Its name; \"authorization-N\" by default."),
    key("listeners", Texts, "The listeners it is for; in a sidecar the inbound ones without it, else every one."),
    key(
        "action",
        OneOf(&["allow", "deny"]),
        "What a match does. A deny wins; once something is allowed, what no rule allows is refused.",
    ),
    key("dry_run", Flag, "Only counts what it would do (onehop_listener_would_deny_total)."),
    key("identities", Texts, "SPIFFE IDs: spiffe://td/path, spiffe://td/path/*, spiffe://td/*."),
    key("trust_domains", Texts, "Trust domains."),
    key("namespaces", Texts, "Namespaces: what stands behind /ns/ in the SPIFFE ID."),
    key("service_accounts", Texts, "Service accounts: what stands behind /sa/ in the SPIFFE ID."),
    key("sources", Texts, "Networks of the client's address: \"10.0.0.0/8\"."),
    key("server_names", Texts, "Server names (SNI): \"api.test\", \"*.test\"."),
    key("ports", Numbers, "Ports that the client wanted."),
    key("methods", Texts, "Methods."),
    key("paths", Texts, "Paths: \"/exact\", \"/below/*\", \"*.php\"."),
    key("headers", Tables(HEADER), "Header fields, all of which must match."),
];

pub const HEADER: &[Key] = &[
    key("name", Text, "Its name."),
    key("value", Text, "Its value: \"exact\", \"begins*\", \"*ends\"; without it, it has to be there."),
];
