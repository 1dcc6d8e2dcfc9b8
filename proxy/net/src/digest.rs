//! The one digest that a protocol asks of us beside TLS.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// SHA-1, which the WebSocket handshake proves with that its server has read it (RFC 6455 4.2.2). It keeps no secret.
pub fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut out = [0; 20];
    out.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    out
}
