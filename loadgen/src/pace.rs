//! Arrivals and the lanes that take them. What is due is sent in the pacer's own hands, on a connection that is free,
//! and its lane is woken only for the answer: a task that had to be woken first would stand behind all that the core
//! has to do. For the same reason an origin on the core, and each lane that has its answer, looks whether a moment has
//! come before it goes on.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};

use onehop_net::clock::{self, Nanos};

use crate::failure::FAILURES;
use crate::lane::{Lane, Times};
use crate::plan::Plan;
use crate::random::Random;
use crate::record::{Recorder, Start};
use crate::schedule::Schedule;

/// A request to be carried.
#[derive(Clone, Copy)]
pub struct Arrival {
    /// When it was meant to be sent.
    pub intended: Nanos,
    /// How it came to be sent.
    pub start: Start,
    /// Which request of the mix.
    pub request: usize,
    /// What has been stamped so far.
    pub times: Times,
    /// Bytes of it that the pacer has sent already.
    pub begun: Option<usize>,
}

/// Where a lane waits for an arrival.
#[derive(Default)]
pub struct Slot {
    arrival: Cell<Option<Arrival>>,
    waker: RefCell<Option<Waker>>,
    /// The lane itself, while it waits.
    lane: RefCell<Option<Box<Lane>>>,
}

/// What pacer and lanes of a thread share.
pub struct Shared {
    pub plan: Arc<Plan>,
    pub schedule: RefCell<Option<Schedule>>,
    pub random: RefCell<Random>,
    free: RefCell<VecDeque<usize>>,
    pub slots: Vec<Slot>,
    pub recorder: RefCell<Option<Recorder>>,
    pub end: Cell<Nanos>,
    pub over: Cell<bool>,
    pub active: Cell<usize>,
    pub ready: Cell<usize>,
    pub connected: Cell<usize>,
    pub refused: RefCell<[u64; FAILURES]>,
    /// The pacer, waiting for a lane to fall free or for all to end.
    pacer: RefCell<Option<Waker>>,
}

thread_local! {
    /// When the next arrival of this core is due while a connection is free for it; else never.
    static URGENT: Cell<Nanos> = const { Cell::new(Nanos::MAX) };
    static PACING: RefCell<Weak<Shared>> = const { RefCell::new(Weak::new()) };
}

/// Sends what has become due on this core meanwhile. Between two pieces of work; costs a branch where nothing is paced.
#[inline]
pub fn look() {
    let urgent = URGENT.get();
    if urgent != Nanos::MAX && clock::now() >= urgent {
        let shared = PACING.with_borrow(Weak::upgrade);
        if let Some(shared) = shared {
            shared.send_due();
        }
    }
}

impl Shared {
    /// For `lanes` lanes, all of them about to connect.
    pub fn new(plan: Arc<Plan>, thread: usize, lanes: usize) -> Rc<Shared> {
        Rc::new(Shared {
            random: RefCell::new(Random::new(plan.seed, !(thread as u64))),
            plan,
            schedule: RefCell::new(None),
            free: RefCell::new(VecDeque::with_capacity(lanes)),
            slots: (0..lanes).map(|_| Slot::default()).collect(),
            recorder: RefCell::new(None),
            end: Cell::new(0),
            over: Cell::new(false),
            active: Cell::new(lanes),
            ready: Cell::new(0),
            connected: Cell::new(0),
            refused: RefCell::new([0; FAILURES]),
            pacer: RefCell::new(None),
        })
    }

    /// Begins to keep to a schedule on this core.
    pub fn keep_to(self: &Rc<Shared>, schedule: Schedule) {
        *self.schedule.borrow_mut() = Some(schedule);
        PACING.set(Rc::downgrade(self));
        self.set_urgent();
    }

    /// Nothing more is sent.
    pub fn stop(&self) {
        self.over.set(true);
        URGENT.set(Nanos::MAX);
    }

    /// When the next arrival is due; `None` in a closed loop.
    pub fn due(&self) -> Option<Nanos> {
        self.schedule.borrow().as_ref().map(Schedule::due)
    }

    /// Whether a lane waits for an arrival.
    pub fn has_free(&self) -> bool {
        !self.free.borrow().is_empty()
    }

