//! One thread's part of a run: a pacer that keeps to the schedule, and lanes that carry requests.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::sleep_until;
use onehop_net::precise::Timer;
use onehop_net::stream::first;

use crate::failure::{FAILURES, Failure};
use crate::lane::{Lane, Times};
use crate::pace::{self, Shared};
use crate::plan::{Loop, Plan};
use crate::record::{Recorder, Seen, Slice};
use crate::schedule::Schedule;

/// After a connection that could not be made, a closed loop rests so long: else it would only hammer.
const REST: Duration = Duration::from_millis(10);
/// How often a pacer with nothing to do looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// What the threads of a run agree on.
#[derive(Debug, Default)]
pub struct Agreement {
    /// When the schedule begins, once all threads are connected; zero before.
    pub start: AtomicU64,
    /// It is to end early.
    pub stop: AtomicBool,
}

/// What a thread tells of its part.
pub enum Told {
    /// Its connections are made; how many, and how many failed in which way.
    Ready(usize, [u64; FAILURES]),
    /// A slice of time is over.
    Slice(Box<Slice>),
    /// Its part is over.
    Done {
        /// Arrivals that it took from its schedule.
        taken: u64,
        /// Arrivals that were due and never sent.
        unsent: u64,
        /// When it ended.
        ended: Nanos,
    },
    /// The core cannot do it.
    Broken(io::Error),
}

/// Runs one thread's part on its core.
pub async fn run(
    plan: Arc<Plan>,
    thread: usize,
    threads: usize,
    agreed: Arc<Agreement>,
    tell: Rc<dyn Fn(Told)>,
    spare: Box<dyn Fn() -> Slice>,
) {
    let timer = match Timer::new(plan.spin) {
        Ok(timer) => timer,
        Err(error) => return tell(Told::Broken(error)),
    };
    // The first threads take what does not divide evenly.
    let connections = plan.connections / threads + usize::from(thread < plan.connections % threads);
    let lanes = Lane::all(&plan, connections);
    let shared = Shared::new(plan.clone(), thread, lanes.len());
    for (index, lane) in lanes.into_iter().enumerate() {
        onehop_net::runtime::spawn(carry(shared.clone(), Box::new(lane), index, agreed.clone()));
    }
    shared.pacer_waits(|shared| shared.ready.get() == shared.slots.len()).await;
    tell(Told::Ready(shared.connected.get(), *shared.refused.borrow()));
    let start = match agreed_start(&timer, &agreed).await {
        Ok(start) => start,
        Err(error) => return tell(Told::Broken(error)),
    };
    let measured_from = clock::after(start, plan.warm_up);
    shared.end.set(clock::after(measured_from, plan.duration));
    let slices = tell.clone();
    let slice_ns = u64::try_from(plan.slice.as_nanos()).unwrap_or(u64::MAX / 4).clamp(1_000_000, u64::MAX / 4);
    let send = Box::new(move |slice| slices(Told::Slice(Box::new(slice))));
    *shared.recorder.borrow_mut() =
        Some(Recorder::new(measured_from, shared.end.get(), slice_ns, plan.omit, send, spare));
    if let Loop::Open { rate, arrivals } = plan.pacing {
        let schedule = Schedule::new(arrivals, rate, start, plan.seed, thread, threads);
        shared.keep_to(schedule);
    }
    // They wait for the start in their slots.
    shared.wake_lanes();
    if let Err(error) = pace(&shared, &timer, &agreed).await {
        tell(Told::Broken(error));
    }
    let ended = clock::now();
    let end = shared.end.get().min(ended);
    end_lanes(&shared).await;
    let (taken, unsent) = shared.schedule.borrow().as_ref().map_or((0, 0), |s| (s.taken(), s.left_before(end)));
    if let Some(recorder) = shared.recorder.borrow_mut().take() {
        recorder.finish();
    }
    tell(Told::Done { taken, unsent, ended: end });
}

async fn agreed_start(timer: &Timer, agreed: &Agreement) -> io::Result<Nanos> {
    loop {
        let start = agreed.start.load(Ordering::Acquire);
        if start > 0 {
            timer.until(start).await?;
            return Ok(start);
        }
        if agreed.stop.load(Ordering::Relaxed) {
            return Ok(clock::now());
        }
        timer.until(clock::now() + 200_000).await?;
    }
}

/// Hands out arrivals at their moments until the end.
async fn pace(shared: &Shared, timer: &Timer, agreed: &Agreement) -> io::Result<()> {
    let mut looked = clock::now();
    loop {
        let now = clock::now();
        if now >= shared.end.get() || agreed.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(recorder) = shared.recorder.borrow_mut().as_mut()
            && now - looked > 10_000_000
        {
            looked = now;
            recorder.advance(now);
        }
        let look = clock::after(now, LOOK).min(shared.end.get());
        match shared.due() {
            Some(due) if due > now => timer.until(due.min(look)).await?,
            Some(_) => {
                shared.send_due();
                if !shared.has_free() {
                    // All lanes are busy: whichever ends takes what is overdue itself.
                    first(shared.pacer_waits(Shared::has_free), timer.until(look)).await;
                }
            }
            None if timer.never_sleeps() => timer.turn().await,
            None => timer.until(look).await?,
        }
    }
}

/// Lets what is under way end; each request has its own deadline.
async fn end_lanes(shared: &Shared) {
    shared.stop();
    shared.wake_lanes();
    shared.pacer_waits(|shared| shared.active.get() == 0).await;
}

/// One lane: connects, waits for the start, and carries until the end.
async fn carry(shared: Rc<Shared>, mut lane: Box<Lane>, index: usize, agreed: Arc<Agreement>) {
    let plan = shared.plan.clone();
    let mut made = Times::default();
    if !plan.new_connections && lane.connects() {
        match lane.connect(&plan, &mut made).await {
            Ok(()) => shared.connected.set(shared.connected.get() + 1),
            Err(failure) => shared.refused.borrow_mut()[failure as usize] += 1,
        }
    }
    shared.ready.set(shared.ready.get() + 1);
    shared.wake_pacer();
    shared.begin(index, || agreed.stop.load(Ordering::Relaxed)).await;
    let mut now = clock::now();
    while let Some((free, arrival)) = shared.next(index, lane, now).await {
        lane = free;
        let mut times = arrival.times;
        let request = plan.mix.request(arrival.request);
        let result = lane.exchange(&plan, request, &mut times, arrival.begun).await;
        pace::look();
        let failure = result.err().map(|(failure, _)| failure);
        now = if times.done > 0 { times.done } else { clock::now() };
        let seen = Seen::new(arrival.intended, arrival.start, times, result);
        if let Some(recorder) = shared.recorder.borrow_mut().as_mut() {
            recorder.book(&seen, now);
        }
        if plan.pacing == Loop::Closed && failure.is_some_and(Failure::is_connect) {
            sleep_until(clock::after(now, REST)).await;
            now = clock::now();
        } else if !lane.is_kept() {
            // What waiting for the peer's close took is no part of the next request.
            now = clock::now();
        }
    }
    shared.active.set(shared.active.get() - 1);
    shared.wake_pacer();
}
