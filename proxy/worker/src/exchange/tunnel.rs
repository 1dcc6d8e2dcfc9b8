//! Requests that become tunnels: CONNECT, and upgrades, which are extended CONNECTs where the upstream speaks HTTP/2
//! (RFC 8441). What flows through is relayed by whoever serves the client.

use std::future::poll_fn;

use onehop_net::clock;
use onehop_net::deadline::sleep_until;
use onehop_net::digest::sha1;
use onehop_net::stream::first;
use onehop_wire::grpc_web::encode as base64;
use onehop_wire::http1::{BodyLength, Field, Known, Method, Span, Version};

use super::admission::Held;
use super::attempt::{Attempt, Failure};
use super::response::Response;
use super::{Active, Outcome, upgrade_allowed};
use crate::http2::message;
use crate::upstream::{Conn, Lease};

/// What a WebSocket server proves with that it has read the handshake (RFC 6455 1.3).
const WEBSOCKET: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A tunnel that has begun. It is a request under way, and holds the places of one, until it is dropped.
pub struct Tunnel {
    /// Its connection.
    pub lease: Lease,
    pub(super) places: Option<(Held, Active)>,
}

/// The exchange has ended, and gives its places up unless it has begun a tunnel.
pub(super) fn hold(outcome: &mut Outcome, places: (Held, Active)) {
    if let Some(tunnel) = &mut outcome.tunnel {
        tunnel.places = Some(places);
    }
}

impl Attempt<'_> {
    /// The protocol that the client wants to change to, where the route lets it.
    pub(super) fn upgrade(&self) -> Option<&[u8]> {
        let protocol = self.request.head.upgrade?.of(self.request.bytes);
        upgrade_allowed(self.route, protocol).then_some(protocol)
    }

    /// Whether a success would begin a tunnel.
    pub(super) fn tunnels(&self) -> bool {
        self.request.head.method == Method::Connect || self.upgrade().is_some()
    }

    /// Whether this upstream takes the request for a tunnel: over HTTP/2 an upgrade needs its word (RFC 8441 3), which its
    /// SETTINGS bring.
    pub(super) async fn takes_tunnels(&self, lease: &mut Lease) -> bool {
        if !matches!(lease.conn, Conn::Http2(_)) || self.upgrade().is_none() {
            return true;
        }
        if !message::is_extended_connect(self.request.head) {
            return false;
        }
        let patience = clock::after(clock::now(), self.cluster.cluster.borrow().connect_timeout);
        // What it allows is asked below, however the wait has ended.
        let _ = first(poll_fn(|cx| lease.poll_settled(cx)), sleep_until(patience.min(self.due))).await;
        matches!(&lease.conn, Conn::Http2(riding) if riding.peek().allows_connect())
    }

    /// Takes a final response that came by HTTP/2. A success to an extended CONNECT is what 101 is in HTTP/1.
    pub(super) fn take_final(
        &self,
        head: http::Response<()>,
        ends: bool,
        response: &mut Response,
    ) -> Result<(), Failure> {
        response.take_http2(head, ends, self.request)?;
        if let Some(protocol) = self.upgrade().filter(|_| (200..300).contains(&response.head.status)) {
            self.switch(protocol, response);
        }
        Ok(())
    }

    fn switch(&self, protocol: &[u8], response: &mut Response) {
        let Response { head, bytes, .. } = response;
        head.status = 101;
        head.reason = Span::default();
        (head.tunnels, head.body) = (true, BodyLength::None);
        let key = self.request.head.value(self.request.bytes, "sec-websocket-key");
        if let Some(key) = key.filter(|_| self.request.head.version != Version::Http2) {
            // Directly behind the other lines: they are copied in runs.
            let mut accept = Vec::new();
            base64(&sha1(&[key, WEBSOCKET].concat()), &mut accept);
            let name = append(bytes, b"Sec-WebSocket-Accept");
            bytes.extend_from_slice(b": ");
            let value = append(bytes, &accept);
            bytes.extend_from_slice(b"\r\n");
            head.fields.push(Field { name, value, line_end: bytes.len() as u32, known: Known::Other });
        }
        head.upgrade = Some(append(bytes, protocol));
    }
}

fn append(bytes: &mut Vec<u8>, text: &[u8]) -> Span {
    let start = bytes.len() as u32;
    bytes.extend_from_slice(text);
    Span { start, len: text.len() as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_of_rfc_6455() {
        let mut accept = Vec::new();
        base64(&sha1(&[&b"dGhlIHNhbXBsZSBub25jZQ=="[..], WEBSOCKET].concat()), &mut accept);
        assert_eq!(accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
