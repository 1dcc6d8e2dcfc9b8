//! The life of an HTTP/1 connection. Between requests the task holds no more than a small posted read.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use onehop_meter::ledger::{Ledger, Step as Mark};
use onehop_meter::names::Reason;
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::Ends;
use onehop_net::{Size, Stream};
use onehop_plan::Listener;
use onehop_wire::http1::{HeadScanner, Limits, Method, RequestHead, gist};

use super::forward::{Identity, Origin};
use super::reply;
use crate::access_log;
use crate::connections::{Doing, Entry, Listed};
use crate::exchange::deadline::Deadline;
use crate::exchange::manner::Manner;
use crate::exchange::{self, Leg, Outcome, Request};
use crate::fault::{Fault, Side, Step};
use crate::http2::{grpc, tunnel};
use crate::shard::Shard;
use crate::upstream::{Conn, Lease};

/// Serves a connection until it ends; true at once if it begins with the preface of HTTP/2, which is left to be read.
///
/// A block instead of an `async fn`, which would keep each argument twice for as long as the connection idles.
pub fn serve<'a>(
    shard: &'a Rc<Shard>,
    stream: &'a mut Stream,
    entry: &'a Listed<'_>,
    mut listener: Arc<Listener>,
    origin: &'a Origin,
) -> impl Future<Output = bool> {
    let mut generation = shard.generation();
    async move {
        while let Waited::Bytes = wait_for_bytes(shard, stream, entry, &listener, clock::now(), false).await {
            if entry.requests.get() == 0 && listener.http.http2.enabled && begins_http2(stream).await {
                return true;
            }
            // One box per busy period keeps the idle task small.
            shard.connections.begin_busy(entry);
            let rests = Box::pin(busy(shard, stream, entry, &mut listener, origin, &mut generation)).await;
            entry.rest.unboxed();
            if !rests {
                return false;
            }
        }
        false
    }
}

/// Whether the client begins with the preface of HTTP/2 (RFC 9113 3.3: prior knowledge): no HTTP/1 method begins alike.
async fn begins_http2(stream: &mut Stream) -> bool {
    const BEGINNING: &[u8] = b"PRI";
    loop {
        let buffered = stream.buffered();
        let looked_at = buffered.len().min(BEGINNING.len());
        if buffered[..looked_at] != BEGINNING[..looked_at] {
            return false;
        }
        if looked_at == BEGINNING.len() {
            return true;
        }
        if !matches!(stream.fill(Size::Small).await, Ok(1..)) {
            return false;
        }
    }
}

/// Serves requests until the connection is asked to rest (true) or is over (false).
async fn busy(
    shard: &Rc<Shard>,
    stream: &mut Stream,
    entry: &Entry,
    listener: &mut Arc<Listener>,
    origin: &Origin,
    generation: &mut u64,
) -> bool {
    loop {
        if *generation != shard.generation() {
            *generation = shard.generation();
            // A listener that is gone serves what is under way and then closes.
            match shard.listener(&entry.listener) {
                Some(current) => *listener = current,
                None => return false,
            }
        }
        let begun = clock::now();
        let mut ledger = Ledger::new(begun);
        let served = entry.requests.get() + 1;
        entry.requests.set(served);
        if !one(shard, stream, entry, listener, origin, served, &mut ledger).await {
            return false;
        }
        match wait_for_bytes(shard, stream, entry, listener, ledger.latest(), true).await {
            Waited::Bytes => {}
            Waited::Rests => return true,
            Waited::Over => return false,
        }
    }
}

/// What the wait for a request came to.
enum Waited {
    /// Its first bytes are there.
    Bytes,
    /// Others want to be busy: the connection makes itself small.
    Rests,
    /// The connection is over.
    Over,
}

