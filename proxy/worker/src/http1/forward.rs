//! The heads that we send on: which fields are dropped, which are added, and what they say.

use std::io::Write;
use std::net::IpAddr;
use std::rc::Rc;

pub use super::framing::{Framed, frame};
pub use super::identity::Identity;
use super::identity::is_traceparent;
use crate::exchange::Request;
use crate::exchange::body::Framing;
use crate::exchange::changes::Changes;
use crate::exchange::deadline::Deadline;
use crate::secure::Secure;
use onehop_net::Peer;
use onehop_plan::filter::Filters;
use onehop_plan::{ClientCert, RequestId, Route};
use onehop_wire::http1::{self, BodyLength, Edits, Fields, Known, Method, RequestHead, ResponseHead, Version, kind};
use smallvec::SmallVec;

/// Fields that we can add to one head are 15 at most; the rest is for those of most routes.
const ROOM: usize = 24;

/// Where a request came from.
#[derive(Clone)]
pub struct Origin {
    /// The connection's peer, or what a trusted PROXY header said.
    pub peer: Peer,
    /// Whether the client spoke TLS.
    pub tls: bool,
    /// Where a captured connection was meant to go.
    pub destination: Option<std::net::SocketAddr>,
    /// What its TLS handshake gave.
    pub secure: Option<Rc<Secure>>,
}

/// Fields to add, their values in one scratch buffer.
struct Added<'a> {
    list: [(&'a [u8], &'a [u8]); ROOM],
    count: usize,
}

impl<'a> Added<'a> {
    fn new() -> Self {
        Added { list: [(b"", b""); ROOM], count: 0 }
    }

    fn push(&mut self, name: &'a [u8], value: &'a [u8]) {
        self.list[self.count] = (name, value);
        self.count += 1;
    }

    fn all(&self) -> &[(&'a [u8], &'a [u8])] {
        &self.list[..self.count]
    }

    /// Adds what a route adds, and leaves out what it hides of ours. Only where that is rare or much does it go elsewhere.
    fn finish<R>(
        &mut self,
        hides: impl Fn(&[u8]) -> bool,
        fields: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
        encode: impl FnOnce(&[(&'a [u8], &'a [u8])]) -> R,
    ) -> R {
        let is_hidden = |(name, _): &(&[u8], &[u8])| hides(name);
        if fields.len() <= ROOM - self.count && !self.all().iter().any(is_hidden) {
            fields.for_each(|(name, value)| self.push(name, value));
            return encode(self.all());
        }
        let kept = self.all().iter().copied().filter(|field| !is_hidden(field));
        let all: SmallVec<[_; 32]> = kept.chain(fields).collect();
        encode(&all)
    }
}

/// What a route changes: the exchange's own part, and the route's.
pub type Changed<'a> = Option<(&'a Changes, Option<&'a Filters>)>;

/// The two parts together.
pub fn changed<'a>(changes: Option<&'a Changes>, route: &'a Route) -> Changed<'a> {
    changes.map(|changes| (changes, route.filters.as_deref()))
}

/// What goes into a response beside what its framing asks for.
#[derive(Clone, Copy, Default)]
pub struct ResponseEdits<'a> {
    /// The value of Server-Timing.
    pub timing: Option<&'a [u8]>,
    /// The value of Set-Cookie that keeps the client at its endpoint.
    pub cookie: Option<&'a [u8]>,
    /// What the route changes.
    pub changes: Changed<'a>,
}

fn named(fields: &Fields, buf: &[u8], name: &[u8]) -> u128 {
    fields.which(|field| field.name.of(buf).eq_ignore_ascii_case(name))
}

fn write_ip(out: &mut Vec<u8>, ip: IpAddr) {
    // Once per request, where the general formatting would show.
    if let IpAddr::V4(ip) = ip {
        let (mut text, mut at) = ([0; 16], 0);
        for octet in ip.octets() {
            for (digit, least) in [(octet / 100, 100), (octet / 10 % 10, 10), (octet % 10, 0)] {
                if octet >= least {
                    text[at] = b'0' + digit;
                    at += 1;
                }
            }
            text[at] = b'.';
            at += 1;
        }
        out.extend_from_slice(&text[..at - 1]);
        return;
    }
    // Writing to a vector cannot fail.
    let _ = write!(out, "{ip}");
}

