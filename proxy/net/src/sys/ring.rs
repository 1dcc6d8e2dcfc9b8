//! The ring's flags as a ladder, and the adaptive polling of it. The engine has no hook for polling, so two tasks
//! keep its loop from parking, and one of them enters the kernel for the completions that the engine's own
//! non-waiting submit does not fetch under DEFER_TASKRUN.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

use crate::clock;
use crate::core::STATE;
use crate::runtime::Rung;

const ENTRIES: u32 = 1024;
/// Completions that can wait; a burst beyond it makes the kernel keep a list, which is slower but loses nothing.
const COMPLETIONS: u32 = 8192;
/// `IORING_ENTER_GETEVENTS`: run the deferred task work and post its completions.
const GETEVENTS: libc::c_uint = 1;

/// The engine on whatever the kernel gave us.
pub enum Engine {
    Ring(Box<Runtime<TimeDriver<IoUringDriver>>>, Option<RawFd>),
    Epoll(Box<Runtime<TimeDriver<LegacyDriver>>>),
}

impl Engine {
    pub fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        match self {
            Engine::Ring(runtime, _) => runtime.block_on(future),
            Engine::Epoll(runtime) => runtime.block_on(future),
        }
    }

    pub fn ring_fd(&self) -> Option<RawFd> {
        match self {
            Engine::Ring(_, fd) => *fd,
            Engine::Epoll(_) => None,
        }
    }
}

fn flags(rung: Rung) -> io_uring::Builder {
    // The methods return a reference, so the builder needs a variable.
    let mut builder = io_uring::IoUring::builder();
    builder.setup_cqsize(COMPLETIONS);
    match rung {
        Rung::Deferred => {
            builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
        }
        Rung::Cooperative => {
            builder.setup_coop_taskrun().setup_submit_all();
        }
        Rung::Plain | Rung::Epoll => {}
    }
    builder
}

fn ring_descriptors() -> BTreeSet<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == "anon_inode:[io_uring]"))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Builds the engine on the first rung that holds, starting at `first`. Must run on the core's own thread; the
/// caller keeps threads from building at the same time, since the ring's descriptor is found by its appearance.
pub fn build(first: Rung) -> std::io::Result<(Engine, Rung)> {
    for rung in [Rung::Deferred, Rung::Cooperative, Rung::Plain] {
        if rung < first {
            continue;
        }
        let before = ring_descriptors();
        let built = RuntimeBuilder::<IoUringDriver>::new()
            .with_entries(ENTRIES)
            .uring_builder(flags(rung))
            .enable_timer()
            .build();
        if let Ok(runtime) = built {
            let fd = ring_descriptors().difference(&before).next().copied();
            STATE.with(|state| state.ring.set(fd));
            return Ok((Engine::Ring(Box::new(runtime), fd), rung));
        }
    }
    let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
    STATE.with(|state| state.epoll.set(true));
    Ok((Engine::Epoll(Box::new(runtime)), Rung::Epoll))
}

/// Fetches deferred completions without waiting.
pub fn enter(ring: RawFd) {
    // SAFETY: no buffer is passed (null signal mask); the descriptor is the ring that this thread built and keeps open.
    unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            ring,
            0 as libc::c_uint,
            0 as libc::c_uint,
            GETEVENTS,
            std::ptr::null::<libc::c_void>(),
            0usize,
        );
    }
}

struct Spin {
    /// While a spell of polling lasts.
    spinning: Cell<bool>,
    partner: RefCell<Option<Waker>>,
    poller: RefCell<Option<Waker>>,
    budget_ns: Rc<Cell<u64>>,
}

/// With more completions than this in one turn the core is busy anyway, and parking returns at once: polling would only cost.
const BUSY_TURN: u64 = 3;

/// The pace of completions is judged over so many of them.
const PACE: u64 = 64;

/// Completions closer together than this on average keep the core awake by themselves.
const BUSY_GAP_NS: u64 = 16_000;

/// After a spell that ended because the core is busy, so many completions pass before the next one.
const BUSY_REST: u64 = 512;

/// Where polling is off, it is looked at so seldom; a change wakes it at the next completion.
const OFF_REST: u64 = 1 << 32;

/// A spell ends at the latest after this, so that the core parks once and the engine's own timers (the heartbeat) move.
const SPELL_NS: u64 = 100_000_000;

/// Starts the two polling tasks of this core. `budget_ns` may be changed at any time; zero turns polling off.
pub fn start_polling(ring: RawFd, budget_ns: Rc<Cell<u64>>) {
    let spin = Rc::new(Spin {
        spinning: Cell::new(false),
        partner: RefCell::new(None),
        poller: RefCell::new(None),
        budget_ns,
    });
    let partner = spin.clone();
    monoio::spawn(poll_fn(move |cx| {
        *partner.partner.borrow_mut() = Some(cx.waker().clone());
        if partner.spinning.get()
            && let Some(poller) = partner.poller.borrow_mut().take()
        {
            poller.wake();
        }
        Poll::<()>::Pending
    }));
    monoio::spawn(async move {
        let mut rest = 1;
        loop {
            let seen = sleep_until_completion(rest).await;
            rest = if spin.budget_ns.get() == 0 {
                OFF_REST
            } else if spell(ring, &spin, seen).await {
                BUSY_REST
            } else {
                1
            };
        }
    });
}

/// Sleeps until so many operations have completed; returns how many had before.
async fn sleep_until_completion(count: u64) -> u64 {
    STATE.with(|state| state.poller_at.set(state.completions.get() + count));
    poll_fn(|cx| {
        STATE.with(|state| {
            let now = state.completions.get();
            // Lowered where the budget has changed meanwhile.
            if now >= state.poller_at.get() {
                return Poll::Ready(now.saturating_sub(1));
            }
            *state.poller.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
    })
    .await
}

/// Polls until nothing has completed for the budget, or until the core is busy without us (true).
async fn spell(ring: RawFd, spin: &Spin, mut seen: u64) -> bool {
    let start = clock::now();
    let mut last = start;
    let mut turns = 0u64;
    let (mut paced, mut paced_at) = (seen, start);
    let busy = poll_fn(|cx| {
        let done = STATE.with(|state| state.completions.get());
        let budget = spin.budget_ns.get();
        let now = clock::now();
        if done - seen > BUSY_TURN {
            return Poll::Ready(true);
        }
        if budget == 0 || now - start > SPELL_NS {
            return Poll::Ready(false);
        }
        if done - paced >= PACE {
            if (now - paced_at) / PACE < BUSY_GAP_NS {
                return Poll::Ready(true);
            }
            (paced, paced_at) = (done, now);
        }
        if done != seen {
            seen = done;
            last = now;
        } else if now - last > budget {
            return Poll::Ready(false);
        }
        turns += 1;
        crate::deadline::advance(now);
        enter(ring);
        spin.spinning.set(true);
        *spin.poller.borrow_mut() = Some(cx.waker().clone());
        match spin.partner.borrow_mut().take() {
            Some(partner) => partner.wake(),
            // The partner has not run yet in this turn; it will see that we spin.
            None => cx.waker().wake_by_ref(),
        }
        Poll::Pending
    })
    .await;
    spin.spinning.set(false);
    if turns > 0 {
        STATE.with(|state| {
            state.polls.set(state.polls.get() + turns);
            state.polling_ns.set(state.polling_ns.get() + (clock::now() - start));
        });
    }
    busy
}

/// The polling budget as the ring's tasks read it.
pub fn budget(busy_poll: Duration) -> u64 {
    u64::try_from(busy_poll.as_nanos()).unwrap_or(u64::MAX)
}
