//! A candidate's life: its processes, from their start to their end.

use std::net::SocketAddr;

use onehop_load::tls::Tls;

use super::ledger::Ledger;
use super::runner::Place;
use super::scenario::{Kind, Scenario};
use crate::peers::{self, Hop, Mutual, Peer};
use crate::process::{self, Process, Usage};

/// One candidate's life: its hops, the first one first.
pub(crate) struct Life {
    pub(crate) name: String,
    pub(crate) hops: Vec<Process>,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Vec<SocketAddr>,
    /// How the generator's connections shake hands.
    pub(crate) tls: Option<Tls>,
    /// It would take its CPU from the others: it runs only while it is measured.
    never_sleeps: bool,
}

impl Life {
    pub(crate) fn direct(origin: SocketAddr) -> Life {
        Life {
            name: "direct".to_owned(),
            hops: Vec::new(),
            address: origin,
            metrics: Vec::new(),
            tls: None,
            never_sleeps: false,
        }
    }

    /// Its turn begins.
    pub(crate) fn resume(&self) {
        if self.never_sleeps {
            self.hops.iter().for_each(|hop| hop.signal("CONT"));
        }
    }

    /// Its turn is over.
    pub(crate) fn pause(&self) {
        if self.never_sleeps {
            self.hops.iter().for_each(|hop| hop.signal("STOP"));
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.hops.iter().fold(Usage::default(), |mut sum, hop| {
            sum.add(&hop.usage());
            sum
        })
    }

    pub(crate) fn memory_kib(&self) -> u64 {
        self.hops.iter().map(Process::memory_kib).sum()
    }

    pub(crate) fn ledger(&self) -> Option<Ledger> {
        let mut sum = Ledger::default();
        for address in &self.metrics {
            sum.add(&Ledger::read(*address)?);
        }
        (!self.metrics.is_empty()).then_some(sum)
    }
}

/// Starts a candidate: its hops, the last one first, each on ports of its own.
pub(crate) fn start(
    peer: &dyn Peer,
    scenario: &Scenario,
    origin: SocketAddr,
    place: &Place,
    label: &str,
) -> Result<Life, String> {
    let count = if scenario.kind == Kind::Mesh { 2 } else { 1 };
    let layer = scenario.protocol.layer();
    let certificates = scenario.certificates_needed().then(peers::certificates).transpose()?;
    let tls = match (&certificates, scenario.session) {
        (Some(certificates), Some(session)) => Some(session.tls(certificates)?),
        _ => None,
    };
    let mut life = Life { name: label.to_owned(), tls, never_sleeps: peer.never_sleeps(), ..Life::direct(origin) };
    for number in (1..=count).rev() {
        let name = if count == 1 { label.to_owned() } else { format!("{label}-{number}") };
        let folder = place.folder.join("configs").join(&scenario.name).join(name);
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let folder = folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
        let listen = process::free_address().map_err(|error| error.to_string())?;
        // A single hop stands on the accepting side, the generator on the other.
        let outbound = count == 2 && number == 1;
        let mutual = certificates.as_ref().map(|certificates| Mutual { outbound, certificates });
        let connections = scenario.connections * scenario.streams;
        let hop = Hop { listen, upstream: life.address, layer, folder: &folder, connections, mutual };
        let launch = peer.launch(&hop)?;
        let process = process::start(launch.command, place.proxy_cpu, listen, &folder.join("output.log"))?;
        life.address = listen;
        life.hops.insert(0, process);
        life.metrics.extend(launch.metrics);
    }
    life.pause();
    Ok(life)
}
