//! What narrows the choice among a cluster's endpoints: subsets by label, and the endpoint that a client's cookie names.

use std::sync::Arc;

use super::{Cluster, EndpointSet};
use crate::model::{self, Labels};

/// The endpoints of a cluster that carry some labels.
pub struct Subset {
    /// Which.
    pub labels: Arc<Labels>,
    /// They, with a table of their own where the kind of balancing needs one.
    pub set: Arc<EndpointSet>,
    /// The index of each in the whole cluster.
    pub index: Box<[u32]>,
}

impl Subset {
    fn new(labels: Arc<Labels>, cluster: &Cluster, old: Option<&Subset>) -> Subset {
        let carries =
            |placement: &model::Placement| labels.iter().all(|(key, value)| placement.labels.get(key) == Some(value));
        let all = cluster.endpoints.endpoints.iter().enumerate();
        let (index, endpoints): (Vec<u32>, Vec<_>) = all
            .filter(|(_, endpoint)| carries(&endpoint.placement))
            .map(|(index, endpoint)| (index as u32, endpoint.clone()))
            .unzip();
        let set = EndpointSet::new(endpoints, cluster.balance, old.map(|old| &*old.set));
        Subset { labels, set: Arc::new(set), index: index.into() }
    }
}

/// Keeps clients at their endpoints by a cookie of ours.
pub struct Sticky {
    /// The cookie's name.
    pub name: Box<str>,
    /// What follows its value in `Set-Cookie`.
    attributes: Box<str>,
    /// The value of each endpoint: a keyed hash of its address, which says nothing and cannot be made up.
    tokens: Box<[u64]>,
    /// The same, in order, with the endpoints' indices.
    ordered: Box<[(u64, u32)]>,
}

impl Sticky {
    fn new(wanted: &model::Sticky, cluster: &Cluster) -> Sticky {
        use aws_lc_rs::hmac;
        // Without a secret the values are the same for everybody who knows the addresses; they still say nothing.
        let secret = wanted.secret.as_deref().unwrap_or("onehop sticky cookie");
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let token = |address: &model::Address| {
            let tag = hmac::sign(&key, format!("{}\n{address}", cluster.name).as_bytes());
            tag.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
        };
        let tokens: Box<[u64]> = cluster.endpoints.endpoints.iter().map(|endpoint| token(&endpoint.address)).collect();
        let mut ordered: Vec<(u64, u32)> = tokens.iter().enumerate().map(|(at, token)| (*token, at as u32)).collect();
        ordered.sort_unstable();
        let mut attributes = format!("; Path={}", wanted.path);
        if let Some(ttl) = wanted.ttl {
            attributes.push_str(&format!("; Max-Age={}", ttl.as_secs()));
        }
        for (is_set, text) in [(wanted.http_only, "; HttpOnly"), (wanted.secure, "; Secure")] {
            attributes.push_str(if is_set { text } else { "" });
        }
        if let Some(same_site) = &wanted.same_site {
            attributes.push_str(&format!("; SameSite={same_site}"));
        }
        Sticky { name: wanted.cookie.as_str().into(), attributes: attributes.into(), tokens, ordered: ordered.into() }
    }

    /// The endpoint that a cookie's value names, if it is still there.
    pub fn endpoint(&self, value: &[u8]) -> Option<usize> {
        let digits = std::str::from_utf8(value).ok().filter(|digits| digits.len() == 16)?;
        let token = u64::from_str_radix(digits, 16).ok()?;
        let at = self.ordered.partition_point(|(known, _)| *known < token);
        self.ordered.get(at).filter(|(known, _)| *known == token).map(|(_, index)| *index as usize)
    }

    /// The value of `Set-Cookie` that keeps a client at an endpoint.
    pub fn cookie(&self, endpoint: usize) -> Option<String> {
        let token = self.tokens.get(endpoint)?;
        Some(format!("{}={token:016x}{}", self.name, self.attributes))
    }
}

impl Cluster {
    /// Works out what follows from the endpoints: the subsets of these labels, and the cookies' values.
    pub(crate) fn narrow(&mut self, wanted: &[Arc<Labels>], old: Option<&Cluster>) {
        let known = |labels: &Labels| old.and_then(|old| old.subsets.iter().find(|subset| *subset.labels == *labels));
        self.subsets = wanted.iter().map(|labels| Subset::new(labels.clone(), self, known(labels))).collect();
        self.sticky = self.policy.sticky.as_ref().map(|wanted| Sticky::new(wanted, self));
    }

    /// The subset of these labels.
    pub fn subset(&self, labels: &Arc<Labels>) -> Option<(usize, &Subset)> {
        let all = || self.subsets.iter().enumerate();
        let same = all().find(|(_, subset)| Arc::ptr_eq(&subset.labels, labels));
        // After a change of configuration an exchange may still hold the labels of the one before.
        same.or_else(|| all().find(|(_, subset)| subset.labels == *labels))
    }
}
