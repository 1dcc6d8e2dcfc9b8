//! Keys of limits.

use super::route::HASH_ON;
use super::{Key, Kind::*, key};

pub const RATE_LIMIT: &[Key] = &[
    key("requests", Number, "So many requests,"),
    key("per", Duration, "in this time; 1s without it."),
    key("burst", Number, "So many at once; as many as requests without it."),
    key(
        "by",
        Table(HASH_ON),
        "What tells clients apart; all share one allowance without it, as do those that lack the value.",
    ),
    key("keys", Number, "Clients remembered, over all cores; the oldest are forgotten; 10000 without it."),
    key(
        "fields",
        OneOf(&["off", "refusals", "always"]),
        "Which answers tell of it by RateLimit and RateLimit-Policy; refusals without it.",
    ),
];

pub const IN_FLIGHT: &[Key] =
    &[key("requests", Number, "Requests in flight, over all cores; further ones are refused with 503.")];

pub const ADAPTIVE: &[Key] = &[
    key("initial", Number, "Requests in flight at first, on each core; 20 without it."),
    key("min", Number, "At least; 3 without it."),
    key("max", Number, "At most; 1000 without it."),
    key("tolerance", Fraction, "How much slower answers may become, as a part of the least latency; 0.5 without it."),
    key(
        "window",
        Duration,
        "The least latency is measured anew when it has not been seen for so long; 30s without it.",
    ),
];

pub const PRIORITIES: &[&str] = &["low", "normal", "high", "critical"];
