//! What a route does about failures: `retry`.

use onehop_plan::model::{Resilience, Retry, RetryOn};

use super::matching::fields;
use crate::reader::{File, Table, one_of};

pub(super) fn resilience(file: &mut File<'_>, table: &Table<'_, '_>) -> Resilience {
    Resilience {
        retry: table.table(file, "retry").map(|table| retry(file, &table)).unwrap_or_default(),
        ..Resilience::default()
    }
}

const CONDITIONS: &[&str] = &["connect-failure", "stale-connection", "reset-before-response", "gateway-error", "5xx"];

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
            Some(_) => on.push(RetryOn::ServerError),
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
