//! The kit that the behaviours share: it builds the binary once, runs it on free ports, plays origins and clients
//! byte by byte, and stops what it started. No test waits by sleeping: everything waits for an event, with a bound.

pub mod broken;
mod client;
pub mod frames;
pub mod http2;
mod load;
pub mod net;
mod origin;
pub mod pki;
mod proxy;
pub mod rules;
mod secure;

pub use client::{Client, Response};
pub use load::{Load, LoadOrigin};
pub use origin::{Connection, Origin};
pub use proxy::{Proxy, binary, build, folder};
pub use secure::{Tls, TlsClient};

/// Waits until something holds, looking again and again; panics with the text after half a minute, which even a machine
/// that is busy with other things does not take.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !holds() {
        assert!(std::time::Instant::now() < until, "in vain: {what}");
        std::thread::yield_now();
    }
}

/// Sends a signal by name. Who gets `STOP` has stopped when this returns: its threads do so one by one, and somewhat later.
pub fn signal(pid: u32, name: &str) {
    let status = std::process::Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.expect("kill runs").success());
    if name == "STOP" {
        eventually("it has stopped", || {
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
            let states = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
            states
                .into_iter()
                .all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
        });
    }
}
