//! Clusters whose endpoints decide, by the ALPN of their TLS, which HTTP version they are spoken to in. What an endpoint
//! chose is remembered until a later connection chooses otherwise: another server may have taken its place.

use std::rc::Rc;

use onehop_net::{Stream, clock, runtime};
use onehop_plan::Protocol;

use super::lease::Wanted;
use super::pool::Pooled;
use super::{ClusterState, EndpointState, mux};

/// What an endpoint was found to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Spoken {
    /// Nobody has connected yet.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Whether TLS agreed to HTTP/2. An endpoint without ALPN speaks HTTP/1.1.
fn agreed(stream: &Stream) -> bool {
    stream.alpn() == Some(b"h2")
}

impl ClusterState {
    fn asks(&self) -> bool {
        self.cluster.borrow().protocol == Protocol::Auto
    }

    /// Whether a request shares a connection there. An endpoint that nobody knows yet is taken to allow it, so that a burst
    /// of requests waits for one answer instead of making a connection each.
    pub(super) fn shares(&self, endpoint: &EndpointState, wanted: Wanted) -> bool {
        match self.cluster.borrow().protocol {
            _ if wanted == Wanted::Bytes => false,
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => endpoint.spoken.get() != Spoken::Http1,
        }
    }

    /// Whether a connection for one request alone may turn out to be shared.
    pub(super) fn may_turn(&self, wanted: Wanted) -> bool {
        wanted != Wanted::Bytes && self.asks()
    }

    /// Looks at a new connection that is meant to be shared. One to an endpoint that speaks HTTP/1.1 goes to its pool.
    pub(super) fn sort(&self, endpoint: &EndpointState, stream: Stream) -> Option<Stream> {
        if !self.asks() {
            return Some(stream);
        }
        if agreed(&stream) {
            endpoint.spoken.set(Spoken::Http2);
            return Some(stream);
        }
        endpoint.spoken.set(Spoken::Http1);
        let now = clock::now();
        let idle = Box::new(Pooled { stream, since: now, born: now, requests: 0 });
        if endpoint.is_retired() || !endpoint.pool.borrow_mut().give_back(idle, &self.bounds()) {
            self.closed(endpoint, 1);
        }
        None
    }

    /// Looks at a new connection that is meant for one request. One that agreed to HTTP/2 is shared from now on.
    pub(super) fn turn(self: &Rc<Self>, endpoint: &Rc<EndpointState>, stream: Stream) -> Option<Stream> {
        if !agreed(&stream) {
            endpoint.spoken.set(Spoken::Http1);
            return Some(stream);
        }
        endpoint.spoken.set(Spoken::Http2);
        endpoint.muxes.begins();
        runtime::spawn(mux::make(self.clone(), endpoint.clone(), Box::pin(async move { Ok(stream) })));
        None
    }
}
