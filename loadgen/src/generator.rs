//! The generator's cores, which outlive runs: an origin may live on the same cores, and keeps its connections.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use onehop_net::clock;
use onehop_net::mailbox;
use onehop_net::runtime::{self, Options};

use crate::failure::{FAILURES, Failure};
use crate::origin::{Bound, Origin};
use crate::outcome::{Machine, Outcome};
use crate::plan::Plan;
use crate::record::Slice;
use crate::run::{Agreement, Told, run};

/// From the last thread's being ready to the start.
const LEAD: Duration = Duration::from_millis(5);
/// A target that answers nothing for so long has died: what was measured until then is kept.
const SILENCE: Duration = Duration::from_secs(5);

struct Job {
    plan: Arc<Plan>,
    agreed: Arc<Agreement>,
    tell: Sender<(usize, Told)>,
    spares: Arc<Mutex<Vec<Slice>>>,
}

struct Thread {
    mail: mailbox::Sender<Job>,
    handle: JoinHandle<io::Result<()>>,
}

/// Running cores, ready for runs one after another.
pub struct Generator {
    threads: Vec<Thread>,
    spares: Arc<Mutex<Vec<Slice>>>,
    stop: Arc<AtomicBool>,
}

impl Generator {
    /// Starts cores, each pinned where `cpus` says so (thread N to the Nth), and the origins' parts on them.
    ///
    /// # Errors
    /// When a core cannot be built or pinned.
    pub fn start(threads: usize, cpus: &[usize], origins: Vec<Bound>) -> io::Result<Generator> {
        let mut parts: Vec<Vec<(OwnedFd, Origin)>> = (0..threads).map(|_| Vec::new()).collect();
        for bound in origins {
            for (part, socket) in parts.iter_mut().zip(bound.sockets) {
                part.push((socket, bound.origin.clone()));
            }
        }
        let (built, building) = channel();
        let mut started = Vec::new();
        for (thread, origins) in parts.into_iter().enumerate() {
            let (mail, receiver) = mailbox::mailbox::<Job>()?;
            let cpu = if cpus.is_empty() { None } else { cpus.get(thread % cpus.len()).copied() };
            let built = built.clone();
            let handle = std::thread::Builder::new().name(format!("load-{thread}")).spawn(move || {
                let options = Options { cpu, ..Options::default() };
                let failed = built.clone();
                let core = move |_| core(thread, threads, receiver, origins, built);
                let result = runtime::run(&options, |_| {}, core).and_then(|result| result);
                if let Err(error) = &result {
                    // Whoever starts us waits for one word of each core.
                    let _ = failed.send(Err(io::Error::new(error.kind(), format!("core {thread}: {error}"))));
                }
                result
            })?;
            started.push(Thread { mail, handle });
        }
        drop(built);
        for _ in 0..threads {
            building.recv().map_err(|_| io::Error::other("a core ended before it began"))??;
        }
        Ok(Generator { threads: started, spares: Arc::default(), stop: Arc::default() })
    }

