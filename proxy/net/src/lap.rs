//! How long a whole turn of the core's loop takes, the kernel's part included: that is what everybody waits for who is ready
//! when it begins. (A task that yields does not see it: it goes on at the end of the same turn, before the kernel is asked
//! again.)

use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::Poll;

use crate::clock::{self, Nanos};
use crate::sys::buf::{Buf, Size};
use crate::sys::duplex::Duplex;

/// A bell that the core rings to itself: it is heard when the kernel is asked next.
pub struct Lap {
    bell: UnixStream,
    duplex: Duplex,
}

impl Lap {
    /// Made on the core that is measured.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> io::Result<Lap> {
        let (bell, other) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        Ok(Lap { bell, duplex: Duplex::new(other.into())? })
    }

    /// Measures a turn: from one bell, which is heard early in a turn wherever in one this was called, to the next.
    ///
    /// # Errors
    /// What the kernel says of the bell; it is of no use any more.
    pub async fn measure(&self) -> io::Result<Nanos> {
        self.ring().await?;
        let begun = clock::now();
        self.ring().await?;
        Ok(clock::now().saturating_sub(begun))
    }

    async fn ring(&self) -> io::Result<()> {
        let mut heard = pin!(self.duplex.read(Buf::take(Size::Small)));
        let mut is_rung = false;
        poll_fn(|cx| {
            if let Poll::Ready((result, _)) = heard.as_mut().poll(cx) {
                return Poll::Ready(result.map(drop));
            }
            // Only once somebody listens: epoll would find what is there already without a turn.
            if !is_rung {
                is_rung = true;
                if let Err(error) = (&self.bell).write(&[1]) {
                    return Poll::Ready(Err(error));
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Options, Rung, run, spawn};

    /// Tasks that are ready in every turn: each works for a while when a byte comes that it has sent itself.
    async fn busy(lap: Lap, work_ns: Nanos) {
        loop {
            if lap.ring().await.is_err() {
                return;
            }
            let until = clock::now() + work_ns;
            while clock::now() < until {
                std::hint::spin_loop();
            }
        }
    }

    #[test]
    fn a_turn_takes_as_long_as_all_who_are_ready_in_it() {
        for first_rung in [Rung::Deferred, Rung::Epoll] {
            std::thread::spawn(move || {
                let options = Options { first_rung, ..Options::default() };
                run(
                    &options,
                    |_| {},
                    |_| async move {
                        let lap = Lap::new().expect("descriptors");
                        // At rest it takes hardly any time; of many, one is not disturbed.
                        let mut shortest = Nanos::MAX;
                        for _ in 0..200 {
                            shortest = shortest.min(lap.measure().await.expect("it is heard"));
                        }
                        assert!(shortest < 1_000_000, "{shortest}");
                        // Ten tasks of a millisecond each: no turn is shorter, however busy the machine is.
                        for _ in 0..10 {
                            spawn(busy(Lap::new().expect("descriptors"), 1_000_000));
                        }
                        for _ in 0..3 {
                            lap.measure().await.expect("it is heard");
                        }
                        for _ in 0..10 {
                            let took = lap.measure().await.expect("it is heard");
                            assert!(took >= 9_000_000, "{took}");
                        }
                    },
                )
                .expect("a core starts");
            })
            .join()
            .expect("no panic");
        }
    }
}
