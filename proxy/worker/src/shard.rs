//! All state of one core. Nothing here is shared with another core except what the snapshot carries behind Arcs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use crossbeam_queue::ArrayQueue;
use onehop_meter::record::AccessRecord;
use onehop_meter::{CoreMeters, PerCore};
use onehop_net::clock::Nanos;
use onehop_plan::limit::Pressure;
use onehop_plan::route::{Facts, PathBuffers, Scratch};
use onehop_plan::{Cluster, Listener, Route, Snapshot};
use onehop_wire::http1::RequestHead;

use crate::connections::Connections;
use crate::exchange::Response;
use crate::exchange::changes::Changes;
use crate::http2::{Kept, Lanes};
use crate::upstream::ClusterState;

/// What the process gives each core at its start.
#[derive(Clone)]
pub struct Outfit {
    /// This core's number.
    pub core: usize,
    /// How many cores there are.
    pub cores: usize,
    /// Seed of this core's random numbers.
    pub seed: u64,
    /// Names this process in `Via`, so that a request that comes back is recognised.
    pub instance: Arc<str>,
    /// The cores' own meters.
    pub meters: Arc<PerCore<CoreMeters>>,
    /// Where access records wait for the log's thread.
    pub access: Arc<ArrayQueue<AccessRecord>>,
}

/// One core.
pub struct Shard {
    /// As given at the start.
    pub outfit: Outfit,
    /// Every downstream connection.
    pub connections: Connections,
    /// No new work is taken: since when, or zero.
    pub draining_since: Cell<Nanos>,
    /// How saturated the core is.
    pub pressure: Cell<Pressure>,
    shed_after: Cell<Option<u64>>,
    /// When a drain is over, whatever still runs.
    pub drain_until: Cell<Nanos>,
    snapshot: RefCell<Arc<Snapshot>>,
    logs_access: Cell<bool>,
    generation: Cell<u64>,
    clusters: RefCell<Vec<Rc<ClusterState>>>,
    random: Cell<u64>,
    heads: RefCell<Vec<Vec<u8>>>,
    // Boxed: an exchange hands them through several futures, each of which would copy them.
    #[allow(clippy::vec_box, reason = "an exchange takes the box")]
    requests: RefCell<Vec<Box<RequestHead>>>,
    #[allow(clippy::vec_box, reason = "an exchange takes the box")]
    responses: RefCell<Vec<Box<Response>>>,
    /// Working memory of the route tables, and for paths that are not in normal form.
    pub routing: RefCell<(Scratch, PathBuffers)>,
    #[allow(clippy::vec_box, reason = "an exchange takes the box")]
    changes: RefCell<Vec<Box<Changes>>>,
    /// What requests say again and again to HTTP/2 upstreams.
    pub kept: Kept,
    /// The tasks that serve streams of HTTP/2 clients.
    pub lanes: Lanes,
}

/// Encoding buffers kept for reuse.
const KEPT_HEADS: usize = 256;
/// One that grew beyond this is freed instead.
const KEPT_HEAD_BYTES: usize = 8 * 1024;

impl Shard {
    /// A core that runs `snapshot`.
    pub fn new(outfit: Outfit, snapshot: Arc<Snapshot>) -> Rc<Shard> {
        let seed = outfit.seed | 1;
        let shard = Rc::new(Shard {
            outfit,
            connections: Connections::default(),
            draining_since: Cell::new(0),
            drain_until: Cell::new(0),
            pressure: Cell::default(),
            shed_after: Cell::new(None),
            logs_access: Cell::new(false),
            requests: RefCell::new(Vec::new()),
            responses: RefCell::new(Vec::new()),
            routing: RefCell::default(),
            changes: RefCell::default(),
            kept: Kept::default(),
            lanes: Lanes::default(),
            snapshot: RefCell::new(snapshot.clone()),
            generation: Cell::new(0),
            clusters: RefCell::new(Vec::new()),
            random: Cell::new(seed),
            heads: RefCell::new(Vec::new()),
        });
        shard.install(snapshot);
        shard
    }

    /// Takes a snapshot over, between two requests. Cannot fail: what can fail has failed before.
    pub fn install(&self, snapshot: Arc<Snapshot>) {
        if !self.keeps_clusters(&snapshot) {
            self.install_clusters(&snapshot);
        }
        self.generation.set(snapshot.generation);
        self.logs_access.set(snapshot.access_log.is_some());
        let nanos = |after: Duration| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.shed_after.set(snapshot.shed_after.map(nanos));
        self.meters().snapshot_generation.set(snapshot.generation as i64);
        *self.snapshot.borrow_mut() = snapshot;
    }

