//! Kernel timers by absolute time, as descriptors that the ring can wait for.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::clock::{self, Nanos};

/// A timer on the monotonic clock, not armed.
pub fn create() -> io::Result<OwnedFd> {
    // SAFETY: takes only integers.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Arms it for one moment of CLOCK_MONOTONIC, in nanoseconds; what it said before is forgotten.
pub fn arm(fd: RawFd, at: u64) -> io::Result<()> {
    let moment = libc::timespec {
        tv_sec: (at / 1_000_000_000) as libc::time_t,
        // Zero would disarm it.
        tv_nsec: (at % 1_000_000_000).max(1) as libc::c_long,
    };
    let value = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: moment };
    // SAFETY: the new value is a live local, and no old value is asked for.
    let result = unsafe { libc::timerfd_settime(fd, libc::TFD_TIMER_ABSTIME, &value, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn monotonic() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the result is written into a live local; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What to add to our clock to get CLOCK_MONOTONIC: both run alike, from different starts. The closest of several
/// pairs of reads, so that being interrupted between the two does no harm.
pub fn offset() -> i64 {
    let pair = |_| {
        let before = clock::now();
        let kernel = monotonic();
        let after: Nanos = clock::now();
        (after - before, kernel as i64 - (before + (after - before) / 2) as i64)
    };
    (0..8).map(pair).min().map_or(0, |(_, offset)| offset)
}
