//! Finds each series by its name, so that counters survive a change of configuration. Used by the agent alone; a
//! core holds the blocks it writes and never comes here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::PerCore;
use crate::series::{ClusterMeters, CoreMeters, EndpointMeters, ListenerMeters, RouteMeters};

/// Series of one kind; what comes beyond shares one series named `overflow`. Twice the ten thousand routes that a
/// configuration may well have: where all names change, the new ones stand beside the old ones for a moment.
pub(crate) const MAX_SERIES: usize = 20_000;
/// Routes of which it is shown how their times are spread; those that come later show count and sum.
const MAX_SPREAD: usize = 2_000;

pub(crate) type Family<T> = BTreeMap<Box<str>, Arc<PerCore<T>>>;

#[derive(Default)]
pub(crate) struct Families {
    pub listeners: Family<ListenerMeters>,
    pub routes: Family<RouteMeters>,
    pub clusters: Family<ClusterMeters>,
    /// By cluster and address, joined by a newline, which neither can contain.
    pub endpoints: Family<EndpointMeters>,
    pub info: BTreeMap<String, String>,
    /// Figures of the agent: name, help, whether it is a counter, value.
    pub own: BTreeMap<&'static str, (&'static str, bool, f64)>,
    pub reject_names: Vec<&'static str>,
}

/// All series of the process.
pub struct Registry {
    cores: usize,
    core: Arc<PerCore<CoreMeters>>,
    families: Mutex<Families>,
}

fn series<T: Default>(family: &mut Family<T>, cores: usize, name: &str) -> Arc<PerCore<T>> {
    made_by(family, cores, name, T::default)
}

fn made_by<T>(family: &mut Family<T>, cores: usize, name: &str, make: fn() -> T) -> Arc<PerCore<T>> {
    if let Some(known) = family.get(name) {
        return known.clone();
    }
    let name = if family.len() >= MAX_SERIES { "overflow" } else { name };
    family.entry(name.into()).or_insert_with(|| Arc::new(PerCore::made_by(cores, make))).clone()
}

impl Registry {
    /// For a process of so many cores.
    pub fn new(cores: usize) -> Arc<Registry> {
        let core: PerCore<CoreMeters> = PerCore::new(cores);
        for number in 0..cores.max(1) {
            // A core is shown from the start, whether it has done anything yet or not.
            core.core(number);
        }
        Arc::new(Registry { cores, core: Arc::new(core), families: Mutex::default() })
    }

    pub(crate) fn families(&self) -> MutexGuard<'_, Families> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many cores.
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// The cores' own meters.
    pub fn core(&self) -> &Arc<PerCore<CoreMeters>> {
        &self.core
    }

    /// A listener's, made when it is new.
    pub fn listener(&self, name: &str) -> Arc<PerCore<ListenerMeters>> {
        series(&mut self.families().listeners, self.cores, name)
    }

    /// A route's.
    pub fn route(&self, name: &str) -> Arc<PerCore<RouteMeters>> {
        let routes = &mut self.families().routes;
        let make = if routes.len() < MAX_SPREAD { RouteMeters::default } else { RouteMeters::coarse };
        made_by(routes, self.cores, name, make)
    }

    /// A cluster's.
    pub fn cluster(&self, name: &str) -> Arc<PerCore<ClusterMeters>> {
        series(&mut self.families().clusters, self.cores, name)
    }

    /// An endpoint's.
    pub fn endpoint(&self, cluster: &str, address: &str) -> Arc<PerCore<EndpointMeters>> {
        series(&mut self.families().endpoints, self.cores, &format!("{cluster}\n{address}"))
    }

    /// Forgets the series that nothing but the registry holds any more.
    pub fn retire(&self) {
        let mut families = self.families();
        families.listeners.retain(|_, series| Arc::strong_count(series) > 1);
        families.routes.retain(|_, series| Arc::strong_count(series) > 1);
        families.clusters.retain(|_, series| Arc::strong_count(series) > 1);
        families.endpoints.retain(|_, series| Arc::strong_count(series) > 1);
    }

    /// A label of `onehop_info`.
    pub fn info(&self, key: &str, value: &str) {
        self.families().info.insert(key.to_owned(), value.to_owned());
    }

    /// The codec's names of the rules that a message can break, in its numbering.
    pub fn set_reject_names(&self, names: Vec<&'static str>) {
        self.families().reject_names = names;
    }

    /// Sets a gauge of the agent's.
    pub fn set_gauge(&self, name: &'static str, help: &'static str, value: f64) {
        self.families().own.insert(name, (help, false, value));
    }

    /// Adds to a counter of the agent's.
    pub fn add(&self, name: &'static str, help: &'static str, value: f64) {
        self.families().own.entry(name).or_insert((help, true, 0.0)).2 += value;
    }
}
