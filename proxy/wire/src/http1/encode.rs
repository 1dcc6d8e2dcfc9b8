//! Writing heads: the field lines that stay are copied in runs as long as possible, with their bytes as they were.

use super::fields::{Fields, kind};
use super::head::{Field, Known};
use super::request::RequestHead;
use super::response::ResponseHead;

/// What changes between the head that came and the one that goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edits<'a> {
    /// Bit i: field i is not copied.
    pub drop: u128,
    /// Fields that are added at the end.
    pub add: &'a [(&'a [u8], &'a [u8])],
}

/// Fields that a `Connection` field must not remove: the recipient's view of the message depends on them.
fn is_protected(known: Known) -> bool {
    use Known::*;
    matches!(
        known,
        Host | ContentLength
            | TransferEncoding
            | XForwardedFor
            | XForwardedProto
            | XForwardedHost
            | Forwarded
            | Via
            | XRequestId
            | Traceparent
            | Tracestate
            | Authorization
            | Cookie
            | ContentType
            | Expect
    )
}

/// The fields for this hop alone (RFC 9110 7.6.1). Transfer-Encoding and Content-Length stay: the framing is relayed.
#[inline]
pub fn hop_by_hop(fields: &Fields, named: u128) -> u128 {
    use Known::*;
    const OWN: u64 =
        kind(Connection) | kind(KeepAlive) | kind(ProxyConnection) | kind(Upgrade) | kind(Te) | kind(Http2Settings);
    let own = if fields.has_any(OWN) { fields.which(|field| kind(field.known) & OWN != 0) } else { 0 };
    // Of what `Connection` names the message's meaning may not depend.
    own | if named == 0 { 0 } else { named & fields.which(|field| !is_protected(field.known)) }
}

fn fields(out: &mut Vec<u8>, fields: &[Field], buf: &[u8], edits: &Edits<'_>) {
    let mut run: Option<(usize, usize)> = None;
    for (index, field) in fields.iter().enumerate() {
        let (start, end) = (field.name.start as usize, field.line_end as usize);
        if edits.drop >> index & 1 == 1 {
            if let Some((from, to)) = run.take() {
                out.extend_from_slice(&buf[from..to]);
            }
        } else {
            run = Some((run.map_or(start, |(from, _)| from), end));
        }
    }
    if let Some((from, to)) = run {
        out.extend_from_slice(&buf[from..to]);
    }
    for (name, value) in edits.add {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a request head, always as HTTP/1.1.
pub fn encode_request(out: &mut Vec<u8>, head: &RequestHead, buf: &[u8], target: &[u8], edits: &Edits<'_>) {
    out.reserve(head.head_len + 512);
    out.extend_from_slice(head.method_span.of(buf));
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    fields(out, &head.fields, buf, edits);
}

/// Writes a response head, always as HTTP/1.1.
pub fn encode_response(out: &mut Vec<u8>, head: &ResponseHead, buf: &[u8], edits: &Edits<'_>) {
    out.reserve(head.head_len + 128);
    let status = head.status;
    let digit = |place: u16| b'0' + (status / place % 10) as u8;
    out.extend_from_slice(&[
        b'H',
        b'T',
        b'T',
        b'P',
        b'/',
        b'1',
        b'.',
        b'1',
        b' ',
        digit(100),
        digit(10),
        digit(1),
        b' ',
    ]);
    out.extend_from_slice(head.reason.of(buf));
    out.extend_from_slice(b"\r\n");
    fields(out, &head.fields, buf, edits);
}
