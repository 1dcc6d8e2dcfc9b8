//! The compiled form: immutable parts behind Arcs. An exchange keeps the parts of its route and cluster and nothing else.

mod choice;
mod cluster;
mod listener;
mod route;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onehop_meter::Registry;

use crate::compile::Problem;
use crate::identity::SpiffeId;
use crate::limit::Guards;
use crate::model::AccessLog;
use crate::route::HostTable;
pub use choice::{Sticky, Subset};
pub use cluster::{Cluster, ConnectionLimits, Endpoint, EndpointSet, Pool};
pub(crate) use cluster::{Wanted, departed, endpoint, written_down};
pub use listener::{HttpPolicy, Listener, TcpPolicy};
pub use route::{ClusterRef, Defaults, Route, Split};

/// Our own identity, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Who.
    pub id: SpiffeId,
    /// Until when, in seconds since 1970.
    pub not_after: i64,
}

/// Everything that the cores execute.
pub struct Snapshot {
    /// Counts up with every change.
    pub generation: u64,
    /// What is strange about it, though it can be run.
    pub warnings: Vec<Problem>,
    /// Listeners.
    pub listeners: Vec<Arc<Listener>>,
    /// Their routes, in the same order. A connection holds its listener for as long as it lives, and nothing of these.
    pub tables: Vec<Arc<HostTable>>,
    /// Clusters; the index is the id that routes refer to.
    pub clusters: Vec<Arc<Cluster>>,
    /// What stands before routes, by their names.
    pub guards: Arc<HashMap<Arc<str>, Arc<Guards>>>,
    /// Who this process is, where it has an identity.
    pub identity: Option<Own>,
    /// Where access records go.
    pub access_log: Option<AccessLog>,
    /// How long cores poll.
    pub busy_poll: Duration,
    /// How long a drain may take.
    pub drain: Duration,
    /// Downstream connections of one core.
    pub max_connections: usize,
    /// How long a ready task waits for its turn on a core that is saturated.
    pub shed_after: Option<Duration>,
}

impl Snapshot {
    /// The routes of a listener: those of this snapshot where the listener is part of it, otherwise those that it came
    /// with, as long as anybody holds them, and then those of the listener that has taken its name over.
    pub fn with_routes<T>(&self, listener: &Arc<Listener>, look: impl FnOnce(&HostTable) -> T) -> Option<T> {
        if self.listeners.get(listener.index).is_some_and(|known| Arc::ptr_eq(known, listener)) {
            return Some(look(&self.tables[listener.index]));
        }
        if let Some(own) = listener.hosts.upgrade() {
            return Some(look(&own));
        }
        let at = self.listeners.iter().position(|known| known.name == listener.name)?;
        Some(look(&self.tables[at]))
    }

    /// The same, with a cluster's names resolved: only that cluster's part is replaced.
    pub fn with_resolved(
        &self,
        resolved: &HashMap<String, Vec<std::net::IpAddr>>,
        registry: &Registry,
        generation: u64,
        now: u64,
    ) -> Snapshot {
        let ourselves = |address: &SocketAddr| self.listeners.iter().any(|listener| listener.address == *address);
        let clusters = self
            .clusters
            .iter()
            .map(|cluster| {
                if cluster.names.is_empty() {
                    cluster.clone()
                } else {
                    Arc::new(cluster.resolve(resolved, registry, ourselves, now))
                }
            })
            .collect();
        Snapshot {
            generation,
            warnings: Vec::new(),
            listeners: self.listeners.clone(),
            tables: self.tables.clone(),
            clusters,
            identity: self.identity.clone(),
            access_log: self.access_log.clone(),
            busy_poll: self.busy_poll,
            drain: self.drain,
            max_connections: self.max_connections,
            guards: self.guards.clone(),
            shed_after: self.shed_after,
        }
    }
}
