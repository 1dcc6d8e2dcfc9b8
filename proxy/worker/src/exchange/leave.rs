//! What becomes of a request whose client has left after it went to the upstream. To close an HTTP/1 connection costs a new
//! one, and each RST_STREAM counts with an HTTP/2 upstream that defends itself, so a client that gives many requests up
//! would make the others pay: the exchange is let end by itself, within bounds, and what it used serves again. (How the others are reset: `upstream::parting`.)

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use onehop_net::Size;
use onehop_net::clock;
use onehop_net::deadline::Ends;
use onehop_wire::http1::{BodyLength, Limits, Method};

use super::attempt::MAX_INTERIM;
use super::leg::Leg;
use super::reader::{Next, Reader};
use super::response::Response;
use crate::http2::Heard;
use crate::shard::Shard;
use crate::upstream::{ClusterState, Conn, Lease};

/// Bytes of an answer that nobody gets; a longer one costs its connection, or its stream.
const MAX_BYTES: u64 = 64 * 1024;
/// How long the upstream may take for it.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Exchanges on each core and cluster that nobody waits for: connections of HTTP/1.
const AT_ONCE: u32 = 128;
/// And streams of HTTP/2, which cost little.
const STREAMS_AT_ONCE: u32 = 1024;

/// An exchange that nobody waits for; counted until it has ended.
struct Left {
    cluster: Rc<ClusterState>,
}

impl Left {
    fn new(cluster: &Rc<ClusterState>, lease: &Lease) -> Option<Left> {
        let count = cluster.left.get();
        let most = if matches!(lease.conn, Conn::Http1(_)) { AT_ONCE } else { STREAMS_AT_ONCE };
        (count < most).then(|| {
            cluster.left.set(count + 1);
            Left { cluster: cluster.clone() }
        })
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.cluster.left.set(self.cluster.left.get() - 1);
    }
}

/// The client has left before the response's head came; `method` is the request's, if all of it was sent. What may not end by
/// itself is closed or reset here.
pub(super) fn before_head(
    shard: &Rc<Shard>,
    cluster: &Rc<ClusterState>,
    mut lease: Lease,
    response: Option<Box<Response>>,
    method: Option<Method>,
    limits: Limits,
) {
    let response = response.unwrap_or_else(|| shard.take_response());
    if lease.may_cancel(clock::now()) {
        return shard.give_response(response);
    }
    let (Some(method), Some(left)) = (method, Left::new(cluster, &lease)) else {
        return shard.give_response(response);
    };
    let shard = shard.clone();
    onehop_net::runtime::spawn(async move {
        let mut response = response;
        lease.conn.leg().arm(clock::now().saturating_add(PATIENCE_NS), Ends::Both);
        let found = poll_fn(|cx| poll_head(cx, &mut lease.conn.leg(), &mut response, method, &limits)).await;
        if let Some((reader, keeps)) = found {
            finish(lease, reader, keeps).await;
        } else {
            drop(lease);
        }
        shard.give_response(response);
        drop(left);
    });
}

/// The client has left while the body passed; `reader` stands where the rest of it begins.
pub(super) fn in_body(cluster: &Rc<ClusterState>, mut lease: Lease, reader: Reader) {
    // Over HTTP/2 the rest may be any amount, and a stream is reset at no cost to others.
    let small = reader.left().is_some_and(|left| left <= MAX_BYTES);
    if !small || !matches!(lease.conn, Conn::Http1(_)) {
        return;
    }
    let Some(left) = Left::new(cluster, &lease) else { return };
    onehop_net::runtime::spawn(async move {
        lease.conn.leg().arm(clock::now().saturating_add(PATIENCE_NS), Ends::Both);
        finish(lease, reader, true).await;
        drop(left);
    });
}

/// Waits for the final head: a reader of its body, and whether the connection outlives it.
fn poll_head(
    cx: &mut Context<'_>,
    leg: &mut Leg<'_>,
    response: &mut Response,
    method: Method,
    limits: &Limits,
) -> Poll<Option<(Reader, bool)>> {
    let mut interim = 0;
    loop {
        let stream = match leg {
            Leg::Http1(stream) => stream,
            Leg::Http2(channel) => match ready!(channel.poll_answer(cx)) {
                Heard::Final { ends, .. } => return Poll::Ready(Some((Reader::http2(ends, *limits), false))),
                Heard::Interim(_) => continue,
                Heard::Broken => return Poll::Ready(None),
            },
            Leg::Nobody => return Poll::Ready(None),
        };
        if !stream.is_reading()
            && let Some(end) = response.scanner.find_end(stream.buffered())
        {
            response.end = end;
            if response.read(stream, method, limits).is_err() || interim > MAX_INTERIM {
                return Poll::Ready(None);
            }
            stream.consume(end);
            let head = &response.head;
            if head.status >= 200 {
                let keeps = head.keep_alive && !head.tunnels && head.body != BodyLength::UntilClose;
                return Poll::Ready(Some((Reader::http1(head.body, *limits), keeps)));
            }
            if head.status == 101 {
                return Poll::Ready(None);
            }
            interim += 1;
            response.next();
            continue;
        }
        if stream.buffered().len() as u64 > MAX_BYTES {
            return Poll::Ready(None);
        }
        match ready!(stream.poll_fill(cx, Size::Medium)) {
            Ok(1..) => {}
            _ => return Poll::Ready(None),
        }
    }
}

/// Reads what is left, within bounds, and gives the connection back.
async fn finish(mut lease: Lease, mut reader: Reader, keeps: bool) {
    let mut leg = lease.conn.leg();
    let is_http2 = leg.is_http2();
    let mut read = 0;
    let whole = (keeps || is_http2)
        && poll_fn(|cx| {
            loop {
                match ready!(reader.poll_next(cx, &mut leg)) {
                    Ok(Next::Data { length, .. }) => {
                        reader.consume(&mut leg, length);
                        read += length as u64;
                        if read > MAX_BYTES {
                            return Poll::Ready(false);
                        }
                        if reader.is_done() {
                            return Poll::Ready(true);
                        }
                    }
                    other => return Poll::Ready(other.is_ok()),
                }
            }
        })
        .await;
    let clean = lease.conn.stream().is_some_and(|stream| stream.buffered().is_empty() && !stream.ended());
    if whole && clean {
        lease.give_back(clock::now());
    }
}
