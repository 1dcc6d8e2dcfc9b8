//! How other threads speak to a core: a bounded queue and a non-blocking socketpair whose readability wakes it,
//! alike on the ring and on epoll. (The engine's own cross-thread wake costs every turn of the loop.)

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use crate::sys::duplex::Duplex;
use crate::sys::socket;

/// Messages that may wait; a core that leaves more unread is stuck.
const CAPACITY: usize = 1024;

/// Why a message could not be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// The core does not read its mail.
    Full,
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the core's mailbox is full: it does not read its messages")
    }
}

struct Shared<T> {
    // Locked by the core only after the socket said that mail is there, which is rare; never on a request's way.
    queue: Mutex<VecDeque<T>>,
    bell: UnixStream,
}

/// The sending half, for any thread.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender { shared: self.shared.clone() }
    }
}

impl<T> Sender<T> {
    /// Leaves a message and rings.
    ///
    /// # Errors
    /// [`Undelivered::Full`] when too many wait already.
    pub fn send(&self, message: T) -> Result<(), Undelivered> {
        {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.len() >= CAPACITY {
                return Err(Undelivered::Full);
            }
            queue.push_back(message);
        }
        // A full socket buffer already rings loudly enough.
        let _ = (&self.shared.bell).write(&[1]);
        Ok(())
    }
}

/// The receiving half, made on any thread and opened on the core's.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    bell: OwnedFd,
}

/// A mailbox.
///
/// # Errors
/// When no descriptors are left.
pub fn mailbox<T>() -> io::Result<(Sender<T>, Receiver<T>)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let shared = Arc::new(Shared { queue: Mutex::new(VecDeque::new()), bell: ours });
    Ok((Sender { shared: shared.clone() }, Receiver { shared, bell: theirs.into() }))
}

/// An open mailbox on its core.
pub struct Inbox<T> {
    shared: Arc<Shared<T>>,
    duplex: Duplex,
}

impl<T> Receiver<T> {
    /// Opens it on the core that reads it.
    ///
    /// # Errors
    /// When the engine cannot register the descriptor.
    pub fn open(self) -> io::Result<Inbox<T>> {
        Ok(Inbox { shared: self.shared, duplex: Duplex::new(self.bell)? })
    }
}

impl<T> Inbox<T> {
    /// Waits for mail and takes all of it, in the order sent.
    pub async fn take(&self) -> VecDeque<T> {
        loop {
            let waited = self.duplex.readable().await;
            let mut drained = [0u8; 64];
            while matches!(socket::receive(self.duplex.raw_fd(), &mut drained), Ok(64)) {}
            let mail = std::mem::take(&mut *self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner));
            if !mail.is_empty() {
                return mail;
            }
            if waited.is_err() {
                crate::deadline::sleep_until(crate::clock::now() + 10_000_000).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Options, Rung, run};

    #[test]
    fn messages_arrive_in_order_on_ring_and_epoll() {
        for first_rung in [Rung::Deferred, Rung::Epoll] {
            let (sender, receiver) = mailbox::<u32>().expect("descriptors");
            let core = std::thread::spawn(move || {
                let options = Options { first_rung, ..Options::default() };
                run(
                    &options,
                    |_| {},
                    |_| async move {
                        let inbox = receiver.open().expect("registers");
                        let mut seen = Vec::new();
                        while seen.len() < 500 {
                            seen.extend(inbox.take().await);
                        }
                        seen
                    },
                )
                .expect("a core starts")
            });
            for number in 0..500 {
                sender.send(number).expect("room");
            }
            assert_eq!(core.join().expect("no panic"), (0..500).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_unread_mailbox_fills_up_and_says_so() {
        let (sender, _receiver) = mailbox::<u32>().expect("descriptors");
        for number in 0..CAPACITY as u32 {
            sender.send(number).expect("room");
        }
        assert_eq!(sender.send(0), Err(Undelivered::Full));
    }
}
