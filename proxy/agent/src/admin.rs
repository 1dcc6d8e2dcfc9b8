//! The admin endpoint: what runs, how well, and why not. On loopback by default; it changes nothing but an
//! endpoint's drained state. Scrapes never wake a core.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use onehop_plan::order::{ConnectionInfo, Order};
use onehop_plan::route::query_value;
use onehop_plan::{DRAINED, Snapshot};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::identity;
use crate::run::{Shared, lock};
use crate::states;

/// Connections served at once.
const MAX_CONNECTIONS: usize = 64;
/// A core that has not beaten for this long is stuck.
const STUCK: Duration = Duration::from_secs(5);
/// A core has this long to list its connections.
const ANSWER: Duration = Duration::from_millis(500);
/// Connections listed per core.
const LISTED: usize = 1000;

/// The running endpoint.
pub struct Served {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its socket, kept for a successor.
    pub socket: OwnedFd,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    /// Takes no more requests.
    pub fn stop(&self) {
        self.task.abort();
    }
}

/// Serves on a listening socket.
///
/// # Errors
/// When the socket cannot be registered.
pub fn start(socket: OwnedFd, shared: Shared) -> std::io::Result<Served> {
    let listener = std::net::TcpListener::from(socket.try_clone()?);
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let task = tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let shared = shared.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, shared.clone()));
                let mut server = hyper::server::conn::http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
                // A client that breaks off is its own affair.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
                drop(place);
            });
        }
    });
    Ok(Served { address, socket, task })
}

type Reply = Response<Full<Bytes>>;

fn reply(status: StatusCode, kind: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
    reply
}

fn json_reply(value: &Value) -> Reply {
    reply(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

async fn answer(request: Request<Incoming>, shared: Shared) -> Result<Reply, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match (request.method(), path.as_str()) {
        (&Method::GET | &Method::HEAD, "/live") => health(stuck(&shared)),
        (&Method::GET | &Method::HEAD, "/ready") => ready(&shared),
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let registry = lock(&shared).publisher.registry().clone();
            let mut text = registry.scrape();
            let status = lock(&shared);
            text.extend(status.publisher.snapshot().map(|snapshot| states::text(snapshot, &status.health)));
            drop(status);
            reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
        }
        (&Method::GET | &Method::HEAD, "/config") => json_reply(&config(&shared)),
        (&Method::GET | &Method::HEAD, "/clusters") => json_reply(&clusters(&shared)),
        (&Method::GET | &Method::HEAD, "/connections") => {
            let listed = tokio::task::spawn_blocking(move || connections(&shared)).await;
            json_reply(&listed.unwrap_or(Value::Null))
        }
        (&Method::POST, "/clusters/drain" | "/clusters/restore") => {
            drain_endpoint(&shared, request.uri().query().unwrap_or(""), path.ends_with("drain"))
        }
        (_, "/clusters/drain" | "/clusters/restore") => {
            reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", format!("{path} changes something: ask by POST\n"))
        }
        (&Method::GET | &Method::HEAD, "/") => reply(StatusCode::OK, "text/plain", INDEX.to_owned()),
        (&Method::GET | &Method::HEAD, _) => reply(StatusCode::NOT_FOUND, "text/plain", INDEX.to_owned()),
        _ => reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", INDEX.to_owned()),
    })
}

const INDEX: &str = "/live         every core beats\n/ready        every core serves and nothing drains\n/metrics      Prometheus text\n/config       what is in force, and the last error\n/clusters     endpoints, their state and load\n/connections  downstream connections\nPOST /clusters/drain?cluster=NAME&endpoint=ADDRESS, /clusters/restore likewise\n";

