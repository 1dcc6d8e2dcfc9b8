//! The line of those who wait until a connection, or a place at an endpoint, is free.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use onehop_meter::names::Reason;
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline;
use onehop_net::stream::first;

use super::{ClusterState, nanos};
use crate::fault::{Fault, Side, Step};

/// How often the first in line looks for itself, where a place may become free on another core.
const LOOK_NS: u64 = 2_000_000;

/// Someone who waits.
pub(super) struct Waiter {
    waker: RefCell<Option<Waker>>,
    granted: Cell<bool>,
    refused: Cell<bool>,
    /// It has become the first in line.
    nudged: Cell<bool>,
    since: Nanos,
}

/// Leaves the line when the wait is given up, and passes a grant on that came too late.
struct InLine<'a> {
    cluster: &'a ClusterState,
    waiter: Rc<Waiter>,
    served: Cell<bool>,
    /// The first in line looks for itself.
    looks: bool,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.waiter.granted.get() {
            if !self.served.get() {
                self.cluster.wake_one();
            }
        } else {
            let mut waiters = self.cluster.waiters.borrow_mut();
            waiters.retain(|other| !Rc::ptr_eq(other, &self.waiter));
            if waiters.is_empty() {
                self.cluster.emptied(clock::now());
            }
        }
        if self.looks
            && let Some(first) = self.cluster.waiters.borrow().front()
        {
            first.end(&first.nudged);
        }
    }
}

impl Waiter {
    fn end(&self, how: &Cell<bool>) {
        how.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl ClusterState {
    /// Something is free: the first in line may go on. Under overload those who have waited too long are refused.
    pub(super) fn wake_one(&self) {
        if self.waiters.borrow().is_empty() {
            return;
        }
        let now = clock::now();
        loop {
            let Some(waiter) = self.waiters.borrow_mut().pop_front() else { break };
            if self.is_too_old(waiter.since, now) {
                waiter.end(&waiter.refused);
                continue;
            }
            waiter.end(&waiter.granted);
            break;
        }
        if self.waiters.borrow().is_empty() {
            self.emptied(now);
        }
    }

    fn emptied(&self, now: Nanos) {
        let mut line = self.line.get();
        line.emptied(now);
        self.line.set(line);
    }

    fn is_too_old(&self, since: Nanos, now: Nanos) -> bool {
        let age = self.cluster.borrow().policy.queue_age;
        age.is_some_and(|age| self.line.get().refuses(since, nanos(age), now))
    }

    /// Waits until something is free. `has_room` is asked by the first in line, where a place may become free on another
    /// core, which wakes nobody here.
    ///
    /// # Errors
    /// The line is full, the time is over, or the line stands and this is the oldest.
    pub(super) async fn wait_in_line(&self, timeout_ns: u64, has_room: Option<&dyn Fn() -> bool>) -> Result<(), Fault> {
        let refused = |reason| Err(Fault::new(Side::Proxy, Step::Lease, reason));
        let (limit, age) = {
            let policy = &self.cluster.borrow().policy;
            (policy.queue as usize, policy.queue_age.map_or(u64::MAX, nanos))
        };
        let now = clock::now();
        let waiting = self.waiters.borrow().len();
        if waiting >= limit {
            return refused(Reason::Overflow);
        }
        if waiting == 0 {
            self.emptied(now);
        }
        let waiter = Rc::new(Waiter {
            waker: RefCell::new(None),
            granted: Cell::new(false),
            refused: Cell::new(false),
            nudged: Cell::new(false),
            since: now,
        });
        self.waiters.borrow_mut().push_back(waiter.clone());
        let line = InLine { cluster: self, waiter, served: Cell::new(false), looks: has_room.is_some() };
        let due = now.saturating_add(timeout_ns);
        let mut aged = now.saturating_add(age).saturating_add(1);
        let is_first = || self.waiters.borrow().front().is_some_and(|first| Rc::ptr_eq(first, &line.waiter));
        loop {
            let told = poll_fn(|cx| {
                if line.waiter.granted.get() || line.waiter.refused.get() || line.waiter.nudged.take() {
                    return Poll::Ready(());
                }
                *line.waiter.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            });
            let look = if has_room.is_some() && is_first() { clock::now() + LOOK_NS } else { u64::MAX };
            first(told, deadline::sleep_until(due.min(aged).min(look))).await;
            let now = clock::now();
            if line.waiter.refused.get() {
                return refused(Reason::QueueAge);
            }
            if line.waiter.granted.get() || (has_room.is_some_and(|has_room| has_room()) && is_first()) {
                line.served.set(true);
                return Ok(());
            }
            if self.is_too_old(line.waiter.since, now) {
                return refused(Reason::QueueAge);
            }
            if now >= due {
                return refused(Reason::Overflow);
            }
            if now >= aged {
                aged = now.saturating_add(age);
            }
        }
    }
}
