//! TLS on a core: handshakes with clients and with endpoints, what they are counted as, and who the peers are.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use onehop_meter::names::Reason;
use onehop_meter::{TlsMeters, TlsReason};
use onehop_net::clock::{self, Nanos};
use onehop_net::tls::{Accept, Connect, HandshakeError, Info};
use onehop_net::{Size, Stream};
use onehop_plan::identity::{self, Peer};
use onehop_plan::tls::{ClientTls, reason};
use onehop_plan::{Address, Layer, Listener};
use onehop_wire::client_hello;
use onehop_wire::sniff::{Protocol, sniff};

use crate::connections::{Doing, Entry};
use crate::http1;
use crate::shard::Shard;

/// What the TLS handshake of a downstream connection gave.
pub struct Secure {
    /// Version, server name, protocol, certificates.
    pub info: Rc<Info>,
    /// Who the client is, if it has shown a certificate.
    pub peer: Option<Peer>,
}

/// Failed handshakes that a core writes to the log each second; the others are only counted.
const LOGGED_A_SECOND: u32 = 10;

thread_local! {
    static LOGGED: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
}

fn log(line: impl FnOnce() -> String) {
    let second = clock::now() / 1_000_000_000;
    let (at, count) = LOGGED.get();
    let count = if at == second { count + 1 } else { 1 };
    LOGGED.set((second, count));
    if count <= LOGGED_A_SECOND {
        eprintln!("onehop: {}", line());
    }
}

fn classify(error: &HandshakeError) -> TlsReason {
    match error {
        HandshakeError::Refused(error) => reason(error),
        HandshakeError::NotTls => TlsReason::NotTls,
        HandshakeError::TimedOut => TlsReason::Timeout,
        HandshakeError::Left | HandshakeError::Io(_) => TlsReason::Left,
    }
}

fn count(meters: &TlsMeters, info: &Info, peer: Option<&Peer>, begun: Nanos) {
    let kind = if info.resumed { &meters.resumed } else { &meters.full };
    kind.add(1);
    meters.time_ns.add(clock::now().saturating_sub(begun));
    if let Some(id) = peer.and_then(|peer| peer.id.as_ref()) {
        meters.peers.add(id.as_str());
    }
}

/// Shakes hands with a client. `Ok(None)`: it is a plain connection, and that is allowed. `Err`: the connection is over.
pub async fn accept(
    shard: &Shard,
    stream: &mut Stream,
    entry: &Entry,
    listener: &Arc<Listener>,
) -> Result<Option<Rc<Secure>>, ()> {
    let Some(tls) = &listener.tls else { return Ok(None) };
    entry.doing.set(Doing::Reading);
    let begun = clock::now();
    let due = clock::after(begun, tls.handshake_timeout);
    if tls.permissive && !begins_tls(stream, listener, due).await {
        return Ok(None);
    }
    let meters = &listener.meters.core(shard.outfit.core).tls;
    let handshake = match tls.config.clone() {
        Some(config) => {
            stream.accept_tls(&Accept { config }, due).await.map_err(|error| (classify(&error), error.to_string()))
        }
        None => Err((TlsReason::NoIdentity, "this process has no identity yet".to_owned())),
    };
    let info = stream.tls().cloned();
    let handshake = handshake.and_then(|()| match &info {
        Some(info) if info.resumed => tls.again(&info.peer).map_err(|error| (reason(&error), error.to_string())),
        _ => Ok(()),
    });
    match (handshake, info) {
        (Ok(()), Some(info)) => {
            let peer = info.peer.first().and_then(|leaf| identity::peer(leaf));
            count(meters, &info, peer.as_ref(), begun);
            Ok(Some(Rc::new(Secure { info, peer })))
        }
        (Err((reason, text)), _) => {
            meters.failures[reason as usize].add(1);
            let peer = entry.peer.get();
            log(|| format!("listener \"{}\": TLS with {peer} failed ({}): {text}", listener.name, reason.as_str()));
            if reason == TlsReason::NotTls {
                answer_plain(stream, listener).await;
            }
            Err(())
        }
        (Ok(()), None) => Err(()),
    }
}

