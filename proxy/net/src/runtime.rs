//! One core: the engine on the best rung that the kernel allows, its deadline ticker and its polling.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use crate::clock;
use crate::sys::{process, ring};

/// How the core waits for the kernel, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// SINGLE_ISSUER, DEFER_TASKRUN, SUBMIT_ALL (kernel 6.1): a quarter less CPU per request at 16 connections.
    Deferred,
    /// COOP_TASKRUN, SUBMIT_ALL (kernel 5.19).
    Cooperative,
    /// A ring without flags (kernel 5.6).
    Plain,
    /// epoll, where io_uring is refused (containers' default seccomp profiles do).
    Epoll,
}

impl Rung {
    /// The name that the start-up line and the metric show.
    pub fn name(self) -> &'static str {
        match self {
            Rung::Deferred => "io_uring defer-taskrun",
            Rung::Cooperative => "io_uring coop-taskrun",
            Rung::Plain => "io_uring",
            Rung::Epoll => "epoll",
        }
    }
}

/// How one core is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pins the core's thread.
    pub cpu: Option<usize>,
    /// The first rung to try.
    pub first_rung: Rung,
    /// How long the core polls after the last completion before it sleeps; zero: not at all.
    pub busy_poll: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { cpu: None, first_rung: Rung::Deferred, busy_poll: Duration::ZERO }
    }
}

/// The running core, given to its main future.
#[derive(Clone)]
pub struct Core {
    rung: Rung,
    budget_ns: Rc<Cell<u64>>,
}

impl Core {
    /// The rung that held.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// Changes the polling budget from now on.
    pub fn set_busy_poll(&self, busy_poll: Duration) {
        self.budget_ns.set(ring::budget(busy_poll));
        crate::core::look_at_polling();
    }
}

/// A core beats at least this often, also when nothing happens.
pub const BEAT_NS: u64 = 500_000_000;

static BUILDING: Mutex<()> = Mutex::new(());

/// Runs a core on the calling thread until its main future ends.
///
/// # Errors
/// When not even the epoll engine can be built (descriptors exhausted), or the CPU cannot be pinned to.
pub fn run<F: Future>(
    options: &Options,
    beat: impl Fn(clock::Nanos) + 'static,
    main: impl FnOnce(Core) -> F,
) -> io::Result<F::Output> {
    if let Some(cpu) = options.cpu {
        process::pin_to_cpu(cpu)?;
    }
    let (engine, rung) = {
        let _one_at_a_time = BUILDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ring::build(options.first_rung)?
    };
    // Never dropped: the engine's drop frees buffers that the kernel may still write into, and the tasks' destructors
    // would find no engine. A core ends only shortly before its process does.
    let mut engine = std::mem::ManuallyDrop::new(engine);
    let budget_ns = Rc::new(Cell::new(ring::budget(options.busy_poll)));
    let core = Core { rung, budget_ns: budget_ns.clone() };
    let ring_fd = engine.ring_fd();
    Ok(engine.block_on(async move {
        spawn(ticker(beat));
        if let Some(ring_fd) = ring_fd {
            ring::start_polling(ring_fd, budget_ns);
        }
        main(core).await
    }))
}

async fn ticker(beat: impl Fn(clock::Nanos)) {
    loop {
        let now = clock::now();
        crate::deadline::advance(now);
        beat(now);
        crate::deadline::next_bucket(BEAT_NS).await;
    }
}

/// Starts a task on this core. A panic in it is not caught: wrap what can panic.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(task));
}

/// Lets every task that is ready run once before this one goes on. (The engine's own yield goes to the front of the
/// queue and starves the others: a partner task gives a fair one.)
pub async fn yield_now() {
    let partner = monoio::spawn(async {});
    partner.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_runs_tasks_and_timers() {
        for first_rung in [Rung::Deferred, Rung::Cooperative, Rung::Plain, Rung::Epoll] {
            std::thread::spawn(move || {
                let options = Options { first_rung, ..Options::default() };
                let rung = run(
                    &options,
                    |_| {},
                    |core| async move {
                        let start = clock::now();
                        crate::deadline::sleep_until(start + 20_000_000).await;
                        assert!(clock::now() >= start + 20_000_000);
                        core.rung()
                    },
                )
                .expect("a core starts");
                assert!(rung >= first_rung);
            })
            .join()
            .expect("no panic");
        }
    }

    #[test]
    fn a_deadline_fires_while_the_core_polls() {
        std::thread::spawn(|| {
            let options = Options { busy_poll: Duration::from_secs(3600), ..Options::default() };
            run(
                &options,
                |_| {},
                |_| async {
                    crate::core::completed();
                    crate::deadline::sleep_until(clock::now() + 30_000_000).await;
                    if !crate::core::is_epoll() {
                        assert!(crate::core::figures().polls == 0 || crate::core::figures().polling_ns > 0);
                    }
                },
            )
            .expect("a core starts");
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn a_yield_lets_others_run_first() {
        std::thread::spawn(|| {
            run(
                &Options::default(),
                |_| {},
                |_| async {
                    let ran = Rc::new(Cell::new(false));
                    let seen = ran.clone();
                    spawn(async move { seen.set(true) });
                    yield_now().await;
                    assert!(ran.get());
                },
            )
            .expect("a core starts");
        })
        .join()
        .expect("no panic");
    }
}
