//! TLS of listeners and clusters, and the process's identity: their checks and their compiled form.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use super::problem::{Place, Problems};
use crate::model::{self, ClientAuth, EndpointTarget, Model, Protocol};
use crate::snapshot::{Own as OwnIdentity, Snapshot};
use crate::tls::{ClientTls, Own, ServerTls, client, own, server};

/// The compiled parts, in the model's order.
#[derive(Default)]
pub(super) struct Secured {
    pub listeners: Vec<Option<Arc<ServerTls>>>,
    pub clusters: Vec<Option<Arc<ClientTls>>>,
    pub identity: Option<OwnIdentity>,
}

pub(super) fn secure(model: &Model, previous: Option<&Snapshot>, problems: &mut Problems) -> Secured {
    let own = match model.identity.as_ref().map(|identity| own(identity, &model.files)) {
        None => None,
        Some(Ok(own)) => own,
        Some(Err(message)) => {
            problems.add(Place::Identity, message);
            return Secured::default();
        }
    };
    let inputs = inputs(model);
    let mut secured = Secured { identity: own.as_ref().and_then(shown), ..Secured::default() };
    for (at, listener) in model.listeners.iter().enumerate() {
        let compiled = listener.tls.as_ref().and_then(|wanted| {
            check_listener(wanted, listener, model, Place::Listener(at, "tls"), problems);
            let old = previous
                .and_then(|previous| previous.listeners.iter().find(|old| *old.name == *listener.name)?.tls.clone());
            let made_of = hash((inputs, format!("{wanted:?}")));
            if let Some(old) = old.as_ref().filter(|old| old.made_of == made_of) {
                return Some(old.clone());
            }
            match server(wanted, own.as_ref(), &model.files, old.as_deref(), made_of) {
                Ok(compiled) => Some(Arc::new(compiled)),
                Err(message) => {
                    problems.add(Place::Listener(at, "tls"), message);
                    None
                }
            }
        });
        secured.listeners.push(compiled);
    }
    for (at, cluster) in model.clusters.iter().enumerate() {
        let compiled = cluster.tls.as_ref().and_then(|wanted| {
            check_cluster(wanted, cluster, model, Place::Cluster(at, "tls"), problems);
            let wanted = &with_alpn(wanted, cluster.protocol);
            let old = previous
                .and_then(|previous| previous.clusters.iter().find(|old| *old.name == *cluster.name)?.tls.clone());
            let made_of = hash((inputs, format!("{wanted:?}"), host_of(cluster)));
            if let Some(old) = old.filter(|old| old.made_of == made_of) {
                return Some(old);
            }
            match client(wanted, own.as_ref(), &model.files, host_of(cluster), made_of) {
                Ok(compiled) => Some(Arc::new(compiled)),
                Err(message) => {
                    problems.add(Place::Cluster(at, "tls"), message);
                    None
                }
            }
        });
        secured.clusters.push(compiled);
    }
    secured
}

fn hash(parts: impl std::hash::Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(parts)
}

/// Everything that a TLS configuration may be made from.
fn inputs(model: &Model) -> u64 {
    hash((format!("{:?}", model.identity), &model.files.0))
}

fn shown(own: &Own) -> Option<OwnIdentity> {
    let leaf = own.certified.cert.first()?;
    let not_after = crate::identity::peer(leaf)?.not_after;
    Some(OwnIdentity { id: own.id.clone(), not_after })
}

/// The name that all endpoints of a cluster share, if they are given by one.
fn host_of(cluster: &model::Cluster) -> Option<&str> {
    let mut names = cluster.endpoints.iter().map(|endpoint| match &endpoint.target {
        EndpointTarget::Name(name, _) => Some(name.as_str()),
        EndpointTarget::Address(_) => None,
    });
    let first = names.next().flatten()?;
    names.all(|name| name == Some(first)).then_some(first)
}

fn check_listener(
    wanted: &model::ListenerTls,
    listener: &model::Listener,
    model: &Model,
    place: Place,
    problems: &mut Problems,
) {
    if wanted.certificates.is_empty() && !wanted.identity {
        problems.hint(
            place,
            "TLS needs a certificate",
            "certificate = \"cert.pem\", key = \"key.pem\", or identity = true",
        );
    }
    if wanted.identity && model.identity.is_none() {
        problems.hint(place, "this process has no identity", "add [identity] with certificate, key and bundle");
    }
    if wanted.client != ClientAuth::Off && wanted.client_ca.is_none() && !wanted.identity {
        problems.hint(place, "whose certificates may clients show?", "client_ca = \"ca.pem\", or identity = true");
    }
    if wanted.client == ClientAuth::Off && (wanted.client_ca.is_some() || !wanted.crls.is_empty()) {
        problems.hint(place, "client_ca and crl mean nothing while clients are not asked", "client = \"required\"");
    }
    if wanted.handshake_timeout.is_zero() {
        problems.add(place, "handshake_timeout must not be zero");
    }
    if wanted.permissive && listener.proxy_protocol {
        problems.add(place, "permissive and proxy_protocol exclude each other: anybody could claim an address");
    }
    check_alpn(&wanted.alpn, place, problems);
}

/// What ALPN offers where nothing is written: the version that is spoken then, whatever the endpoint would like; both where
/// the endpoint decides.
fn with_alpn(wanted: &model::ClusterTls, protocol: Protocol) -> model::ClusterTls {
    let mut wanted = wanted.clone();
    if wanted.alpn.is_empty() {
        let offered: &[&str] = match protocol {
            Protocol::Http1 => &["http/1.1"],
            Protocol::Http2 => &["h2"],
            Protocol::Auto => &["h2", "http/1.1"],
        };
        wanted.alpn.extend(offered.iter().map(|protocol| (*protocol).to_owned()));
    }
    wanted
}

fn check_cluster(
    wanted: &model::ClusterTls,
    cluster: &model::Cluster,
    model: &Model,
    place: Place,
    problems: &mut Problems,
) {
    if wanted.alpn.iter().any(|protocol| protocol == "h2") != (cluster.protocol != Protocol::Http1)
        && !wanted.alpn.is_empty()
    {
        problems.hint(place, "alpn offers another HTTP version than the cluster's protocol", "protocol = \"auto\"");
    }
    if wanted.identity && model.identity.is_none() {
        problems.hint(place, "this process has no identity", "add [identity] with certificate, key and bundle");
    }
    if wanted.insecure && (wanted.ca.is_some() || !wanted.expect.is_empty()) {
        problems.add(place, "with verify = false neither ca nor expect mean anything");
    }
    check_alpn(&wanted.alpn, place, problems);
}

fn check_alpn(protocols: &[String], place: Place, problems: &mut Problems) {
    if protocols.iter().any(|protocol| protocol.is_empty() || protocol.len() > 255) {
        problems.add(place, "a protocol of alpn is empty or too long");
    }
}
