//! What is wanted, as whoever configures us says it: plain data, not yet checked. Defaults stand here, each with
//! what justifies it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// The process.
    pub runtime: Runtime,
    /// Where access records go, if anywhere.
    pub access_log: Option<AccessLog>,
    /// Where clients come in.
    pub listeners: Vec<Listener>,
    /// What is done with their requests.
    pub routes: Vec<Route>,
    /// Where they go.
    pub clusters: Vec<Cluster>,
}

/// The process itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// Worker threads; by default one per core that the process may use.
    pub workers: Option<usize>,
    /// Pins worker i to the i-th of these.
    pub cpus: Vec<usize>,
    /// The admin endpoint.
    pub admin: Option<SocketAddr>,
    /// How long a core polls after its last completion before it sleeps.
    pub busy_poll: Duration,
    /// How long a drain may take.
    pub drain: Duration,
    /// Downstream connections of one core.
    pub max_connections: usize,
    /// The Unix socket over which a successor takes the listening sockets.
    pub takeover: Option<PathBuf>,
}

/// Polling pays where a core's sleep and wake cost more than a short spin; see `results/`.
pub const DEFAULT_BUSY_POLL: Duration = Duration::from_micros(50);

impl Default for Runtime {
    fn default() -> Runtime {
        Runtime {
            workers: None,
            cpus: Vec::new(),
            admin: None,
            busy_poll: DEFAULT_BUSY_POLL,
            drain: Duration::from_secs(30),
            max_connections: 100_000,
            takeover: None,
        }
    }
}

/// Where access records go.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// A file; standard output without one.
    pub path: Option<PathBuf>,
    /// How a record is written.
    pub format: LogFormat,
}

/// How a record is written.
#[derive(Clone, Debug, PartialEq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// A line with `{name}` replaced.
    Template(String),
}

/// What a listener expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// HTTP/1.1.
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

/// The two versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
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
    /// Ends a TCP connection or tunnel on which nothing moves.
    pub tcp_idle_timeout: Duration,
    /// For HTTP.
    pub http: Http,
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
            forwarded: false,
            trusted_hops: 0,
            request_id: RequestId::Replace,
            server_timing: false,
            connect_failure_502: false,
        }
    }
}

/// A cluster and its share.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The cluster's name.
    pub cluster: String,
    /// Its weight among the others.
    pub weight: u32,
}

/// How a path matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// All of it.
    Exact(String),
    /// Its beginning, on a segment boundary.
    Prefix(String),
}

/// One route.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name; `route-N` by default.
    pub name: String,
    /// The listeners it serves; none: every HTTP listener.
    pub listeners: Vec<String>,
    /// An exact host, or a wildcard `*.example.com`; none: every host.
    pub host: Option<String>,
    /// The path; none: every path.
    pub path: PathMatch,
    /// The methods; none: every method.
    pub methods: Vec<String>,
    /// Where requests go, by weight.
    pub targets: Vec<Target>,
    /// Until the response head is here; none: for ever. What flows then is bounded by the body timeout.
    pub timeout: Option<Duration>,
    /// Attempts beyond the first.
    pub retries: u32,
    /// When.
    pub retry_on: Vec<RetryOn>,
    /// Protocols that may be upgraded to.
    pub upgrades: Vec<String>,
    /// CONNECT is tunnelled.
    pub connect: bool,
    /// Bytes of a request body.
    pub max_body: Option<u64>,
}

/// What a retry may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// The connection could not be made: nothing was sent.
    ConnectFailure,
    /// An idempotent request whose reused connection ended before any byte of a response.
    ResetBeforeResponse,
}

impl Default for Route {
    fn default() -> Route {
        Route {
            name: String::new(),
            listeners: Vec::new(),
            host: None,
            path: PathMatch::Prefix("/".to_owned()),
            methods: Vec::new(),
            targets: Vec::new(),
            // Envoy's default.
            timeout: Some(Duration::from_secs(15)),
            retries: 2,
            retry_on: vec![RetryOn::ConnectFailure, RetryOn::ResetBeforeResponse],
            upgrades: vec!["websocket".to_owned()],
            connect: false,
            max_body: None,
        }
    }
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BalanceKind {
    /// In turn, smoothly by weight.
    #[default]
    RoundRobin,
    /// The less loaded of two random ones.
    LeastRequest,
    /// At random, by weight.
    Random,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// IP address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(Arc<PathBuf>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An endpoint as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where.
    pub target: EndpointTarget,
    /// Its weight among the others.
    pub weight: u32,
}

/// An address, or a name to be resolved.
#[derive(Clone, Debug, PartialEq)]
pub enum EndpointTarget {
    /// Known.
    Address(Address),
    /// Resolved by the agent, again by the record's time to live.
    Name(String, u16),
}

/// One cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Its name, unique.
    pub name: String,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// How one is chosen.
    pub balance: BalanceKind,
    /// Until a connection is made.
    pub connect_timeout: Duration,
    /// Idle connections per endpoint and core.
    pub max_idle: usize,
    /// How long one may idle: below what upstreams usually allow (nginx 75 s, Node 5 s, so watch them too).
    pub idle_timeout: Duration,
    /// How long one may live.
    pub max_age: Option<Duration>,
    /// Requests on one.
    pub max_requests_per_connection: Option<u64>,
    /// Connections over all cores (an even share each); more requests wait in line for the connect timeout.
    pub max_connections: Option<u32>,
    /// Requests in flight over all cores (an even share each); more are refused.
    pub max_requests: Option<u32>,
    /// Begins each connection with a PROXY header.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster {
            name: String::new(),
            endpoints: Vec::new(),
            balance: BalanceKind::RoundRobin,
            connect_timeout: Duration::from_secs(5),
            max_idle: 512,
            idle_timeout: Duration::from_secs(30),
            max_age: None,
            max_requests_per_connection: None,
            max_connections: None,
            max_requests: None,
            proxy_protocol: None,
        }
    }
}