/// Waits for the first bytes of a request; `may_rest`: the wait may end without the connection.
async fn wait_for_bytes(
    shard: &Shard,
    stream: &mut Stream,
    entry: &Entry,
    listener: &Listener,
    now: Nanos,
    may_rest: bool,
) -> Waited {
    if !stream.buffered().is_empty() {
        return Waited::Bytes;
    }
    let served = entry.requests.get();
    entry.doing.set(Doing::Idle);
    stream.release();
    // A new connection that sends nothing is as slow as one that sends half a head.
    let wait = if served == 0 { listener.http.header_timeout } else { listener.http.idle_timeout };
    stream.deadline().arm(clock::after(now, wait), Ends::Both);
    let filled = poll_fn(|cx| match stream.poll_fill(cx, Size::Small) {
        Poll::Ready(filled) => Poll::Ready(Some(filled)),
        Poll::Pending if may_rest && entry.rest.poll(cx) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await;
    match filled {
        None => Waited::Rests,
        Some(Ok(1..)) => Waited::Bytes,
        Some(_) => {
            if stream.timed_out() && served == 0 {
                count_fault(shard, listener, Reason::HeaderTimeout);
            }
            Waited::Over
        }
    }
}

/// One request; says whether the connection goes on.
async fn one(
    shard: &Rc<Shard>,
    stream: &mut Stream,
    entry: &Entry,
    listener: &Arc<Listener>,
    origin: &Origin,
    served: u64,
    ledger: &mut Ledger,
) -> bool {
    let begun = ledger.latest();
    entry.doing.set(Doing::Reading);
    let mut bytes = shard.take_head();
    let mut head = shard.take_request();
    let read = read_head(stream, listener, begun, &mut head, &mut bytes).await;
    stream.deadline().disarm();
    // Most heads were whole when their first byte was seen.
    ledger.mark(Mark::HeadComplete, if matches!(read, Ok(Read::AtOnce)) { begun } else { clock::now() });
    let keep = match read {
        Ok(Read::AtOnce | Read::Waited) => {
            exchange_one(shard, stream, entry, listener, origin, served, &mut head, &bytes, ledger).await
        }
        Ok(Read::Nothing) => false,
        Err(fault) => {
            let ended = Ended { shard, entry, listener, origin, request: None, refused: &bytes };
            Box::pin(ended.conclude(stream, &mut Outcome::rejected(fault), ledger)).await
        }
    };
    shard.give_head(bytes);
    shard.give_request(head);
    keep
}

/// How a head came.
enum Read {
    /// It was all there.
    AtOnce,
    /// It was waited for.
    Waited,
    /// It did not: the client ended between two requests.
    Nothing,
}

/// Reads a head into `bytes` and parses it.
async fn read_head(
    stream: &mut Stream,
    listener: &Listener,
    begun: Nanos,
    head: &mut RequestHead,
    bytes: &mut Vec<u8>,
) -> Result<Read, Fault> {
    let limits = super::limits(&listener.http);
    let mut scanner = HeadScanner::default();
    let mut armed = false;
    let end = loop {
        if let Some(end) = scanner.find_end(stream.buffered()) {
            break end;
        }
        check_growing(stream.buffered(), &limits)?;
        if !armed {
            armed = true;
            stream.deadline().arm(clock::after(begun, listener.http.header_timeout), Ends::Read);
        }
        match stream.fill(Size::Medium).await {
            Ok(1..) => {}
            _ if stream.timed_out() => {
                return Err(Fault::new(Side::Downstream, Step::Head, Reason::HeaderTimeout));
            }
            // Nothing but empty lines: there was no request.
            Ok(_) if stream.buffered().iter().all(|byte| matches!(byte, b'\r' | b'\n')) => {
                return Ok(Read::Nothing);
            }
            _ => return Err(Fault::new(Side::Downstream, Step::Head, Reason::ClientLeft)),
        }
    };
    bytes.extend_from_slice(&stream.buffered()[..end]);
    stream.consume(end);
    head.parse(bytes, &limits).map_err(Fault::rejected)?;
    Ok(if armed { Read::Waited } else { Read::AtOnce })
}

/// A head that is not complete yet may already be too long.
fn check_growing(buffered: &[u8], limits: &Limits) -> Result<(), Fault> {
    use onehop_wire::http1::Reject;
    // A TLS handshake at a plain port: said at once, not when the head is overdue.
    if let [0x16, 3, ..] = buffered {
        return Err(Fault::rejected(Reject::BadRequestLine));
    }
    if buffered.len() > limits.head_bytes as usize {
        return Err(Fault::rejected(Reject::HeadTooLarge));
    }
    let line = limits.request_line as usize;
    if buffered.len() > line && !buffered[..line + 2].contains(&b'\n') {
        return Err(Fault::rejected(Reject::LineTooLong));
    }
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "each is a different part of one exchange")]
async fn exchange_one(
    shard: &Rc<Shard>,
    stream: &mut Stream,
    entry: &Entry,
    listener: &Arc<Listener>,
    origin: &Origin,
    served: u64,
    head: &mut RequestHead,
    bytes: &[u8],
    ledger: &mut Ledger,
) -> bool {
    entry.doing.set(Doing::Exchange);
    if served >= listener.http.max_requests || crate::secure::is_aged(listener, entry, ledger.latest()) {
        head.keep_alive = false;
    }
    #[cfg(debug_assertions)]
    panic_on_request(head, bytes);
    let identity = Identity::new(|| shard.random());
    let deadline = Deadline::of_http1(head, bytes, listener, ledger.latest());
    let request = Request { head, bytes, origin, identity: &identity, listener, deadline };
    listener.meters.core(shard.outfit.core).requests.add(1);
    let mut outcome = Outcome::default();
    let mut leg = Leg::Http1(stream);
    if deadline.is_none_or(|deadline| !deadline.is_call()) {
        exchange::run(shard, &request, &mut leg, ledger, &mut outcome).await;
    } else {
        Box::pin(exchange::run_bounded(shard, &request, &mut leg, ledger, &mut outcome)).await;
    }
    let ended = Ended { shard, entry, listener, origin, request: Some(&request), refused: b"" };
    if outcome.keep && outcome.fault.is_none() && !outcome.tunnels {
        ended.book(&outcome, ledger);
        return true;
    }
    // Boxed: the common end has nothing to wait for, and so needs no room for it.
    Box::pin(ended.conclude(stream, &mut outcome, ledger)).await
}

/// The end-to-end tests break a connection's task on purpose: builds for debugging panic at the path in
/// `ONEHOP_TEST_PANIC`.
#[cfg(debug_assertions)]
fn panic_on_request(head: &RequestHead, bytes: &[u8]) {
    static PATH: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let path = PATH.get_or_init(|| std::env::var("ONEHOP_TEST_PANIC").ok());
    if let Some(path) = path {
        assert!(head.path.of(bytes) != path.as_bytes(), "asked to by {path}");
    }
}

/// An exchange that has ended, on its connection.
struct Ended<'a> {
    shard: &'a Rc<Shard>,
    entry: &'a Entry,
    listener: &'a Arc<Listener>,
    origin: &'a Origin,
    request: Option<&'a Request<'a>>,
    /// The head that was refused, if it was whole; else the stream still has it.
    refused: &'a [u8],
}

