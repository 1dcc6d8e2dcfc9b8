//! Shutting down: no new work, the running exchanges finish, and keep-alive connections get a last answer that says
//! `Connection: close` if a request comes, or are closed when none does.

use std::rc::Rc;
use std::time::Duration;

use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::sleep_until;

use crate::connections::Doing;
use crate::shard::Shard;

/// How long an idle connection may still bring a request: a client that sends one just as it is closed would see a
/// failure, and most clients that are going to send do so within this time.
const GRACE: Duration = Duration::from_secs(2);
/// How often the end is looked for.
const LOOK_NS: u64 = 20_000_000;

/// Begins, for at most `limit`.
pub fn begin(shard: &Rc<Shard>, limit: Duration) {
    if shard.is_draining() {
        return;
    }
    let now = clock::now();
    shard.draining_since.set(now);
    shard.drain_until.set(clock::after(now, limit));
    shard.connections.each(|entry| {
        if let Some(waker) = entry.nudge.borrow_mut().take() {
            waker.wake();
        }
    });
    let grace = clock::after(now, GRACE.min(limit / 2));
    let shard = shard.clone();
    onehop_net::runtime::spawn(async move {
        let mut at = grace;
        loop {
            sleep_until(at).await;
            close(&shard, |doing| doing == Doing::Idle);
            at = clock::now() + LOOK_NS;
        }
    });
}

/// Ends the read side of some connections, so that their tasks end.
fn close(shard: &Shard, which: impl Fn(Doing) -> bool) {
    shard.connections.each(|entry| {
        if which(entry.doing.get()) {
            onehop_net::shutdown_read(entry.fd);
        }
    });
}

/// Ends when the core is draining and the last connection has gone, or its time is over.
pub async fn drained(shard: &Shard) {
    loop {
        sleep_until(clock::now() + LOOK_NS * if shard.is_draining() { 1 } else { 10 }).await;
        let over = |until: Nanos| clock::now() >= until;
        if shard.is_draining() && (shard.connections.count() == 0 || over(shard.drain_until.get())) {
            return;
        }
    }
}
