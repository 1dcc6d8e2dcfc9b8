//! What a route does about failures: `retry`, `hedge`, `mirror`, `faults`.

use onehop_plan::model::{Disturbance, Hedge, Injection, Mirror, Resilience, Retry, RetryOn};
use onehop_plan::resilience::CALLS;

use super::matching::fields;
use crate::reader::{File, Table, one_of};

pub(super) fn resilience(file: &mut File<'_>, table: &Table<'_, '_>) -> Resilience {
    Resilience {
        retry: table.table(file, "retry").map(|table| retry(file, &table)).unwrap_or_default(),
        hedge: table.table(file, "hedge").map(|table| Hedge {
            after: table.duration(file, "after"),
            quantile: table.fraction(file, "quantile"),
            budget: table.number(file, "budget").unwrap_or(10),
        }),
        mirror: table.table(file, "mirror").and_then(|table| mirror(file, &table)),
        injections: table.tables(file, "faults").iter().filter_map(|table| injection(file, table)).collect(),
    }
}

const CONDITIONS: &[&str] = &[
    "connect-failure",
    "stale-connection",
    "reset-before-response",
    "gateway-error",
    "5xx",
    "cancelled",
    "deadline-exceeded",
    "resource-exhausted",
    "internal",
    "unavailable",
];

fn retry(file: &mut File<'_>, table: &Table<'_, '_>) -> Retry {
    let default = Retry::default();
    let mut on = Vec::new();
    for element in table.list(file, "on") {
        let spelt = element.get_ref().as_str().unwrap_or_default();
        match one_of(file, element.span(), "on", spelt, CONDITIONS) {
            Some("connect-failure") => on.push(RetryOn::ConnectFailure),
            Some("stale-connection") => on.push(RetryOn::StaleConnection),
            Some("reset-before-response") => on.push(RetryOn::ResetBeforeResponse),
            Some("gateway-error") => on.push(RetryOn::GatewayError),
            Some("5xx") => on.push(RetryOn::ServerError),
            Some(other) => {
                let call = CALLS.iter().find(|(name, _)| *name == other);
                on.extend(call.map(|(_, status)| RetryOn::Call(*status)));
            }
            None => {}
        }
    }
    let statuses = table.numbers(file, "statuses");
    Retry {
        attempts: table.number(file, "attempts").unwrap_or(default.attempts),
        on: if table.value("on").is_some() { on } else { default.on },
        statuses: statuses.into_iter().map(|status| u16::try_from(status).unwrap_or(0)).collect(),
        headers: fields(file, table, "headers"),
        per_try_timeout: table.duration(file, "per_try_timeout"),
        backoff: table.duration(file, "backoff").unwrap_or(default.backoff),
        max_backoff: table.duration(file, "max_backoff").unwrap_or(default.max_backoff),
        max_retry_after: table.duration(file, "max_retry_after").unwrap_or(default.max_retry_after),
        max_body: table.size(file, "max_body").unwrap_or(default.max_body),
    }
}

fn mirror(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<Mirror> {
    let Some(cluster) = table.text(file, "cluster") else {
        file.wrong(table.span.clone(), "a mirror needs a cluster", Some("{ cluster = \"shadow\" }".to_owned()));
        return None;
    };
    Some(Mirror {
        cluster,
        percent: table.fraction(file, "percent").unwrap_or(100.0),
        shadow_host: table.flag(file, "shadow_host").unwrap_or(false),
        max_in_flight: table.number(file, "max_in_flight").unwrap_or(100),
        max_body: table.size(file, "max_body").unwrap_or(64 * 1024),
    })
}

fn injection(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<Injection> {
    let mut found = Vec::new();
    found.extend(table.duration(file, "delay").map(Disturbance::Delay));
    found.extend(table.number(file, "abort").map(Disturbance::Abort));
    found.extend(table.flag(file, "reset").filter(|on| *on).map(|_| Disturbance::Reset));
    found.extend(table.size(file, "slow_body").map(Disturbance::SlowBody));
    let (Some(what), true) = (found.pop(), found.is_empty()) else {
        let hint = Some("faults = [{ delay = \"100ms\", percent = 5 }, { abort = 503, percent = 1 }]".to_owned());
        file.wrong(table.span.clone(), "a fault is one of delay, abort, reset and slow_body", hint);
        return None;
    };
    Some(Injection {
        what,
        percent: table.fraction(file, "percent").unwrap_or(100.0),
        headers: fields(file, table, "headers"),
    })
}
