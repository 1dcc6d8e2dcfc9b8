//! Keys of what a `[[route]]` does about failures.

use super::route::VALUE;
use super::{Key, Kind::*, key};

pub const RETRY: &[Key] = &[
    key("attempts", Number, "Attempts beyond the first; 2 without it, 0 turns retries off."),
    key(
        "on",
        Texts,
        "\"connect-failure\" (nobody acted on it: any method), \"stale-connection\" (an idle connection died at its reuse), \"reset-before-response\", \"gateway-error\" (502, 503, 504 or no answer), \"5xx\". Beyond the first only idempotent methods, or requests with an Idempotency-Key.",
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
