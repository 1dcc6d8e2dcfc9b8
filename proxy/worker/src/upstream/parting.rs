//! The streams of a shared connection that nobody waits for any more. To an upstream that has not looked at a request yet,
//! its reset is half of an attack (CVE-2023-44487): one that was starved for a moment finds all of them at once, and
//! ends the connection of everybody else too. So there are few resets at a time that it may not have read, the other
//! streams wait for it to show that it reads, and a connection with many of them takes no more requests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Waker};

use onehop_net::clock::Nanos;
use onehop_net::h2::Heard;

use super::mux::Ride;
use crate::http2::Remains;

/// Resets of unanswered streams that the upstream is not known to have read. The `h2` crate takes 20 streams that were reset
/// before they were looked at for an attack, and may have read a few of ours without looking at their requests.
const UNREAD: u32 = 8;
/// Clients that give up in small numbers are believed at once; what they began is left to end by itself beyond.
const PROMPT: u32 = 8;
/// Streams that were cancelled, and how long one counts, before the connection is left to its last streams and another one made:
/// netty allows 200 resets in 30 seconds, nghttp2 1000 and then 33 a second, Envoy 500; and those on it may all be cancelled yet.
const CANCELLED: (u32, u64) = (64, 300_000_000);
/// How long the upstream may show no sign of reading before its connection gets no more requests.
const MUTE_NS: u64 = 10_000_000_000;

/// Those of one connection; shared by its places and by the task that drives it.
#[derive(Default)]
pub(super) struct Partings {
    /// Streams that were cancelled lately, and when that was looked at.
    level: Cell<(u32, Nanos)>,
    /// Resets of unanswered streams that the upstream may not have read.
    unread: Cell<u32>,
    /// How many of them were sent before the latest question, and the acknowledgement that answers it.
    asked: Cell<Option<(u32, u32)>>,
    /// Streams that are reset later, the oldest first.
    waiting: RefCell<VecDeque<(Remains, Ride)>>,
    /// Since when they wait without a sign.
    since: Cell<Nanos>,
    /// Nobody drives the connection any more.
    over: Cell<bool>,
    driver: RefCell<Option<Waker>>,
}

impl Partings {
    fn level(&self, now: Nanos) -> u32 {
        let (level, at) = self.level.get();
        let forgotten = u32::try_from(now.saturating_sub(at) / CANCELLED.1).unwrap_or(u32::MAX);
        if forgotten > 0 {
            self.level.set((level.saturating_sub(forgotten), now));
        }
        level.saturating_sub(forgotten)
    }

    /// Whether a client that gives up may be believed at once, since few have.
    pub(super) fn are_few(&self, now: Nanos) -> bool {
        self.unread.get() < UNREAD && self.level(now) < PROMPT
    }

    /// A stream is given up; true when there have been so many that the connection is to take no more.
    pub(super) fn part(&self, remains: Remains, ride: Ride, now: Nanos) -> bool {
        if self.over.get() {
            return false;
        }
        let level = self.level(now) + 1;
        self.level.set((level, self.level.get().1));
        // What was answered was looked at.
        if !remains.is_answered() {
            if self.unread.get() < UNREAD && self.waiting.borrow().is_empty() {
                self.unread.set(self.unread.get() + 1);
            } else {
                let mut waiting = self.waiting.borrow_mut();
                if waiting.is_empty() {
                    self.since.set(now);
                }
                waiting.push_back((remains, ride));
            }
        }
        self.wake();
        level > CANCELLED.0
    }

    /// Streams that wait for their reset.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.borrow().len() as u32
    }

    /// Whether they have waited for too long.
    pub(super) fn are_overdue(&self, now: Nanos) -> bool {
        self.waiting() > 0 && now.saturating_sub(self.since.get()) > MUTE_NS
    }

    /// Whoever drives the connection is to look at it.
    pub(super) fn wake(&self) {
        if let Some(driver) = &*self.driver.borrow() {
            driver.wake_by_ref();
        }
    }

    /// Called after each poll of the connection, in which all was sent that could be. `ask` sends SETTINGS, whose
    /// acknowledgement shows that the upstream has read what went before (RFC 9113 6.5.3). (It would answer a PING too, but
    /// gRPC's servers bear two of those for each answer.) True when only streams are left that nobody waits for.
    pub(super) fn poll(&self, cx: &mut Context<'_>, heard: &Heard, now: Nanos, ask: impl FnOnce() -> bool) -> bool {
        let is_known = self.driver.borrow().as_ref().is_some_and(|driver| driver.will_wake(cx.waker()));
        if !is_known {
            *self.driver.borrow_mut() = Some(cx.waker().clone());
        }
        if self.unread.get() == 0 && self.waiting() == 0 {
            return false;
        }
        if let Some((read, acknowledged)) = self.asked.get()
            && heard.acknowledged() >= acknowledged
        {
            self.asked.set(None);
            self.unread.set(self.unread.get() - read);
            self.since.set(now);
        }
        let mut sent = false;
        while self.unread.get() < UNREAD {
            // Its place is given up with it, which may call for a next one.
            let Some(parting) = self.waiting.borrow_mut().pop_front() else { break };
            drop(parting);
            self.unread.set(self.unread.get() + 1);
            sent = true;
        }
        if sent {
            // They go out with the next poll, and the question behind them.
            cx.waker().wake_by_ref();
            return false;
        }
        let many = self.waiting() > 0 || self.unread.get() >= UNREAD / 2;
        if many && self.asked.get().is_none() && !heard.is_blocked() && ask() {
            self.asked.set(Some((self.unread.get(), heard.acknowledged() + 1)));
            cx.waker().wake_by_ref();
        }
        self.waiting.borrow().front().is_some_and(|(_, ride)| ride.is_deserted())
    }

    /// The connection is over.
    pub(super) fn end(&self) {
        self.over.set(true);
        // Each holds its connection, which holds this.
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        drop(waiting);
    }
}
