//! A TCP connection: choose an endpoint as HTTP does, connect, relay both ways with half-close.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use onehop_meter::ledger::{Ledger, State};
use onehop_meter::names::Reason;
use onehop_meter::record::AccessRecord;
use onehop_net::deadline::Ends;
use onehop_net::relay::End;
use onehop_net::{Peer, Size, Stream, clock};
use onehop_plan::model::HashOn;
use onehop_plan::{Listener, ProxyProtocol};
use onehop_wire::client_hello;
use onehop_wire::proxy_protocol::{self, Addresses};

use crate::connections::{Doing, Entry};
use crate::exchange::choose;
use crate::http1::forward::Origin;
use crate::shard::Shard;
use crate::upstream::{Sought, Wanted, lease};

/// Serves a TCP connection until it ends.
pub async fn serve(shard: &Rc<Shard>, stream: &mut Stream, entry: &Entry, listener: &Arc<Listener>, origin: &Origin) {
    entry.doing.set(Doing::Tunnel);
    let mut ledger = Ledger::new(clock::now());
    let mut record = Record { bytes_in: 0, bytes_out: 0, reason: None, cluster: None, endpoint: None };
    run(shard, stream, listener, origin, &mut ledger, &mut record).await;
    let meters = listener.meters.core(shard.outfit.core);
    meters.bytes_in.add(record.bytes_in);
    meters.bytes_out.add(record.bytes_out);
    if let Some(reason) = record.reason {
        meters.faults[reason as usize].add(1);
        // What failed must not look like an orderly end.
        stream.reset_on_close();
    }
    if shard.logs_access() {
        crate::access_log::push(shard, record.finish(listener, origin, &ledger));
    }
}

struct Record {
    bytes_in: u64,
    bytes_out: u64,
    reason: Option<Reason>,
    cluster: Option<Arc<str>>,
    endpoint: Option<String>,
}

impl Record {
    fn finish(self, listener: &Listener, origin: &Origin, ledger: &Ledger) -> AccessRecord {
        AccessRecord {
            time: SystemTime::now(),
            listener: listener.name.clone(),
            route: None,
            cluster: self.cluster,
            endpoint: self.endpoint,
            peer: Some(origin.peer.ip()),
            method: String::new(),
            host: String::new(),
            path: String::new(),
            status: 0,
            reason: self.reason.map(Reason::as_str),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            account: ledger.finish(clock::now()),
            attempts: 1,
            retry_denied: None,
            injected: None,
            request_id: String::new(),
        }
    }
}

/// Of what a choice can be made by, a TCP connection has the client's address, and over TLS its identity.
fn hash(origin: &Origin, on: &HashOn) -> Option<u64> {
    match on {
        HashOn::Source => Some(crate::exchange::routing::hash_ip(origin.peer.ip())),
        HashOn::Identity => {
            let peer = origin.secure.as_deref()?.peer.as_ref()?;
            peer.id.as_ref().map(|id| onehop_plan::balance::hash_of(id.as_str().as_bytes()))
        }
        HashOn::Header(_) | HashOn::Cookie(_) | HashOn::Query(_) | HashOn::Path => None,
    }
}

async fn run(
    shard: &Rc<Shard>,
    stream: &mut Stream,
    listener: &Listener,
    origin: &Origin,
    ledger: &mut Ledger,
    record: &mut Record,
) {
    let Some(policy) = &listener.tcp else {
        record.reason = Some(Reason::UnknownProtocol);
        return;
    };
    let name = if policy.names.is_empty() { None } else { server_name(stream, listener, origin).await };
    let Some((reference, cluster)) = choose(shard, policy.choose(name.as_deref())) else {
        record.reason = Some(Reason::NoEndpoint);
        return;
    };
    if !crate::access::connection(shard, listener, origin) {
        record.reason = Some(Reason::AccessDenied);
        return;
    }
    record.cluster = Some(reference.name.clone());
    let config = cluster.cluster.borrow().clone();
    let meters = config.meters.core(shard.outfit.core);
    meters.requests.add(1);
    if cluster.requests_full() {
        record.reason = Some(Reason::Overflow);
        return;
    }
    ledger.enter(State::UpstreamWait, clock::now());
    let hash = config.policy.hash_on.as_ref().and_then(|on| hash(origin, on));
    let mut avoid = Vec::new();
    let mut attempt = 0;
    let connected = loop {
        let sought =
            Sought { hash, subset: reference.subset.as_ref(), ..Sought::to(origin.destination, origin.peer.ip()) };
        match lease(&cluster, Wanted::Bytes, sought, &mut avoid, clock::now()).await {
            Err(fault) if fault.retryable && attempt < 2 => attempt += 1,
            other => break other,
        }
    };
    let mut lease = match connected {
        Ok(lease) => lease,
        Err(fault) => {
            record.reason = Some(fault.reason);
            return;
        }
    };
    let endpoint = lease.endpoint().endpoint.borrow().clone();
    endpoint.meters.core(shard.outfit.core).requests.add(1);
    record.endpoint = Some(endpoint.address.to_string());
    meters.active.add(1);
    cluster.active.set(cluster.active.get() + 1);
    if let Some(upstream) = lease.conn.stream()
        && announce(upstream, stream, origin, config.proxy_protocol).await.is_ok()
    {
        let passed = onehop_net::relay::relay(stream, upstream, policy.idle_timeout).await;
        (record.bytes_in, record.bytes_out) = (passed.up, passed.down);
        record.reason = match passed.end {
            End::Closed => None,
            End::Idle => Some(Reason::IdleTimeout),
            End::DownstreamReset => Some(Reason::ClientLeft),
            End::UpstreamReset => Some(Reason::UpstreamReset),
        };
    } else {
        record.reason = Some(Reason::UpstreamReset);
    }
    meters.active.sub(1);
    cluster.active.set(cluster.active.get().saturating_sub(1));
}

/// The server name that the client asks for: of the handshake that was made here, or of one that only passes through.
async fn server_name(stream: &mut Stream, listener: &Listener, origin: &Origin) -> Option<String> {
    if let Some(secure) = &origin.secure {
        return secure.info.server_name.as_deref().map(str::to_owned);
    }
    stream.deadline().arm(clock::after(clock::now(), listener.http.header_timeout), Ends::Read);
    let hello = loop {
        match client_hello::parse(stream.buffered()) {
            Ok(Some(hello)) => break Some(hello),
            Ok(None) if matches!(stream.fill(Size::Medium).await, Ok(1..)) => {}
            _ => break None,
        }
    };
    stream.deadline().disarm();
    hello.and_then(|hello| hello.server_name)
}

/// Tells the upstream whom it is talking to, where the cluster wants that.
pub async fn announce(
    upstream: &Stream,
    client: &Stream,
    origin: &Origin,
    version: Option<ProxyProtocol>,
) -> std::io::Result<()> {
    let Some(version) = version else {
        return Ok(());
    };
    let (local, _) = client.names();
    let addresses = match (origin.peer, local) {
        (Peer::Tcp(source), Some(destination)) => Some(Addresses { source, destination }),
        _ => None,
    };
    let mut out = Vec::with_capacity(128);
    match version {
        ProxyProtocol::V1 => proxy_protocol::write_v1(&mut out, addresses.as_ref()),
        ProxyProtocol::V2 => proxy_protocol::write_v2(&mut out, addresses.as_ref()),
    }
    upstream.write_all(&out).await
}
