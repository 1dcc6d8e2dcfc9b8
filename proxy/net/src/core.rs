//! What one core counts about itself: completed operations (which feed the adaptive polling) and liveness.
//! Thread-local and single-writer; the floors above copy the figures into their meters.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::task::Waker;

/// Figures of this core, since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Read operations that completed.
    pub completions: u64,
    /// Turns spent polling the ring instead of sleeping.
    pub polls: u64,
    /// Nanoseconds from the start to the end of each polling spell, summed.
    pub polling_ns: u64,
}

pub(crate) struct State {
    pub completions: Cell<u64>,
    pub polls: Cell<u64>,
    pub polling_ns: Cell<u64>,
    /// Set while the polling task sleeps and wants to hear of the next completion.
    pub poller: ManuallyDrop<RefCell<Option<Waker>>>,
    /// It wants to hear only once so many have completed.
    pub poller_at: Cell<u64>,
    pub epoll: Cell<bool>,
    /// The ring's descriptor, for turns that fetch without waiting.
    pub ring: Cell<Option<RawFd>>,
}

thread_local! {
    pub(crate) static STATE: State = const {
        State {
            completions: Cell::new(0),
            polls: Cell::new(0),
            polling_ns: Cell::new(0),
            // As the deadline wheel: a waker may own a task.
            poller: ManuallyDrop::new(RefCell::new(None)),
            poller_at: Cell::new(0),
            epoll: Cell::new(false),
            ring: Cell::new(None),
        }
    };
}

/// This core's figures.
pub fn figures() -> Figures {
    STATE.with(|state| Figures {
        completions: state.completions.get(),
        polls: state.polls.get(),
        polling_ns: state.polling_ns.get(),
    })
}

/// Whether this core runs on epoll instead of the ring.
pub(crate) fn is_epoll() -> bool {
    STATE.with(|state| state.epoll.get())
}

/// This core's ring, if it runs on one.
pub(crate) fn ring_fd() -> Option<RawFd> {
    STATE.with(|state| state.ring.get())
}

/// Wakes the polling task at the next completion, whatever it waits for.
pub(crate) fn look_at_polling() {
    STATE.with(|state| state.poller_at.set(0));
}

/// Counts one completed operation and wakes the polling task if it sleeps.
#[inline]
pub(crate) fn completed() {
    STATE.with(|state| {
        let count = state.completions.get() + 1;
        state.completions.set(count);
        if count >= state.poller_at.get()
            && let Some(waker) = state.poller.borrow_mut().take()
        {
            waker.wake();
        }
    });
}