impl Ended<'_> {
    fn book(&self, outcome: &Outcome, ledger: &Ledger) {
        access_log::conclude(self.shard, self.listener, self.origin, self.request, outcome, ledger);
    }

    /// Answers what failed, tunnels what was upgraded, and keeps the books. Says whether the connection goes on.
    async fn conclude(&self, stream: &mut Stream, outcome: &mut Outcome, ledger: &mut Ledger) -> bool {
        let mut keep = outcome.keep;
        if let Some(fault) = outcome.fault {
            let manner = self.manner(stream, outcome);
            keep = answer(stream, self.listener, self.request, manner, &fault, outcome).await;
            ledger.mark(Mark::ResponseWritten, clock::now());
        }
        if let Some(mut opened) = outcome.tunnel.take() {
            self.entry.doing.set(Doing::Tunnel);
            self.tunnel(stream, &mut opened.lease, outcome, ledger).await;
            keep = false;
        }
        self.book(outcome, ledger);
        // Without a failure: the client may still be sending what the upstream did not want.
        let lingers = if outcome.fault.is_some() { !outcome.started } else { !outcome.tunnels };
        if !keep && lingers {
            self.entry.doing.set(Doing::Closing);
            reply::linger(stream).await;
        }
        keep
    }

    /// How the answer to what failed has to look.
    fn manner(&self, stream: &Stream, outcome: &Outcome) -> Manner {
        let Ended { shard, listener, origin, .. } = *self;
        if let Some(request) = self.request {
            return Manner::of(request, outcome.route.as_deref());
        }
        let refused = if self.refused.is_empty() { stream.buffered() } else { self.refused };
        let (mut head, mut bytes) = (RequestHead::default(), Vec::new());
        // That it is too large is about to be said.
        let limits = Limits { head_bytes: u32::MAX, request_line: u32::MAX, ..Limits::default() };
        if !gist(refused, &mut bytes) || head.parse(&bytes, &limits).is_err() {
            return Manner::default();
        }
        let identity = Identity::new(|| shard.random());
        let gist = Request { head: &head, bytes: &bytes, origin, identity: &identity, listener, deadline: None };
        Manner::of_gist(shard, &gist)
    }

    async fn tunnel(&self, stream: &mut Stream, lease: &mut Lease, outcome: &mut Outcome, ledger: &mut Ledger) {
        use onehop_meter::ledger::State;
        let idle = self.listener.http.tunnel_idle_timeout;
        ledger.enter(State::UpstreamWait, clock::now());
        let (up, down) = match &mut lease.conn {
            Conn::Http1(pooled) => {
                let passed = onehop_net::relay::relay(stream, &mut pooled.stream, idle).await;
                (passed.up, passed.down)
            }
            Conn::Http2(riding) => {
                let channel = riding.channel();
                let limits = super::limits(&self.listener.http);
                Box::pin(tunnel::relay(&mut Leg::Http1(stream), &mut Leg::Http2(channel), limits, idle)).await
            }
        };
        outcome.bytes_in += up;
        outcome.bytes_out += down;
        ledger.enter(State::Hop, clock::now());
    }
}

