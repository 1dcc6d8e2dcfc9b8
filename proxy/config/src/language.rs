//! The language: each table becomes its part of plan's model.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use onehop_plan::model::{Cluster, Endpoint, EndpointTarget, Http, Listener, Model, PathMatch, Route, Target};
use onehop_plan::{AccessLog, Address, BalanceKind, Layer, LogFormat, Place, ProxyProtocol, RequestId, RetryOn};
use toml::de::{DeTable, DeValue};

use crate::diagnostic::Diagnostic;
use crate::keys;
use crate::reader::{File, Positions, Table, one_of};

/// Reads one file into the model; returns what is wrong with it.
pub fn read(name: &str, text: &str, model: &mut Model, positions: &mut Positions) -> Vec<Diagnostic> {
    let mut file = File { name, text, wrong: Vec::new() };
    let parsed = match DeTable::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            file.wrong(error.span().unwrap_or(0..0), error.message().to_owned(), None);
            return file.wrong;
        }
    };
    let source = positions.add_source(name, text);
    let root = Table::open(&mut file, parsed.get_ref(), parsed.span(), keys::ROOT);
    let mut at = At { positions, source };
    if let Some(table) = root.table(&mut file, "runtime") {
        runtime(&mut file, &table, model, &mut at);
    }
    if let Some(table) = root.table(&mut file, "access_log") {
        model.access_log = Some(access_log(&mut file, &table));
    }
    for table in root.tables(&mut file, "listener") {
        let index = model.listeners.len();
        at.all(&table, keys::LISTENER, |key| Place::Listener(index, key));
        let listener = listener(&mut file, &table);
        model.listeners.extend(listener);
    }
    for table in root.tables(&mut file, "route") {
        let index = model.routes.len();
        at.all(&table, keys::ROUTE, |key| Place::Route(index, key));
        model.routes.push(route(&mut file, &table, index));
    }
    for table in root.tables(&mut file, "cluster") {
        let index = model.clusters.len();
        at.all(&table, keys::CLUSTER, |key| Place::Cluster(index, key));
        model.clusters.push(cluster(&mut file, &table));
    }
    file.wrong
}

/// Notes where things stand.
struct At<'a> {
    positions: &'a mut Positions,
    source: usize,
}

impl At<'_> {
    fn all(&mut self, table: &Table<'_, '_>, keys: &'static [keys::Key], place: impl Fn(&'static str) -> Place) {
        // The whole table's position is its first line.
        self.positions.set(place(""), self.source, table.span.start..table.span.start + 1);
        for key in keys {
            if let Some(span) = table.span_of(key.name) {
                self.positions.set(place(key.name), self.source, span);
            }
        }
    }
}

fn runtime(file: &mut File<'_>, table: &Table<'_, '_>, model: &mut Model, at: &mut At<'_>) {
    at.all(table, keys::RUNTIME, Place::Runtime);
    let runtime = &mut model.runtime;
    runtime.workers = table.number(file, "workers").or(runtime.workers);
    if table.value("cpus").is_some() {
        runtime.cpus = table.numbers(file, "cpus");
    }
    if let Some(text) = table.text(file, "admin") {
        runtime.admin = socket_address(file, table.span_of("admin"), "admin", &text);
    }
    runtime.busy_poll = table.duration(file, "busy_poll").unwrap_or(runtime.busy_poll);
    runtime.drain = table.duration(file, "drain").unwrap_or(runtime.drain);
    runtime.max_connections = table.number(file, "max_connections").unwrap_or(runtime.max_connections);
    runtime.takeover = table.text(file, "takeover").map(PathBuf::from);
}

fn access_log(file: &mut File<'_>, table: &Table<'_, '_>) -> AccessLog {
    let format = match table.text(file, "format") {
        None => LogFormat::Json,
        Some(json) if json == "json" => LogFormat::Json,
        Some(template) if template.contains('{') => LogFormat::Template(template),
        Some(other) => {
            let hint = "\"json\", or a template such as \"{time} {method} {path} {status}\"".to_owned();
            file.wrong(
                table.span_of("format").unwrap_or_default(),
                format!("format cannot be \"{other}\""),
                Some(hint),
            );
            LogFormat::Json
        }
    };
    AccessLog { path: table.text(file, "path").map(PathBuf::from), format }
}

fn socket_address(file: &mut File<'_>, span: Option<Range<usize>>, name: &str, text: &str) -> Option<SocketAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let hint = match text.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()) {
            Some(port) => format!("did you mean \"0.0.0.0:{port}\"?"),
            None => "write an IP address and a port: \"127.0.0.1:8080\", \"[::1]:8080\"".to_owned(),
        };
        file.wrong(span.unwrap_or_default(), format!("{name} \"{text}\" is no address"), Some(hint));
    }
    parsed
}

fn listener(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<Listener> {
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
    Some(Listener {
        name: table.text(file, "name").unwrap_or_default(),
        address,
        layer,
        proxy_protocol: table.flag(file, "proxy_protocol").unwrap_or(false),
        max_connections,
        tcp: targets(file, table),
        tcp_idle_timeout,
        http: http(file, table),
    })
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
        forwarded: table.flag(file, "forwarded").unwrap_or(false),
        trusted_hops: table.number(file, "trusted_hops").unwrap_or(0),
        request_id: if table.word(file, "request_id") == Some("keep") { RequestId::Keep } else { RequestId::Replace },
        server_timing: table.flag(file, "server_timing").unwrap_or(false),
        connect_failure_502,
    }
}

