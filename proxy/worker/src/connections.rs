//! The downstream connections of a core: listed for `/connections`, counted, and found when the core drains.

use std::cell::{Cell, RefCell};
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
    /// How long it has idled, as the housekeeper sees it.
    pub rest: Rest,
}

/// Tells a connection that has idled for a while to make itself small.
#[derive(Default)]
pub struct Rest {
    due: Cell<bool>,
    seen_at: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Rest {
    /// Whether it is time; else the housekeeper wakes the caller's task when it is.
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

    /// The housekeeper's look: a connection that idles and has served nothing since the last look is told.
    pub fn look(&self, doing: Doing, requests: u64) {
        if doing == Doing::Idle && self.seen_at.replace(requests) == requests && requests > 0 {
            let waker = self.waker.borrow_mut().take();
            if let Some(waker) = waker {
                self.due.set(true);
                waker.wake();
            }
        }
    }
}

/// The list.
#[derive(Default)]
pub struct Connections {
    entries: RefCell<Vec<Option<Rc<Entry>>>>,
    free: RefCell<Vec<usize>>,
    count: Cell<usize>,
    next: Cell<u64>,
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
