//! One coarse deadline wheel per core, advanced by the worker itself: the engine's own timers stand still while
//! a core polls. A deadline never drops a pending read (that would lose bytes): it shuts the socket down, which
//! completes the read, or wakes a task. Re-arming is a store: an entry is moved only when its bucket comes up.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::{self, Nanos};
use crate::sys::socket;

/// Width of a bucket. A deadline fires at most this late (plus the turn of the loop that it waits for).
pub const TICK_NS: u64 = 8_000_000;
/// Buckets of the wheel: its horizon is `TICK_NS * BUCKETS`, about 65 s; later deadlines are looked at once per horizon.
const BUCKETS: usize = 8192;
const NONE: u32 = u32::MAX;
/// Bytes a second that who takes something takes at least, or it is taken for stuck: half of what is promised, since what a
/// socket has accepted and what its peer has acknowledged are looked at one by one. Without a bound a byte a minute would hold
/// all that an exchange holds.
const LEAST_RATE: u64 = 120;

/// Bytes that somebody has to take in this time so as not to be taken for stuck.
pub fn least_taken(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).saturating_mul(LEAST_RATE).div_ceil(1000).max(1)
}

/// Which direction a deadline ends when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The read side: a final response can still be written.
    Read,
    /// Both sides.
    Both,
}

enum Action {
    Free,
    Shutdown(RawFd, Ends),
    Wake(Option<Waker>),
}

/// A deadline that goes on for as long as a socket's peer takes what waits to be sent.
struct Taking {
    span: Duration,
    /// What waited when it was armed, or went on.
    unsent: u64,
    /// When it fires all the same.
    until: Nanos,
}

impl Taking {
    /// When it is due again, if it goes on.
    fn goes_on(&mut self, unsent: u64, now: Nanos) -> Option<Nanos> {
        let taken = self.unsent.saturating_sub(unsent);
        if now >= self.until || taken < least_taken(self.span) {
            return None;
        }
        self.unsent = unsent;
        Some(clock::after(now, self.span).min(self.until))
    }
}

struct Entry {
    action: Action,
    /// When it fires; zero while it is not armed.
    due: Nanos,
    /// The bucket it hangs in, by tick; zero while it hangs nowhere.
    tick: u64,
    fired: bool,
    /// There is a [`Taking`] to be asked.
    may_go_on: bool,
    previous: u32,
    next: u32,
}

/// The wheel itself, pure: time is an argument.
pub struct Wheel {
    entries: Vec<Entry>,
    /// Of those few whose peers take too little at the moment.
    takings: HashMap<u32, Taking>,
    free: Vec<u32>,
    heads: Vec<u32>,
    occupied: Vec<u64>,
    /// The last tick that was processed.
    tick: u64,
    /// When the ticker means to look next; arming something earlier wakes it.
    wakes_at: Nanos,
    ticker: Option<Waker>,
}

impl Wheel {
    fn new(now: Nanos) -> Wheel {
        Wheel {
            entries: Vec::new(),
            takings: HashMap::new(),
            free: Vec::new(),
            heads: vec![NONE; BUCKETS],
            occupied: vec![0; BUCKETS / 64],
            tick: now / TICK_NS,
            wakes_at: Nanos::MAX,
            ticker: None,
        }
    }

