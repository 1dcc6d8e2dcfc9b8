//! `[sidecar]`: read here, expanded in `role`.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use onehop_plan::Layer;
use onehop_plan::model::{Endpoint, EndpointTarget};

use super::{endpoint_target, socket_address};
use crate::reader::{File, Table};
use crate::role::{Mode, Port, Service, Sidecar};

fn layer(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<Layer> {
    table.word(file, "protocol").map(|word| match word {
        "http" => Layer::Http,
        "tcp" => Layer::Tcp,
        _ => Layer::Sniff,
    })
}

fn mode(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<Mode> {
    table.word(file, "mode").map(|word| match word {
        "permissive" => Mode::Permissive,
        "disabled" => Mode::Disabled,
        _ => Mode::Strict,
    })
}

fn addresses(file: &mut File<'_>, table: &Table<'_, '_>, name: &str, default: &[&str]) -> Vec<SocketAddr> {
    let texts = table.texts(file, name).unwrap_or_else(|| default.iter().map(|text| (*text).to_owned()).collect());
    let span = table.span_of(name);
    texts.iter().filter_map(|text| socket_address(file, span.clone(), name, text)).collect()
}

fn target(file: &mut File<'_>, span: Option<Range<usize>>, text: &str) -> Option<EndpointTarget> {
    match endpoint_target(text) {
        Ok(target) => Some(target),
        Err(hint) => {
            file.wrong(span.unwrap_or_default(), format!("\"{text}\" is no address"), Some(hint));
            None
        }
    }
}

/// `10.0.0.2:80`, or `:80` for any address.
fn destination(file: &mut File<'_>, span: Option<Range<usize>>, text: &str) -> Option<(Option<IpAddr>, Option<u16>)> {
    if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Some((None, Some(port)));
    }
    let address = socket_address(file, span, "addresses", text)?;
    Some((Some(address.ip()), Some(address.port())))
}

pub(super) fn sidecar(file: &mut File<'_>, table: &Table<'_, '_>) -> Sidecar {
    let default = Sidecar::default();
    let ports = table.tables(file, "port").iter().filter_map(|part| port(file, part)).collect();
    let services = table.tables(file, "service").iter().filter_map(|part| service(file, part)).collect();
    Sidecar {
        outbound: addresses(file, table, "outbound", &["127.0.0.1:15001"]),
        inbound: addresses(file, table, "inbound", &["0.0.0.0:15006"]),
        mode: mode(file, table).unwrap_or(default.mode),
        refuse_unknown: table.word(file, "unknown") == Some("refuse"),
        transparent: table.flag(file, "transparent").unwrap_or(false),
        detect_timeout: table.duration(file, "detect_timeout").unwrap_or(default.detect_timeout),
        app_as_is: table.word(file, "app") == Some("original"),
        alpn: table.texts(file, "alpn").unwrap_or(default.alpn),
        max_age: table.duration(file, "max_age").unwrap_or(default.max_age),
        ports,
        services,
    }
}

fn port(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<Port> {
    let listen = table.text(file, "listen");
    let listen = listen.and_then(|text| socket_address(file, table.span_of("listen"), "listen", &text));
    let port = table.number::<u16>(file, "port");
    let app = table.text(file, "app").and_then(|text| target(file, table.span_of("app"), &text));
    if (port.is_none() && listen.is_none()) || (listen.is_some() && app.is_none()) {
        let hint = Some("port = 8080, or listen = \"0.0.0.0:8443\" with app = \"127.0.0.1:8080\"".to_owned());
        file.wrong(table.span.clone(), "a port needs its number, or where to listen and where the app is", hint);
        return None;
    }
    Some(Port { port, listen, layer: layer(file, table), mode: mode(file, table), app })
}

fn service(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<Service> {
    let Some(name) = table.text(file, "name") else {
        file.wrong(table.span.clone(), "a service needs a name", None);
        return None;
    };
    let listen = table.text(file, "listen");
    let listen = listen.and_then(|text| socket_address(file, table.span_of("listen"), "listen", &text));
    let span = table.span_of("addresses");
    let texts = table.texts(file, "addresses").unwrap_or_default();
    let addresses: Vec<_> = texts.iter().filter_map(|text| destination(file, span.clone(), text)).collect();
    let span = table.span_of("endpoints");
    let texts = table.texts(file, "endpoints").unwrap_or_default();
    let endpoints: Vec<Endpoint> = texts
        .iter()
        .filter_map(|text| target(file, span.clone(), text))
        .map(|target| Endpoint { target, weight: 1, placement: Default::default() })
        .collect();
    if (addresses.is_empty() && listen.is_none()) || (listen.is_some() && endpoints.is_empty()) {
        let hint = Some("addresses = [\"10.0.0.2:80\"], or listen = \"127.0.0.1:9001\" with endpoints".to_owned());
        file.wrong(table.span.clone(), format!("how does the app reach service \"{name}\"?"), hint);
        return None;
    }
    Some(Service {
        name,
        addresses,
        listen,
        endpoints,
        identity: table.texts(file, "identity").unwrap_or_default(),
        layer: layer(file, table),
        plain: mode(file, table) == Some(Mode::Disabled),
    })
}
