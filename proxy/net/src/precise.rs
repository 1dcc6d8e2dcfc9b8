//! Waiting for a moment to the microsecond, for the load generator: a kernel timer by absolute time wakes the core a
//! little early, and the rest is spent taking turns of the ring, so that everything else on the core goes on
//! meanwhile. (The deadline wheel is for limits: 8 ms. The engine's own timers have a granularity of 1 ms and stand
//! still while a core is busy.)

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::clock::{self, Nanos};
use crate::core;
use crate::sys::duplex::Duplex;
use crate::sys::{ring, timer};

/// How early the kernel timer is to wake the core, unless told otherwise: on a virtual machine, leaving a halted core
/// takes tens of microseconds.
pub const SPIN: Duration = Duration::from_micros(100);

#[derive(Default)]
struct Partner {
    waiting: RefCell<Option<Waker>>,
    own: RefCell<Option<Waker>>,
}

/// Turns of this core's loop without sleeping. A task that wakes itself would go to the front of the engine's queue
/// and starve the others, so a partner task wakes it.
pub struct Turns {
    partner: Rc<Partner>,
}

impl Turns {
    /// For one task of this core.
    pub fn new() -> Turns {
        let partner = Rc::new(Partner::default());
        let shared = partner.clone();
        crate::runtime::spawn(poll_fn(move |cx| {
            if let Some(waiting) = shared.waiting.borrow_mut().take() {
                waiting.wake();
            }
            if Rc::strong_count(&shared) == 1 {
                return Poll::Ready(());
            }
            *shared.own.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        }));
        Turns { partner }
    }

    /// Fetches what has completed and lets every task that is ready run.
    pub async fn next(&self) {
        crate::deadline::advance(clock::now());
        if let Some(ring) = core::ring_fd() {
            ring::enter(ring);
        }
        let called = Cell::new(false);
        poll_fn(|cx| {
            if called.replace(true) {
                return Poll::Ready(());
            }
            *self.partner.waiting.borrow_mut() = Some(cx.waker().clone());
            // Without a waker it has not run yet and stands in the queue.
            if let Some(partner) = self.partner.own.borrow_mut().take() {
                partner.wake();
            }
            Poll::Pending
        })
        .await;
    }
}

impl Default for Turns {
    fn default() -> Turns {
        Turns::new()
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        // The partner sees that it is alone and ends.
        let own = self.partner.own.borrow_mut().take();
        if let Some(own) = own {
            let shared = std::mem::take(&mut self.partner);
            drop(shared);
            own.wake();
        }
    }
}

/// A timer of one task.
pub struct Timer {
    duplex: Duplex,
    turns: Turns,
    /// From our clock to the kernel's.
    offset: i64,
    spin: Nanos,
}

impl Timer {
    /// Made on the core that waits. `spin` is how long before each moment it stops sleeping; [`Duration::MAX`]: it
    /// never sleeps, which spares the core's leaving of its halt and costs the whole core.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new(spin: Duration) -> io::Result<Timer> {
        let spin = u64::try_from(spin.as_nanos()).unwrap_or(u64::MAX);
        Ok(Timer { duplex: Duplex::new(timer::create()?)?, turns: Turns::new(), offset: timer::offset(), spin })
    }

    /// Waits until `due`, at most a turn of the loop longer. At once if it has passed.
    ///
    /// # Errors
    /// What the kernel says of the timer.
    pub async fn until(&self, due: Nanos) -> io::Result<()> {
        loop {
            let now = clock::now();
            if now >= due {
                return Ok(());
            }
            if due - now > self.spin {
                let at = (due - self.spin) as i64 + self.offset;
                timer::arm(self.duplex.raw_fd(), at.max(1) as u64)?;
                self.duplex.readable().await?;
                core::completed();
            } else {
                self.turns.next().await;
            }
        }
    }

    /// One turn of the loop without sleeping.
    pub async fn turn(&self) {
        self.turns.next().await;
    }

    /// Whether it was told never to sleep.
    pub fn never_sleeps(&self) -> bool {
        self.spin == u64::MAX
    }
}

struct Sleepers {
    waiting: RefCell<BTreeMap<(Nanos, u64), Waker>>,
    next: Cell<u64>,
    /// The task that wakes them, when it must look anew.
    task: RefCell<Option<Waker>>,
}

/// One timer for the waits of many tasks of a core.
#[derive(Clone)]
pub struct Sleeper {
    shared: Rc<Sleepers>,
}

