//! Floor 1: the neutral model of what is wanted, compiled into one immutable snapshot that the cores execute.
//! Pure data and pure functions; may import `meter`. Knows no file format, no role and no socket.

pub mod authz;
pub mod balance;
mod compile;
pub mod filter;
pub mod identity;
pub mod limit;
pub mod model;
pub mod order;
pub mod outlier;
pub mod resilience;
pub mod route;
mod snapshot;
pub mod tls;

pub use compile::{Place, Problem, compile, nearest};
pub use model::{
    AccessLog, Address, BalanceKind, ClientCert, Http2, Layer, LogFormat, Original, Protocol, ProxyProtocol, RequestId,
};
pub use outlier::DRAINED;
pub use route::HostTable;
pub use snapshot::{
    Cluster, ClusterRef, ConnectionLimits, Defaults, Endpoint, EndpointSet, HttpPolicy, Listener, Own, Pool, Route,
    Snapshot, Split, Sticky, Subset, TcpPolicy,
};
