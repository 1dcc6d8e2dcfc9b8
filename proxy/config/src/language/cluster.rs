//! `[[cluster]]`.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use onehop_plan::model::{Cluster, Endpoint, EndpointTarget, Placement};
use onehop_plan::{Address, BalanceKind, Original, Protocol, ProxyProtocol};
use toml::de::DeValue;

use super::policy::{placement, policy};
use super::tls::cluster_tls;
use crate::reader::{File, Table};

pub(super) fn cluster(file: &mut File<'_>, table: &Table<'_, '_>) -> Cluster {
    let mut cluster = Cluster { name: table.text(file, "name").unwrap_or_default(), ..Cluster::default() };
    for element in table.list(file, "endpoints") {
        cluster.endpoints.extend(endpoint(file, table, element.get_ref(), element.span()));
    }
    cluster.balance = match table.word(file, "balance") {
        Some("least-request") => BalanceKind::LeastRequest,
        Some("random") => BalanceKind::Random,
        Some("peak-ewma") => BalanceKind::PeakEwma,
        Some("ring-hash") => BalanceKind::RingHash,
        Some("maglev") => BalanceKind::Maglev,
        _ => BalanceKind::RoundRobin,
    };
    cluster.connect_timeout = table.duration(file, "connect_timeout").unwrap_or(cluster.connect_timeout);
    if let Some(pool) = table.table(file, "pool") {
        cluster.max_idle = pool.number(file, "max_idle").unwrap_or(cluster.max_idle);
        cluster.idle_timeout = pool.duration(file, "idle_timeout").unwrap_or(cluster.idle_timeout);
        cluster.max_age = pool.duration(file, "max_age");
        cluster.max_requests_per_connection = pool.number::<u32>(file, "max_requests").map(u64::from);
    }
    if let Some(limits) = table.table(file, "limits") {
        cluster.max_connections = limits.number(file, "connections");
        cluster.max_requests = limits.number(file, "requests");
    }
    cluster.original = match table.word(file, "original") {
        Some("loopback") => Some(Original::Loopback),
        Some(_) => Some(Original::AsIs),
        None => None,
    };
    cluster.keep_source = table.flag(file, "keep_source").unwrap_or(false);
    cluster.tls = cluster_tls(file, table);
    cluster.policy = policy(file, table);
    cluster.proxy_protocol = match table.word(file, "proxy_protocol") {
        Some("v1") => Some(ProxyProtocol::V1),
        Some(_) => Some(ProxyProtocol::V2),
        None => None,
    };
    cluster.protocol = match table.word(file, "protocol") {
        Some("http2") => Protocol::Http2,
        Some("auto") => Protocol::Auto,
        _ => Protocol::Http1,
    };
    cluster.http2 = super::http2::http2(file, table, false);
    cluster
}

fn endpoint(file: &mut File<'_>, cluster: &Table<'_, '_>, value: &DeValue<'_>, span: Range<usize>) -> Option<Endpoint> {
    let mut placed = Placement::default();
    let (text, weight, span) = match value {
        DeValue::String(text) => (text.to_string(), 1, span),
        DeValue::Table(entries) => {
            let table = Table::open(file, entries, span.clone(), cluster.nested("endpoints"));
            let weight = table.number(file, "weight").unwrap_or(1);
            placed = placement(file, &table);
            let span = table.span_of("address").unwrap_or(span);
            (table.text(file, "address").unwrap_or_default(), weight, span)
        }
        _ => {
            file.wrong(span, "an endpoint is a text or a table with address and weight", None);
            return None;
        }
    };
    match endpoint_target(&text) {
        Ok(target) => Some(Endpoint { target, weight, placement: placed }),
        Err(hint) => {
            file.wrong(span, format!("endpoint \"{text}\" is no address"), Some(hint));
            None
        }
    }
}

/// What an endpoint's text stands for.
pub fn endpoint_target(text: &str) -> Result<EndpointTarget, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() {
            Err("write the socket's path: \"unix:/run/app.sock\"".to_owned())
        } else {
            Ok(EndpointTarget::Address(Address::Unix(Arc::new(PathBuf::from(path)))))
        };
    }
    if let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) {
        return Err(format!("write host and port alone: \"{}\"", rest.trim_end_matches('/')));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 {
            Err("port 0 cannot be connected to".to_owned())
        } else {
            Ok(EndpointTarget::Address(Address::Tcp(address)))
        };
    }
    let Some((name, port)) = text.rsplit_once(':') else {
        return Err(format!("add a port: \"{text}:80\""));
    };
    let is_name = !name.is_empty()
        && name.len() < 254
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    match port.parse::<u16>() {
        Ok(port) if port > 0 && is_name => Ok(EndpointTarget::Name(name.to_owned(), port)),
        _ => Err("write HOST:PORT, for IPv6 \"[::1]:80\"".to_owned()),
    }
}
