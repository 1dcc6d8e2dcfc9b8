//! From an accepted socket to the protocol that serves it. A panic in one connection is caught, counted, and closes
//! that connection alone.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use onehop_meter::names::Reason;
use onehop_net::deadline::Ends;
use onehop_net::{Peer, Size, Stream, clock};
use onehop_plan::{Layer, Listener};
use onehop_wire::proxy_protocol::{self, Header};
use onehop_wire::sniff::{Protocol, sniff};

use crate::connections::{Doing, Entry};
use crate::http1;
use crate::http1::forward::Origin;
use crate::http2;
use crate::l4;
use crate::secure;
use crate::shard::Shard;

/// Serves one accepted connection as a task of its own.
pub fn start(shard: &Rc<Shard>, listener: Arc<Listener>, fd: OwnedFd, peer: Peer) {
    let shard = shard.clone();
    onehop_net::runtime::spawn(async move {
        let meters = listener.meters.clone();
        let core = shard.outfit.core;
        meters.core(core).accepted.add(1);
        meters.core(core).active.add(1);
        let served = guard(Box::pin(serve(shard.clone(), listener.clone(), fd, peer)).as_mut()).await;
        meters.core(core).active.sub(1);
        if let Err(panic) = served {
            count_panic(&shard, &listener, &*panic, "the connection was closed");
        }
    });
}

/// What a panic said.
pub fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Counts a panic and says where it was.
pub fn count_panic(shard: &Shard, listener: &Listener, panic: &(dyn Any + Send), consequence: &str) {
    let core = shard.outfit.core;
    shard.meters().panics.add(1);
    listener.meters.core(core).faults[Reason::Panic as usize].add(1);
    eprintln!(
        "onehop: core {core}: the task of a connection on listener \"{}\" panicked: {}; {consequence}",
        listener.name,
        message(panic)
    );
}

/// Runs a future to its end or to its panic.
pub async fn guard(mut task: Pin<&mut impl Future<Output = ()>>) -> Result<(), Box<dyn Any + Send>> {
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// (A block instead of an `async fn`, which would keep each argument twice.)
fn serve(shard: Rc<Shard>, listener: Arc<Listener>, fd: OwnedFd, peer: Peer) -> impl Future<Output = ()> {
    let mut origin = Origin { peer, tls: false, destination: None, secure: None };
    async move {
        let Ok(mut stream) = Stream::accepted(fd) else {
            return;
        };
        let mut listener = listener;
        if listener.capture {
            match captured(&shard, &stream, &listener) {
                Ok((destination, serving)) => {
                    origin.destination = Some(destination);
                    listener = serving;
                }
                Err(reason) => {
                    http1::count_fault(&shard, &listener, reason);
                    stream.reset_on_close();
                    return;
                }
            }
        }
        let entry = shard.connections.enter(stream.raw_fd(), listener.name.clone(), origin.peer, clock::now());
        if listener.proxy_protocol {
            // Boxed, as what follows: the future of an idle connection is as large as the largest thing it holds.
            match Box::pin(read_proxy_header(&mut stream, &entry, &listener)).await {
                Ok(Some(source)) => {
                    origin.peer = Peer::Tcp(source);
                    entry.peer.set(origin.peer);
                }
                Ok(None) => {}
                Err(reason) => {
                    http1::count_fault(&shard, &listener, reason);
                    stream.reset_on_close();
                    return;
                }
            }
        }
        if listener.tls.is_some() {
            match Box::pin(secure::accept(&shard, &mut stream, &entry, &listener)).await {
                Ok(None) => {}
                Ok(Some(secured)) => {
                    origin.tls = true;
                    origin.secure = Some(secured);
                }
                Err(()) => return,
            }
        }
        let layer = match listener.layer {
            Layer::Sniff => Box::pin(decide(&mut stream, &entry, &listener)).await,
            layer => Some(layer),
        };
        match layer {
            Some(Layer::Tcp) => Box::pin(l4::serve(&shard, &mut stream, &entry, &listener, &origin)).await,
            Some(_) => {
                let by_alpn = stream.alpn() == Some(b"h2");
                if by_alpn || http1::serve(&shard, &mut stream, &entry, listener.clone(), &origin).await {
                    Box::pin(http2::serve(&shard, stream, &entry, listener, origin)).await;
                }
            }
            None => {}
        }
    }
}

/// For whom a captured connection was meant, and the listener that serves that destination.
fn captured(
    shard: &Shard,
    stream: &Stream,
    listener: &Arc<Listener>,
) -> Result<(std::net::SocketAddr, Arc<Listener>), Reason> {
    let destination = stream.original_destination().ok_or(Reason::DestinationRefused)?;
    // Meant for ourselves, it was not redirected, or would come back for ever.
    let ours = |own: &Arc<Listener>| {
        let own = own.address;
        own.port() == destination.port() && (own.ip() == destination.ip() || own.ip().is_unspecified())
    };
    if shard.snapshot().listeners.iter().any(ours) {
        return Err(Reason::Loop);
    }
    let serving = listener.serving(&destination).and_then(|name| shard.listener(name));
    Ok((destination, serving.unwrap_or_else(|| listener.clone())))
}

/// Whether it is HTTP or bytes. `None`: the client left before it could be told.
async fn decide(stream: &mut Stream, entry: &Entry, listener: &Listener) -> Option<Layer> {
    use onehop_net::stream::{Either, first};
    entry.doing.set(Doing::Reading);
    let begun = clock::now();
    stream.deadline().arm(clock::after(begun, listener.http.header_timeout), Ends::Read);
    let layer = loop {
        match sniff(stream.buffered()) {
            Some(Protocol::Http1 | Protocol::Http2) => break Layer::Http,
            Some(_) => break Layer::Tcp,
            None => {}
        }
        let filled = match listener.detect_timeout {
            None => stream.fill(Size::Small).await,
            Some(patience) => {
                let patience = onehop_net::deadline::sleep_until(clock::after(begun, patience));
                match first(stream.fill(Size::Small), patience).await {
                    Either::Left(filled) => filled,
                    // Perhaps the server is to speak first; what was posted goes on.
                    Either::Right(()) => break Layer::Tcp,
                }
            }
        };
        match filled {
            Ok(1..) => {}
            // What was sent is no HTTP, and no more will come.
            _ if !stream.buffered().is_empty() && !stream.timed_out() => break Layer::Tcp,
            _ => return None,
        }
    };
    stream.deadline().disarm();
    Some(layer)
}

async fn read_proxy_header(
    stream: &mut Stream,
    entry: &Entry,
    listener: &Listener,
) -> Result<Option<std::net::SocketAddr>, Reason> {
    entry.doing.set(Doing::Reading);
    stream.deadline().arm(clock::after(clock::now(), listener.http.header_timeout), Ends::Read);
    loop {
        match proxy_protocol::parse(stream.buffered()) {
            Err(_) => return Err(Reason::BadProxyHeader),
            Ok(Some((header, length))) => {
                stream.consume(length);
                stream.deadline().disarm();
                return Ok(match header {
                    Header::Local => None,
                    Header::Proxied(addresses) => Some(addresses.source),
                });
            }
            Ok(None) => {}
        }
        match stream.fill(Size::Medium).await {
            Ok(1..) => {}
            _ if stream.timed_out() => return Err(Reason::HeaderTimeout),
            _ => return Err(Reason::BadProxyHeader),
        }
    }
}
