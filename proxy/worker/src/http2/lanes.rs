//! The tasks that serve streams, one stream after another: where one has come to its end before, the next costs no task and
//! no allocation, and runs in memory that is still warm.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use onehop_net::runtime;

use super::serve::{Client, Open};
use super::stream::{self, Asked, Opened};

/// Lanes that are kept without a stream; each keeps the room of one exchange.
const KEPT: usize = 128;

/// One task.
#[derive(Default)]
struct Lane {
    /// Whose stream is to be served.
    client: RefCell<Option<(Rc<Client>, Open)>>,
    /// Where that is kept, and its room when there is none.
    opened: Cell<Option<Box<Opened>>>,
    waker: Cell<Option<Waker>>,
}

/// Those of one core that wait for a stream.
#[derive(Default)]
pub struct Lanes {
    idle: RefCell<Vec<Rc<Lane>>>,
}

impl Lanes {
    /// Has a stream served, behind all that is ready to run.
    pub fn start(&self, client: Rc<Client>, asked: Asked, open: Open) {
        let kept = self.idle.borrow_mut().pop();
        let (lane, is_new) = kept.map_or_else(|| (Rc::default(), true), |lane| (lane, false));
        let mut opened = lane.opened.take().unwrap_or_default();
        opened.begin(&client, asked);
        lane.opened.set(Some(opened));
        *lane.client.borrow_mut() = Some((client, open));
        if is_new {
            runtime::spawn(run(lane));
        } else if let Some(waker) = lane.waker.take() {
            waker.wake();
        }
    }

    /// Takes a lane back, unless enough wait.
    fn rest(&self, lane: &Rc<Lane>) -> bool {
        let mut idle = self.idle.borrow_mut();
        let fits = idle.len() < KEPT;
        if fits {
            idle.push(lane.clone());
        }
        fits
    }
}

impl Lane {
    fn poll_stream(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.client.borrow().is_some() {
            return Poll::Ready(());
        }
        self.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

/// Serves streams until there are lanes enough without this one. A panic ends its stream alone.
async fn run(lane: Rc<Lane>) {
    loop {
        let taken = lane.client.borrow_mut().take();
        let Some((client, open)) = taken else { return };
        let served = crate::conn::guard(pin!(stream::serve(&client, &lane.opened))).await;
        if let Err(panic) = served {
            crate::conn::count_panic(&client.shard, &client.listener(), &*panic, "the stream was reset");
        }
        drop(open);
        let rests = client.shard.lanes.rest(&lane);
        drop(client);
        if !rests {
            return;
        }
        poll_fn(|cx| lane.poll_stream(cx)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_stream_fits_a_small_block() {
        let lane = size_of_future(run);
        // With the head of a task in front of it, it is to fit one of the allocator's blocks of 1,792 bytes.
        assert!(lane <= 1792 - 48, "{lane} bytes for each stream");
    }
}
