//! A core's main: it starts its listeners, obeys its mailbox, keeps house once a second, and ends when it is drained.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::sleep_until;
use onehop_net::listener::Listener as Socket;
use onehop_net::mailbox::{Inbox, Receiver};
use onehop_net::runtime::{self, Core, Options, Rung};
use onehop_plan::Snapshot;
use onehop_plan::order::{ConnectionInfo, Listing, Order};

use crate::accept::{Stop, accept};
use crate::connections::Doing;
use crate::drain;
use crate::pressure;
use crate::shard::{Outfit, Shard};

/// Everything that a core is started with.
pub struct Start {
    /// Ring, pinning, polling.
    pub options: Options,
    /// Its numbers, meters and queues.
    pub outfit: Outfit,
    /// The first snapshot.
    pub snapshot: Arc<Snapshot>,
    /// Its listening sockets.
    pub sockets: Vec<onehop_plan::order::Socket>,
    /// Its mailbox.
    pub mailbox: Receiver<Order>,
}

/// The sockets of a core, by listener.
type Accepting = Rc<RefCell<BTreeMap<Arc<str>, Vec<Stop>>>>;

/// Runs a core on the calling thread until it has drained. `started` hears which rung of the ladder held.
///
/// # Errors
/// When the core cannot be built, or a socket cannot be registered.
pub fn run(start: Start, started: impl FnOnce(Rung)) -> io::Result<()> {
    let Start { options, outfit, snapshot, sockets, mailbox } = start;
    let meters = outfit.meters.clone();
    let number = outfit.core;
    let beat = move |now: Nanos| {
        let block = meters.core(number);
        block.heartbeat_ns.set(now as i64);
        let figures = onehop_net::core::figures();
        block.completions.set(figures.completions);
        block.polls.set(figures.polls);
        block.polling_ns.set(figures.polling_ns);
        let (buffers, bytes) = onehop_net::buffers_in_use();
        block.buffers.set(buffers as i64);
        block.buffer_bytes.set(bytes as i64);
    };
    runtime::run(&options, beat, |core| async move {
        let inbox = mailbox.open()?;
        let shard = Shard::new(outfit, snapshot);
        let accepting = Accepting::default();
        begin_accepting(&shard, &accepting, sockets)?;
        started(core.rung());
        runtime::spawn(keep_house(shard.clone()));
        runtime::spawn(pressure::watch(shard.clone()));
        obey(&shard, &core, &inbox, &accepting).await;
        Ok(())
    })?
}

fn begin_accepting(
    shard: &Rc<Shard>,
    accepting: &Accepting,
    sockets: Vec<onehop_plan::order::Socket>,
) -> io::Result<()> {
    for socket in sockets {
        let stop = Stop::default();
        let listening = Socket::new(socket.fd)?;
        runtime::spawn(accept(shard.clone(), socket.listener.clone(), listening, stop.clone()));
        accepting.borrow_mut().entry(socket.listener).or_default().push(stop);
    }
    Ok(())
}

/// Does what the mailbox says, until the core has drained.
async fn obey(shard: &Rc<Shard>, core: &Core, inbox: &Inbox<Order>, accepting: &Accepting) {
    use onehop_net::stream::{Either, first};
    loop {
        let mail = match first(inbox.take(), drain::drained(shard)).await {
            Either::Left(mail) => mail,
            Either::Right(()) => return,
        };
        for order in mail {
            match order {
                Order::Install { snapshot, sockets } => install(shard, core, accepting, snapshot, sockets),
                Order::Drain { limit } => {
                    for stop in accepting.borrow().values().flatten() {
                        stop.stop();
                    }
                    drain::begin(shard, limit);
                }
                Order::Connections { reply, limit } => {
                    // Whoever asked may have given up.
                    let _ = reply.try_send(list(shard, limit));
                }
            }
        }
    }
}

fn install(
    shard: &Rc<Shard>,
    core: &Core,
    accepting: &Accepting,
    snapshot: Arc<Snapshot>,
    sockets: Vec<onehop_plan::order::Socket>,
) {
    let begun = clock::now();
    core.set_busy_poll(snapshot.busy_poll);
    // A listener that is gone, or that was bound again elsewhere, stops accepting; its connections go on.
    let rebound = |name: &Arc<str>| sockets.iter().any(|socket| socket.listener == *name);
    accepting.borrow_mut().retain(|name, stops| {
        let stays = snapshot.listeners.iter().any(|listener| listener.name == *name) && !rebound(name);
        if !stays {
            stops.iter().for_each(Stop::stop);
        }
        stays
    });
    shard.install(snapshot);
    if let Err(error) = begin_accepting(shard, accepting, sockets) {
        eprintln!("onehop: core {}: a listening socket could not be registered: {error}", shard.outfit.core);
    }
    shard.meters().installs.add(1);
    shard.meters().install_ns.add(clock::now() - begun);
}

fn list(shard: &Shard, limit: usize) -> Listing {
    let now = clock::now();
    let mut list = Vec::new();
    shard.connections.each(|entry| {
        if list.len() < limit {
            list.push(ConnectionInfo {
                core: shard.outfit.core,
                id: entry.id,
                listener: entry.listener.clone(),
                peer: entry.peer.get().to_string(),
                doing: Doing::name(entry.doing.get()),
                requests: entry.requests.get(),
                age_ms: now.saturating_sub(entry.since) / 1_000_000,
            });
        }
    });
    Listing { count: shard.connections.count(), listed: list }
}

/// Closes idle upstream connections that are spent or were closed, about once a second.
async fn keep_house(shard: Rc<Shard>) {
    loop {
        sleep_until(clock::after(clock::now(), Duration::from_secs(1))).await;
        let now = clock::now();
        for cluster in shard.clusters() {
            cluster.sweep(now);
        }
        shard.meters().connections.set(shard.connections.count() as i64);
    }
}
