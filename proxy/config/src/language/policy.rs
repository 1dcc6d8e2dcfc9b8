//! How a cluster's endpoints are chosen, judged and checked.

use std::time::Duration;

use onehop_plan::model::{ClusterPolicy, Placement, Probe, ProbeKind};
use onehop_plan::outlier::Outlier;

use super::matching::hash_on;
use crate::reader::{File, Table};

pub(super) fn placement(file: &mut File<'_>, table: &Table<'_, '_>) -> Placement {
    Placement {
        zone: table.text(file, "zone").map(Into::into),
        priority: table.number(file, "priority").unwrap_or(0),
        ..Placement::default()
    }
}

pub(super) fn policy(file: &mut File<'_>, table: &Table<'_, '_>) -> ClusterPolicy {
    let default = ClusterPolicy::default();
    ClusterPolicy {
        hash_on: table.table(file, "hash_on").and_then(|on| hash_on(file, &on)),
        zone: table.text(file, "zone"),
        panic_percent: table.number(file, "panic_threshold").unwrap_or(default.panic_percent),
        slow_start: table.duration(file, "slow_start"),
        outlier: table.table(file, "outlier").map(|table| outlier(file, &table)),
        probe: table.table(file, "health").map(|table| probe(file, &table)),
        retry_percent: table.number(file, "retry_budget").unwrap_or(default.retry_percent),
        adaptive: super::limits::adaptive(file, table),
        queue: table.table(file, "limits").and_then(|limits| limits.number(file, "queue")).unwrap_or(default.queue),
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
    let path = table.text(file, "http");
    if path.is_some() && table.flag(file, "tcp").is_some() {
        file.wrong(table.span.clone(), "a check is made by http or by tcp", None);
    }
    Probe {
        kind: path.map_or(ProbeKind::Tcp, |path| ProbeKind::Http { path, host: table.text(file, "host") }),
        interval: table.duration(file, "interval").unwrap_or(default.interval),
        timeout: table.duration(file, "timeout").unwrap_or(default.timeout),
        healthy: table.number(file, "healthy").unwrap_or(default.healthy),
        unhealthy: table.number(file, "unhealthy").unwrap_or(default.unhealthy),
        port: table.number(file, "port"),
    }
}