/// `cluster`, or `split`.
fn targets(file: &mut File<'_>, table: &Table<'_, '_>) -> Vec<Target> {
    let single = table.text(file, "cluster").map(|cluster| Target { cluster, weight: 1 });
    let split = table.tables(file, "split");
    if single.is_some() && !split.is_empty() {
        file.wrong(
            table.span_of("split").unwrap_or_default(),
            "cluster and split exclude each other",
            Some("list every cluster in split".to_owned()),
        );
    }
    let mut targets: Vec<Target> = single.into_iter().collect();
    for part in split {
        match part.text(file, "cluster") {
            Some(cluster) => targets.push(Target { cluster, weight: part.number(file, "weight").unwrap_or(1) }),
            None => file.wrong(part.span.clone(), "a part of a split needs a cluster", None),
        }
    }
    targets
}

fn route(file: &mut File<'_>, table: &Table<'_, '_>, index: usize) -> Route {
    let default = Route::default();
    let mut methods = table.texts(file, "methods").unwrap_or_default();
    methods.extend(table.text(file, "method"));
    for method in &methods {
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_')) {
            let span = table.span_of("method").or_else(|| table.span_of("methods")).unwrap_or_default();
            file.wrong(
                span,
                format!("\"{method}\" is no method"),
                Some(format!("methods are case-sensitive: \"{}\"", method.to_uppercase())),
            );
        }
    }
    let path = table.table(file, "path").map(|path| path_match(file, &path));
    let retry = table.table(file, "retry");
    let (retries, retry_on) = retry.map_or((default.retries, default.retry_on), |retry| retries(file, &retry));
    Route {
        name: table.text(file, "name").unwrap_or_else(|| format!("route-{}", index + 1)),
        listeners: table.texts(file, "listeners").unwrap_or_default(),
        host: table.text(file, "host"),
        path: path.unwrap_or(default.path),
        methods,
        targets: targets(file, table),
        timeout: table.optional_duration(file, "timeout").unwrap_or(default.timeout),
        retries,
        retry_on,
        upgrades: table.texts(file, "upgrade").unwrap_or(default.upgrades),
        connect: table.flag(file, "connect").unwrap_or(false),
        max_body: table.size(file, "max_body"),
    }
}

fn path_match(file: &mut File<'_>, table: &Table<'_, '_>) -> PathMatch {
    match (table.text(file, "exact"), table.text(file, "prefix")) {
        (Some(exact), None) => PathMatch::Exact(exact),
        (None, Some(prefix)) => PathMatch::Prefix(prefix),
        _ => {
            file.wrong(
                table.span.clone(),
                "a path is exact or a prefix",
                Some("path = { prefix = \"/api\" }".to_owned()),
            );
            PathMatch::Prefix("/".to_owned())
        }
    }
}

fn retries(file: &mut File<'_>, table: &Table<'_, '_>) -> (u32, Vec<RetryOn>) {
    let default = Route::default();
    let mut on = Vec::new();
    for element in table.list(file, "on") {
        let spelt = element.get_ref().as_str().unwrap_or_default();
        match one_of(file, element.span(), "on", spelt, &["connect-failure", "reset-before-response"]) {
            Some("connect-failure") => on.push(RetryOn::ConnectFailure),
            Some(_) => on.push(RetryOn::ResetBeforeResponse),
            None => {}
        }
    }
    let on = if table.value("on").is_some() { on } else { default.retry_on };
    let attempts = table.number(file, "attempts").unwrap_or(default.retries);
    (attempts, if attempts == 0 { Vec::new() } else { on })
}

fn cluster(file: &mut File<'_>, table: &Table<'_, '_>) -> Cluster {
    let mut cluster = Cluster { name: table.text(file, "name").unwrap_or_default(), ..Cluster::default() };
    for element in table.list(file, "endpoints") {
        cluster.endpoints.extend(endpoint(file, table, element.get_ref(), element.span()));
    }
    cluster.balance = match table.word(file, "balance") {
        Some("least-request") => BalanceKind::LeastRequest,
        Some("random") => BalanceKind::Random,
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
    cluster.proxy_protocol = match table.word(file, "proxy_protocol") {
        Some("v1") => Some(ProxyProtocol::V1),
        Some(_) => Some(ProxyProtocol::V2),
        None => None,
    };
    cluster
}

fn endpoint(file: &mut File<'_>, cluster: &Table<'_, '_>, value: &DeValue<'_>, span: Range<usize>) -> Option<Endpoint> {
    let (text, weight, span) = match value {
        DeValue::String(text) => (text.to_string(), 1, span),
        DeValue::Table(entries) => {
            let table = Table::open(file, entries, span.clone(), cluster.nested("endpoints"));
            let weight = table.number(file, "weight").unwrap_or(1);
            let span = table.span_of("address").unwrap_or(span);
            (table.text(file, "address").unwrap_or_default(), weight, span)
        }
        _ => {
            file.wrong(span, "an endpoint is a text or a table with address and weight", None);
            return None;
        }
    };
    match endpoint_target(&text) {
        Ok(target) => Some(Endpoint { target, weight }),
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
