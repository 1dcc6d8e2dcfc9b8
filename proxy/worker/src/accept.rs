//! Accepting: as many as wait, up to the limits. When descriptors run out the queue is left alone for a moment,
//! which costs nothing and recovers by itself.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use onehop_meter::names::Reason;
use onehop_net::clock;
use onehop_net::deadline::sleep_until;
use onehop_net::listener::Listener as Socket;
use onehop_net::runtime::yield_now;

use crate::conn;
use crate::http1::count_fault;
use crate::shard::Shard;

/// Accepted in one go before other tasks get their turn.
const BATCH: usize = 64;
/// The pause when accepting fails.
const PAUSE_NS: u64 = 50_000_000;

/// Tells an accepting task to stop.
#[derive(Clone, Default)]
pub struct Stop(Rc<Cell<bool>>);

impl Stop {
    /// It ends at its next turn; what waits in its queue then is accepted first.
    pub fn stop(&self) {
        self.0.set(true);
    }

    fn is_set(&self) -> bool {
        self.0.get()
    }
}

/// How often an accepting task looks whether it is to stop.
const LOOK_NS: u64 = 20_000_000;

/// Accepts on one socket until it is told to stop.
pub async fn accept(shard: Rc<Shard>, name: Arc<str>, socket: Socket, stop: Stop) {
    loop {
        use onehop_net::stream::{Either, first};
        let stopping = async {
            while !stop.is_set() {
                sleep_until(clock::now() + LOOK_NS * 10).await;
            }
        };
        let ready = match first(socket.ready(), stopping).await {
            Either::Left(ready) => ready,
            Either::Right(()) => {
                drain_queue(&shard, &name, &socket);
                return;
            }
        };
        if ready.is_err() || !drain_queue(&shard, &name, &socket) {
            sleep_until(clock::now() + PAUSE_NS).await;
        }
        yield_now().await;
    }
}

/// Takes what waits. False when accepting failed and a pause is due.
fn drain_queue(shard: &Rc<Shard>, name: &Arc<str>, socket: &Socket) -> bool {
    for _ in 0..BATCH {
        match socket.accept() {
            Ok((fd, peer)) => {
                let Some(listener) = shard.listener(name) else {
                    return true;
                };
                let here = listener.meters.core(shard.outfit.core).active.get();
                let share = |limit| onehop_plan::limit::share(limit, shard.outfit.core, shard.outfit.cores);
                let full = listener.max_connections.is_some_and(|limit| here >= i64::from(share(limit)))
                    || shard.connections.count() >= shard.snapshot().max_connections;
                if full {
                    listener.meters.core(shard.outfit.core).refused.add(1);
                    count_fault(shard, &listener, Reason::OverCapacity);
                    drop(fd);
                    continue;
                }
                conn::start(shard, listener, fd, peer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            // The client was gone before it was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(_) => {
                shard.meters().accept_errors.add(1);
                return false;
            }
        }
    }
    true
}
