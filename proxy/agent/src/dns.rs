//! Endpoint names: resolved off the cores, again when their records expire. A failure keeps what was known.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use onehop_meter::Registry;
use onehop_plan::Snapshot;
use tokio::task::JoinSet;

/// However short a record lives, and however long.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// One name's time.
const LOOKUP: Duration = Duration::from_secs(5);

/// Look-ups under way at once; the rest waits its turn.
const MAX_UNDER_WAY: usize = 32;

type Found = Result<(Vec<IpAddr>, Instant), String>;

/// The names and when each is due. Look-ups are tasks of their own: nothing waits for a name server that is mute.
pub struct Names {
    resolver: Option<TokioResolver>,
    /// While one is looked up: when it would be given up.
    due: HashMap<String, Instant>,
    /// Those of which it was said, or need not be said, that they cannot be resolved.
    tried: HashSet<String>,
    known: HashMap<String, Vec<IpAddr>>,
    under_way: JoinSet<(String, Found)>,
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
        Names {
            resolver: built.ok(),
            due: HashMap::new(),
            tried: HashSet::new(),
            known: HashMap::new(),
            under_way: JoinSet::new(),
        }
    }

    /// Begins to look up what is due, the longest due first.
    pub fn look_up(&mut self, snapshot: &Snapshot) {
        let wanted: BTreeSet<&String> =
            snapshot.clusters.iter().flat_map(|cluster| cluster.names.iter().map(|(name, _, _)| name)).collect();
        self.due.retain(|name, _| wanted.contains(name));
        self.tried.retain(|name| wanted.contains(name));
        let now = Instant::now();
        let mut due: Vec<(Option<Instant>, &String)> = wanted
            .into_iter()
            .map(|name| (self.due.get(name).copied(), name))
            .filter(|(due, _)| due.is_none_or(|due| due <= now))
            .collect();
        due.sort();
        for (_, name) in due.into_iter().take(MAX_UNDER_WAY.saturating_sub(self.under_way.len())) {
            self.due.insert(name.clone(), now + LOOKUP + AGAIN);
            let (name, resolver) = (name.clone(), self.resolver.clone());
            self.under_way.spawn(async move {
                let found = lookup(resolver, &name).await;
                (name, found)
            });
        }
    }

    /// Waits until look-ups end; returns the names whose addresses changed. It may be dropped.
    pub async fn changed(&mut self, registry: &Registry) -> HashMap<String, Vec<IpAddr>> {
        let mut changed = HashMap::new();
        let Some(first) = self.under_way.join_next().await else { return std::future::pending().await };
        let mut next = Some(first);
        while let Some(ended) = next {
            // One that panicked is due again by and by.
            if let Ok((name, found)) = ended
                && self.due.contains_key(&name)
            {
                changed.extend(self.take(name, found, registry));
            }
            next = self.under_way.try_join_next();
        }
        changed
    }

    fn take(&mut self, name: String, found: Found, registry: &Registry) -> Option<(String, Vec<IpAddr>)> {
        let now = Instant::now();
        let is_first = self.tried.insert(name.clone());
        match found {
            Ok((mut addresses, until)) => {
                addresses.sort();
                addresses.dedup();
                self.due.insert(name.clone(), until.clamp(now + SHORTEST, now + LONGEST));
                let is_new = self.known.get(&name) != Some(&addresses);
                is_new.then(|| {
                    self.known.insert(name.clone(), addresses.clone());
                    (name, addresses)
                })
            }
            Err(error) => {
                registry.add("onehop_dns_failures_total", "Names that could not be resolved.", 1.0);
                if is_first {
                    let seconds = AGAIN.as_secs();
                    eprintln!("onehop: \"{name}\" cannot be resolved: {error}; trying again every {seconds} s");
                }
                self.due.insert(name, now + AGAIN);
                None
            }
        }
    }
}

async fn lookup(resolver: Option<TokioResolver>, name: &str) -> Found {
    if name == "localhost" {
        return Ok((vec![IpAddr::from([127, 0, 0, 1])], Instant::now() + LONGEST));
    }
    let resolver = resolver.ok_or("no resolver")?;
    let found = tokio::time::timeout(LOOKUP, resolver.lookup_ip(name)).await;
    let found = found.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
    let addresses: Vec<IpAddr> = found.iter().collect();
    if addresses.is_empty() { Err("it has no addresses".to_owned()) } else { Ok((addresses, found.valid_until())) }
}
