//! The roles: presets that expand to plan's model.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use onehop_plan::model::{
    ClientAuth, ClientCert, Cluster, ClusterTls, Endpoint, EndpointTarget, Listener, ListenerTls, MinVersion, Model,
    Protocol, Route, Target,
};
use onehop_plan::{Layer, Original, RequestId};

use crate::language::endpoint_target;

/// The gateway of a command line: one listener, one route, one cluster.
///
/// # Errors
/// Which endpoint is none, and what to write.
pub fn gateway(listen: SocketAddr, to: &[String]) -> Result<Model, String> {
    let mut endpoints = Vec::new();
    for text in to {
        let target = endpoint_target(text).map_err(|hint| format!("--to \"{text}\" is no address: {hint}"))?;
        endpoints.push(Endpoint { target, weight: 1, placement: Default::default() });
    }
    Ok(Model {
        listeners: vec![Listener::new("edge", listen, Layer::Http)],
        routes: vec![Route { name: "all".to_owned(), targets: vec![Target::new("upstream")], ..Route::default() }],
        clusters: vec![Cluster { name: "upstream".to_owned(), endpoints, ..Cluster::default() }],
        ..Model::default()
    })
}

/// How a sidecar takes its app's clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// By mutual TLS alone.
    #[default]
    Strict,
    /// Plain connections as well.
    Permissive,
    /// Plain ones alone.
    Disabled,
}

/// A sidecar as it is written.
#[derive(Debug)]
#[allow(missing_docs, reason = "documented with the keys")]
pub struct Sidecar {
    pub outbound: Vec<SocketAddr>,
    pub inbound: Vec<SocketAddr>,
    pub mode: Mode,
    pub refuse_unknown: bool,
    pub transparent: bool,
    pub detect_timeout: Duration,
    pub app_as_is: bool,
    pub alpn: Vec<String>,
    pub max_age: Duration,
    pub ports: Vec<Port>,
    pub services: Vec<Service>,
}

impl Default for Sidecar {
    fn default() -> Sidecar {
        Sidecar {
            outbound: Vec::new(),
            inbound: Vec::new(),
            mode: Mode::Strict,
            refuse_unknown: false,
            transparent: false,
            // A client of a server that speaks first waits that long for its greeting, where nobody says what the port
            // speaks; a busy HTTP client should have spoken by then.
            detect_timeout: Duration::from_secs(1),
            app_as_is: false,
            alpn: vec!["http/1.1".to_owned()],
            max_age: Duration::from_secs(3600),
            ports: Vec::new(),
            services: Vec::new(),
        }
    }
}

/// What is different for a port of the app.
#[derive(Debug)]
pub struct Port {
    pub port: Option<u16>,
    pub listen: Option<SocketAddr>,
    pub layer: Option<Layer>,
    pub mode: Option<Mode>,
    pub app: Option<EndpointTarget>,
}

/// A service that the app uses.
#[derive(Debug)]
pub struct Service {
    pub name: String,
    pub addresses: Vec<(Option<IpAddr>, Option<u16>)>,
    pub listen: Option<SocketAddr>,
    pub endpoints: Vec<Endpoint>,
    pub identity: Vec<String>,
    pub layer: Option<Layer>,
    pub plain: bool,
}

/// Nowhere: the address of a listener that has no socket.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

impl Sidecar {
    /// Expands to listeners, routes and clusters.
    pub fn expand(&self, model: &mut Model) {
        // An app that is to see its clients' addresses is reached at its own: from a foreign address none leads to loopback.
        let app = if self.app_as_is || self.transparent { Original::AsIs } else { Original::Loopback };
        let mut inbound = Vec::new();
        for (at, address) in self.inbound.iter().enumerate() {
            let name = numbered("inbound", at);
            let listener = self.inward(Listener::new(&name, *address, Layer::Sniff), None, None, "inbound-app");
            model.listeners.push(Listener { capture: true, transparent: self.transparent, ..listener });
            inbound.push(name);
        }
        if !inbound.is_empty() {
            self.add_cluster(
                model,
                Cluster { original: Some(app), keep_source: self.transparent, ..local("inbound-app") },
                &inbound,
            );
        }
        for port in &self.ports {
            self.port(port, &inbound, model);
        }
        let mut outbound = Vec::new();
        for (at, address) in self.outbound.iter().enumerate() {
            let name = numbered("outbound", at);
            // Unknown destinations are passed on as bytes.
            let mut listener = Listener::new(&name, *address, Layer::Tcp);
            listener.tcp = vec![Target::new("outbound-unknown")];
            model.listeners.push(Listener { capture: true, transparent: self.transparent, ..listener });
            outbound.push(name);
        }
        if !outbound.is_empty() {
            let original = if self.refuse_unknown { Original::Refused } else { Original::AsIs };
            model.clusters.push(Cluster { original: Some(original), ..local("outbound-unknown") });
        }
        for service in &self.services {
            self.service(service, &outbound, model);
        }
    }

