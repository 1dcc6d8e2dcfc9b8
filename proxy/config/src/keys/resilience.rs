//! Keys of what a `[[route]]` does about failures.

use super::route::VALUE;
use super::{Key, Kind::*, key};

pub const RETRY: &[Key] = &[
    key(
        "attempts",
        Number,
        "Attempts beyond the first; 2 without it, 0 turns retries off. Upstreams see the attempt's number, 1 for the first, in X-Attempt-Count.",
    ),
    key(
        "on",
        Texts,
        "\"connect-failure\" (nobody acted on it: any method), \"stale-connection\" (an idle connection died at its reuse), \"reset-before-response\", \"gateway-error\" (502, 503, 504 or no answer), \"5xx\"; for gRPC calls that were answered with a status alone, whatever the method, \"cancelled\", \"deadline-exceeded\", \"internal\", \"resource-exhausted\", \"unavailable\". Beyond the first only idempotent methods, or requests with an Idempotency-Key.",
    ),
    key("statuses", Numbers, "Upon these statuses too: [409, 429]."),
    key("headers", MapOf(VALUE), "Upon responses with one of these fields: a text, or exact, prefix, regex, present."),
    key("per_try_timeout", Duration, "How long one attempt may take to its response head."),
    key(
        "backoff",
        Duration,
        "The first wait is a random part of this, the next one of twice as much; 25ms without it.",
    ),
    key("max_backoff", Duration, "The longest wait is a part of this; 250ms without it."),
    key("max_retry_after", Duration, "A Retry-After up to this is waited for, a longer one passed on; 1s without it."),
    key("max_body", Size, "Request bodies up to this are kept to be sent again; 64KiB without it."),
];

pub const HEDGE: &[Key] = &[
    key("after", Duration, "A second try elsewhere after this long; with quantile until enough was observed."),
    key("quantile", Fraction, "After the time within which this share of the cluster's answers came: 0.95."),
    key("budget", Number, "Hedges in percent of the requests; 10 without it."),
];

pub const MIRROR: &[Key] = &[
    key("cluster", Text, "The cluster that gets the copies; what it answers is thrown away."),
    key("percent", Fraction, "How many of a hundred requests; all without it."),
    key("shadow_host", Flag, "The copy's host ends with -shadow."),
    key("max_in_flight", Number, "Copies under way on each core, more are dropped; 100 without it."),
    key("max_body", Size, "Requests with longer bodies are not copied; 64KiB without it."),
];

pub const FAULT: &[Key] = &[
    key("delay", Duration, "The request waits so long before it goes on."),
    key("abort", Number, "It is answered with this status."),
    key("reset", Flag, "Its connection, or HTTP/2 stream, is reset."),
    key("slow_body", Size, "Its response's body flows at so many bytes a second."),
    key("percent", Fraction, "How many of a hundred requests that the headers fit; all without it."),
    key("headers", MapOf(VALUE), "Only requests with these fields, all of them."),
];
