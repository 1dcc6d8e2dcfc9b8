//! From a model to the cores: compile, bind, post. What can fail fails before anything is changed.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use onehop_meter::Registry;
use onehop_net::mailbox::Sender;
use onehop_plan::model::Model;
use onehop_plan::order::{Order, Socket};
use onehop_plan::{Problem, Snapshot, compile};

use crate::attic::{Attic, Rubbish};

/// Why a model was not taken over. Nothing has changed then.
#[derive(Debug)]
pub enum Refused {
    /// It contradicts itself.
    Problems(Vec<Problem>),
    /// A listener cannot listen.
    Bind {
        /// Which.
        listener: String,
        /// Where.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Problems(problems) => problems.iter().enumerate().try_for_each(|(at, problem)| {
                let separator = if at == 0 { "" } else { "\n" };
                write!(f, "{separator}{problem}")
            }),
            Refused::Bind { listener, address, error } => {
                write!(f, "listener \"{listener}\" cannot listen on {address}: {error}")?;
                match error.kind() {
                    std::io::ErrorKind::AddrInUse => {
                        f.write_str("\n  help: another process listens there; stop it, choose another port, or take its sockets over with --takeover")
                    }
                    std::io::ErrorKind::PermissionDenied => {
                        f.write_str("\n  help: ports below 1024 need CAP_NET_BIND_SERVICE")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

/// The sockets of a listener, one per core, kept to hand copies out.
struct Bound {
    wanted: SocketAddr,
    actual: SocketAddr,
    sockets: Vec<OwnedFd>,
}

/// What is in force.
pub struct Publisher {
    registry: Arc<Registry>,
    cores: Vec<Sender<Order>>,
    bound: BTreeMap<String, Bound>,
    snapshot: Option<Arc<Snapshot>>,
    model: Option<Model>,
    resolved: HashMap<String, Vec<IpAddr>>,
    attic: Attic,
}

/// What each core gets at the start.
pub type FirstSockets = Vec<Vec<Socket>>;

impl Publisher {
    /// For so many cores as there are mailboxes.
    pub fn new(registry: Arc<Registry>, cores: Vec<Sender<Order>>) -> Publisher {
        Publisher {
            registry,
            cores,
            bound: BTreeMap::new(),
            snapshot: None,
            model: None,
            resolved: HashMap::new(),
            attic: Attic::default(),
        }
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// The meters.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The mailboxes.
    pub fn cores(&self) -> &[Sender<Order>] {
        &self.cores
    }

    /// The listeners and where they really listen.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.bound.iter().map(|(name, bound)| (name.as_str(), bound.actual))
    }

    /// The first model: returns what each core starts with.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub fn first(
        &mut self,
        model: &Model,
        inherited: Vec<(String, OwnedFd)>,
    ) -> Result<(Arc<Snapshot>, FirstSockets), Refused> {
        let snapshot = Arc::new(compile_apart(model, &self.registry, None).map_err(Refused::Problems)?);
        let bound = self.bind(model, inherited)?;
        let sockets = copies(&bound, self.cores.len())?;
        self.bound.extend(bound);
        self.snapshot = Some(snapshot.clone());
        self.model = Some(kept(model));
        Ok((snapshot, sockets))
    }

    /// Takes a model over.
    ///
    /// # Errors
    /// Why it cannot be; then everything goes on as before.
    pub fn publish(&mut self, model: &Model) -> Result<(), Refused> {
        // However quickly changes follow one another: what cores have let go of makes room for the next.
        drop(self.sweep());
        let compiled = compile_apart(model, &self.registry, self.snapshot.as_deref()).map_err(Refused::Problems)?;
        let fresh = self.bind(model, Vec::new())?;
        let mut sockets = copies(&fresh, self.cores.len())?;
        let mut snapshot = compiled;
        if snapshot.clusters.iter().any(|cluster| !cluster.names.is_empty()) {
            snapshot =
                snapshot.with_resolved(&self.resolved, &self.registry, snapshot.generation, onehop_net::clock::now());
        }
        self.bound.retain(|name, _| model.listeners.iter().any(|listener| listener.name == *name));
        self.bound.extend(fresh);
        let snapshot = Arc::new(snapshot);
        sockets.reverse();
        for core in &self.cores {
            self.post(core, Order::Install { snapshot: snapshot.clone(), sockets: sockets.pop().unwrap_or_default() });
        }
        self.attic.keep(self.snapshot.replace(snapshot));
        self.model = Some(kept(model));
        Ok(())
    }

    /// The model in force.
    pub fn model(&self) -> Option<&Model> {
        self.model.as_ref()
    }

    /// Takes new contents of files over that the model in force names; what else it says stays.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub fn renew(
        &mut self,
        files: impl IntoIterator<Item = (std::path::PathBuf, Arc<Vec<u8>>)>,
    ) -> Result<(), Refused> {
        // Nothing else than the Workload API sends contents, and for it the whole model is kept.
        let whole = |model: &&Model| model.identity.as_ref().is_some_and(|identity| identity.workload_api.is_some());
        let Some(mut model) = self.model.as_ref().filter(whole).cloned() else { return Ok(()) };
        model.files.0.extend(files.into_iter().map(|(path, content)| (path, Ok(content))));
        self.publish(&model)
    }

    /// Takes newly resolved names over.
    pub fn resolve(&mut self, resolved: HashMap<String, Vec<IpAddr>>) {
        self.resolved.extend(resolved);
        let Some(current) = &self.snapshot else {
            return;
        };
        let snapshot = Arc::new(current.with_resolved(
            &self.resolved,
            &self.registry,
            current.generation + 1,
            onehop_net::clock::now(),
        ));
        for core in &self.cores {
            self.post(core, Order::Install { snapshot: snapshot.clone(), sockets: Vec::new() });
        }
        self.attic.keep(self.snapshot.replace(snapshot));
    }

    /// What was in force before and is held by no core any more, to be dropped where it delays nobody.
    pub fn sweep(&mut self) -> Rubbish {
        let Some(snapshot) = &self.snapshot else { return Rubbish::default() };
        let rubbish = self.attic.sweep(snapshot, &self.registry);
        let help = "Configurations, and parts of them, that are no longer in force but still held.";
        self.registry.set_gauge("onehop_config_held", help, self.attic.len() as f64);
        rubbish
    }

    fn post(&self, core: &Sender<Order>, order: Order) {
        if core.send(order).is_err() {
            self.registry.add("onehop_orders_undelivered_total", "Orders that a stuck core did not take.", 1.0);
            eprintln!("onehop: a core does not read its orders: it is stuck");
        }
    }

    /// Tells every core to drain and stops listening.
    pub fn drain(&mut self, limit: Duration) {
        self.bound.clear();
        for core in &self.cores {
            self.post(core, Order::Drain { limit });
        }
    }

    /// The listening sockets, for a successor.
    pub fn descriptors(&self) -> Vec<(String, RawFd)> {
        let named = |(name, bound): (&String, &Bound)| {
            let name = name.clone();
            bound.sockets.iter().map(move |socket| (name.clone(), socket.as_raw_fd())).collect::<Vec<_>>()
        };
        self.bound.iter().flat_map(named).collect()
    }

    /// Binds the listeners that are new or elsewhere than before.
    fn bind(&self, model: &Model, mut inherited: Vec<(String, OwnedFd)>) -> Result<BTreeMap<String, Bound>, Refused> {
        let mut fresh = BTreeMap::new();
        for listener in model.listeners.iter().filter(|listener| listener.is_bound()) {
            if self.bound.get(&listener.name).is_some_and(|bound| bound.wanted == listener.address) {
                continue;
            }
            let refused = |error| Refused::Bind { listener: listener.name.clone(), address: listener.address, error };
            let mut sockets: Vec<OwnedFd> = Vec::new();
            let (ours, rest) = std::mem::take(&mut inherited).into_iter().partition(|(name, _)| *name == listener.name);
            inherited = rest;
            let ours: Vec<(String, OwnedFd)> = ours;
            sockets.extend(
                ours.into_iter().map(|(_, socket)| socket).filter(|socket| listens_on(socket, listener.address)),
            );
            // An address of our own under another name is no stranger's.
            let mut is_ours = !sockets.is_empty() || self.bound.values().any(|bound| bound.actual == listener.address);
            let mut address = sockets.first().and_then(onehop_net::local_address).unwrap_or(listener.address);
            while sockets.len() < self.cores.len().max(1) {
                let socket = onehop_net::bind(&address, !is_ours).map_err(refused)?;
                // Port 0: the first socket finds a free port, the others join it.
                address = onehop_net::local_address(&socket).unwrap_or(address);
                is_ours = true;
                if listener.transparent {
                    onehop_net::make_transparent(&socket).map_err(refused)?;
                }
                sockets.push(socket);
            }
            fresh.insert(listener.name.clone(), Bound { wanted: listener.address, actual: address, sockets });
        }
        Ok(fresh)
    }
}

/// Compiles on a thread of its own, whose part of the heap holds what stays and little else: the pages that the text and the
/// model occupied, many times as much, are then free as wholes when those are dropped.
fn compile_apart(model: &Model, registry: &Registry, previous: Option<&Snapshot>) -> Result<Snapshot, Vec<Problem>> {
    std::thread::scope(|scope| {
        let compiling = std::thread::Builder::new().name("onehop-compile".to_owned());
        match compiling.spawn_scoped(scope, || compile(model, registry, previous)) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // No thread is to be had: then the pages are mixed.
            Err(_) => compile(model, registry, previous),
        }
    })
}

