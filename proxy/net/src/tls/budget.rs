//! Handshakes take turns: what they may use of one turn of a core's loop is bounded, so that a storm of them delays
//! running requests by about one handshake, and those that wait are served in the order in which they came.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem::ManuallyDrop;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::clock::{self, Nanos};
use crate::sys::duplex::Duplex;

/// What handshakes may use of one turn: about one full handshake.
const TURN_NS: u64 = 400_000;
/// Without a handshake for this long, a new turn has certainly begun.
const QUIET_NS: u64 = 200_000;

#[derive(Default)]
struct Place {
    granted: Cell<bool>,
    left: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

struct Gate {
    spent_ns: Cell<u64>,
    last: Cell<Nanos>,
    turning: Cell<bool>,
    waiting: RefCell<VecDeque<Rc<Place>>>,
    /// A socket that can always be written, and its other end: its readiness comes through the kernel.
    pair: RefCell<Option<(Duplex, UnixStream)>>,
}

thread_local! {
    // Never dropped: its wakers own tasks, whose destructors would find no engine.
    static GATE: ManuallyDrop<Gate> = const {
        ManuallyDrop::new(Gate {
            spent_ns: Cell::new(0),
            last: Cell::new(0),
            turning: Cell::new(false),
            waiting: RefCell::new(VecDeque::new()),
            pair: RefCell::new(None),
        })
    };
}

/// Handshake steps that wait for their turn on this core.
pub fn waiting() -> usize {
    GATE.with(|gate| gate.waiting.borrow().len())
}

/// A step under way; its time is booked when it is dropped.
pub struct Step {
    begun: Nanos,
}

impl Drop for Step {
    fn drop(&mut self) {
        GATE.with(|gate| {
            let now = clock::now();
            gate.spent_ns.set(gate.spent_ns.get() + now.saturating_sub(self.begun));
            gate.last.set(now);
            gate.grant();
        });
    }
}

impl Gate {
    fn is_open(&self) -> bool {
        self.spent_ns.get() < TURN_NS
    }

    /// Lets the first in line go on while there is budget.
    fn grant(&self) {
        while self.is_open() {
            let Some(place) = self.waiting.borrow_mut().pop_front() else { return };
            if place.left.get() {
                continue;
            }
            place.granted.set(true);
            if let Some(waker) = place.waker.borrow_mut().take() {
                waker.wake();
            }
            return;
        }
    }
}

/// Leaves the line, and passes a grant on that came too late.
struct InLine(Rc<Place>);

impl Drop for InLine {
    fn drop(&mut self) {
        self.0.left.set(true);
        if self.0.granted.get() {
            GATE.with(|gate| gate.grant());
        }
    }
}

/// Waits until a step of a handshake may run. Safe to drop.
pub async fn admit() -> Step {
    let free = GATE.with(|gate| {
        if gate.waiting.borrow().is_empty() && clock::now().saturating_sub(gate.last.get()) > QUIET_NS {
            gate.spent_ns.set(0);
        }
        gate.is_open() && gate.waiting.borrow().is_empty()
    });
    if !free {
        let line = InLine(Rc::new(Place::default()));
        GATE.with(|gate| gate.waiting.borrow_mut().push_back(line.0.clone()));
        turn_while_some_wait();
        poll_fn(|cx| {
            if line.0.granted.get() {
                return Poll::Ready(());
            }
            *line.0.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        // Taken up: it is no longer to be passed on.
        line.0.granted.set(false);
    }
    Step { begun: clock::now() }
}

/// Begins a new budget with each turn for as long as somebody waits: a wait for readiness goes through the kernel, so
/// everything else that is ready has its turn before it ends.
fn turn_while_some_wait() {
    if GATE.with(|gate| gate.turning.replace(true)) {
        return;
    }
    crate::runtime::spawn(async {
        loop {
            next_turn().await;
            let over = GATE.with(|gate| {
                gate.spent_ns.set(0);
                gate.grant();
                gate.waiting.borrow().is_empty()
            });
            if over {
                break;
            }
        }
        GATE.with(|gate| gate.turning.set(false));
    });
}

async fn next_turn() {
    let socket = GATE.with(|gate| {
        let mut pair = gate.pair.borrow_mut();
        if pair.is_none() {
            *pair = make_pair().ok();
        }
        pair.as_ref().map(|(socket, _)| socket.clone())
    });
    match socket {
        Some(socket) if socket.writable().await.is_ok() => crate::core::completed(),
        // Without descriptors the handshakes go on less fairly.
        _ => crate::runtime::yield_now().await,
    }
}

fn make_pair() -> std::io::Result<(Duplex, UnixStream)> {
    let (ours, other) = UnixStream::pair()?;
    Ok((Duplex::new(ours.into())?, other))
}
