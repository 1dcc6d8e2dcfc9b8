//! From a command line to running cores, and to their orderly end.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use crossbeam_queue::ArrayQueue;
use onehop_agent::{ADMIN, Agent, Inherited, Log, Publisher, Refused, Source};
use onehop_config::Loaded;
use onehop_meter::Registry;
use onehop_net::mailbox::{Receiver, mailbox};
use onehop_net::runtime::{Options, Rung};
use onehop_plan::Snapshot;
use onehop_plan::model::Model;
use onehop_plan::order::{Order, Socket};
use onehop_worker::{Outfit, Start};

use crate::Gateway;

/// Access records that may wait for the log's thread, per core.
const ACCESS_QUEUE: usize = 8192;
/// Fewer descriptors than this are soon used up; it is said at the start.
const FEW_FILES: u64 = 4096;

/// `onehop check`.
pub fn check(path: &Path) -> Result<(), String> {
    let loaded = onehop_config::load(path).map_err(|failure| failure.to_string())?;
    let registry = Registry::new(1);
    match onehop_plan::compile(&loaded.model, &registry, None) {
        Ok(snapshot) => {
            if !snapshot.warnings.is_empty() {
                eprintln!("{}", explain(&snapshot.warnings, Some(&loaded)));
            }
            println!(
                "{}: {} listeners, {} routes, {} clusters",
                path.display(),
                snapshot.listeners.len(),
                loaded.model.routes.len(),
                snapshot.clusters.len()
            );
            Ok(())
        }
        Err(problems) => Err(explain(&problems, Some(&loaded))),
    }
}

/// Problems as the user reads them, with their positions where those are known.
pub fn explain(problems: &[onehop_plan::Problem], loaded: Option<&Loaded>) -> String {
    let one = |problem| loaded.map_or_else(|| format!("{problem}"), |loaded| loaded.explain(problem).to_string());
    problems.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// `onehop sidecar`.
pub fn sidecar(arguments: &Gateway) -> Result<(), String> {
    let Some(path) = &arguments.config else {
        return Err("onehop sidecar needs --config FILE".to_owned());
    };
    let loaded = onehop_config::load(path).map_err(|failure| failure.to_string())?;
    if !loaded.model.sidecar {
        return Err(format!("{}: a sidecar's configuration needs a [sidecar] table", path.display()));
    }
    let mut arguments = Gateway { workers: arguments.workers.or(loaded.model.runtime.workers), ..arguments.clone() };
    // It shares the machine with the app that it serves.
    arguments.workers = arguments.workers.or(Some(1));
    gateway(&arguments)
}

/// `onehop gateway`.
pub fn gateway(arguments: &Gateway) -> Result<(), String> {
    let (mut model, loaded, source) = match (&arguments.config, arguments.listen) {
        (Some(path), _) => {
            let mut loaded = onehop_config::load(path).map_err(|failure| failure.to_string())?;
            (std::mem::take(&mut loaded.model), Some(loaded), Source::Path(path.clone()))
        }
        (None, Some(listen)) => (onehop_config::gateway(listen, &arguments.to)?, None, Source::Fixed),
        (None, None) => {
            return Err("onehop gateway needs --config FILE, or --listen ADDRESS --to ADDRESS".to_owned());
        }
    };
    if let Some(text) = &arguments.busy_poll {
        model.runtime.busy_poll =
            onehop_config::duration(text).map_err(|(message, hint)| format!("--busy-poll {message}: {hint}"))?;
    }
    model.runtime.admin = arguments.admin.or(model.runtime.admin);
    model.runtime.workers = arguments.workers.or(model.runtime.workers);
    let first_rung = rung(&arguments.rung)?;
    let inherited = if arguments.takeover { Some(inherit(model.runtime.takeover.as_deref())?) } else { None };
    run(model, loaded, source, first_rung, inherited)
}

fn rung(name: &str) -> Result<Rung, String> {
    match name {
        "deferred" => Ok(Rung::Deferred),
        "cooperative" => Ok(Rung::Cooperative),
        "plain" => Ok(Rung::Plain),
        "epoll" => Ok(Rung::Epoll),
        other => Err(format!("--rung cannot be \"{other}\": it is deferred, cooperative, plain or epoll")),
    }
}

fn inherit(path: Option<&Path>) -> Result<Inherited, String> {
    let path =
        path.ok_or("--takeover needs the path of the running instance's socket: [runtime] takeover = \"PATH\"")?;
    onehop_agent::inherit(path)
        .map_err(|error| format!("no running instance hands its sockets over at {}: {error}", path.display()))
}

/// As many workers as the affinity mask and the CPU quota allow.
fn worker_count(model: &Model) -> usize {
    let usable = onehop_net::usable_cpus().len().max(1);
    let quota = cpu_quota().unwrap_or(usable);
    model.runtime.workers.unwrap_or(usable.min(quota)).max(1)
}

/// The cgroup's quota in whole CPUs, rounded up (`cpu.max` of cgroup v2): more threads than that are throttled.
fn cpu_quota() -> Option<usize> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok()?;
    let mut words = text.split_whitespace();
    let (quota, period): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    usize::try_from(quota.div_ceil(period.max(1))).ok().filter(|cpus| *cpus > 0)
}

