//! Keys of `[[route]]`.

use super::limits::{IN_FLIGHT, PRIORITIES, RATE_LIMIT};
use super::resilience::{FAULT, HEDGE, MIRROR, RETRY};
use super::{Key, Kind::*, key};

pub const TARGET: &[Key] = &[
    key("cluster", Text, "A cluster's name."),
    key("weight", Number, "Its weight among the others."),
    key("subset", Map, "Only its endpoints with these labels."),
];

pub const ROUTE: &[Key] = &[
    key("name", Text, "Its name; \"route-N\" by default."),
    key("listeners", Texts, "The listeners it serves; every HTTP listener without it."),
    key("host", Text, "An exact host, or a wildcard \"*.example.com\"."),
    key("hosts", Texts, "Several of them."),
    key("path", Table(PATH), "The path; every path without it."),
    key("method", Text, "A method; every method without it."),
    key("methods", Texts, "Methods; every method without them."),
    key(
        "headers",
        MapOf(VALUE),
        "Header fields that must match: a text, or a table with exact, prefix, regex, present.",
    ),
    key("query", MapOf(VALUE), "Query fields that must match, likewise."),
    key("source", Texts, "Ranges that the client's address is in: [\"10.0.0.0/8\"]."),
    key("sni", Texts, "Names in the TLS greeting, exact or \"*.example.com\"."),
    key("cluster", Text, "Where requests go."),
    key("subset", Map, "Only the cluster's endpoints with these labels."),
    key("split", Tables(TARGET), "Where requests go, by weight."),
    key("split_by", Table(HASH_ON), "Makes the choice of a split the same for the same value."),
    key("redirect", Table(REDIRECT), "Sends the client elsewhere."),
    key("respond", Table(RESPOND), "Answers without an upstream."),
    key("rewrite", Table(REWRITE), "The path and host that the upstream gets."),
    key("request_headers", Table(EDITS), "Changes of the request's header fields."),
    key("response_headers", Table(EDITS), "Changes of the response's header fields."),
    key("cors", Table(CORS), "Cross-origin requests; preflights are answered before authorization and limits."),
    key(
        "timeout",
        OptionalDuration,
        "From the request's end until the response head is here, over all attempts; \"off\": for ever.",
    ),
    key("retry", Table(RETRY), "When a failed attempt is repeated."),
    key("hedge", Table(HEDGE), "When a second try is sent beside the first; whichever answers first wins."),
    key(
        "mirror",
        Table(MIRROR),
        "Copies of requests to another cluster, for which the caller neither waits nor fails.",
    ),
    key(
        "faults",
        Tables(FAULT),
        "Disturbs requests on purpose, to test their callers; of each kind the first that fits.",
    ),
    key("upgrade", Texts, "Protocols that may be upgraded to; [\"websocket\"] without it."),
    key("connect", Flag, "CONNECT is tunnelled to the cluster."),
    key("rate_limits", Tables(RATE_LIMIT), "Requests per time, over all cores; beyond them 429."),
    key("limits", Table(IN_FLIGHT), "Bounds of the whole route."),
    key("priority", OneOf(PRIORITIES), "Who is refused first by a saturated core; normal without it."),
    key("grpc_web", Flag, "gRPC-Web calls are translated to gRPC; cors is widened by what their clients need."),
    key("max_body", Size, "Bytes of a request body; beyond it 413."),
];

pub const PATH: &[Key] = &[
    key("exact", Text, "All of the path."),
    key("prefix", Text, "Its beginning, on a segment boundary."),
    key("template", Text, "Segments with captures: \"/users/{id}/{*rest}\"."),
    key(
        "regex",
        Text,
        "All of the path, as a regular expression. It is tried after exact paths, templates and prefixes, but before the prefix \"/\": a route for all the rest would leave it nothing.",
    ),
];

pub const VALUE: &[Key] = &[
    key("exact", Text, "It is this."),
    key("prefix", Text, "It begins with this."),
    key("regex", Text, "All of it matches."),
    key("present", Flag, "It is there, or it is not."),
];

pub const HASH_ON: &[Key] = &[
    key("header", Text, "A header's value."),
    key("cookie", Text, "A cookie's value."),
    key("query", Text, "A query field's value."),
    key("source", Flag, "The client's address."),
    key("path", Flag, "The path as routes see it: every spelling of one is the same."),
    key("identity", Flag, "The identity that the client proved."),
];

const REDIRECT: &[Key] = &[
    key("status", Number, "301, 302 (the default), 303, 307 or 308."),
    key("scheme", OneOf(&["http", "https"]), "Another scheme."),
    key("host", Text, "Another host."),
    key("port", Number, "Another port."),
    key("path", Text, "Another path; may hold {captures}."),
    key("prefix", Text, "Another beginning in place of the matched prefix."),
    key("drop_query", Flag, "Without the query."),
];

const RESPOND: &[Key] = &[
    key("status", Number, "The status; 200 without it."),
    key("text", Text, "The body."),
    key("file", Text, "A file that holds the body, at most 1 MiB, read when the configuration is."),
    key("content_type", Text, "The body's type; text/plain without it."),
];

const REWRITE: &[Key] = &[
    key("path", Text, "All of the path; may hold {captures}."),
    key("prefix", Text, "Another beginning in place of the matched prefix."),
    key("host", Text, "Another host."),
];

const EDITS: &[Key] = &[
    key("remove", Texts, "Fields that go."),
    key("rename", Map, "From one name to another."),
    key(
        "set",
        Map,
        "Fields in place of what was there; values may hold {client}, {identity}, {request_id}, {route}, {listener}, {host}, {path}, {method}, {scheme}, and captures of the path by their names.",
    ),
    key("add", Map, "Fields beside what is there; values as with set."),
];

const CORS: &[Key] = &[
    key("origins", Texts, "\"https://app.example.com\", \"https://*.example.com\", or \"*\"."),
    key("methods", Texts, "Methods beyond GET, HEAD and POST."),
    key("headers", Texts, "Request headers."),
    key("expose", Texts, "Response headers that scripts may read."),
    key("credentials", Flag, "Requests with cookies."),
    key("max_age", Duration, "How long a browser may remember the answer to a preflight."),
];
