//! What narrows the choice of an endpoint for one request: the value that is hashed, the labels of a subset, and the
//! endpoint that the client's cookie names.

use std::sync::Arc;

use onehop_plan::ClusterRef;
use onehop_plan::model::Labels;

use super::changes::cookie;
use super::{Request, routing};
use crate::upstream::{ClusterState, EndpointState, Sought};

/// For all attempts of one request.
#[derive(Default)]
pub struct Choice<'a> {
    /// The hash that the cluster chooses by.
    pub hash: Option<u64>,
    /// Only endpoints with these labels.
    pub subset: Option<&'a Arc<Labels>>,
    /// The endpoint that the client's cookie names.
    pub stuck: Option<usize>,
}

impl<'a> Choice<'a> {
    /// Of a request that goes to this cluster.
    pub fn new(request: &Request<'_>, reference: &'a ClusterRef, cluster: &ClusterState) -> Choice<'a> {
        let config = cluster.cluster.borrow();
        let hash = config.policy.hash_on.as_ref().and_then(|on| routing::hash(request, on));
        let stuck = config.sticky.as_ref();
        let stuck = stuck.and_then(|sticky| sticky.endpoint(cookie(request, &sticky.name)?));
        Choice { hash, subset: reference.subset.as_ref(), stuck }
    }

    /// For a lease.
    pub fn sought(&self, request: &Request<'_>) -> Sought<'a> {
        let origin = request.origin;
        let to = Sought::to(origin.destination, origin.peer.ip());
        Sought { hash: self.hash, subset: self.subset, stuck: self.stuck, ..to }
    }

    /// The value of `Set-Cookie` that keeps the client where it was served, unless it says so already.
    pub fn set_cookie(&self, cluster: &ClusterState, served: &EndpointState) -> Option<String> {
        let config = cluster.cluster.borrow();
        let sticky = config.sticky.as_ref()?;
        let address = &served.endpoint.borrow().address;
        let is_named =
            |index: usize| config.endpoints.endpoints.get(index).is_some_and(|known| known.address == *address);
        if self.stuck.is_some_and(is_named) {
            return None;
        }
        let index = config.endpoints.endpoints.iter().position(|known| known.address == *address)?;
        sticky.cookie(index)
    }
}