/// What one core is started with, but for what all share.
struct CorePart {
    mailbox: Receiver<Order>,
    access: Arc<ArrayQueue<onehop_meter::record::AccessRecord>>,
    sockets: Vec<Socket>,
}

/// Starts everything, serves until a signal or a successor ends it, and ends in order.
pub fn run(
    model: Model,
    loaded: Option<Loaded>,
    source: Source,
    first_rung: Rung,
    inherited: Option<Inherited>,
) -> Result<(), String> {
    let files =
        onehop_net::raise_open_files().map_err(|error| format!("the open-file limit cannot be raised: {error}"))?;
    if files < FEW_FILES {
        eprintln!(
            "onehop: only {files} files may be open: each proxied connection takes two; raise the hard limit (ulimit -Hn)"
        );
    }
    if let Some(mark) = model.runtime.mark {
        onehop_net::mark_connections(mark);
    }
    let workers = worker_count(&model);
    let registry = Registry::new(workers);
    registry.set_reject_names(onehop_wire::http1::Reject::ALL.iter().map(|reject| reject.reason()).collect());
    let no_descriptors = |error: std::io::Error| format!("the cores' mailboxes cannot be made: {error}");
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for _ in 0..workers {
        let (sender, receiver) = mailbox().map_err(no_descriptors)?;
        senders.push(sender);
        receivers.push(receiver);
    }
    let mut publisher = Publisher::new(registry.clone(), senders);
    let (mut passed, predecessor) = match inherited {
        Some(mut inherited) => (std::mem::take(&mut inherited.sockets), Some(inherited)),
        None => (Vec::new(), None),
    };
    let admin_at = passed.iter().position(|(name, _)| name == ADMIN);
    let passed_admin = admin_at.map(|at| passed.swap_remove(at).1);
    let (snapshot, sockets) = publisher.first(&model, passed).map_err(|refused| match &refused {
        Refused::Problems(problems) => explain(problems, loaded.as_ref()),
        Refused::Bind { .. } => refused.to_string(),
    })?;
    if !snapshot.warnings.is_empty() {
        eprintln!("{}", explain(&snapshot.warnings, loaded.as_ref()));
    }
    let admin = admin_socket(model.runtime.admin, passed_admin)?;
    let queues: Vec<_> = (0..workers).map(|_| Arc::new(ArrayQueue::new(ACCESS_QUEUE))).collect();
    let parts = receivers.into_iter().zip(&queues).zip(sockets).map(|((mailbox, access), sockets)| CorePart {
        mailbox,
        access: access.clone(),
        sockets,
    });
    let (threads, rung) = start_cores(&model, &registry, &snapshot, parts.collect(), first_rung)?;
    let log =
        Log::start(queues, registry.clone()).map_err(|error| format!("the log's thread cannot be started: {error}"))?;
    announce(&publisher, &model, workers, rung, &registry);
    let waiting = std::thread::spawn(move || {
        let failed = threads.into_iter().filter_map(|thread| thread.join().err()).count();
        onehop_agent::cores_have_ended();
        failed
    });
    let runtime = model.runtime.clone();
    // What was written is compiled: it would only occupy memory for as long as the process serves.
    drop((model, loaded, snapshot));
    onehop_net::release_free_memory();
    serve(publisher, source, log, admin, runtime, predecessor)?;
    match waiting.join() {
        Ok(0) => Ok(()),
        _ => Err("a core ended by a panic".to_owned()),
    }
}

