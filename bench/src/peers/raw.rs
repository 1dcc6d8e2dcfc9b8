//! The floor: a relay on Onehop's own runtime that parses nothing.

use std::process::Command;

use super::{Hop, Launch, Layer, Peer, own};

pub(super) struct RawRelay;

impl Peer for RawRelay {
    fn name(&self) -> &'static str {
        "raw-relay"
    }

    fn description(&self) -> &'static str {
        "a relay on the same runtime that parses nothing: the floor (each client connection has its own upstream one)"
    }

    fn version(&self, _: Layer) -> Result<String, String> {
        own("raw-relay")
            .map(|_| env!("CARGO_PKG_VERSION").to_owned())
            .ok_or_else(|| "raw-relay is not built: cargo build --release -p onehop-bench".to_owned())
    }

    fn speaks_tls(&self) -> bool {
        false
    }

    fn launch(&self, hop: &Hop<'_>) -> Result<Launch, String> {
        let mut command = Command::new(own("raw-relay").ok_or("raw-relay is not built")?);
        command.args(["--listen", &hop.listen.to_string(), "--to", &hop.upstream.to_string()]);
        Ok(Launch { command, metrics: None })
    }
}
