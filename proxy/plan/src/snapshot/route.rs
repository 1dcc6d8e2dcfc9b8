//! Routes in their compiled form.

use std::sync::Arc;
use std::time::Duration;

use onehop_meter::{PerCore, RouteMeters};

use crate::filter::{Action, Filters};
use crate::limit::Guards;
use crate::model::{HashOn, Labels};
use crate::resilience::Resilience;
use crate::route::Pattern;

/// A route's reference to a cluster.
#[derive(Clone, Debug)]
pub struct ClusterRef {
    /// Its index in the snapshot that the route was compiled in.
    pub id: u32,
    /// Its name, which outlives that snapshot.
    pub name: Arc<str>,
    /// Only its endpoints with these labels.
    pub subset: Option<Arc<Labels>>,
}

/// A weighted choice of clusters.
#[derive(Debug)]
pub struct Split {
    targets: Box<[(u64, ClusterRef)]>,
    total: u64,
}

impl Split {
    /// From references and weights; those of weight zero are never chosen.
    pub fn new(weighted: impl IntoIterator<Item = (ClusterRef, u32)>) -> Split {
        let mut total = 0;
        let targets = weighted
            .into_iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(reference, weight)| {
                total += u64::from(weight);
                (total, reference)
            })
            .collect();
        Split { targets, total }
    }

    /// Chooses by a random number. `None` only when every weight is zero.
    pub fn pick(&self, random: u64) -> Option<&ClusterRef> {
        if let [(_, only)] = &*self.targets {
            return Some(only);
        }
        let at = random % self.total.max(1);
        self.targets.iter().find(|(bound, _)| at < *bound).map(|(_, reference)| reference)
    }
}

/// What is repeated without a policy that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Attempts beyond the first.
    pub attempts: u32,
    /// A connection could not be made, or an HTTP/2 upstream refused the stream.
    pub on_connect_failure: bool,
    /// A connection that had idled ended before any byte of a response.
    pub on_stale_connection: bool,
}

/// A route.
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// The path that it matches, for captures and rewrites.
    pub pattern: Arc<Pattern>,
    /// What it does.
    pub action: Action,
    /// What it changes in messages, if anything.
    pub filters: Option<Box<Filters>>,
    /// Where its requests go.
    pub split: Split,
    /// Makes the choice among them the same for the same value.
    pub split_by: Option<HashOn>,
    /// Until the response head is here.
    pub timeout: Option<Duration>,
    /// What is repeated without a policy that says so.
    pub retry: Defaults,
    /// What it does about failures beyond that.
    pub resilience: Option<Box<Resilience>>,
    /// Protocols that may be upgraded to.
    pub upgrades: Arc<[String]>,
    /// CONNECT is tunnelled.
    pub allow_connect: bool,
    /// gRPC-Web is translated to gRPC.
    pub grpc_web: bool,
    /// Bytes of a request body.
    pub max_body: Option<u64>,
    /// What stands before it, if anything.
    pub guards: Option<Arc<Guards>>,
    /// Its meters.
    pub meters: Arc<PerCore<RouteMeters>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_follows_its_weights_and_skips_zero() {
        let reference = |id| ClusterRef { id, name: Arc::from(format!("c{id}")), subset: None };
        let split = Split::new([(reference(0), 90), (reference(1), 10), (reference(2), 0)]);
        let mut counts = [0; 3];
        for random in 0..1000 {
            counts[split.pick(random).expect("some weight").id as usize] += 1;
        }
        assert_eq!(counts, [900, 100, 0]);
        assert!(Split::new([(reference(0), 0)]).pick(5).is_none());
    }
}
