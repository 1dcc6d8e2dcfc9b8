//! The language: each table becomes its part of plan's model.

mod access;
mod cluster;
mod filter;
mod http2;
mod limits;
mod listener;
mod matching;
mod policy;
mod resilience;
mod route;
mod runtime;
mod sidecar;
mod tls;

use std::net::SocketAddr;
use std::ops::Range;

use onehop_plan::Place;
use onehop_plan::model::Model;
use toml::de::DeTable;

use crate::diagnostic::Diagnostic;
use crate::keys;
use crate::reader::{File, Positions, Table};
use cluster::cluster;
pub use cluster::endpoint_target;
use listener::listener;
use route::route;
use runtime::{access_log, runtime};

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
    if let Some(table) = root.table(&mut file, "identity") {
        at.positions.set(Place::Identity, source, table.span.clone());
        model.identity = tls::identity(&mut file, &table);
    }
    if let Some(table) = root.table(&mut file, "sidecar") {
        let written = sidecar::sidecar(&mut file, &table);
        at.positions.set(Place::Sidecar, source, table.span.clone());
        model.sidecar = true;
        written.expand(model);
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
    for table in root.tables(&mut file, "authorization") {
        let rule = access::authorization(&mut file, &table, model.access.len());
        model.access.push(rule);
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
