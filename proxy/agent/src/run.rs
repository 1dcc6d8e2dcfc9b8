//! The agent's loop: files, signals, names and successors, until the process is to end.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onehop_plan::model::Model;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin;
use crate::dns::Names;
use crate::file::{LOOK, Watch};
use crate::identity;
use crate::log::Log;
use crate::probe::Health;
use crate::publish::Publisher;
use crate::takeover;

/// Where the configuration comes from.
pub enum Source {
    /// A file or a folder, watched.
    Path(PathBuf),
    /// A command line, fixed.
    Fixed,
}

/// What the agent works with.
pub struct Agent {
    /// Snapshots and sockets.
    pub publisher: Publisher,
    /// Where the configuration comes from.
    pub source: Source,
    /// Access records.
    pub log: Log,
    /// The admin endpoint's socket, already listening.
    pub admin: Option<OwnedFd>,
    /// Where a successor asks for the sockets.
    pub takeover: Option<PathBuf>,
    /// How long a drain may take.
    pub drain: Duration,
}

/// Why the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The cores drain; the process ends when they have.
    Draining,
}

/// What the admin endpoint shows beside the meters.
pub struct Status {
    pub publisher: Publisher,
    pub health: Health,
    pub draining: bool,
    pub last_error: Option<String>,
    pub reloads: u64,
    pub source: String,
}

/// Shared between the loop and the admin endpoint, both on the agent's thread and its helpers; never with a core.
pub type Shared = Arc<Mutex<Status>>;

/// The lock, whatever a panicking holder left.
pub fn lock(shared: &Shared) -> MutexGuard<'_, Status> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs until a signal or a successor ends the process, then tells the cores to drain. `serving` is called once the
/// agent watches everything, with the admin endpoint's address.
///
/// # Errors
/// When the agent's own runtime cannot be built.
pub fn run(agent: Agent, serving: impl FnOnce(Option<SocketAddr>)) -> std::io::Result<(Ended, Log)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    runtime.block_on(watch(agent, serving))
}

async fn watch(agent: Agent, serving: impl FnOnce(Option<SocketAddr>)) -> std::io::Result<(Ended, Log)> {
    let Agent { publisher, source, log, admin, takeover, drain } = agent;
    log.open(publisher.snapshot().and_then(|snapshot| snapshot.access_log.clone()));
    publisher.registry().set_gauge("onehop_config_valid", "Whether the configuration read last is in force.", 1.0);
    publisher.registry().add("onehop_config_reloads_total", "Configurations taken over.", 0.0);
    publisher.registry().add("onehop_config_refused_total", "Configurations refused.", 0.0);
    let mut files = match &source {
        Source::Path(path) => Some(Watch::new(path, publisher.model().map(Model::file_names).unwrap_or_default())),
        Source::Fixed => None,
    };
    let shown = files.as_ref().map_or("command line".to_owned(), |files| files.path().display().to_string());
    let shared: Shared = Arc::new(Mutex::new(Status {
        publisher,
        health: Health::new(),
        draining: false,
        last_error: None,
        reloads: 0,
        source: shown,
    }));
    let served = admin.map(|socket| admin::start(socket, shared.clone())).transpose()?;
    let successors = Successors::open(takeover)?;
    let mut endings = Endings::new()?;
    let (mut hangup, mut reopen) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);
    let mut names = Names::new();
    let registry = lock(&shared).publisher.registry().clone();
    let mut identities = Identities::start(&shared);
    serving(served.as_ref().map(|served| served.address));
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                if files.as_mut().is_some_and(Watch::look) {
                    reload(&mut files, &shared, &log).await;
                }
                look_up(&mut names, &shared);
                show_identity(&shared);
                look_after(&shared);
                clear_out(&shared);
            }
            changed = names.changed(&registry) => {
                if !changed.is_empty() {
                    lock(&shared).publisher.resolve(changed);
                }
            }
            Some(sent) = identities.next() => renew(sent, &shared).await,
            _ = hangup.recv() => reload(&mut files, &shared, &log).await,
            _ = reopen.recv() => log.open(lock(&shared).publisher.snapshot().and_then(|snapshot| snapshot.access_log.clone())),
            _ = endings.end() => break,
            successor = successors.next() => {
                if let Some(successor) = successor
                    && hand_over(successor, &shared, served.as_ref(), &successors).await {
                    break;
                }
            }
        }
    }
    begin_drain(&shared, drain);
    eprintln!("onehop: draining, for at most {} s; a second signal ends at once", drain.as_secs_f64());
    // While the cores drain, this loop has one thing left to do.
    tokio::spawn(async move {
        endings.end().await;
        eprintln!("onehop: ended by a second signal");
        std::process::exit(1);
    });
    // The cores' threads end by themselves; the caller joins them while this runtime goes on.
    tokio::task::spawn_blocking(wait_for_cores).await.unwrap_or(());
    Ok((Ended::Draining, log))
}

