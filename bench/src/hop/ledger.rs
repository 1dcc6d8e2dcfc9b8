//! What Onehop's own ledger says of the requests of a block, read from its metrics before and after.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Sums of the ledger.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// Requests.
    pub requests: f64,
    /// Seconds in the proxy's own hands.
    pub hop: f64,
    /// Seconds of waiting for the upstream.
    pub upstream: f64,
}

impl Ledger {
    /// Reads it; `None` where it cannot be read.
    pub fn read(address: SocketAddr) -> Option<Ledger> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(Ledger {
            requests: sum(&text, "onehop_listener_hop_seconds_count"),
            hop: sum(&text, "onehop_listener_hop_seconds_sum"),
            upstream: sum(&text, "onehop_listener_upstream_wait_seconds_sum"),
        })
    }

    /// What has passed since.
    #[must_use]
    pub fn since(&self, before: &Ledger) -> Ledger {
        Ledger {
            requests: self.requests - before.requests,
            hop: self.hop - before.hop,
            upstream: self.upstream - before.upstream,
        }
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Ledger) {
        self.requests += other.requests;
        self.hop += other.hop;
        self.upstream += other.upstream;
    }
}

fn sum(text: &str, name: &str) -> f64 {
    text.lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn samples_are_summed_by_their_whole_name() {
        let text = "a_sum{l=\"x\"} 1.5\na_sum{l=\"y\"} 2\na_sums 9\n# a_sum 7\n";
        assert_eq!(super::sum(text, "a_sum"), 3.5);
    }
}