/// The values of the list field `known`, joined, and then one more.
fn appended(
    out: &mut Vec<u8>,
    head: &RequestHead,
    buf: &[u8],
    known: Known,
    last: impl FnOnce(&mut Vec<u8>),
) -> std::ops::Range<usize> {
    let start = out.len();
    if head.fields.has(known) {
        for field in head.fields.iter().filter(|field| field.known == known) {
            let value = field.value.of(buf);
            if !value.is_empty() {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
        }
    }
    last(out);
    start..out.len()
}

/// Framing fields with unusual white space are written anew: parsers have disagreed on a tab around a length.
#[inline]
fn plain_framing<'a>(fields: &Fields, buf: &'a [u8], drop: &mut u128, add: &mut Added<'a>) {
    if fields.has_any(kind(Known::ContentLength) | kind(Known::TransferEncoding)) {
        write_unusual_framing(fields, buf, drop, add);
    }
}

fn write_unusual_framing<'a>(fields: &Fields, buf: &'a [u8], drop: &mut u128, add: &mut Added<'a>) {
    for (index, field) in fields.iter().enumerate() {
        let name: &[u8] = match field.known {
            Known::ContentLength => b"Content-Length",
            Known::TransferEncoding => b"Transfer-Encoding",
            _ => continue,
        };
        let usual = field.value.start as usize == field.name.end() + 2
            && buf[field.name.end() + 1] == b' '
            && field.line_end as usize == field.value.end() + 2;
        if !usual && *drop >> index & 1 == 0 {
            *drop |= 1 << index;
            add.push(name, field.value.of(buf));
        }
    }
}

/// What an attempt says of itself.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    /// This process, as `Via` names it.
    pub instance: &'a str,
    /// The route lets the protocol through that the client wants to upgrade to.
    pub upgrade: bool,
    /// The attempt's number, from 1; zero: it is not told.
    pub attempt: u32,
}

/// The field that carries it.
const ATTEMPT: &[u8] = b"X-Attempt-Count";

/// What is left of the client's deadline, in place of what it was.
fn timeout(
    out: &mut Vec<u8>,
    deadline: Deadline,
    fields: &Fields,
    buf: &[u8],
    drop: &mut u128,
) -> (&'static [u8], std::ops::Range<usize>) {
    *drop |= named(fields, buf, deadline.field());
    let start = out.len();
    deadline.write_left(out);
    (deadline.field(), start..out.len())
}

/// The attempt's number, in place of what a client says.
fn number(out: &mut Vec<u8>, attempt: u32, fields: &Fields, buf: &[u8], drop: &mut u128) -> std::ops::Range<usize> {
    *drop |= named(fields, buf, ATTEMPT);
    let start = out.len();
    match u8::try_from(attempt) {
        Ok(digit @ 0..=9) => out.push(b'0' + digit),
        // Writing to a vector cannot fail.
        _ => {
            let _ = write!(out, "{attempt}");
        }
    }
    start..out.len()
}