    fn port(&self, port: &Port, inbound: &[String], model: &mut Model) {
        let number = port.port.or(port.listen.map(|address| address.port())).unwrap_or(0);
        let name = format!("inbound-{number}");
        let cluster = if port.app.is_some() { format!("app-{number}") } else { "inbound-app".to_owned() };
        let base = Listener::new(&name, port.listen.unwrap_or(NOWHERE), Layer::Sniff);
        let mut listener = self.inward(base, port.mode, port.layer, &cluster);
        if port.listen.is_none() {
            listener.parents = inbound.to_vec();
            listener.destination = (None, Some(number));
        }
        let layer = listener.layer;
        model.listeners.push(listener);
        let names = [name];
        if let Some(target) = &port.app {
            let endpoints = vec![Endpoint { target: target.clone(), weight: 1, placement: Default::default() }];
            self.add_cluster(
                model,
                Cluster { endpoints, ..local(&cluster) },
                if layer == Layer::Tcp { &[] } else { &names },
            );
        } else if layer != Layer::Tcp {
            model.routes.push(route(&names[0], &names, "inbound-app"));
        }
    }

    /// What all inbound listeners have in common.
    fn inward(&self, base: Listener, mode: Option<Mode>, layer: Option<Layer>, cluster: &str) -> Listener {
        let mode = mode.unwrap_or(self.mode);
        let layer = layer.unwrap_or(base.layer);
        let mut listener = Listener { layer, detect_timeout: Some(self.detect_timeout), ..base };
        if layer != Layer::Http {
            listener.tcp = vec![Target::new(cluster)];
        }
        // What the other side's sidecar says is believed: it has shown who it is.
        listener.http.request_id = RequestId::Keep;
        listener.client_cert = ClientCert::Append;
        listener.tls = (mode != Mode::Disabled).then(|| ListenerTls {
            identity: true,
            client: ClientAuth::Required,
            min_version: MinVersion::Tls13,
            alpn: self.alpn.clone(),
            permissive: mode == Mode::Permissive,
            max_age: Some(self.max_age),
            ..ListenerTls::default()
        });
        listener
    }

    fn service(&self, service: &Service, outbound: &[String], model: &mut Model) {
        let cluster = format!("service-{}", service.name);
        let layer = service.layer.unwrap_or(Layer::Sniff);
        let mut names = Vec::new();
        for (at, destination) in service.addresses.iter().enumerate() {
            let name = numbered(&format!("outbound-{}", service.name), at);
            let mut listener = self.outward(Listener::new(&name, NOWHERE, layer), &cluster);
            (listener.parents, listener.destination) = (outbound.to_vec(), *destination);
            model.listeners.push(listener);
            names.push(name);
        }
        if let Some(address) = service.listen {
            let name = if names.is_empty() {
                format!("outbound-{}", service.name)
            } else {
                format!("outbound-{}-own", service.name)
            };
            model.listeners.push(self.outward(Listener::new(&name, address, layer), &cluster));
            names.push(name);
        }
        let tls = (!service.plain).then(|| ClusterTls {
            identity: true,
            expect: service.identity.clone(),
            min_version: MinVersion::Tls13,
            ..ClusterTls::default()
        });
        // (What is sniffed to be bytes has connections of its own, which do not offer it.)
        let is_http2 = layer != Layer::Tcp && !service.plain && self.alpn.iter().any(|protocol| protocol == "h2");
        let original = service.endpoints.is_empty().then_some(Original::AsIs);
        let wanted = Cluster {
            endpoints: service.endpoints.clone(),
            original,
            tls,
            max_age: Some(self.max_age),
            protocol: if is_http2 { Protocol::Auto } else { Protocol::Http1 },
            ..local(&cluster)
        };
        self.add_cluster(model, wanted, if layer == Layer::Tcp { &[] } else { &names });
    }

    fn outward(&self, base: Listener, cluster: &str) -> Listener {
        let mut listener = Listener { detect_timeout: Some(self.detect_timeout), ..base };
        if listener.layer != Layer::Http {
            listener.tcp = vec![Target::new(cluster)];
        }
        listener.http.request_id = RequestId::Keep;
        listener
    }

    /// A cluster, and the route that leads to it from these listeners.
    fn add_cluster(&self, model: &mut Model, cluster: Cluster, listeners: &[String]) {
        if !listeners.is_empty() {
            model.routes.push(route(&cluster.name, listeners, &cluster.name));
        }
        model.clusters.push(cluster);
    }
}

/// What can be said only once every file has been read: in a sidecar, rules that name no listener guard the app.
pub fn settle(model: &mut Model) {
    if !model.sidecar {
        return;
    }
    let inbound = |listener: &&Listener| listener.name == "inbound" || listener.name.starts_with("inbound-");
    let names: Vec<String> = model.listeners.iter().filter(inbound).map(|listener| listener.name.clone()).collect();
    for rule in model.access.iter_mut().filter(|rule| rule.listeners.is_empty()) {
        rule.listeners.clone_from(&names);
    }
}

fn numbered(name: &str, at: usize) -> String {
    if at == 0 { name.to_owned() } else { format!("{name}-{}", at + 1) }
}

/// A cluster near by: it answers at once or not at all.
fn local(name: &str) -> Cluster {
    Cluster { name: name.to_owned(), connect_timeout: Duration::from_secs(1), ..Cluster::default() }
}

/// A route in a mesh: how long a request may take is the app's affair.
fn route(name: &str, listeners: &[String], cluster: &str) -> Route {
    Route {
        name: name.to_owned(),
        listeners: listeners.to_vec(),
        targets: vec![Target::new(cluster)],
        timeout: None,
        ..Route::default()
    }
}