/// What is needed of a model once it is compiled. Routes and clusters, which can be many, only where an identity that
/// the Workload API sends has it compiled again, or where they name files.
fn kept(model: &Model) -> Model {
    if model.identity.as_ref().is_some_and(|identity| identity.workload_api.is_some()) {
        return model.clone();
    }
    Model {
        runtime: model.runtime.clone(),
        access_log: model.access_log.clone(),
        listeners: model.listeners.clone(),
        routes: Vec::new(),
        clusters: model.clusters.iter().filter(|cluster| cluster.tls.is_some()).cloned().collect(),
        identity: model.identity.clone(),
        access: model.access.clone(),
        sidecar: model.sidecar,
        files: model.files.clone(),
    }
}

fn listens_on(socket: &OwnedFd, wanted: SocketAddr) -> bool {
    let actual = onehop_net::local_address(socket);
    actual.is_some_and(|actual| actual.ip() == wanted.ip() && (wanted.port() == 0 || actual.port() == wanted.port()))
}

/// A copy of every socket for its core; more sockets than cores go round.
fn copies(bound: &BTreeMap<String, Bound>, cores: usize) -> Result<FirstSockets, Refused> {
    let mut sockets: FirstSockets = (0..cores.max(1)).map(|_| Vec::new()).collect();
    for (name, bound) in bound {
        for (at, socket) in bound.sockets.iter().enumerate() {
            let copy = socket.try_clone().map_err(|error| Refused::Bind {
                listener: name.clone(),
                address: bound.actual,
                error,
            })?;
            sockets[at % cores.max(1)].push(Socket { listener: Arc::from(name.as_str()), fd: copy });
        }
    }
    Ok(sockets)
}