impl Sleeper {
    /// Starts the task that wakes the others; `spin` as in [`Timer::new`].
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn start(spin: Duration) -> io::Result<Sleeper> {
        let timer = Timer::new(spin)?;
        let shared =
            Rc::new(Sleepers { waiting: RefCell::new(BTreeMap::new()), next: Cell::new(0), task: RefCell::new(None) });
        let sleepers = shared.clone();
        crate::runtime::spawn(async move {
            loop {
                let first = sleepers.waiting.borrow().first_key_value().map(|(key, _)| key.0);
                match first {
                    Some(due) => {
                        // An error of the timer would be a wait that never ends: it is taken as an early end instead.
                        let _ = crate::stream::first(timer.until(due), sleepers.earlier_than(due)).await;
                    }
                    None => sleepers.earlier_than(Nanos::MAX).await,
                }
                sleepers.wake(clock::now());
            }
        });
        Ok(Sleeper { shared })
    }

    /// Waits until `due`. Safe to drop.
    pub async fn until(&self, due: Nanos) {
        let key = (due, self.shared.next.get());
        self.shared.next.set(key.1 + 1);
        let wait = Wait { shared: &self.shared, key };
        poll_fn(|cx| {
            if clock::now() >= due {
                return Poll::Ready(());
            }
            self.shared.waiting.borrow_mut().insert(wait.key, cx.waker().clone());
            if self.shared.waiting.borrow().first_key_value().is_some_and(|(first, _)| *first == key)
                && let Some(task) = self.shared.task.borrow_mut().take()
            {
                task.wake();
            }
            Poll::Pending
        })
        .await;
    }
}

impl Sleepers {
    async fn earlier_than(&self, due: Nanos) {
        poll_fn(|cx| {
            if self.waiting.borrow().first_key_value().is_some_and(|(key, _)| key.0 < due) {
                return Poll::Ready(());
            }
            *self.task.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn wake(&self, now: Nanos) {
        while let Some(entry) = self.waiting.borrow_mut().first_entry()
            && entry.key().0 <= now
        {
            entry.remove().wake();
        }
    }
}

struct Wait<'a> {
    shared: &'a Sleepers,
    key: (Nanos, u64),
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.shared.waiting.borrow_mut().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Options, Rung, run};

    fn on_every_engine<F: Future + 'static>(main: impl Fn() -> F + Send + Copy + 'static) {
        for first_rung in [Rung::Deferred, Rung::Epoll] {
            std::thread::spawn(move || {
                let options = Options { first_rung, ..Options::default() };
                run(&options, |_| {}, |_| main()).expect("a core starts");
            })
            .join()
            .expect("no panic");
        }
    }

    #[test]
    fn it_is_never_early_and_keeps_the_order() {
        on_every_engine(|| async {
            let timer = Timer::new(SPIN).expect("a timer");
            let start = clock::now();
            for step in 1..=50u64 {
                // Above and below the spin.
                let due = start + step * step * 10_000;
                timer.until(due).await.expect("waits");
                assert!(clock::now() >= due);
            }
            timer.until(start).await.expect("the past is at once");
        });
    }

    #[test]
    fn many_tasks_share_a_timer_and_wake_in_order() {
        on_every_engine(|| async {
            let sleeper = Sleeper::start(SPIN).expect("a timer");
            let (woken, start) = (Rc::new(RefCell::new(Vec::new())), clock::now());
            for number in [5u64, 1, 4, 2, 3] {
                let (sleeper, woken) = (sleeper.clone(), woken.clone());
                crate::runtime::spawn(async move {
                    let due = start + number * 3_000_000;
                    sleeper.until(due).await;
                    assert!(clock::now() >= due);
                    woken.borrow_mut().push(number);
                });
            }
            sleeper.until(start + 18_000_000).await;
            assert_eq!(*woken.borrow(), [1, 2, 3, 4, 5]);
        });
    }

    #[test]
    fn others_run_while_it_spins() {
        on_every_engine(|| async {
            let timer = Timer::new(Duration::MAX).expect("a timer");
            assert!(timer.never_sleeps());
            let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
            let mut stream = crate::Stream::new(theirs.into()).expect("registers");
            let heard = Rc::new(Cell::new(0usize));
            let count = heard.clone();
            crate::runtime::spawn(async move {
                while let Ok(1..) = stream.fill(crate::Size::Small).await {
                    count.set(count.get() + stream.buffered().len());
                    stream.consume(stream.buffered().len());
                }
            });
            for round in 1..=100 {
                std::io::Write::write_all(&mut ours, b"x").expect("writes");
                while heard.get() < round {
                    timer.turn().await;
                }
            }
        });
    }

    #[test]
    fn a_deadline_fires_while_it_spins() {
        on_every_engine(|| async {
            let timer = Timer::new(Duration::MAX).expect("a timer");
            let fired = Rc::new(Cell::new(false));
            let seen = fired.clone();
            crate::runtime::spawn(async move {
                crate::deadline::sleep_until(clock::now() + 20_000_000).await;
                seen.set(true);
            });
            while !fired.get() {
                timer.turn().await;
            }
        });
    }
}
