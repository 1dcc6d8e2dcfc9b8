//! What the machine itself allows: a thread that does nothing but wait for moments such as a generator's. What it is
//! late by is the work of interrupts, of the hypervisor and of others on its CPU, and no program there can do better.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use onehop_net::clock;

use crate::record::histogram;
use crate::schedule::{Arrivals, Schedule};

/// Lateness, in nanoseconds, of a bare loop that waits for `rate` moments a second on that CPU.
///
/// # Errors
/// When the CPU cannot be pinned to.
pub fn measure(cpu: usize, rate: f64, duration: Duration, seed: u64) -> io::Result<Histogram<u64>> {
    let spin = move || {
        onehop_net::pin_to_cpu(cpu)?;
        let mut late = histogram();
        let start = clock::now();
        let end = clock::after(start, duration);
        let mut schedule = Schedule::new(Arrivals::Uniform, rate, start, seed, 0, 1);
        loop {
            let due = schedule.take();
            if due >= end {
                return Ok(late);
            }
            let mut now = clock::now();
            while now < due {
                std::hint::spin_loop();
                now = clock::now();
            }
            late.saturating_record(now - due);
        }
    };
    std::thread::spawn(spin).join().map_err(|_| io::Error::other("the waiting thread panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_is_waited_for_and_counted() {
        let cpu = onehop_net::usable_cpus()[0];
        let late = measure(cpu, 10_000.0, Duration::from_millis(50), 1).expect("measures");
        assert_eq!(late.len(), 500);
        assert!(measure(4096, 10_000.0, Duration::from_millis(50), 1).is_err());
    }
}