/// Decides how the request goes upstream: in origin-form, hop-by-hop fields gone, ours added. `encode` gets the target
/// and the edits, and writes it down for the upstream's version. `scratch` is an empty buffer for the values of the
/// fields that are added.
#[inline]
pub fn request<R>(
    scratch: &mut Vec<u8>,
    request: &Request<'_>,
    changed: Changed<'_>,
    sent: Sent<'_>,
    encode: impl FnOnce(&[u8], &Edits<'_>) -> R,
) -> R {
    let Sent { instance, upgrade, attempt } = sent;
    let Request { head, bytes: buf, origin, identity, listener, deadline } = *request;
    let policy = &listener.http;
    let fields = &head.fields;
    let mut drop = http1::hop_by_hop(fields, head.named_by_connection);
    drop |= fields.bits(Known::XForwardedFor) | fields.bits(Known::Via);
    let peer = origin.peer.ip();
    let via = via(scratch, head, buf, instance);
    let forwarded_for = appended(scratch, head, buf, Known::XForwardedFor, |out| write_ip(out, peer));
    let forwarded = policy.forwarded.then(|| {
        drop |= fields.bits(Known::Forwarded);
        forwarded(scratch, head, buf, peer, origin.tls)
    });
    let client_cert = client_cert(scratch, request, &mut drop);
    let timeout = deadline.map(|deadline| timeout(scratch, deadline, fields, buf, &mut drop));
    let attempt = (attempt > 0).then(|| number(scratch, attempt, fields, buf, &mut drop));
    let trusts = policy.trusted_hops > 0;
    let mut add = Added::new();
    if head.absolute_form || head.find(Known::Host).is_none() {
        drop |= fields.bits(Known::Host);
        add.push(b"Host", head.authority.of(buf));
    }
    if let Some((name, timeout)) = timeout {
        add.push(name, &scratch[timeout]);
    }
    if let Some(attempt) = attempt {
        add.push(ATTEMPT, &scratch[attempt]);
    }
    add.push(b"X-Forwarded-For", &scratch[forwarded_for]);
    if !(trusts && head.find(Known::XForwardedProto).is_some()) {
        drop |= fields.bits(Known::XForwardedProto);
        add.push(b"X-Forwarded-Proto", if origin.tls { b"https" } else { b"http" });
    }
    if !(trusts && head.find(Known::XForwardedHost).is_some()) {
        drop |= fields.bits(Known::XForwardedHost);
        add.push(b"X-Forwarded-Host", head.authority.of(buf));
    }
    if let Some(forwarded) = forwarded {
        add.push(b"Forwarded", &scratch[forwarded]);
    }
    if let Some(client_cert) = client_cert {
        add.push(b"X-Forwarded-Client-Cert", &scratch[client_cert]);
    }
    add.push(b"Via", &scratch[via]);
    if policy.request_id == RequestId::Replace || head.find(Known::XRequestId).is_none() {
        drop |= fields.bits(Known::XRequestId);
        add.push(b"X-Request-Id", identity.request_id());
    }
    if !head.find(Known::Traceparent).is_some_and(|field| is_traceparent(field.value.of(buf))) {
        drop |= fields.bits(Known::Traceparent) | fields.bits(Known::Tracestate);
        add.push(b"traceparent", identity.traceparent());
    }
    connection_fields(&mut add, head, buf, upgrade);
    http1_framing(&mut add, head);
    plain_framing(fields, buf, &mut drop, &mut add);
    let target = if head.absolute_form { absolute_path(head, buf) } else { head.target.of(buf) };
    let Some((changes, filters)) = changed else {
        return encode(target, &Edits { drop, add: add.all() });
    };
    changed_request(request.head, buf, target, (changes, filters), drop, &mut add, encode)
}

/// `Via`: what came, and this hop (RFC 9110 7.6.3).
fn via(out: &mut Vec<u8>, head: &RequestHead, buf: &[u8], instance: &str) -> std::ops::Range<usize> {
    appended(out, head, buf, Known::Via, |out| {
        out.extend_from_slice(match head.version {
            Version::Http10 => b"1.0 ",
            Version::Http11 => b"1.1 ",
            Version::Http2 => b"2.0 ",
        });
        out.extend_from_slice(instance.as_bytes());
    })
}

/// `Forwarded`: what came, and this client (RFC 7239).
fn forwarded(out: &mut Vec<u8>, head: &RequestHead, buf: &[u8], peer: IpAddr, tls: bool) -> std::ops::Range<usize> {
    let quoted = peer.is_ipv6();
    appended(out, head, buf, Known::Forwarded, |out| {
        // Writing to a vector cannot fail.
        let _ = match quoted {
            true => write!(out, "for=\"[{peer}]\""),
            false => write!(out, "for={peer}"),
        };
        out.extend_from_slice(if tls { b";proto=https" } else { b";proto=http" });
    })
}

/// What an HTTP/2 request lacks of HTTP/1's framing.
fn http1_framing(add: &mut Added<'_>, head: &RequestHead) {
    if head.version == Version::Http2 {
        match head.body {
            BodyLength::Chunked => add.push(b"Transfer-Encoding", b"chunked"),
            // An HTTP/1 server may answer a bodiless POST without a length with 411.
            BodyLength::None if head.wants_length() => add.push(b"Content-Length", b"0"),
            _ => {}
        }
    }
}

/// The same, with what the route changes.
fn changed_request<'a, R>(
    head: &RequestHead,
    buf: &[u8],
    target: &[u8],
    (changes, filters): (&'a Changes, Option<&Filters>),
    mut drop: u128,
    add: &mut Added<'a>,
    encode: impl FnOnce(&[u8], &Edits<'_>) -> R,
) -> R {
    let fields = &head.fields;
    let target = changes.target().filter(|_| head.method != http1::Method::Connect).unwrap_or(target);
    if let Some(host) = changes.host() {
        drop |= fields.bits(Known::Host);
        match add.list[..add.count].iter_mut().find(|(name, _)| *name == b"Host") {
            Some(field) => field.1 = host,
            None => add.push(b"Host", host),
        }
    }
    let Some(filters) = filters else {
        return encode(target, &Edits { drop, add: add.all() });
    };
    let hides = |name: &[u8]| filters.request.drops(name);
    drop |= Changes::dropped(fields, buf, hides);
    add.finish(hides, changes.request_fields(), |add| encode(target, &Edits { drop, add }))
}

/// `X-Forwarded-Client-Cert` as Envoy writes it, where this listener adds it; what a client claims is dropped unless it
/// has shown a certificate and the listener believes it.
fn client_cert(out: &mut Vec<u8>, request: &Request<'_>, drop: &mut u128) -> Option<std::ops::Range<usize>> {
    let Request { head, bytes: buf, origin, listener, .. } = *request;
    let peer = origin.secure.as_deref().and_then(|secure| secure.peer.as_ref());
    let mode = if peer.is_some() { listener.client_cert } else { ClientCert::Sanitize };
    if mode == ClientCert::Forward {
        return None;
    }
    *drop |= head.fields.bits(Known::XForwardedClientCert);
    let peer = peer.filter(|_| mode != ClientCert::Sanitize)?;
    let start = out.len();
    if mode == ClientCert::Append {
        for field in head.fields.iter().filter(|field| field.known == Known::XForwardedClientCert) {
            out.extend_from_slice(field.value.of(buf));
            out.push(b',');
        }
    }
    if let Some(own) = &listener.own_uri {
        let _ = write!(out, "By={own};");
    }
    let subject = peer.subject.replace('\\', "\\\\").replace('"', "\\\"");
    let _ = write!(out, "Hash={};Subject=\"{subject}\"", peer.hash);
    peer.uris.iter().for_each(|uri| drop_control(out, ";URI=", uri));
    peer.dns.iter().for_each(|name| drop_control(out, ";DNS=", name));
    Some(start..out.len())
}

/// A name from a certificate: what would end the value or the field is left out.
fn drop_control(out: &mut Vec<u8>, label: &str, name: &str) {
    out.extend_from_slice(label.as_bytes());
    out.extend(name.bytes().filter(|byte| byte.is_ascii_graphic() && !matches!(byte, b';' | b',' | b'"')));
}

/// The path and query of an absolute-form target; an empty path is `/` (RFC 9112 3.2.1), or the server as a whole where its
/// options are asked for (3.2.4).
fn absolute_path<'b>(head: &RequestHead, buf: &'b [u8]) -> &'b [u8] {
    match (head.path.len, head.method) {
        (0, Method::Options) => b"*",
        (0, _) => b"/",
        _ => &buf[head.path.start as usize..head.target.end()],
    }
}