/// Whether the first bytes begin a handshake. A client that waits for the server to speak first is plain.
async fn begins_tls(stream: &mut Stream, listener: &Listener, due: Nanos) -> bool {
    use onehop_net::stream::{Either, first};
    let patience = listener.detect_timeout.map_or(due, |patience| clock::after(clock::now(), patience).min(due));
    while stream.buffered().len() < 2 {
        if !client_hello::may_begin(stream.buffered()) {
            return false;
        }
        let waited = first(stream.fill(Size::Small), onehop_net::deadline::sleep_until(patience)).await;
        if !matches!(waited, Either::Left(Ok(1..))) {
            return false;
        }
    }
    client_hello::may_begin(stream.buffered())
}

/// Says to a client that speaks plain HTTP that it is at the wrong door.
async fn answer_plain(stream: &mut Stream, listener: &Listener) {
    const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 43\r\n\
        Connection: close\r\nProxy-Status: onehop; error=http_request_error; details=\"plain-http-to-tls\"\r\n\r\n\
        This port speaks TLS: use https:// instead\n";
    if listener.layer == Layer::Tcp || sniff(stream.buffered()) != Some(Protocol::Http1) {
        return;
    }
    stream.deadline().arm(clock::now() + 1_000_000_000, onehop_net::deadline::Ends::Both);
    if stream.write_all(ANSWER).await.is_ok() {
        stream.consume(stream.buffered().len());
        http1::reply::linger(stream).await;
    }
}

/// Shakes hands with an endpoint; `bytes` are to be carried, whatever HTTP version the cluster speaks.
///
/// # Errors
/// The fault's reason; no byte of a request was sent.
pub async fn connect(
    stream: &mut Stream,
    tls: &ClientTls,
    address: &Address,
    cluster: &str,
    meters: &TlsMeters,
    bytes: bool,
    due: Nanos,
) -> Result<(), Reason> {
    let begun = clock::now();
    let config = if bytes { tls.bytes.clone() } else { tls.config.clone() };
    let handshake = match config {
        Some(config) => {
            let connect = Connect { config, name: tls.name(address) };
            stream.connect_tls(&connect, due).await.map_err(|error| (classify(&error), error.to_string()))
        }
        None => Err((TlsReason::NoIdentity, "this process has no identity yet".to_owned())),
    };
    let handshake = handshake.and_then(|()| match stream.tls() {
        Some(info) if info.resumed => tls.again(&info.peer).map_err(|error| (reason(&error), error.to_string())),
        _ => Ok(()),
    });
    match handshake {
        Ok(()) => {
            if let Some(info) = stream.tls() {
                let peer = info.peer.first().and_then(|leaf| identity::peer(leaf));
                count(meters, info, peer.as_ref(), begun);
            }
            Ok(())
        }
        Err((reason, text)) => {
            meters.failures[reason as usize].add(1);
            log(|| format!("cluster \"{cluster}\": TLS with {address} failed ({}): {text}", reason.as_str()));
            Err(if reason == TlsReason::Timeout { Reason::ConnectTimeout } else { Reason::TlsFailed })
        }
    }
}

/// Whether a request for this host came on a connection that was made for another certificate (RFC 9110 15.5.20).
pub fn is_misdirected(listener: &Listener, secure: Option<&Secure>, authority: &[u8]) -> bool {
    let (Some(tls), Some(secure)) = (&listener.tls, secure) else {
        return false;
    };
    let host = match authority.iter().rposition(|byte| *byte == b':') {
        Some(at) if !authority[at..].contains(&b']') => &authority[..at],
        _ => authority,
    };
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    !tls.serves(secure.info.server_name.as_deref(), &host)
}

/// Whether a connection has lived so long that its peer is to show itself anew.
pub fn is_aged(listener: &Listener, entry: &Entry, now: Nanos) -> bool {
    let age = listener.tls.as_ref().and_then(|tls| tls.max_age);
    age.is_some_and(|age| now > clock::after(entry.since, age))
}
