//! How a cluster's endpoints are chosen, judged and checked.

use std::time::Duration;

use onehop_plan::model::{ClusterPolicy, Fallback, Labels, Placement, Probe, ProbeKind, Sticky};
use onehop_plan::outlier::Outlier;

use super::matching::hash_on;
use crate::reader::{File, Table};

pub(super) fn placement(file: &mut File<'_>, table: &Table<'_, '_>) -> Placement {
    Placement {
        zone: table.text(file, "zone").map(Into::into),
        priority: table.number(file, "priority").unwrap_or(0),
        labels: labels(file, table, "labels"),
    }
}

/// Names and values that endpoints carry.
pub(super) fn labels(file: &mut File<'_>, table: &Table<'_, '_>, name: &str) -> Labels {
    if table.value(name).is_none() {
        return Labels::new();
    }
    table.map(file, name).into_iter().collect()
}

fn fallback(file: &mut File<'_>, table: &Table<'_, '_>) -> Fallback {
    let default = labels(file, table, "default_subset");
    let word = table.word(file, "subset_fallback");
    match (word, default.is_empty()) {
        (Some("any"), true) => Fallback::Any,
        (Some("default") | None, false) => Fallback::Default(default.into()),
        (Some("none") | None, true) => Fallback::None,
        _ => {
            let span = table.span_of("subset_fallback").or_else(|| table.span_of("default_subset"));
            let hint = Some("subset_fallback = \"default\", default_subset = { NAME = \"VALUE\" }".to_owned());
            file.wrong(span.unwrap_or_default(), "default goes with a default_subset, and the others without", hint);
            Fallback::None
        }
    }
}

fn sticky(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<Sticky> {
    let table = table.table(file, "sticky")?;
    let Some(cookie) = table.text(file, "cookie") else {
        file.wrong(
            table.span.clone(),
            "a sticky cookie needs a name",
            Some("sticky = { cookie = \"srv\" }".to_owned()),
        );
        return None;
    };
    Some(Sticky {
        cookie,
        ttl: table.duration(file, "ttl"),
        path: table.text(file, "path").unwrap_or_else(|| "/".to_owned()),
        secure: table.flag(file, "secure").unwrap_or(false),
        http_only: table.flag(file, "http_only").unwrap_or(true),
        same_site: table.word(file, "same_site").map(str::to_owned),
        secret: table.text(file, "secret"),
    })
}

pub(super) fn policy(file: &mut File<'_>, table: &Table<'_, '_>) -> ClusterPolicy {
    let default = ClusterPolicy::default();
    let limits = table.table(file, "limits");
    ClusterPolicy {
        hash_on: table.table(file, "hash_on").and_then(|on| hash_on(file, &on)),
        zone: table.text(file, "zone"),
        panic_percent: table.number(file, "panic_threshold").unwrap_or(default.panic_percent),
        slow_start: table.duration(file, "slow_start"),
        outlier: table.table(file, "outlier").map(|table| outlier(file, &table)),
        probe: table.table(file, "health").map(|table| probe(file, &table)),
        retry_percent: table.number(file, "retry_budget").unwrap_or(default.retry_percent),
        adaptive: super::limits::adaptive(file, table),
        queue: limits.as_ref().and_then(|limits| limits.number(file, "queue")).unwrap_or(default.queue),
        queue_age: limits.as_ref().and_then(|limits| limits.duration(file, "queue_age")),
        endpoint_requests: limits.as_ref().and_then(|limits| limits.number(file, "endpoint_requests")),
        endpoint_connections: limits.as_ref().and_then(|limits| limits.number(file, "endpoint_connections")),
        fallback: fallback(file, table),
        sticky: sticky(file, table),
    }
}

fn outlier(file: &mut File<'_>, table: &Table<'_, '_>) -> Outlier {
    Outlier {
        consecutive_5xx: Some(table.number(file, "consecutive_5xx").unwrap_or(5)),
        consecutive_gateway: table.number(file, "consecutive_gateway_errors"),
        consecutive_connect: table.number(file, "consecutive_connect_failures"),
        success_rate: table.fraction(file, "success_rate"),
        latency_factor: table.fraction(file, "latency_factor"),
        min_requests: table.number::<u32>(file, "min_requests").map_or(100, u64::from),
        interval: table.duration(file, "interval").unwrap_or(Duration::from_secs(10)),
        // Envoy's.
        base: table.duration(file, "ejection").unwrap_or(Duration::from_secs(30)),
        longest: table.duration(file, "max_ejection").unwrap_or(Duration::from_secs(300)),
        max_percent: table.number(file, "max_ejected").unwrap_or(10),
    }
}

fn probe(file: &mut File<'_>, table: &Table<'_, '_>) -> Probe {
    let default = Probe::default();
    let host = table.text(file, "host");
    let mut kinds = Vec::new();
    if let Some(path) = table.text(file, "http") {
        kinds.push(ProbeKind::Http { path, host: host.clone(), expect: statuses(file, table) });
    }
    kinds.extend(table.text(file, "grpc").map(|service| ProbeKind::Grpc { service, host }));
    if table.flag(file, "tcp") == Some(true) {
        kinds.push(ProbeKind::Tcp);
    }
    if kinds.len() > 1 {
        file.wrong(table.span.clone(), "a check is made by http, by grpc or by tcp", None);
    }
    Probe {
        kind: kinds.pop().unwrap_or(ProbeKind::Tcp),
        interval: table.duration(file, "interval").unwrap_or(default.interval),
        timeout: table.duration(file, "timeout").unwrap_or(default.timeout),
        healthy: table.number(file, "healthy").unwrap_or(default.healthy),
        unhealthy: table.number(file, "unhealthy").unwrap_or(default.unhealthy),
        port: table.number(file, "port"),
        tls: table.flag(file, "tls").unwrap_or(default.tls),
    }
}

/// `expect = ["200", "300-399"]`.
fn statuses(file: &mut File<'_>, table: &Table<'_, '_>) -> Vec<(u16, u16)> {
    let Some(texts) = table.texts(file, "expect") else { return vec![(200, 399)] };
    let mut ranges = Vec::new();
    for text in texts {
        let (from, to) = text.split_once('-').unwrap_or((&text, &text));
        match (from.trim().parse::<u16>(), to.trim().parse::<u16>()) {
            (Ok(from), Ok(to)) if from <= to && (100..600).contains(&from) && to < 600 => ranges.push((from, to)),
            _ => {
                let hint = Some("expect = [\"200\", \"300-399\"]".to_owned());
                file.wrong(
                    table.span_of("expect").unwrap_or_default(),
                    format!("\"{text}\" is no status, and no range of them"),
                    hint,
                );
            }
        }
    }
    ranges
}