    fn insert(&mut self, action: Action) -> u32 {
        let entry = Entry { action, due: 0, tick: 0, fired: false, may_go_on: false, previous: NONE, next: NONE };
        match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        }
    }

    fn remove(&mut self, index: u32) {
        self.unlink(index);
        if !self.takings.is_empty() {
            self.takings.remove(&index);
        }
        self.entries[index as usize].action = Action::Free;
        self.free.push(index);
    }

    fn arm(&mut self, index: u32, due: Nanos) {
        let entry = &mut self.entries[index as usize];
        entry.due = due;
        entry.fired = false;
        entry.may_go_on = false;
        // Rounded up, so that a bucket is never processed before its entries are due.
        let tick = due / TICK_NS + 1;
        if entry.tick == 0 || tick < entry.tick {
            self.unlink(index);
            self.link(index, tick);
            if due < self.wakes_at
                && let Some(ticker) = self.ticker.take()
            {
                ticker.wake();
            }
        }
    }

    fn disarm(&mut self, index: u32) {
        self.entries[index as usize].due = 0;
    }

    fn link(&mut self, index: u32, tick: u64) {
        let tick = tick.clamp(self.tick + 1, self.tick + BUCKETS as u64 - 1);
        let bucket = tick as usize % BUCKETS;
        let head = self.heads[bucket];
        let entry = &mut self.entries[index as usize];
        entry.tick = tick;
        entry.previous = NONE;
        entry.next = head;
        if head != NONE {
            self.entries[head as usize].previous = index;
        }
        self.heads[bucket] = index;
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
    }

    fn unlink(&mut self, index: u32) {
        let Entry { tick, previous, next, .. } = self.entries[index as usize];
        if tick == 0 {
            return;
        }
        let bucket = tick as usize % BUCKETS;
        if previous == NONE {
            self.heads[bucket] = next;
            if next == NONE {
                self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            }
        } else {
            self.entries[previous as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        self.entries[index as usize].tick = 0;
    }

    fn arm_taking(&mut self, index: u32, now: Nanos, taking: Taking) {
        self.arm(index, clock::after(now, taking.span).min(taking.until));
        self.entries[index as usize].may_go_on = true;
        self.takings.insert(index, taking);
    }

    /// Processes every bucket up to `now`; what is due goes to `fire`, which says when it is due again if it goes on.
    fn advance(&mut self, now: Nanos, mut fire: impl FnMut(&mut Action, Option<&mut Taking>) -> Option<Nanos>) {
        let target = now / TICK_NS;
        // After a long stall each bucket needs to be looked at only once.
        let from = self.tick.max(target.saturating_sub(BUCKETS as u64));
        for tick in from + 1..=target {
            self.tick = tick;
            let bucket = tick as usize % BUCKETS;
            let mut index = std::mem::replace(&mut self.heads[bucket], NONE);
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            while index != NONE {
                let entry = &mut self.entries[index as usize];
                let next = entry.next;
                entry.tick = 0;
                if entry.due == 0 {
                    // Disarmed: it hangs nowhere until it is armed again.
                } else {
                    if entry.due <= now {
                        let taking = if entry.may_go_on { self.takings.get_mut(&index) } else { None };
                        entry.due = fire(&mut entry.action, taking).unwrap_or(0);
                        entry.fired = entry.due == 0;
                    }
                    if !entry.fired {
                        let tick = entry.due / TICK_NS + 1;
                        self.link(index, tick);
                    }
                }
                index = next;
            }
        }
        self.tick = self.tick.max(target);
    }

    /// When the next occupied bucket comes up.
    fn next_due(&self) -> Option<Nanos> {
        let start = self.tick + 1;
        let mut offset = 0;
        while offset < BUCKETS as u64 {
            let bucket = (start + offset) as usize % BUCKETS;
            let word = self.occupied[bucket / 64] >> (bucket % 64);
            if word != 0 {
                let found = offset + u64::from(word.trailing_zeros());
                return Some((start + found) * TICK_NS);
            }
            offset += 64 - (bucket as u64 % 64);
        }
        None
    }
}

thread_local! {
    // Never dropped: its wakers own tasks, and a task's destructor would find neither wheel nor engine.
    static WHEEL: ManuallyDrop<RefCell<Wheel>> = ManuallyDrop::new(RefCell::new(Wheel::new(clock::now())));
}

/// Advances this core's wheel. The polling task calls it on every turn, the ticker when a bucket comes up.
pub(crate) fn advance(now: Nanos) {
    let mut wakers = Vec::new();
    WHEEL.with(|wheel| {
        wheel.borrow_mut().advance(now, |action, taking| {
            match action {
                Action::Shutdown(fd, ends) => {
                    if let Some(due) = taking.and_then(|taking| taking.goes_on(socket::unsent(*fd), now)) {
                        return Some(due);
                    }
                    socket::shutdown(*fd, *ends == Ends::Both);
                }
                Action::Wake(waker) => wakers.extend(waker.take()),
                Action::Free => {}
            }
            None
        });
    });
    for waker in wakers {
        waker.wake();
    }
}

/// Sleeps until the next bucket is due or something earlier is armed; at most `cap` nanoseconds.
pub(crate) async fn next_bucket(cap: u64) {
    let now = clock::now();
    let due = WHEEL.with(|wheel| {
        let mut wheel = wheel.borrow_mut();
        let due = wheel.next_due().unwrap_or(Nanos::MAX).min(now + cap);
        wheel.wakes_at = due;
        due
    });
    let wait = std::time::Duration::from_nanos(due.saturating_sub(now).max(1_000_000));
    let mut sleep = std::pin::pin!(monoio::time::sleep(wait));
    let mut first = true;
    poll_fn(|cx| {
        if sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let woken = WHEEL.with(|wheel| {
            let mut wheel = wheel.borrow_mut();
            let woken = !first && wheel.ticker.is_none();
            wheel.ticker = Some(cx.waker().clone());
            woken
        });
        first = false;
        if woken { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    WHEEL.with(|wheel| wheel.borrow_mut().wakes_at = Nanos::MAX);
}

/// A deadline that shuts a socket down. One per stream, for the stream's life.
pub struct Deadline {
    index: u32,
}

impl Deadline {
    pub(crate) fn new(fd: RawFd) -> Deadline {
        let index = WHEEL.with(|wheel| wheel.borrow_mut().insert(Action::Shutdown(fd, Ends::Both)));
        Deadline { index }
    }

    /// Fires at `due`, ending the given side.
    pub fn arm(&self, due: Nanos, ends: Ends) {
        WHEEL.with(|wheel| {
            let mut wheel = wheel.borrow_mut();
            if let Action::Shutdown(_, kept) = &mut wheel.entries[self.index as usize].action {
                *kept = ends;
            }
            wheel.arm(self.index, due);
        });
    }

    /// Fires, ending both sides, when the peer of a socket that is full has taken next to nothing for `span`, and at `until`
    /// whatever it takes. A full socket accepts nothing until much of it is free (a third), so that its owner sees nothing of a
    /// peer that reads slowly; the kernel knows what was acknowledged, and is asked when the time is over.
    pub fn arm_while_full(&self, now: Nanos, span: Duration, until: Nanos) {
        WHEEL.with(|wheel| {
            let mut wheel = wheel.borrow_mut();
            let Action::Shutdown(fd, kept) = &mut wheel.entries[self.index as usize].action else { return };
            *kept = Ends::Both;
            let unsent = socket::unsent(*fd);
            wheel.arm_taking(self.index, now, Taking { span, unsent, until });
        });
    }

    /// It will not fire.
    pub fn disarm(&self) {
        WHEEL.with(|wheel| wheel.borrow_mut().disarm(self.index));
    }

    /// Whether it fired since it was armed last.
    pub fn fired(&self) -> bool {
        WHEEL.with(|wheel| wheel.borrow().entries[self.index as usize].fired)
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // The thread-local is gone only when the thread ends, and then so is the wheel.
        let _ = WHEEL.try_with(|wheel| wheel.borrow_mut().remove(self.index));
    }
}

/// A timer that wakes a task, for what has no socket of its own (a stream of a multiplexed connection). Arming it
/// again is a store.
pub struct Alarm {
    index: u32,
}

impl Default for Alarm {
    fn default() -> Alarm {
        Alarm::new()
    }
}

impl Alarm {
    /// One that is not armed.
    pub fn new() -> Alarm {
        Alarm { index: WHEEL.with(|wheel| wheel.borrow_mut().insert(Action::Wake(None))) }
    }

    /// One that goes off at `due`.
    pub fn at(due: Nanos) -> Alarm {
        let alarm = Alarm::new();
        alarm.arm(due);
        alarm
    }

    /// Goes off at `due`.
    pub fn arm(&self, due: Nanos) {
        WHEEL.with(|wheel| wheel.borrow_mut().arm(self.index, due.max(1)));
    }

    /// It will not go off.
    pub fn disarm(&self) {
        WHEEL.with(|wheel| wheel.borrow_mut().disarm(self.index));
    }

    /// Whether it went off since it was armed last.
    pub fn fired(&self) -> bool {
        WHEEL.with(|wheel| wheel.borrow().entries[self.index as usize].fired)
    }

    /// Whether it went off; else the task is woken when it does.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        WHEEL.with(|wheel| {
            let entry = &mut wheel.borrow_mut().entries[self.index as usize];
            if entry.fired {
                return Poll::Ready(());
            }
            match &mut entry.action {
                Action::Wake(Some(waker)) if waker.will_wake(cx.waker()) => {}
                action => *action = Action::Wake(Some(cx.waker().clone())),
            }
            Poll::Pending
        })
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let _ = WHEEL.try_with(|wheel| wheel.borrow_mut().remove(self.index));
    }
}

/// Waits until `due`, to the wheel's precision. Safe to drop.
pub async fn sleep_until(due: Nanos) {
    let alarm = Alarm::new();
    alarm.arm(due);
    poll_fn(|cx| alarm.poll(cx)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn fired(wheel: &mut Wheel, now: Nanos) -> usize {
        let mut count = 0;
        wheel.advance(now, |_, _| {
            count += 1;
            None
        });
        count
    }

    #[test]
    fn who_takes_something_is_waited_for_and_who_takes_next_to_nothing_is_not() {
        let span = Duration::from_secs(60);
        assert_eq!((least_taken(span), least_taken(Duration::ZERO)), (7200, 1));
        let mut wheel = Wheel::new(SECOND);
        let index = wheel.insert(Action::Wake(None));
        wheel.arm_taking(index, SECOND, Taking { span, unsent: 100_000, until: 200 * SECOND });
        let mut at = |now: u64, unsent: u64| {
            let mut asked = None;
            wheel.advance(now * SECOND, |_, taking| {
                let next = taking.expect("is asked").goes_on(unsent, now * SECOND);
                asked = Some(next);
                next
            });
            asked
        };
        assert_eq!(at(59, 0), None, "not before its time");
        assert_eq!(at(62, 50_000), Some(Some(122 * SECOND)));
        assert_eq!(at(123, 42_000), Some(Some(183 * SECOND)));
        // What was taken long ago does not count, and what comes in anew does not count against it.
        assert_eq!(at(184, 34_801), Some(None));
        // Once it has fired it is an ordinary one until it is armed so again.
        wheel.arm(index, 190 * SECOND);
        let mut fired = 0;
        wheel.advance(191 * SECOND, |_, taking| {
            fired += usize::from(taking.is_none());
            None
        });
        assert_eq!(fired, 1);
        wheel.arm_taking(index, 191 * SECOND, Taking { span, unsent: 100_000, until: 200 * SECOND });
        let mut asked = None;
        wheel.advance(201 * SECOND, |_, taking| {
            asked = Some(taking.expect("is asked").goes_on(0, 201 * SECOND));
            None
        });
        assert_eq!(asked, Some(None), "whatever was taken");
        wheel.remove(index);
        assert!(wheel.takings.is_empty());
    }

    #[test]
    fn fires_once_and_not_before_it_is_due() {
        let mut wheel = Wheel::new(SECOND);
        let index = wheel.insert(Action::Wake(None));
        wheel.arm(index, 3 * SECOND);
        assert_eq!(fired(&mut wheel, 3 * SECOND - TICK_NS), 0);
        assert_eq!(fired(&mut wheel, 3 * SECOND + TICK_NS), 1);
        assert_eq!(fired(&mut wheel, 9 * SECOND), 0);
    }

    #[test]
    fn rearming_later_is_lazy_and_earlier_moves() {
        let mut wheel = Wheel::new(SECOND);
        let index = wheel.insert(Action::Wake(None));
        wheel.arm(index, 2 * SECOND);
        wheel.arm(index, 10 * SECOND);
        assert_eq!(fired(&mut wheel, 9 * SECOND), 0);
        wheel.arm(index, 9 * SECOND + 2 * TICK_NS);
        assert_eq!(fired(&mut wheel, 9 * SECOND + 4 * TICK_NS), 1);
    }

    #[test]
    fn beyond_the_horizon_it_waits_for_its_time() {
        let mut wheel = Wheel::new(SECOND);
        let index = wheel.insert(Action::Wake(None));
        wheel.arm(index, 3600 * SECOND);
        let mut now = SECOND;
        while now < 3599 * SECOND {
            now += 7 * SECOND;
            if now < 3600 * SECOND {
                assert_eq!(fired(&mut wheel, now), 0, "at {now}");
            }
        }
        assert_eq!(fired(&mut wheel, 3601 * SECOND), 1);
    }

    #[test]
    fn a_stall_longer_than_the_horizon_loses_nothing() {
        let mut wheel = Wheel::new(SECOND);
        for seconds in 2..200 {
            let index = wheel.insert(Action::Wake(None));
            wheel.arm(index, seconds * SECOND);
        }
        assert_eq!(fired(&mut wheel, 1000 * SECOND), 198);
    }

    #[test]
    fn next_due_names_the_first_bucket() {
        let mut wheel = Wheel::new(SECOND);
        assert_eq!(wheel.next_due(), None);
        let index = wheel.insert(Action::Wake(None));
        wheel.arm(index, 30 * SECOND);
        let due = wheel.next_due().expect("armed");
        assert!((30 * SECOND..=30 * SECOND + 2 * TICK_NS).contains(&due), "{due}");
        wheel.remove(index);
        assert_eq!(wheel.next_due(), None);
    }
}
