//! `[[authorization]]`.

use std::net::IpAddr;

use onehop_plan::authz::{Rule, TextMatch};
use onehop_plan::identity::IdMatch;

use crate::reader::{File, Table};

fn each<T>(
    file: &mut File<'_>,
    table: &Table<'_, '_>,
    name: &str,
    hint: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Vec<T> {
    let mut found = Vec::new();
    for text in table.texts(file, name).unwrap_or_default() {
        match read(&text) {
            Some(one) => found.push(one),
            None => {
                let span = table.span_of(name).unwrap_or_default();
                file.wrong(span, format!("\"{text}\" cannot stand in {name}"), Some(hint.to_owned()));
            }
        }
    }
    found
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let ip: IpAddr = ip.parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
    (bits <= most).then_some((ip, bits))
}

pub(super) fn authorization(file: &mut File<'_>, table: &Table<'_, '_>, index: usize) -> Rule {
    let deny = match table.word(file, "action") {
        Some(action) => action == "deny",
        None => {
            let hint = Some("action = \"allow\", or action = \"deny\"".to_owned());
            file.wrong(table.span.clone(), "an authorization needs an action", hint);
            true
        }
    };
    let text = |text: &str| (!text.is_empty()).then(|| TextMatch::parse(text));
    let mut headers = Vec::new();
    for part in table.tables(file, "headers") {
        match part.text(file, "name") {
            Some(name) => {
                let value = part.text(file, "value").map_or(TextMatch::Present, |value| TextMatch::parse(&value));
                headers.push((name.to_ascii_lowercase(), value));
            }
            None => file.wrong(part.span.clone(), "a header needs a name", None),
        }
    }
    let mut ports = Vec::new();
    for port in table.numbers(file, "ports") {
        match u16::try_from(port) {
            Ok(port) => ports.push(port),
            Err(_) => file.wrong(table.span_of("ports").unwrap_or_default(), format!("{port} is no port"), None),
        }
    }
    Rule {
        name: table.text(file, "name").unwrap_or_else(|| format!("authorization-{}", index + 1)),
        listeners: table.texts(file, "listeners").unwrap_or_default(),
        deny,
        dry_run: table.flag(file, "dry_run").unwrap_or(false),
        identities: each(
            file,
            table,
            "identities",
            "spiffe://td/path, spiffe://td/path/*, spiffe://td/*",
            IdMatch::parse,
        ),
        trust_domains: table.texts(file, "trust_domains").unwrap_or_default(),
        namespaces: table.texts(file, "namespaces").unwrap_or_default(),
        service_accounts: table.texts(file, "service_accounts").unwrap_or_default(),
        sources: each(file, table, "sources", "10.0.0.0/8, fd00::/8, 127.0.0.1", network),
        server_names: each(file, table, "server_names", "api.test, *.test", text),
        ports,
        methods: table.texts(file, "methods").unwrap_or_default(),
        paths: each(file, table, "paths", "/exact, /below/*", text),
        headers,
    }
}
