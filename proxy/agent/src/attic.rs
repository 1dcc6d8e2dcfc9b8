//! What was in force before, held until every core has let go of it: a core that gives up the last reference to a large
//! table would free it between two requests. Nothing here waits; it is looked at again and again.

use std::sync::Arc;

use onehop_meter::Registry;
use onehop_plan::{Cluster, HostTable, Listener, Snapshot};

/// Old snapshots, and those of their parts that connections and exchanges still hold.
#[derive(Default)]
pub struct Attic {
    snapshots: Vec<Arc<Snapshot>>,
    listeners: Vec<Held>,
    clusters: Vec<Arc<Cluster>>,
    /// Something was freed since the registry was last told.
    freed: bool,
}

/// A listener, with its routes where nothing in force has taken its name over: what its connections still ask for is
/// answered by them.
struct Held {
    listener: Arc<Listener>,
    routes: Option<Arc<HostTable>>,
}

/// What nobody holds any more, to be dropped where it delays nobody.
#[derive(Default)]
pub struct Rubbish {
    snapshots: Vec<Snapshot>,
    listeners: Vec<Held>,
    clusters: Vec<Arc<Cluster>>,
    tables: Vec<Arc<HostTable>>,
}

impl Rubbish {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.snapshots.is_empty() && self.listeners.is_empty() && self.clusters.is_empty() && self.tables.is_empty()
    }
}

/// The parts that somebody else holds stay, the others go; what the snapshot in force has too is no part of ours.
fn sort<T>(parts: &mut Vec<Arc<T>>, more: Vec<Arc<T>>, in_force: &[Arc<T>]) -> Vec<Arc<T>> {
    for part in more {
        if !in_force.iter().chain(&*parts).any(|known| Arc::ptr_eq(known, &part)) {
            parts.push(part);
        }
    }
    let (gone, kept) = std::mem::take(parts).into_iter().partition(|part| Arc::strong_count(part) == 1);
    *parts = kept;
    gone
}

impl Attic {
    /// A snapshot that is no longer in force.
    pub fn keep(&mut self, old: Option<Arc<Snapshot>>) {
        self.snapshots.extend(old);
    }

    /// Takes out what nobody holds any more.
    pub fn sweep(&mut self, in_force: &Snapshot, registry: &Registry) -> Rubbish {
        if std::mem::take(&mut self.freed) {
            // The series of what was freed go with it.
            registry.retire();
        }
        if self.snapshots.is_empty() && self.listeners.is_empty() && self.clusters.is_empty() {
            return Rubbish::default();
        }
        let mut rubbish = Rubbish::default();
        let mut clusters = Vec::new();
        for snapshot in std::mem::take(&mut self.snapshots) {
            match Arc::try_unwrap(snapshot) {
                Ok(mut snapshot) => {
                    let tables = std::mem::take(&mut snapshot.tables).into_iter().map(Some);
                    let parts = std::mem::take(&mut snapshot.listeners).into_iter().zip(tables);
                    self.listeners.extend(parts.map(|(listener, routes)| Held { listener, routes }));
                    clusters.append(&mut snapshot.clusters);
                    rubbish.snapshots.push(snapshot);
                }
                Err(held) => self.snapshots.push(held),
            }
        }
        self.sort_listeners(in_force, &mut rubbish);
        rubbish.clusters = sort(&mut self.clusters, clusters, &in_force.clusters);
        self.freed = !rubbish.is_empty();
        rubbish
    }

    /// Listeners that connections hold stay, without their routes where those in force stand for them; what the snapshot
    /// in force has too is no part of ours.
    fn sort_listeners(&mut self, in_force: &Snapshot, rubbish: &mut Rubbish) {
        let mut known: Vec<*const Listener> = in_force.listeners.iter().map(Arc::as_ptr).collect();
        for mut held in std::mem::take(&mut self.listeners) {
            let is_ours = !known.contains(&Arc::as_ptr(&held.listener));
            if is_ours && Arc::strong_count(&held.listener) == 1 {
                rubbish.listeners.push(held);
                continue;
            }
            if !is_ours || in_force.listeners.iter().any(|listener| listener.name == held.listener.name) {
                rubbish.tables.extend(held.routes.take());
            }
            if is_ours {
                known.push(Arc::as_ptr(&held.listener));
                self.listeners.push(held);
            }
        }
    }

    /// Snapshots, and parts of others, that are still held.
    pub fn len(&self) -> usize {
        self.snapshots.len() + self.listeners.len() + self.clusters.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(path: &str, registry: &Registry, previous: Option<&Snapshot>) -> Arc<Snapshot> {
        let text = format!(
            "[[listener]]\nname = \"l\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"{path}\"\npath = {{ prefix = \"/{path}\" }}\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\nendpoints = [\"127.0.0.1:9\"]\nconnect_timeout = \"{}s\"\n",
            path.len()
        );
        let loaded = onehop_config::parse(&[("test".to_owned(), text)]).expect("the language");
        Arc::new(onehop_plan::compile(&loaded.model, registry, previous).expect("compiles"))
    }

    #[test]
    fn what_a_core_holds_is_not_freed_under_it() {
        let registry = Registry::new(1);
        let mut attic = Attic::default();
        let first = snapshot("a", &registry, None);
        let second = snapshot("bb", &registry, Some(&first));
        // A core has not installed the second yet, and a connection holds the first one's listener.
        let (core, connection) = (first.clone(), first.listeners[0].clone());
        attic.keep(Some(first));
        assert!(attic.sweep(&second, &registry).is_empty());
        drop(core);
        let rubbish = attic.sweep(&second, &registry);
        assert!(rubbish.snapshots.len() == 1 && rubbish.clusters.len() == 1 && rubbish.listeners.is_empty());
        drop(rubbish);
        assert_eq!((attic.len(), Arc::strong_count(&connection)), (1, 2), "the connection's drop would be the last");
        assert!(connection.hosts.upgrade().is_none(), "its routes went with the snapshot");
        drop(connection);
        assert_eq!(attic.sweep(&second, &registry).listeners.len(), 1);
        assert_eq!(attic.len(), 0);
    }

    #[test]
    fn what_goes_on_is_left_alone_and_many_changes_leave_nothing_behind() {
        let registry = Registry::new(1);
        let mut attic = Attic::default();
        let mut current = snapshot("a", &registry, None);
        for generation in 0..200 {
            let next = Arc::new(current.with_resolved(&Default::default(), &registry, generation, 1));
            attic.keep(Some(std::mem::replace(&mut current, next)));
            let rubbish = attic.sweep(&current, &registry);
            assert!(rubbish.listeners.is_empty() && rubbish.clusters.is_empty(), "shared with the one in force");
        }
        assert_eq!(attic.len(), 0);
        assert_eq!(Arc::strong_count(&current.listeners[0]), 1);
    }
}
