//! What a core can be told through its mailbox.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use crate::snapshot::Snapshot;

/// One order.
pub enum Order {
    /// Run this snapshot from now on.
    Install {
        /// It.
        snapshot: Arc<Snapshot>,
        /// Sockets of listeners that this core does not serve yet.
        sockets: Vec<Socket>,
    },
    /// Take no new connections, finish what is running.
    Drain {
        /// For at most this long.
        limit: Duration,
    },
    /// Say what connections there are.
    Connections {
        /// Where to.
        reply: SyncSender<Listing>,
        /// How many at most.
        limit: usize,
    },
}

/// A listening socket for one core.
pub struct Socket {
    /// Its listener.
    pub listener: Arc<str>,
    /// It.
    pub fd: OwnedFd,
}

/// A core's answer to [`Order::Connections`].
pub struct Listing {
    /// How many connections there are.
    pub count: usize,
    /// Some of them, up to the limit asked for.
    pub listed: Vec<ConnectionInfo>,
}

/// A downstream connection, as `/connections` shows it.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Its core.
    pub core: usize,
    /// Its number on that core.
    pub id: u64,
    /// Its listener.
    pub listener: Arc<str>,
    /// The client.
    pub peer: String,
    /// What it is doing.
    pub doing: &'static str,
    /// Requests so far.
    pub requests: u64,
    /// For how long, in milliseconds.
    pub age_ms: u64,
}
