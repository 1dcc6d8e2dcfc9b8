//! Endpoint names: resolved off the cores, again when their records expire. A failure keeps what was known.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use onehop_meter::Registry;
use onehop_plan::Snapshot;

/// However short a record lives, and however long.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// One name's time.
const LOOKUP: Duration = Duration::from_secs(5);

/// The names and when each is due.
pub struct Names {
    resolver: Option<TokioResolver>,
    due: HashMap<String, Instant>,
    known: HashMap<String, Vec<IpAddr>>,
}

impl Names {
    /// With the system's configuration.
    pub fn new() -> Names {
        let built = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        if let Err(error) = &built {
            eprintln!(
                "onehop: the system's resolver configuration cannot be used, names come from /etc/hosts alone: {error}"
            );
        }
        Names { resolver: built.ok(), due: HashMap::new(), known: HashMap::new() }
    }

    /// Resolves what is due; returns the names whose addresses changed.
    pub async fn refresh(&mut self, snapshot: &Snapshot, registry: &Registry) -> HashMap<String, Vec<IpAddr>> {
        let wanted: BTreeSet<&String> =
            snapshot.clusters.iter().flat_map(|cluster| cluster.names.iter().map(|(name, _, _)| name)).collect();
        self.due.retain(|name, _| wanted.contains(name));
        let now = Instant::now();
        let due: Vec<String> =
            wanted.into_iter().filter(|name| self.due.get(*name).is_none_or(|due| *due <= now)).cloned().collect();
        let mut changed = HashMap::new();
        for name in due {
            match self.lookup(&name).await {
                Ok((mut addresses, until)) => {
                    addresses.sort();
                    addresses.dedup();
                    self.due.insert(name.clone(), until.clamp(now + SHORTEST, now + LONGEST));
                    if self.known.get(&name) != Some(&addresses) {
                        self.known.insert(name.clone(), addresses.clone());
                        changed.insert(name, addresses);
                    }
                }
                Err(error) => {
                    registry.add("onehop_dns_failures_total", "Names that could not be resolved.", 1.0);
                    if !self.due.contains_key(&name) {
                        eprintln!(
                            "onehop: \"{name}\" cannot be resolved: {error}; trying again every {} s",
                            AGAIN.as_secs()
                        );
                    }
                    self.due.insert(name, now + AGAIN);
                }
            }
        }
        changed
    }

    async fn lookup(&self, name: &str) -> Result<(Vec<IpAddr>, Instant), String> {
        if name == "localhost" {
            return Ok((vec![IpAddr::from([127, 0, 0, 1])], Instant::now() + LONGEST));
        }
        let resolver = self.resolver.as_ref().ok_or("no resolver")?;
        let found = tokio::time::timeout(LOOKUP, resolver.lookup_ip(name)).await;
        let found = found.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        if addresses.is_empty() { Err("it has no addresses".to_owned()) } else { Ok((addresses, found.valid_until())) }
    }
}