    /// Takes over what has changed in the clusters, where they are the same ones as before in the same order: most changes
    /// leave most of a thousand clusters alone.
    fn keeps_clusters(&self, snapshot: &Snapshot) -> bool {
        let clusters = self.clusters.borrow();
        let is_known = |(state, cluster): (&Rc<ClusterState>, &Arc<Cluster>)| {
            let known = state.cluster.borrow();
            Arc::ptr_eq(&known, cluster) || known.name == cluster.name
        };
        if clusters.len() != snapshot.clusters.len() || !clusters.iter().zip(&snapshot.clusters).all(is_known) {
            return false;
        }
        for (state, cluster) in clusters.iter().zip(&snapshot.clusters) {
            let same = Arc::ptr_eq(&*state.cluster.borrow(), cluster);
            if !same {
                state.install(cluster.clone(), self.random());
            }
        }
        true
    }

    fn install_clusters(&self, snapshot: &Snapshot) {
        let mut known: AHashMap<Arc<str>, Rc<ClusterState>> = AHashMap::new();
        for state in self.clusters.borrow().iter() {
            known.insert(state.cluster.borrow().name.clone(), state.clone());
        }
        let mut clusters = Vec::with_capacity(snapshot.clusters.len());
        for cluster in &snapshot.clusters {
            let state = match known.remove(&cluster.name) {
                Some(state) => {
                    let same = Arc::ptr_eq(&*state.cluster.borrow(), cluster);
                    if !same {
                        state.install(cluster.clone(), self.random());
                    }
                    state
                }
                None => Rc::new(ClusterState::new(cluster.clone(), self.outfit.core, self.outfit.cores, self.random())),
            };
            clusters.push(state);
        }
        for gone in known.into_values() {
            gone.retire();
        }
        *self.clusters.borrow_mut() = clusters;
    }

    /// The snapshot that the next request will be routed by.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Its generation, without touching its reference count.
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// The listener of that name in the snapshot in force.
    pub fn listener(&self, name: &str) -> Option<Arc<Listener>> {
        self.snapshot.borrow().listeners.iter().find(|listener| &*listener.name == name).cloned()
    }

    /// The route that a request to this listener takes.
    pub fn find_route(&self, listener: &Arc<Listener>, facts: &Facts<'_>, scratch: &mut Scratch) -> Option<Arc<Route>> {
        self.snapshot.borrow().with_routes(listener, |table| table.find(facts, scratch).cloned()).flatten()
    }

    /// This core's view of a cluster, by the snapshot's dense id and, since a change may have come between, by name.
    pub fn cluster(&self, id: u32, name: &str) -> Option<Rc<ClusterState>> {
        let clusters = self.clusters.borrow();
        let direct = clusters.get(id as usize).filter(|state| &*state.cluster.borrow().name == name);
        direct.or_else(|| clusters.iter().find(|state| &*state.cluster.borrow().name == name)).cloned()
    }

    /// Every cluster.
    pub fn clusters(&self) -> Vec<Rc<ClusterState>> {
        self.clusters.borrow().clone()
    }

    /// This core's meters.
    pub fn meters(&self) -> &CoreMeters {
        self.outfit.meters.core(self.outfit.core)
    }

    /// Nanoseconds that a ready task waits on a saturated core, where load is shed.
    pub fn shed_after(&self) -> Option<u64> {
        self.shed_after.get()
    }

    /// Whether the core is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining_since.get() != 0
    }

    /// A random number (splitmix64): for splits, request ids and jitter, not for secrets.
    pub fn random(&self) -> u64 {
        let next = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(next);
        let mut mixed = next;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Whether access records are wanted.
    pub fn logs_access(&self) -> bool {
        self.logs_access.get()
    }

    /// A head to parse into, its field list reused.
    pub fn take_request(&self) -> Box<RequestHead> {
        self.requests.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives it back.
    pub fn give_request(&self, head: Box<RequestHead>) {
        let mut requests = self.requests.borrow_mut();
        if requests.len() < KEPT_HEADS {
            requests.push(head);
        }
    }

    /// A response to parse into, its buffers reused.
    pub fn take_response(&self) -> Box<Response> {
        self.responses.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives it back.
    pub fn give_response(&self, mut response: Box<Response>) {
        let mut responses = self.responses.borrow_mut();
        if responses.len() < KEPT_HEADS && response.bytes.capacity() <= KEPT_HEAD_BYTES {
            response.renew();
            responses.push(response);
        }
    }

    /// An exchange's changes to work out, their buffers reused.
    pub fn take_changes(&self) -> Box<Changes> {
        self.changes.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives them back.
    pub fn give_changes(&self, changes: Option<Box<Changes>>) {
        let mut kept = self.changes.borrow_mut();
        if kept.len() < KEPT_HEADS {
            kept.extend(changes);
        }
    }

    /// An empty buffer to encode a head in.
    pub fn take_head(&self) -> Vec<u8> {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives such a buffer back.
    pub fn give_head(&self, mut head: Vec<u8>) {
        let mut heads = self.heads.borrow_mut();
        if head.capacity() > 0 && head.capacity() <= KEPT_HEAD_BYTES && heads.len() < KEPT_HEADS {
            head.clear();
            heads.push(head);
        }
    }
}