/// Sends the answer to a failed request, or cuts a response that cannot be completed.
async fn answer(
    stream: &mut Stream,
    listener: &Listener,
    request: Option<&Request<'_>>,
    Manner { call, cors }: Manner,
    fault: &Fault,
    outcome: &mut Outcome,
) -> bool {
    if outcome.started {
        // Part of it is out: only a reset tells the client that it is not whole.
        stream.reset_on_close();
        return false;
    }
    if fault.reason == Reason::ClientLeft {
        return false;
    }
    let status = fault.status(listener.http.connect_failure_502);
    let method = request.map_or_else(Default::default, |request| request.head.method);
    let version = request.map_or(Default::default(), |request| request.head.version);
    // Only a request without a body, or one that was read, leaves the connection at a request's beginning.
    let clean = request
        .is_some_and(|request| request.head.keep_alive && request.head.body == onehop_wire::http1::BodyLength::None);
    let keep = clean && fault.side != Side::Downstream;
    let mut out = Vec::with_capacity(512);
    match call {
        Some(kind) => reply::encode_call(&mut out, fault, status, kind),
        None => reply::encode(&mut out, fault, status),
    }
    reply::add_fields(&mut out, &cors);
    reply::finish(&mut out, version, !keep);
    if call.is_none() && method != Method::Head {
        reply::body(&mut out, fault, status);
    }
    outcome.status = if call.is_some() { 200 } else { status };
    outcome.grpc_status = call.map(|_| grpc::status_of(status));
    stream.deadline().arm(clock::after(clock::now(), listener.http.body_idle_timeout), Ends::Both);
    let written = stream.write_all(&out).await;
    stream.deadline().disarm();
    keep && written.is_ok()
}

/// Counts a fault that has no request.
pub fn count_fault(shard: &Shard, listener: &Listener, reason: Reason) {
    listener.meters.core(shard.outfit.core).faults[reason as usize].add(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing<T>() -> T {
        unreachable!("only the size of what it would be given to is of interest")
    }

    fn size_of_future<F: Future>(_: impl Fn() -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_idles_holds_no_exchange() {
        let idle = size_of_future(|| serve(nothing(), nothing(), nothing(), nothing(), nothing()));
        let busy = size_of_future(|| busy(nothing(), nothing(), nothing(), nothing(), nothing(), nothing()));
        let outcome = size_of::<Outcome>();
        println!("idle {idle} busy {busy} outcome {outcome} stream {}", size_of::<Stream>());
        assert!(idle <= 256, "{idle} bytes for each idle connection");
        assert!(busy <= 4096, "{busy} bytes for each busy one");
    }
}