    /// Set it, from a signal for instance, and the run under way ends and keeps what it has.
    pub fn stopper(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Runs one plan to its end. `watch` gets each slice as all threads have ended it.
    ///
    /// # Errors
    /// When nothing could be connected, or a core failed.
    pub fn run(&self, plan: Plan, watch: &mut dyn FnMut(&Outcome, &Slice)) -> Result<Outcome, String> {
        let plan = Arc::new(plan);
        let agreed = Arc::new(Agreement::default());
        let (tell, told) = channel();
        for thread in &self.threads {
            let job =
                Job { plan: plan.clone(), agreed: agreed.clone(), tell: tell.clone(), spares: self.spares.clone() };
            thread.mail.send(job).map_err(|error| error.to_string())?;
        }
        drop(tell);
        let ready = self.wait_until_connected(&plan, &told, &agreed)?;
        let machine = Machine::now();
        let mut outcome = Outcome::new(&plan, self.threads.len());
        outcome.unconnected = ready;
        agreed.start.store(clock::after(clock::now(), LEAD), Ordering::Release);
        let measured_from = Instant::now() + LEAD + plan.warm_up;
        self.collect(&plan, &told, &agreed, &mut outcome, measured_from, watch)?;
        outcome.machine = Machine::now().since(&machine);
        Ok(outcome)
    }

    fn wait_until_connected(
        &self,
        plan: &Plan,
        told: &Receiver<(usize, Told)>,
        agreed: &Agreement,
    ) -> Result<[u64; FAILURES], String> {
        let (mut connected, mut failures) = (0, [0; FAILURES]);
        for _ in &self.threads {
            match told.recv() {
                Ok((_, Told::Ready(count, refused))) => {
                    connected += count;
                    for (sum, count) in failures.iter_mut().zip(refused) {
                        *sum += count;
                    }
                }
                Ok((_, Told::Broken(error))) => {
                    agreed.stop.store(true, Ordering::Relaxed);
                    return Err(format!("a core cannot run: {error}"));
                }
                Ok(_) => {}
                Err(_) => return Err("a core ended unexpectedly".to_owned()),
            }
        }
        if connected == 0 && !plan.new_connections {
            agreed.stop.store(true, Ordering::Relaxed);
            let most = Failure::ALL.iter().max_by_key(|failure| failures[**failure as usize]);
            let why = match most {
                Some(Failure::Refused) => "the connection is refused: nobody listens there",
                Some(Failure::ConnectTimeout) => "it does not answer within the timeout",
                Some(Failure::Handshake) => {
                    "the TLS handshake failed (tls-handshake): --ca, --cert and --server-name, or --insecure"
                }
                Some(Failure::NotHttp2) => {
                    "it does not speak HTTP/2 (not-http2): with http:// by prior knowledge, with https:// by ALPN"
                }
                _ => "it cannot be reached, or no descriptor is left (ulimit -n)",
            };
            return Err(format!("cannot connect to {}: {why}", plan.address));
        }
        Ok(failures)
    }

    fn collect(
        &self,
        plan: &Plan,
        told: &Receiver<(usize, Told)>,
        agreed: &Agreement,
        outcome: &mut Outcome,
        measured_from: Instant,
        watch: &mut dyn FnMut(&Outcome, &Slice),
    ) -> Result<(), String> {
        let mut pending = Pending::new(self.threads.len());
        let (mut answered_at, mut failed) = (measured_from, false);
        while pending.running > 0 {
            match told.recv_timeout(Duration::from_millis(100)) {
                Ok((_, Told::Slice(slice))) => {
                    if slice.counts.ok > 0 {
                        answered_at = Instant::now();
                    }
                    failed = slice.counts.ok == 0 && (failed || slice.counts.failed() > 0);
                    for whole in pending.add(*slice) {
                        outcome.add(&whole, plan);
                        watch(outcome, &whole);
                        self.give_back(whole);
                    }
                }
                Ok((_, Told::Done { taken, unsent, ended })) => {
                    pending.running -= 1;
                    outcome.taken += taken;
                    outcome.unsent += unsent;
                    outcome.end(agreed.start.load(Ordering::Acquire), plan, ended);
                }
                Ok((_, Told::Broken(error))) => {
                    agreed.stop.store(true, Ordering::Relaxed);
                    outcome.note(format!("a core failed: {error}"));
                }
                Ok((_, Told::Ready(..))) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("a core ended unexpectedly".to_owned()),
            }
            if self.stop.swap(false, Ordering::Relaxed) {
                agreed.stop.store(true, Ordering::Relaxed);
                outcome.note("it was interrupted; what was measured until then is kept".to_owned());
            }
            if failed && answered_at.elapsed() > SILENCE && !agreed.stop.swap(true, Ordering::Relaxed) {
                let quiet = answered_at.elapsed().as_secs_f64();
                outcome.note(format!(
                    "the target stopped answering {quiet:.1} s ago: the run ended early, and what was measured is kept"
                ));
            }
        }
        for whole in pending.rest() {
            outcome.add(&whole, plan);
            self.give_back(whole);
        }
        Ok(())
    }

    fn give_back(&self, mut slice: Slice) {
        slice.clear();
        slice.index = 0;
        let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < 2 * self.threads.len() {
            spares.push(slice);
        }
    }

    /// Ends the cores, and the origin on them.
    pub fn end(self) {
        for thread in self.threads {
            drop(thread.mail);
            // The threads wait for mail that never comes; the process's end takes them.
            drop(thread.handle);
        }
    }
}

/// Slices that not all threads have ended yet.
struct Pending {
    running: usize,
    threads: usize,
    next: u64,
    open: std::collections::BTreeMap<u64, (usize, Slice)>,
}

impl Pending {
    fn new(threads: usize) -> Pending {
        Pending { running: threads, threads, next: 0, open: std::collections::BTreeMap::new() }
    }

    /// Adds one thread's slice; returns those that are whole now, in order.
    fn add(&mut self, slice: Slice) -> Vec<Slice> {
        match self.open.entry(slice.index) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert((1, slice));
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let (count, sum) = entry.get_mut();
                *count += 1;
                sum.add(&slice);
            }
        }
        let mut whole = Vec::new();
        while self.open.get(&self.next).is_some_and(|(count, _)| *count == self.threads) {
            whole.extend(self.open.remove(&self.next).map(|(_, slice)| slice));
            self.next += 1;
        }
        whole
    }

    fn rest(&mut self) -> Vec<Slice> {
        std::mem::take(&mut self.open).into_values().map(|(_, slice)| slice).collect()
    }
}

async fn core(
    thread: usize,
    threads: usize,
    receiver: mailbox::Receiver<Job>,
    origins: Vec<(OwnedFd, Origin)>,
    built: Sender<io::Result<()>>,
) -> io::Result<()> {
    let inbox = receiver.open()?;
    for (socket, origin) in origins {
        crate::origin::spawn(socket, &origin, thread)?;
    }
    // The starter may have given up.
    let _ = built.send(Ok(()));
    drop(built);
    loop {
        for job in inbox.take().await {
            let Job { plan, agreed, tell, spares } = job;
            let tell: Rc<dyn Fn(Told)> = Rc::new(move |told| {
                // The collector has left only when it failed itself.
                let _ = tell.send((thread, told));
            });
            let spare =
                Box::new(move || spares.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default());
            run(plan, thread, threads, agreed, tell, spare).await;
        }
    }
}

/// The time that reports are stamped with: seconds since 1970.
pub fn unix_time() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