fn begin_drain(shared: &Shared, limit: Duration) {
    let mut status = lock(shared);
    status.draining = true;
    status.publisher.drain(limit);
}

static CORES_DONE: (Mutex<bool>, std::sync::Condvar) = (Mutex::new(false), std::sync::Condvar::new());

fn wait_for_cores() {
    let mut done = CORES_DONE.0.lock().unwrap_or_else(PoisonError::into_inner);
    while !*done {
        done = CORES_DONE.1.wait(done).unwrap_or_else(PoisonError::into_inner);
    }
}

/// The signals that end the process.
struct Endings {
    terminate: Signal,
    interrupt: Signal,
}

impl Endings {
    fn new() -> std::io::Result<Endings> {
        Ok(Endings { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Reads the configuration again; a bad one leaves everything as it is and says why.
async fn reload(files: &mut Option<Watch>, shared: &Shared, log: &Log) {
    let Some(files) = files else {
        eprintln!("onehop: nothing to reload: the configuration is the command line");
        return;
    };
    files.loaded();
    let path = files.path().to_owned();
    let theirs = shared.clone();
    // Compiling and binding have a thread of their own, so that the admin endpoint answers meanwhile.
    let result = tokio::task::spawn_blocking(move || {
        let result = take_over(&path, &theirs);
        // The text and the model took many times what was made of them.
        onehop_net::release_free_memory();
        result
    })
    .await
    .unwrap_or_else(|panic| Err(panic.to_string()));
    let mut status = lock(shared);
    let registry = status.publisher.registry().clone();
    match result {
        Ok(()) => {
            status.reloads += 1;
            status.last_error = None;
            registry.add("onehop_config_reloads_total", "Configurations taken over.", 1.0);
            registry.set_gauge("onehop_config_valid", "Whether the configuration read last is in force.", 1.0);
            files.names(status.publisher.model().map(Model::file_names).unwrap_or_default());
            log.open(status.publisher.snapshot().and_then(|snapshot| snapshot.access_log.clone()));
            eprintln!(
                "onehop: configuration {} is in force (generation {})",
                status.source,
                status.publisher.snapshot().map_or(0, |snapshot| snapshot.generation)
            );
        }
        Err(error) => {
            registry.add("onehop_config_refused_total", "Configurations refused.", 1.0);
            registry.set_gauge("onehop_config_valid", "Whether the configuration read last is in force.", 0.0);
            eprintln!("onehop: the new configuration was refused, the running one stays:\n{error}");
            status.last_error = Some(error);
        }
    }
}

fn take_over(path: &std::path::Path, shared: &Shared) -> Result<(), String> {
    let mut loaded = onehop_config::load(path).map_err(|failure| failure.to_string())?;
    let mut status = lock(shared);
    // What came from elsewhere than files goes on.
    for (path, content) in status.publisher.model().map(|model| model.files.0.clone()).unwrap_or_default() {
        loaded.model.files.0.entry(path).or_insert(content);
    }
    let model: &Model = &loaded.model;
    let published = status.publisher.publish(model);
    if published.is_ok()
        && let Some(snapshot) = status.publisher.snapshot()
    {
        for warning in &snapshot.warnings {
            eprintln!("{}", loaded.explain(warning));
        }
    }
    drop(status);
    published.map_err(|refused| match refused {
        crate::Refused::Problems(problems) => {
            problems.iter().map(|problem| loaded.explain(problem).to_string()).collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    })
}

fn show_identity(shared: &Shared) {
    let status = lock(shared);
    let own = status.publisher.snapshot().and_then(|snapshot| snapshot.identity.as_ref());
    identity::show(own, status.publisher.registry());
}

/// Identities that the Workload API sends.
struct Identities(Option<tokio::sync::mpsc::Receiver<identity::Sent>>);

impl Identities {
    fn start(shared: &Shared) -> Identities {
        let wanted = lock(shared).publisher.model().and_then(|model| model.identity.clone());
        Identities(wanted.filter(|wanted| wanted.workload_api.is_some()).map(|wanted| {
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            tokio::spawn(identity::receive(wanted, sender));
            receiver
        }))
    }

    async fn next(&mut self) -> Option<identity::Sent> {
        match &mut self.0 {
            Some(receiver) => receiver.recv().await,
            None => std::future::pending().await,
        }
    }
}

async fn renew(sent: identity::Sent, shared: &Shared) {
    let theirs = shared.clone();
    let renewed = tokio::task::spawn_blocking(move || lock(&theirs).publisher.renew(sent.files)).await;
    match renewed {
        Ok(Ok(())) => eprintln!("onehop: an identity from the Workload API is in force"),
        Ok(Err(refused)) => {
            eprintln!("onehop: an identity from the Workload API was refused, the old one stays: {refused}")
        }
        Err(panic) => eprintln!("onehop: an identity from the Workload API could not be taken over: {panic}"),
    }
}

/// Frees old configurations on a thread of their own.
fn clear_out(shared: &Shared) {
    let rubbish = lock(shared).publisher.sweep();
    if !rubbish.is_empty() {
        tokio::task::spawn_blocking(move || {
            drop(rubbish);
            onehop_net::release_free_memory();
        });
    }
}

/// Active checks, and endpoints that come back.
fn look_after(shared: &Shared) {
    let mut status = lock(shared);
    let Some(snapshot) = status.publisher.snapshot().cloned() else {
        return;
    };
    let registry = status.publisher.registry().clone();
    status.health.tick(&snapshot, &registry);
}

/// Begins to look up the names that are due.
fn look_up(names: &mut Names, shared: &Shared) {
    let snapshot = lock(shared).publisher.snapshot().cloned();
    if let Some(snapshot) = snapshot {
        names.look_up(&snapshot);
    }
}

/// The Unix socket on which successors ask for the sockets.
struct Successors {
    path: Option<PathBuf>,
    listener: Option<tokio::net::UnixListener>,
}

impl Successors {
    fn open(path: Option<PathBuf>) -> std::io::Result<Successors> {
        let Some(path) = path else {
            return Ok(Successors { path: None, listener: None });
        };
        let socket = onehop_net::bind_unix(&path).map_err(|error| {
            std::io::Error::new(error.kind(), format!("the takeover socket {}: {error}", path.display()))
        })?;
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Successors { listener: Some(tokio::net::UnixListener::from_std(listener)?), path: Some(path) })
    }

    async fn next(&self) -> Option<tokio::net::UnixStream> {
        match &self.listener {
            Some(listener) => listener.accept().await.ok().map(|(successor, _)| successor),
            None => std::future::pending().await,
        }
    }

    fn close(&self) {
        if let Some(path) = &self.path {
            // It may be gone already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// True when a successor serves and this process is to drain.
async fn hand_over(
    successor: tokio::net::UnixStream,
    shared: &Shared,
    admin: Option<&admin::Served>,
    successors: &Successors,
) -> bool {
    let Ok(successor) = successor.into_std() else {
        return false;
    };
    let mut sockets = lock(shared).publisher.descriptors();
    if let Some(admin) = admin {
        sockets.push((crate::ADMIN.to_owned(), admin.socket.as_raw_fd()));
    }
    let handed =
        tokio::task::spawn_blocking(move || takeover::hand_over(&successor, &sockets).map(|()| successor)).await;
    match handed {
        Ok(Ok(successor)) => {
            if let Some(admin) = admin {
                admin.stop();
            }
            successors.close();
            takeover::gone(&successor);
            eprintln!("onehop: a successor serves now");
            true
        }
        Ok(Err(error)) => {
            eprintln!("onehop: a successor asked for the sockets and left: {error}; this process goes on");
            false
        }
        Err(panic) => {
            eprintln!("onehop: the hand-over failed: {panic}; this process goes on");
            false
        }
    }
}

/// Lets [`run`] return: the cores have ended.
pub fn cores_have_ended() {
    *CORES_DONE.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    CORES_DONE.1.notify_all();
}
