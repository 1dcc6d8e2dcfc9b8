//! Limits of routes and listeners.

use std::time::Duration;

use onehop_plan::model::{Adaptive, Priority, RateFields, RateLimit};

use super::matching::hash_on;
use crate::reader::{File, Table};

/// `rate_limits`.
pub(super) fn rate_limits(file: &mut File<'_>, table: &Table<'_, '_>) -> Vec<RateLimit> {
    let mut rates = Vec::new();
    for rate in table.tables(file, "rate_limits") {
        let Some(requests) = rate.number(file, "requests") else {
            let hint = Some("{ requests = 100, per = \"1s\", by = { source = true } }".to_owned());
            if rate.value("requests").is_none() {
                file.wrong(rate.span.clone(), "a rate limit needs a number of requests", hint);
            }
            continue;
        };
        rates.push(RateLimit {
            requests,
            per: rate.duration(file, "per").unwrap_or(Duration::from_secs(1)),
            burst: rate.number(file, "burst").unwrap_or(requests),
            by: rate.table(file, "by").and_then(|by| hash_on(file, &by)),
            keys: rate.number(file, "keys").unwrap_or(10_000),
            fields: match rate.word(file, "fields") {
                Some("off") => RateFields::Off,
                Some("always") => RateFields::Always,
                _ => RateFields::Refusals,
            },
        });
    }
    rates
}

/// `limits = { requests = N }`.
pub(super) fn in_flight(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<u32> {
    table.table(file, "limits").and_then(|limits| limits.number(file, "requests"))
}

/// `adaptive`.
pub(super) fn adaptive(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<Adaptive> {
    let table = table.table(file, "adaptive")?;
    let default = Adaptive::default();
    Some(Adaptive {
        initial: table.number(file, "initial").unwrap_or(default.initial),
        min: table.number(file, "min").unwrap_or(default.min),
        max: table.number(file, "max").unwrap_or(default.max),
        tolerance: table.fraction(file, "tolerance").unwrap_or(default.tolerance),
        window: table.duration(file, "window").unwrap_or(default.window),
    })
}

/// `priority`.
pub(super) fn priority(file: &mut File<'_>, table: &Table<'_, '_>) -> Priority {
    match table.word(file, "priority") {
        Some("low") => Priority::Low,
        Some("high") => Priority::High,
        Some("critical") => Priority::Critical,
        _ => Priority::Normal,
    }
}