fn connection_fields<'a>(add: &mut Added<'a>, head: &RequestHead, buf: &'a [u8], upgrade: bool) {
    let trailers = head.find(Known::Te).is_some_and(|te| names_token(te.value.of(buf), b"trailers"));
    match (upgrade.then_some(head.upgrade).flatten(), trailers) {
        (Some(protocol), _) => {
            add.push(b"Connection", b"Upgrade");
            add.push(b"Upgrade", protocol.of(buf));
        }
        (None, true) => {
            add.push(b"TE", b"trailers");
            add.push(b"Connection", b"TE");
        }
        (None, false) => {}
    }
}

/// Whether a comma-separated list names a token, without regard to case and parameters.
pub fn names_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|item| {
        let item = item.split(|byte| *byte == b';').next().unwrap_or_default();
        item.trim_ascii().eq_ignore_ascii_case(token)
    })
}

/// Whether a response ended with its head in a way that an HTTP/1 client could not see: it would wait for a body.
fn ends_unsaid(request: &RequestHead, head: &ResponseHead) -> bool {
    (head.version == Version::Http2 && request.version != Version::Http2)
        && head.body == BodyLength::None
        && !(head.tunnels || head.status < 200 || matches!(head.status, 204 | 304) || request.method == Method::Head)
        && head.find(Known::ContentLength).is_none()
}

