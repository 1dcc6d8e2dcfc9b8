//! Listeners as they are wanted.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Http2, ListenerTls, Target};
use crate::route::PathRule;

/// What a listener expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// HTTP/1.1, or HTTP/2 by its preface or by ALPN.
    Http,
    /// Bytes.
    Tcp,
    /// Whichever the first bytes show.
    Sniff,
}

/// What becomes of a client's `X-Request-Id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestId {
    /// It is replaced: at the edge a client must not choose it.
    Replace,
    /// It is kept; one is made when it is missing.
    Keep,
}

/// Where a captured connection was meant to go: any address or any port where that part is none.
pub type Destination = (Option<IpAddr>, Option<u16>);

/// What becomes of `X-Forwarded-Client-Cert`, in the words of Envoy's `forward_client_cert_details`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCert {
    /// It is dropped: a client could claim anything.
    #[default]
    Sanitize,
    /// It is dropped, and says who this client is.
    Set,
    /// This client is added to what a mutual TLS client sent.
    Append,
    /// What a mutual TLS client sent is passed on.
    Forward,
}

/// The two versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Listener {
    /// A plain one with defaults.
    pub fn new(name: &str, address: SocketAddr, layer: Layer) -> Listener {
        Listener {
            name: name.to_owned(),
            address,
            layer,
            proxy_protocol: false,
            max_connections: None,
            tcp: Vec::new(),
            tcp_names: Vec::new(),
            // Long enough for a database connection that is used now and then.
            tcp_idle_timeout: Duration::from_secs(3600),
            http: Http::default(),
            capture: false,
            transparent: false,
            parents: Vec::new(),
            destination: (None, None),
            detect_timeout: None,
            denies_by_default: None,
            client_cert: ClientCert::Sanitize,
            tls: None,
        }
    }

    /// Whether it has a socket of its own.
    pub fn is_bound(&self) -> bool {
        self.parents.is_empty()
    }
}

/// One listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its name, unique.
    pub name: String,
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// What it expects.
    pub layer: Layer,
    /// Clients must begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Downstream connections over all cores (an even share each).
    pub max_connections: Option<usize>,
    /// Where TCP connections go, by weight.
    pub tcp: Vec<Target>,
    /// Where they go by the server name in their ClientHello, which need not be decrypted: an exact name, or `*.example.com`.
    pub tcp_names: Vec<(String, Vec<Target>)>,
    /// Ends a TCP connection or tunnel on which nothing moves.
    pub tcp_idle_timeout: Duration,
    /// For HTTP.
    pub http: Http,
    /// Takes connections that were meant for others, and finds out for whom (SO_ORIGINAL_DST).
    pub capture: bool,
    /// Takes them by TPROXY, which needs a privilege.
    pub transparent: bool,
    /// It is not bound: it serves what the listeners of these names capture and is meant for its destination.
    pub parents: Vec<String>,
    /// Which of it; any address or any port where that part is none.
    pub destination: Destination,
    /// How long the first bytes of a client are waited for before it is taken for one that waits for the server to speak;
    /// none: it has to speak first.
    pub detect_timeout: Option<Duration>,
    /// What no rule names is refused (true) or let pass (false); none: refused as soon as some rule allows something.
    pub denies_by_default: Option<bool>,
    /// What becomes of `X-Forwarded-Client-Cert`.
    pub client_cert: ClientCert,
    /// For TLS; without it the listener is plain.
    pub tls: Option<ListenerTls>,
}

/// How a listener speaks HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// Bytes of a request head.
    pub head_bytes: usize,
    /// Fields of a request head.
    pub fields: usize,
    /// Bytes of a request line.
    pub request_line: usize,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// Within a body, in either direction.
    pub body_timeout: Duration,
    /// Requests on one connection.
    pub max_requests: Option<u64>,
    /// Requests in flight, over all cores.
    pub max_in_flight: Option<u32>,
    /// Adds the `Forwarded` field (RFC 7239).
    pub forwarded: bool,
    /// Proxies in front of us whose X-Forwarded fields are believed.
    pub trusted_hops: u32,
    /// What becomes of `X-Request-Id`.
    pub request_id: RequestId,
    /// Adds `Server-Timing` to responses.
    pub server_timing: bool,
    /// Answers connect failures with 502, as nginx does, instead of 503.
    pub connect_failure_502: bool,
    /// A request may bring its own deadline in `X-Request-Timeout`.
    pub trusts_timeout: bool,
    /// How paths are read before they are matched.
    pub path: PathRule,
    /// HTTP/2.
    pub http2: Http2,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            // Envoy's 60 KiB and HAProxy's 16 bracket it; 8 KiB lines as in nginx.
            head_bytes: 64 * 1024,
            fields: 100,
            request_line: 8 * 1024,
            header_timeout: Duration::from_secs(10),
            // nginx's keepalive_timeout.
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            max_requests: None,
            max_in_flight: None,
            forwarded: false,
            trusted_hops: 0,
            request_id: RequestId::Replace,
            server_timing: false,
            connect_failure_502: false,
            trusts_timeout: false,
            path: PathRule::default(),
            http2: Http2::default(),
        }
    }
}

impl Default for Listener {
    fn default() -> Listener {
        Listener::new("", SocketAddr::from(([127, 0, 0, 1], 0)), Layer::Http)
    }
}
