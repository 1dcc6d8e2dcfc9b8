//! Routes as they are wanted.

use std::time::Duration;

use bytes::Bytes;

use super::Resilience;
use super::filter::{Cors, Filters};
use super::limits::{Priority, RateLimit};
use super::policy::Labels;
use crate::route::Cidr;

/// A cluster and its share.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The cluster's name.
    pub cluster: String,
    /// Its weight among the others.
    pub weight: u32,
    /// Only endpoints with these labels.
    pub subset: Labels,
}

impl Target {
    /// All of a cluster.
    pub fn new(cluster: &str) -> Target {
        Target { cluster: cluster.to_owned(), weight: 1, subset: Labels::new() }
    }
}

/// How a path matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// All of it.
    Exact(String),
    /// Its beginning, on a segment boundary.
    Prefix(String),
    /// Segments, some of them captured: `/users/{id}/{*rest}`.
    Template(String),
    /// All of it, by a regular expression.
    Regex(String),
}

/// How a value matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// It is there.
    Present,
    /// It is not there.
    Absent,
    /// It is this.
    Exact(String),
    /// It begins with this.
    Prefix(String),
    /// All of it matches.
    Regex(String),
}

/// How a named value matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldMatch {
    /// The header's or the query field's name.
    pub name: String,
    /// How.
    pub value: ValueMatch,
}

/// What a choice is made by, where it is to be the same again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// A header's value.
    Header(String),
    /// A cookie's value.
    Cookie(String),
    /// A query field's value.
    Query(String),
    /// The client's address.
    Source,
    /// The path.
    Path,
    /// The identity that the client proved.
    Identity,
}

/// What becomes of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// All of it, with `{captures}`.
    Whole(String),
    /// The matched prefix; what follows stays.
    Prefix(String),
}

/// Sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Another scheme.
    pub scheme: Option<String>,
    /// Another host.
    pub host: Option<String>,
    /// Another port.
    pub port: Option<u16>,
    /// Another path.
    pub path: Option<PathRewrite>,
    /// Without the query.
    pub drop_query: bool,
}

/// Answers by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
    /// Its type.
    pub content_type: String,
}

/// What a route does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Forwards to one of the targets.
    #[default]
    Forward,
    /// Sends the client elsewhere.
    Redirect(Redirect),
    /// Answers by itself.
    Respond(Respond),
}

/// One route.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name; `route-N` by default.
    pub name: String,
    /// The listeners it serves; none: every HTTP listener.
    pub listeners: Vec<String>,
    /// Exact hosts, or wildcards `*.example.com`; none: every host.
    pub hosts: Vec<String>,
    /// The path; none: every path.
    pub path: PathMatch,
    /// The methods; none: every method.
    pub methods: Vec<String>,
    /// Header fields that must match, all of them.
    pub headers: Vec<FieldMatch>,
    /// Query fields that must match, all of them.
    pub queries: Vec<FieldMatch>,
    /// The client's address is in one of these; none: every address.
    pub sources: Vec<Cidr>,
    /// Names in the TLS greeting; none: every name, and none.
    pub sni: Vec<String>,
    /// What it does.
    pub action: Action,
    /// Where requests go, by weight.
    pub targets: Vec<Target>,
    /// Makes the choice among the targets the same for the same value.
    pub split_by: Option<HashOn>,
    /// The path that the upstream gets.
    pub rewrite: Option<PathRewrite>,
    /// The host that the upstream gets.
    pub rewrite_host: Option<String>,
    /// Header fields of the request and of the response.
    pub filters: Filters,
    /// Cross-origin requests.
    pub cors: Option<Cors>,
    /// From the request's end until the response head is here, over all attempts; none: for ever. What flows then is
    /// bounded by the body timeout.
    pub timeout: Option<Duration>,
    /// What it does about failures.
    pub resilience: Resilience,
    /// Protocols that may be upgraded to.
    pub upgrades: Vec<String>,
    /// CONNECT is tunnelled.
    pub connect: bool,
    /// gRPC-Web is translated to gRPC.
    pub grpc_web: bool,
    /// Bytes of a request body.
    pub max_body: Option<u64>,
    /// Requests per time.
    pub rate_limits: Vec<RateLimit>,
    /// Requests in flight, over all cores.
    pub max_in_flight: Option<u32>,
    /// Who is refused first by a saturated core.
    pub priority: Priority,
}

impl Default for Route {
    fn default() -> Route {
        Route {
            name: String::new(),
            listeners: Vec::new(),
            hosts: Vec::new(),
            path: PathMatch::Prefix("/".to_owned()),
            methods: Vec::new(),
            headers: Vec::new(),
            queries: Vec::new(),
            sources: Vec::new(),
            sni: Vec::new(),
            action: Action::Forward,
            targets: Vec::new(),
            split_by: None,
            rewrite: None,
            rewrite_host: None,
            filters: Filters::default(),
            cors: None,
            // Envoy's default.
            timeout: Some(Duration::from_secs(15)),
            resilience: Resilience::default(),
            upgrades: vec!["websocket".to_owned()],
            connect: false,
            grpc_web: false,
            max_body: None,
            rate_limits: Vec::new(),
            max_in_flight: None,
            priority: Priority::Normal,
        }
    }
}