/// Decides how the response goes to the client; `encode` gets the edits and writes it down for the client's version.
#[inline]
pub fn response<R>(
    request: &RequestHead,
    head: &ResponseHead,
    buf: &[u8],
    framed: &Framed,
    edit: ResponseEdits<'_>,
    encode: impl FnOnce(&Edits<'_>) -> R,
) -> R {
    let mut drop = http1::hop_by_hop(&head.fields, head.named_by_connection);
    // A client of HTTP/1.0 knows no codings, not even where there is no body (RFC 9112 6.1).
    if framed.framing == Framing::Unchunked || request.version == Version::Http10 {
        drop |= head.fields.bits(Known::TransferEncoding) | head.fields.bits(Known::Trailer);
    }
    // Where there can be no body they speak of one all the same, and some clients would wait for it (RFC 9110 8.6).
    if head.tunnels || head.status < 200 || head.status == 204 {
        drop |= head.fields.bits(Known::TransferEncoding) | head.fields.bits(Known::ContentLength);
    }
    let mut add = Added::new();
    if framed.framing == Framing::Chunked {
        drop |= head.fields.bits(Known::ContentLength);
        add.push(b"Transfer-Encoding", b"chunked");
    }
    if ends_unsaid(request, head) {
        add.push(b"Content-Length", b"0");
    }
    if head.status == 101 {
        if let Some(protocol) = head.upgrade {
            add.push(b"Connection", b"Upgrade");
            add.push(b"Upgrade", protocol.of(buf));
        }
    } else if head.tunnels {
        // The connection belongs to the tunnel.
    } else if framed.close {
        add.push(b"Connection", b"close");
    } else if request.version == Version::Http10 && head.status >= 200 {
        add.push(b"Connection", b"keep-alive");
    }
    plain_framing(&head.fields, buf, &mut drop, &mut add);
    if let Some(timing) = edit.timing {
        add.push(b"Server-Timing", timing);
    }
    if let Some(cookie) = edit.cookie {
        add.push(b"Set-Cookie", cookie);
    }
    let Some((changes, Some(filters))) = edit.changes.filter(|_| head.status >= 200) else {
        return encode(&Edits { drop, add: add.all() });
    };
    let hides = |name: &[u8]| changes.drops_response(filters, name);
    drop |= Changes::dropped(&head.fields, buf, hides);
    if filters.response.rename.is_empty() {
        return add.finish(hides, changes.response_fields(), |add| encode(&Edits { drop, add }));
    }
    let named = |from: &str| head.fields.iter().find(|field| field.name.of(buf).eq_ignore_ascii_case(from.as_bytes()));
    let renamed = filters.response.rename.iter();
    let renamed = renamed.filter_map(|(from, to)| Some((to.as_bytes(), named(from)?.value.of(buf))));
    let all: SmallVec<[_; 32]> = changes.response_fields().chain(renamed).collect();
    add.finish(hides, all.into_iter(), |add| encode(&Edits { drop, add }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_everyone_writes_them() {
        for ip in ["0.0.0.0", "9.10.99.100", "127.0.0.1", "255.255.255.255", "1.200.30.4", "2001:db8::1"] {
            let mut out = b"for=".to_vec();
            write_ip(&mut out, ip.parse().expect("an address"));
            assert_eq!(String::from_utf8(out).expect("ASCII"), format!("for={ip}"));
        }
    }

    #[test]
    fn tokens_are_found_in_lists() {
        assert!(names_token(b"gzip, Trailers;q=0.5", b"trailers"));
        assert!(!names_token(b"trailers-x", b"trailers"));
    }
}
