//! `[[listener]]`.

use onehop_plan::model::{ClientCert, Http, Listener, Target};
use onehop_plan::route::{EncodedSlash, PathRule};
use onehop_plan::{Layer, RequestId};

use super::route::targets;
use super::socket_address;
use super::tls::listener_tls;
use crate::reader::{File, Table};

pub(super) fn listener(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<Listener> {
    let Some(address) = table.text(file, "address") else {
        if table.value("address").is_none() {
            file.wrong(
                table.span.clone(),
                "a listener needs an address",
                Some("address = \"127.0.0.1:8080\"".to_owned()),
            );
        }
        return None;
    };
    let address = socket_address(file, table.span_of("address"), "address", &address)?;
    let layer = match table.word(file, "layer") {
        Some("tcp") => Layer::Tcp,
        Some("sniff") => Layer::Sniff,
        _ => Layer::Http,
    };
    let max_connections = table.number(file, "max_connections");
    let tcp_idle_timeout = table.duration(file, "tcp_idle_timeout").unwrap_or(std::time::Duration::from_secs(3600));
    let name = table.text(file, "name").unwrap_or_default();
    let http = http(file, table);
    let mut tls = listener_tls(file, table);
    if let Some(tls) = &mut tls
        && (layer == Layer::Tcp || !http.http2.enabled)
    {
        // What is behind a TCP listener need not speak HTTP/2.
        let default = onehop_plan::model::ListenerTls::default().alpn;
        if tls.alpn == default || layer != Layer::Tcp {
            tls.alpn.retain(|protocol| protocol != "h2");
        }
    }
    Some(Listener {
        proxy_protocol: table.flag(file, "proxy_protocol").unwrap_or(false),
        max_connections,
        tcp: targets(file, table),
        tcp_names: names(file, table),
        tcp_idle_timeout,
        http,
        capture: table.flag(file, "capture").unwrap_or(false),
        transparent: table.flag(file, "transparent").unwrap_or(false),
        denies_by_default: table.word(file, "authorization").map(|word| word == "deny"),
        client_cert: match table.word(file, "client_cert_header") {
            Some("set") => ClientCert::Set,
            Some("append") => ClientCert::Append,
            Some("forward") => ClientCert::Forward,
            _ => ClientCert::Sanitize,
        },
        detect_timeout: table.duration(file, "detect_timeout"),
        tls,
        ..Listener::new(&name, address, layer)
    })
}

/// `sni`: where TLS connections go by the name that they ask for.
fn names(file: &mut File<'_>, table: &Table<'_, '_>) -> Vec<(String, Vec<Target>)> {
    let mut names = Vec::new();
    for part in table.tables(file, "sni") {
        let to = targets(file, &part);
        match part.text(file, "name") {
            Some(name) if !to.is_empty() && !name.trim_start_matches("*.").contains('*') => names.push((name, to)),
            _ => {
                let hint = Some("{ name = \"*.example.com\", cluster = \"NAME\" }".to_owned());
                file.wrong(part.span.clone(), "a server name needs the name and a cluster", hint);
            }
        }
    }
    names
}

fn http(file: &mut File<'_>, table: &Table<'_, '_>) -> Http {
    let default = Http::default();
    let size = |file: &mut File<'_>, name| table.size(file, name).and_then(|size| usize::try_from(size).ok());
    let connect_failure_502 = match table.number::<u16>(file, "connect_failure_status") {
        None | Some(503) => false,
        Some(502) => true,
        Some(other) => {
            let span = table.span_of("connect_failure_status").unwrap_or_default();
            file.wrong(
                span,
                format!("connect_failure_status cannot be {other}"),
                Some("it is 503, or 502 as in nginx".to_owned()),
            );
            false
        }
    };
    Http {
        head_bytes: size(file, "max_head").unwrap_or(default.head_bytes),
        fields: table.number(file, "max_fields").unwrap_or(default.fields),
        request_line: size(file, "max_request_line").unwrap_or(default.request_line),
        header_timeout: table.duration(file, "header_timeout").unwrap_or(default.header_timeout),
        idle_timeout: table.duration(file, "idle_timeout").unwrap_or(default.idle_timeout),
        body_timeout: table.duration(file, "body_timeout").unwrap_or(default.body_timeout),
        max_requests: table.number::<u32>(file, "max_requests").map(u64::from),
        max_in_flight: super::limits::in_flight(file, table),
        forwarded: table.flag(file, "forwarded").unwrap_or(false),
        trusted_hops: table.number(file, "trusted_hops").unwrap_or(0),
        request_id: if table.word(file, "request_id") == Some("keep") { RequestId::Keep } else { RequestId::Replace },
        server_timing: table.flag(file, "server_timing").unwrap_or(false),
        connect_failure_502,
        trusts_timeout: table.flag(file, "trust_request_timeout").unwrap_or(false),
        path: path_rule(file, table),
        http2: super::http2::http2(file, table, true),
    }
}

fn path_rule(file: &mut File<'_>, table: &Table<'_, '_>) -> PathRule {
    let mut rule = PathRule::default();
    if let Some(path) = table.table(file, "path") {
        rule.normalise = path.flag(file, "normalise").unwrap_or(rule.normalise);
        rule.merge_slashes = path.flag(file, "merge_slashes").unwrap_or(rule.merge_slashes);
        rule.encoded_slash = match path.word(file, "encoded_slash") {
            Some("keep") => EncodedSlash::Keep,
            Some("reject") => EncodedSlash::Reject,
            _ => EncodedSlash::Slash,
        };
    }
    rule
}