fn health(trouble: Option<String>) -> Reply {
    match trouble {
        None => reply(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        Some(why) => reply(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{why}\n")),
    }
}

fn ready(shared: &Shared) -> Reply {
    let own = lock(shared).publisher.snapshot().and_then(|snapshot| snapshot.identity.clone());
    match (unready(shared), identity::warning(own.as_ref())) {
        (None, Some(warning)) => reply(StatusCode::OK, "text/plain", format!("ok\n{warning}\n")),
        (trouble, _) => health(trouble),
    }
}

fn stuck(shared: &Shared) -> Option<String> {
    let registry = lock(shared).publisher.registry().clone();
    let now = onehop_net::clock::now();
    let late = |beat: i64| now.saturating_sub(u64::try_from(beat).unwrap_or(0)) > STUCK.as_nanos() as u64;
    let stuck = registry.core().all().position(|core| late(core.heartbeat_ns.get()))?;
    Some(format!("core {stuck} has not beaten for more than {} s", STUCK.as_secs()))
}

fn unready(shared: &Shared) -> Option<String> {
    if lock(shared).draining {
        return Some("draining".to_owned());
    }
    let registry = lock(shared).publisher.registry().clone();
    {
        let status = lock(shared);
        let wanted = status.publisher.model().is_some_and(|model| model.identity.is_some());
        let own = status.publisher.snapshot().and_then(|snapshot| snapshot.identity.as_ref());
        if let Some(trouble) = identity::trouble(wanted, own) {
            return Some(trouble);
        }
    }
    let idle = registry.core().all().position(|core| core.snapshot_generation.get() == 0);
    idle.map(|core| format!("core {core} does not serve yet")).or_else(|| stuck(shared))
}

fn config(shared: &Shared) -> Value {
    let status = lock(shared);
    let snapshot: Option<&Arc<Snapshot>> = status.publisher.snapshot();
    let cores: Vec<i64> = status.publisher.registry().core().all().map(|core| core.snapshot_generation.get()).collect();
    json!({
        "source": status.source,
        "generation": snapshot.map(|snapshot| snapshot.generation),
        "in_force_on_cores": cores,
        "reloads": status.reloads,
        "last_error": status.last_error,
        "listeners": status.publisher.addresses().map(|(name, address)| json!({ "name": name, "address": address.to_string() })).collect::<Vec<_>>(),
        "clusters": snapshot.map(|snapshot| snapshot.clusters.iter().map(|cluster| cluster.name.to_string()).collect::<Vec<_>>()),
    })
}

fn clusters(shared: &Shared) -> Value {
    let health = lock(shared);
    let Some(snapshot) = health.publisher.snapshot().cloned() else {
        return json!([]);
    };
    let clusters = snapshot.clusters.iter().map(|cluster| {
        let endpoints: Vec<Value> = cluster
            .endpoints
            .endpoints
            .iter()
            .map(|endpoint| {
                let (state, reason) = states::state(endpoint);
                let failure = || health.health.last_failure(&cluster.name, &endpoint.address).map(ToString::to_string);
                let reason = reason.map(str::to_owned).or_else(failure);
                json!({
                    "address": endpoint.address.to_string(),
                    "weight": endpoint.weight,
                    "state": state,
                    "reason": reason,
                    "ejections": endpoint.vitals.ejections(),
                    "zone": endpoint.placement.zone.as_deref(),
                    "priority": endpoint.placement.priority,
                    "labels": endpoint.placement.labels,
                    "requests": endpoint.meters.sum(|core| core.requests.get()),
                    "failures": endpoint.meters.sum(|core| core.failures.get()),
                    "connect_failures": endpoint.meters.sum(|core| core.connect_failures.get()),
                })
            })
            .collect();
        json!({
            "name": cluster.name.to_string(),
            "names": cluster.names.iter().map(|(name, port, _)| format!("{name}:{port}")).collect::<Vec<_>>(),
            "active": cluster.meters.sum_gauge(|core| core.active.get()),
            "connections": cluster.meters.sum_gauge(|core| core.connections.get()),
            "endpoints": endpoints,
        })
    });
    clusters.collect()
}

fn connections(shared: &Shared) -> Value {
    let cores = lock(shared).publisher.cores().to_vec();
    let (reply, answers) = sync_channel(cores.len().max(1));
    for core in &cores {
        // A full mailbox shows below as a core that does not answer.
        let _ = core.send(Order::Connections { reply: reply.clone(), limit: LISTED });
    }
    drop(reply);
    let until = Instant::now() + ANSWER;
    let mut listed: Vec<ConnectionInfo> = Vec::new();
    let (mut answered, mut count) = (0, 0);
    while answered < cores.len() {
        match answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(listing) => {
                count += listing.count;
                listed.extend(listing.listed);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
        answered += 1;
    }
    let entries: Vec<Value> = listed
        .iter()
        .map(|entry| {
            json!({
                "core": entry.core, "id": entry.id, "listener": &*entry.listener, "peer": entry.peer,
                "doing": entry.doing, "requests": entry.requests, "age_ms": entry.age_ms,
            })
        })
        .collect();
    json!({ "cores": cores.len(), "stuck_cores": cores.len() - answered, "count": count, "connections": entries })
}

fn drain_endpoint(shared: &Shared, query: &str, drain: bool) -> Reply {
    let value = |name: &str| {
        let found = query_value(query.as_bytes(), name.as_bytes()).unwrap_or_default();
        String::from_utf8_lossy(&found).into_owned()
    };
    let (cluster, endpoint) = (value("cluster"), value("endpoint"));
    let Some(snapshot) = lock(shared).publisher.snapshot().cloned() else {
        return reply(StatusCode::NOT_FOUND, "text/plain", String::new());
    };
    let found = snapshot
        .clusters
        .iter()
        .filter(|known| *known.name == cluster)
        .flat_map(|known| known.endpoints.endpoints.iter())
        .find(|known| known.address.to_string() == endpoint);
    match found {
        Some(found) => {
            if drain {
                found.vitals.health.fetch_or(DRAINED, Ordering::Relaxed);
            } else {
                found.vitals.restore(onehop_net::clock::now());
            }
            reply(StatusCode::OK, "text/plain", "ok\n".to_owned())
        }
        None => reply(
            StatusCode::NOT_FOUND,
            "text/plain",
            format!("there is no endpoint \"{endpoint}\" in a cluster \"{cluster}\"\n"),
        ),
    }
}
