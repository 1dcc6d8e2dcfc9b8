//! Routes as they are wanted.

use std::time::Duration;

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