fn serve(
    publisher: Publisher,
    source: Source,
    log: Log,
    admin: Option<OwnedFd>,
    runtime: onehop_plan::model::Runtime,
    predecessor: Option<Inherited>,
) -> Result<(), String> {
    // With a predecessor, the path is free only once it has let go.
    if let Some(predecessor) = predecessor {
        predecessor
            .serving()
            .map_err(|error| format!("the running instance did not let go of its sockets: {error}"))?;
    }
    let agent = Agent { publisher, source, log, admin, takeover: runtime.takeover, drain: runtime.drain };
    let (_, log) = onehop_agent::run(agent, |admin| {
        if let Some(admin) = admin {
            println!("admin http://{admin}");
        }
        println!("ready");
        onehop_net::release_start_up_code();
    })
    .map_err(|error| format!("the agent cannot be started: {error}"))?;
    log.finish();
    Ok(())
}

fn admin_socket(address: Option<SocketAddr>, passed: Option<OwnedFd>) -> Result<Option<OwnedFd>, String> {
    let Some(address) = address else {
        return Ok(None);
    };
    if let Some(passed) = passed {
        return Ok(Some(passed));
    }
    let bound = onehop_net::bind(&address, true);
    bound.map(Some).map_err(|error| format!("the admin endpoint cannot listen on {address}: {error}"))
}

type Cores = Vec<std::thread::JoinHandle<()>>;

fn start_cores(
    model: &Model,
    registry: &Arc<Registry>,
    snapshot: &Arc<Snapshot>,
    parts: Vec<CorePart>,
    first_rung: Rung,
) -> Result<(Cores, Rung), String> {
    let cores = parts.len();
    let instance: Arc<str> = Arc::from(format!("onehop-{:012x}", seed(0) & 0xffff_ffff_ffff));
    let (started, hears) = channel::<Result<Rung, String>>();
    let mut threads = Vec::new();
    for (core, part) in parts.into_iter().enumerate() {
        let cpu = (!model.runtime.cpus.is_empty()).then(|| model.runtime.cpus[core % model.runtime.cpus.len()]);
        let start = Start {
            options: Options { cpu, first_rung, busy_poll: model.runtime.busy_poll },
            outfit: Outfit {
                core,
                cores,
                seed: seed(core as u64 + 1),
                instance: instance.clone(),
                meters: registry.core().clone(),
                access: part.access,
            },
            snapshot: snapshot.clone(),
            sockets: part.sockets,
            mailbox: part.mailbox,
        };
        let started = started.clone();
        let thread = std::thread::Builder::new().name(format!("onehop-{core}")).spawn(move || {
            let failed = started.clone();
            if let Err(error) = onehop_worker::run(start, move |rung| drop(started.send(Ok(rung)))) {
                // Heard at the start; later the core is gone and its heartbeat says so.
                let _ = failed.send(Err(format!("core {core} cannot run: {error}")));
            }
        });
        threads.push(thread.map_err(|error| format!("core {core}: no thread can be started: {error}"))?);
    }
    let mut worst = Rung::Deferred;
    for _ in 0..cores {
        let rung = hears.recv().map_err(|_| "a core ended before it served".to_owned())??;
        worst = worst.max(rung);
    }
    Ok((threads, worst))
}

/// Different in every process and core; not for secrets.
fn seed(salt: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((std::process::id(), salt))
}

/// The start-up lines: what runs on what, and where it listens.
fn announce(publisher: &Publisher, model: &Model, workers: usize, rung: Rung, registry: &Registry) {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned());
    registry.info("version", env!("CARGO_PKG_VERSION"));
    registry.info("rung", rung.name());
    registry.info("kernel", &kernel);
    registry.info("workers", &workers.to_string());
    println!(
        "onehop {} on {} ({} workers, kernel {kernel}, busy_poll {:?})",
        env!("CARGO_PKG_VERSION"),
        rung.name(),
        workers,
        model.runtime.busy_poll
    );
    for (name, address) in publisher.addresses() {
        let layer = model.listeners.iter().find(|listener| listener.name == name).map(|listener| listener.layer);
        let layer = match layer {
            Some(onehop_plan::Layer::Tcp) => "tcp",
            Some(onehop_plan::Layer::Sniff) => "sniff",
            _ => "http",
        };
        println!("listening {name} {layer} {address}");
    }
}
