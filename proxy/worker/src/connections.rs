//! The downstream connections of a core: listed for `/connections`, counted, and found when the core drains.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use onehop_net::Peer;
use onehop_net::clock::Nanos;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Waiting for the first bytes of a request.
    Idle,
    /// Receiving a request head, or deciding the protocol.
    Reading,
    /// In an exchange.
    Exchange,
    /// Relaying bytes: TCP, or an upgraded connection.
    Tunnel,
    /// Letting the client read the last answer.
    Closing,
}

impl Doing {
    /// As `/connections` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Doing::Idle => "idle",
            Doing::Reading => "reading",
            Doing::Exchange => "exchange",
            Doing::Tunnel => "tunnel",
            Doing::Closing => "closing",
        }
    }
}

/// One connection's entry.
pub struct Entry {
    /// Its number on this core.
    pub id: u64,
    /// Its descriptor: valid for as long as the entry is listed.
    pub fd: RawFd,
    /// Its listener's name.
    pub listener: Arc<str>,
    /// The client.
    pub peer: Cell<Peer>,
    /// Since when.
    pub since: Nanos,
    /// What it is doing.
    pub doing: Cell<Doing>,
    /// Requests so far.
    pub requests: Cell<u64>,
    /// The box of its busy period.
    pub rest: Rest,
    /// Wakes a connection that wants to know when its core begins to drain.
    pub nudge: RefCell<Option<Waker>>,
}

/// Whether a connection keeps the box of its busy period, and how it is asked to give it up.
#[derive(Default)]
pub struct Rest {
    boxed: Cell<bool>,
    due: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Rest {
    /// Whether the connection is to rest; else its task is woken when it is.
    pub fn poll(&self, cx: &mut Context<'_>) -> bool {
        if self.due.take() {
            return true;
        }
        let mut waker = self.waker.borrow_mut();
        if waker.is_none() {
            *waker = Some(cx.waker().clone());
        }
        false
    }

    /// The busy period is over, and its box is free.
    pub fn unboxed(&self) {
        self.boxed.set(false);
        self.due.set(false);
        *self.waker.borrow_mut() = None;
    }

    fn ask(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            self.due.set(true);
            waker.wake();
        }
    }
}

/// Connections of a core that may keep the box of their busy period (below 3 KiB) while they wait for the next
/// request: making it anew for each request costs CPU, and keeping it for every idle connection costs memory.
const KEPT_BOXES: usize = 64;
/// How many busy connections are passed over in search of one that idles.
const PASSED_OVER: usize = 8;

/// The list.
#[derive(Default)]
pub struct Connections {
    entries: RefCell<Vec<Option<Rc<Entry>>>>,
    free: RefCell<Vec<usize>>,
    count: Cell<usize>,
    next: Cell<u64>,
    boxed: RefCell<VecDeque<Rc<Entry>>>,
}

/// An entry that leaves the list when it is dropped.
pub struct Listed<'a> {
    list: &'a Connections,
    index: usize,
    entry: Rc<Entry>,
}

impl std::ops::Deref for Listed<'_> {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.entry.rest.unboxed();
        self.list.entries.borrow_mut()[self.index] = None;
        self.list.free.borrow_mut().push(self.index);
        self.list.count.set(self.list.count.get() - 1);
    }
}

impl Connections {
    /// Lists a connection. Drop the entry before its stream, so that no listed descriptor is a closed one.
    pub fn enter(&self, fd: RawFd, listener: Arc<str>, peer: Peer, now: Nanos) -> Listed<'_> {
        let id = self.next.get();
        self.next.set(id + 1);
        let entry = Rc::new(Entry {
            id,
            fd,
            listener,
            peer: Cell::new(peer),
            since: now,
            doing: Cell::new(Doing::Idle),
            requests: Cell::new(0),
            rest: Rest::default(),
            nudge: RefCell::new(None),
        });
        let index = match self.free.borrow_mut().pop() {
            Some(index) => {
                self.entries.borrow_mut()[index] = Some(entry.clone());
                index
            }
            None => {
                let mut entries = self.entries.borrow_mut();
                entries.push(Some(entry.clone()));
                entries.len() - 1
            }
        };
        self.count.set(self.count.get() + 1);
        Listed { list: self, index, entry }
    }

    /// A connection begins a busy period; when too many keep a box, the one that began first and idles rests.
    pub fn begin_busy(&self, listed: &Listed<'_>) {
        listed.entry.rest.boxed.set(true);
        let mut boxed = self.boxed.borrow_mut();
        boxed.push_back(listed.entry.clone());
        let mut passed_over = 0;
        while boxed.len() > KEPT_BOXES && passed_over < PASSED_OVER {
            let Some(oldest) = boxed.pop_front() else { return };
            if !oldest.rest.boxed.get() {
                continue;
            }
            if oldest.doing.get() == Doing::Idle {
                oldest.rest.ask();
                return;
            }
            passed_over += 1;
            boxed.push_back(oldest);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// Calls `f` with each.
    pub fn each(&self, mut f: impl FnMut(&Entry)) {
        for entry in self.entries.borrow().iter().flatten() {
            f(entry);
        }
    }
}
