//! A core's own state as the micro-benchmarks drive it: snapshots taken over, connections leased and given back, without
//! listeners or traffic.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use onehop_meter::Registry;
use onehop_net::clock;
use onehop_plan::Snapshot;

use crate::shard::{Outfit, Shard};
use crate::upstream::{ClusterState, Sought, Wanted, lease};

/// One core, on the calling thread. Leasing needs a running engine there.
pub struct Core {
    shard: Rc<Shard>,
}

impl Core {
    /// A core that executes `snapshot`.
    pub fn new(snapshot: Arc<Snapshot>, registry: &Registry) -> Core {
        let outfit = Outfit {
            core: 0,
            cores: 1,
            seed: 1,
            instance: "measured".into(),
            meters: registry.core().clone(),
            access: Arc::new(ArrayQueue::new(1)),
        };
        Core { shard: Shard::new(outfit, snapshot) }
    }

    /// Takes another snapshot over, as between two requests.
    pub fn install(&self, snapshot: Arc<Snapshot>) {
        self.shard.install(snapshot);
    }

    /// The first cluster, as an exchange gets it from its route.
    pub fn first_cluster(&self) -> Option<Cluster> {
        self.shard.clusters().into_iter().next().map(|state| Cluster { state })
    }
}

/// A core's view of a cluster.
pub struct Cluster {
    state: Rc<ClusterState>,
}

impl Cluster {
    /// Leases a connection and gives it back: balancing, pool, accounts, for a request that may be repeated, or one for
    /// which the connection is looked at first. Whether it came from the pool; `None` where no endpoint can be connected to.
    pub async fn lease(&self, repeatable: bool) -> Option<bool> {
        let wanted = if repeatable { Wanted::Any } else { Wanted::Fresh };
        let now = clock::now();
        let lease = lease(&self.state, wanted, Sought::to(None, IpAddr::V4(Ipv4Addr::LOCALHOST)), &mut Vec::new(), now)
            .await
            .ok()?;
        let reused = lease.reused;
        lease.give_back(now);
        Some(reused)
    }
}