    fn set_urgent(&self) {
        let due = self.due().filter(|due| *due < self.end.get() && !self.over.get() && self.has_free());
        URGENT.set(due.unwrap_or(Nanos::MAX));
    }

    /// Sends all that is due, as far as connections are free.
    pub fn send_due(&self) {
        while let Some((intended, lane)) = self.take_due() {
            let (slot, mut times) = (&self.slots[lane], Times::default());
            let request = self.plan.mix.choose(&mut self.random.borrow_mut());
            let mut waiting = slot.lane.borrow_mut();
            let begun =
                waiting.as_mut().and_then(|lane| lane.begin(&self.plan, self.plan.mix.request(request), &mut times));
            slot.arrival.set(Some(Arrival { intended, start: Start::OnTime, request, times, begun }));
            if let Some(waker) = slot.waker.borrow_mut().take() {
                waker.wake();
            }
        }
        self.set_urgent();
    }

    fn take_due(&self) -> Option<(Nanos, usize)> {
        let mut schedule = self.schedule.borrow_mut();
        let schedule = schedule.as_mut()?;
        let due = schedule.due();
        if due > clock::now() || due >= self.end.get() || self.over.get() {
            return None;
        }
        let lane = self.free.borrow_mut().pop_front()?;
        Some((schedule.take(), lane))
    }

    /// The next arrival for a lane that is free at `now`: at once if one is overdue, else when its moment comes; `None`
    /// at the end.
    pub async fn next(&self, index: usize, lane: Box<Lane>, now: Nanos) -> Option<(Box<Lane>, Arrival)> {
        if self.over.get() {
            return None;
        }
        if let Some(arrival) = self.at_once(now)? {
            return Some((lane, arrival));
        }
        let slot = &self.slots[index];
        *slot.lane.borrow_mut() = Some(lane);
        self.free.borrow_mut().push_back(index);
        if self.free.borrow().len() == 1 {
            self.set_urgent();
            self.wake_pacer();
        }
        let arrival = poll_fn(|cx| {
            if let Some(arrival) = slot.arrival.take() {
                return Poll::Ready(Some(arrival));
            }
            if self.over.get() {
                return Poll::Ready(None);
            }
            *slot.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await?;
        let lane = slot.lane.borrow_mut().take()?;
        Some((lane, arrival))
    }

    /// What needs no waiting: `None` at the end of a closed loop, `Some(None)` where a lane has to wait.
    fn at_once(&self, now: Nanos) -> Option<Option<Arrival>> {
        let (intended, start) = match self.schedule.borrow_mut().as_mut() {
            Some(schedule) if schedule.due() <= now && schedule.due() < self.end.get() => {
                // While others are free it is only that this lane was faster than the pacer.
                (schedule.take(), if self.has_free() { Start::OnTime } else { Start::Waited })
            }
            Some(_) => return Some(None),
            None if now < self.end.get() => (now, Start::Unpaced),
            None => return None,
        };
        // In a closed loop the end of one exchange is the beginning of the next.
        let sent = if start == Start::Unpaced { now } else { 0 };
        let times = Times { sent, ..Times::default() };
        let request = self.plan.mix.choose(&mut self.random.borrow_mut());
        Some(Some(Arrival { intended, start, request, times, begun: None }))
    }

    /// Waits, as a lane, until there is something to do or nothing will ever be.
    pub async fn begin(&self, index: usize, stopped: impl Fn() -> bool) {
        poll_fn(|cx| {
            if self.end.get() > 0 || self.over.get() || stopped() {
                return Poll::Ready(());
            }
            *self.slots[index].waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Wakes all lanes that wait.
    pub fn wake_lanes(&self) {
        for slot in &self.slots {
            if let Some(waker) = slot.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    pub fn wake_pacer(&self) {
        if let Some(pacer) = self.pacer.borrow_mut().take() {
            pacer.wake();
        }
    }

    pub async fn pacer_waits(&self, until: impl Fn(&Shared) -> bool) {
        poll_fn(|cx| {
            if until(self) {
                return Poll::Ready(());
            }
            *self.pacer.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
