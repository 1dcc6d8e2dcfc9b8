//! One request as the access log shows it. Written by a core into a bounded queue, formatted by the log's thread.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::ledger::Account;

/// Longest path that is kept.
pub const MAX_PATH: usize = 1024;

/// One request, or one TCP connection.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// When it ended.
    pub time: SystemTime,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The route's name.
    pub route: Option<Arc<str>>,
    /// The cluster's name.
    pub cluster: Option<Arc<str>>,
    /// The endpoint's address.
    pub endpoint: Option<String>,
    /// The client.
    pub peer: Option<IpAddr>,
    /// The method; empty for TCP.
    pub method: String,
    /// The host that was asked for.
    pub host: String,
    /// The path and query, cut at [`MAX_PATH`].
    pub path: String,
    /// The status; zero when none was sent.
    pub status: u16,
    /// What went wrong.
    pub reason: Option<&'static str>,
    /// Payload bytes from the client.
    pub bytes_in: u64,
    /// Payload bytes to the client.
    pub bytes_out: u64,
    /// The ledger's account.
    pub account: Account,
    /// Attempts made.
    pub attempts: u32,
    /// Why it was not sent again, where the route's policy names its failure.
    pub retry_denied: Option<&'static str>,
    /// What was done to it on purpose.
    pub injected: Option<&'static str>,
    /// The request's id.
    pub request_id: String,
}
