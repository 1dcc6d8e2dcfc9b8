//! What a route changes in the heads of one exchange, worked out once for all of its attempts. Kept in a pool: an
//! exchange that changes something allocates nothing once the pool is warm.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;

use onehop_plan::Route;
use onehop_plan::filter::{Cors, Edits, Filters, Values};
use onehop_plan::route::{Captures, Normal};
use onehop_wire::http1::{Field, Known};

use super::Request;

/// What an upstream says of origins does not count where the route says it.
const CORS_FIELDS: [&[u8]; 3] =
    [b"access-control-allow-origin", b"access-control-allow-credentials", b"access-control-expose-headers"];

type Part = Range<u32>;

/// One exchange's changes.
#[derive(Clone, Default)]
pub struct Changes {
    bytes: Vec<u8>,
    target: Option<Part>,
    host: Option<Part>,
    request: Vec<(Part, Part)>,
    response: Vec<(Part, Part)>,
}

/// A header's value: several lines are one value, joined by commas (RFC 9110 5.3).
pub fn header<'a>(request: &'a Request<'_>, name: &str) -> Option<Cow<'a, [u8]>> {
    let fields = request.head.fields.iter().filter(|field| {
        field.name.len as usize == name.len() && field.name.of(request.bytes).eq_ignore_ascii_case(name.as_bytes())
    });
    let mut found: Option<Cow<'a, [u8]>> = None;
    for field in fields {
        let value = field.value.of(request.bytes);
        match &mut found {
            None => found = Some(Cow::Borrowed(value)),
            Some(joined) => {
                joined.to_mut().extend_from_slice(b",");
                joined.to_mut().extend_from_slice(value);
            }
        }
    }
    found
}

/// A cookie's value.
pub fn cookie<'a>(request: &'a Request<'_>, name: &str) -> Option<&'a [u8]> {
    let cookies = request.head.fields.iter().filter(|field| field.known == Known::Cookie);
    cookies.flat_map(|field| field.value.of(request.bytes).split(|byte| *byte == b';')).find_map(|pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    })
}

/// The identity that the client proved by its certificate.
pub fn identity<'a>(request: &'a Request<'_>) -> Option<&'a [u8]> {
    let peer = request.origin.secure.as_deref()?.peer.as_ref()?;
    peer.id.as_ref().map(|id| id.as_str().as_bytes())
}

/// The client's address: the connection's peer, or what the last of the trusted proxies saw.
pub fn client(request: &Request<'_>) -> IpAddr {
    let peer = request.origin.peer.ip();
    let hops = request.listener.http.trusted_hops as usize;
    if hops == 0 {
        return peer;
    }
    let Some(list) = header(request, "x-forwarded-for") else {
        return peer;
    };
    let seen = list.split(|byte| *byte == b',').rev().nth(hops - 1);
    let text = seen.and_then(|seen| std::str::from_utf8(seen).ok()).map(str::trim);
    // One that a proxy with a socket for both versions wrote down is an IPv4 address like any other.
    text.and_then(|text| text.parse().ok()).map_or(peer, |ip: IpAddr| ip.to_canonical())
}

/// What the variables of texts are in this exchange.
pub fn values<'a>(
    request: &'a Request<'_>,
    id: &'a [u8],
    route: &'a Route,
    normal: Normal<'a>,
    captures: &'a Captures,
) -> Values<'a> {
    Values {
        client: client(request),
        identity: identity(request).unwrap_or_default(),
        request_id: id,
        route: &route.name,
        listener: &request.listener.name,
        host: request.head.authority.of(request.bytes),
        path: request.head.path.of(request.bytes),
        method: request.head.method_span.of(request.bytes),
        scheme: if request.origin.tls { "https" } else { "http" },
        matched: normal.matched,
        captures,
    }
}

/// The captures of a path, where the route needs them.
pub fn captures(route: &Route, matched: &[u8]) -> Captures {
    let needed = route.filters.as_ref().is_some_and(|filters| filters.needs_captures);
    if needed { route.pattern.captures(matched).unwrap_or_default() } else { Captures::default() }
}

/// What a route says of other origins, if anything.
pub fn cors(route: &Route) -> Option<&Cors> {
    route.filters.as_ref().and_then(|filters| filters.cors.as_ref())
}

/// What lets the scripts of the request's origin read a response, of whose fields they may see `expose`: names in lower case.
fn fields_of<'a>(
    request: &'a Request<'_>,
    cors: &'a Cors,
    expose: &'a str,
) -> impl Iterator<Item = (&'static str, Cow<'a, [u8]>)> {
    let origin = header(request, "origin").filter(|origin| cors.allows(origin));
    let allowed = origin.is_some();
    let vary = (!cors.is_open()).then_some(("vary", Cow::Borrowed(&b"Origin"[..])));
    let origin = origin.map(|origin| if cors.is_open() { Cow::Borrowed(&b"*"[..]) } else { origin });
    let credentials = (allowed && cors.credentials).then_some(Cow::Borrowed(&b"true"[..]));
    let expose = (allowed && !expose.is_empty()).then_some(Cow::Borrowed(expose.as_bytes()));
    vary.into_iter()
        .chain(origin.map(|value| ("access-control-allow-origin", value)))
        .chain(credentials.map(|value| ("access-control-allow-credentials", value)))
        .chain(expose.map(|value| ("access-control-expose-headers", value)))
}

/// The same for an answer of our own; that to a call has its status in a field, whoever translates the others.
pub fn cors_fields(request: &Request<'_>, route: &Route, is_call: bool) -> Vec<(&'static str, Vec<u8>)> {
    let Some(cors) = cors(route) else { return Vec::new() };
    let expose = if is_call { &cors.expose_to_calls } else { &cors.expose };
    fields_of(request, cors, expose).map(|(name, value)| (name, value.into_owned())).collect()
}

impl Changes {
    /// Works the changes out.
    pub fn prepare(&mut self, request: &Request<'_>, route: &Route, normal: Normal<'_>) {
        self.clear();
        let query = request.head.query.of(request.bytes);
        let captures = captures(route, normal.matched);
        let id = request.id();
        let values = values(request, &id, route, normal, &captures);
        let filters = route.filters.as_deref();
        let start = self.bytes.len();
        match filters.and_then(|filters| filters.path.as_ref()) {
            Some(rewrite) => rewrite.write(&mut self.bytes, normal.forwarded, &values),
            None => self.bytes.extend_from_slice(normal.forwarded),
        }
        if !query.is_empty() {
            self.bytes.push(b'?');
            self.bytes.extend_from_slice(query);
        }
        self.target = Some(start as u32..self.bytes.len() as u32);
        let Some(filters) = filters else { return };
        if let Some(host) = &filters.host {
            let start = self.bytes.len();
            host.write(&mut self.bytes, &values);
            self.host = Some(start as u32..self.bytes.len() as u32);
        }
        let list = std::mem::take(&mut self.request);
        self.request = self.edits(list, &filters.request, &values);
        let list = std::mem::take(&mut self.response);
        self.response = self.edits(list, &filters.response, &values);
        for (from, to) in &filters.request.rename {
            if let Some(value) = header(request, from) {
                let part = self.part(to.as_bytes(), &value);
                self.request.push(part);
            }
        }
        self.cors(request, filters);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.request.clear();
        self.response.clear();
        (self.target, self.host) = (None, None);
    }

    fn part(&mut self, name: &[u8], value: &[u8]) -> (Part, Part) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        let middle = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value);
        (start..middle, middle..self.bytes.len() as u32)
    }

    fn edits(&mut self, mut list: Vec<(Part, Part)>, edits: &Edits, values: &Values<'_>) -> Vec<(Part, Part)> {
        for (name, text) in &edits.write {
            let start = self.bytes.len() as u32;
            self.bytes.extend_from_slice(name.as_bytes());
            let middle = self.bytes.len() as u32;
            text.write(&mut self.bytes, values);
            list.push((start..middle, middle..self.bytes.len() as u32));
        }
        list
    }

    /// The CORS fields of an ordinary response.
    fn cors(&mut self, request: &Request<'_>, filters: &Filters) {
        let Some(cors) = &filters.cors else { return };
        for (name, value) in fields_of(request, cors, &cors.expose) {
            let part = self.part(name.as_bytes(), &value);
            self.response.push(part);
        }
    }

    /// Adds a field to the response, its value as it is written.
    pub fn tell(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let (name, value) = self.part(name.as_bytes(), b"");
        write(&mut self.bytes);
        self.response.push((name, value.start..self.bytes.len() as u32));
    }

    fn text(&self, part: &Part) -> &[u8] {
        &self.bytes[part.start as usize..part.end as usize]
    }

    /// The target that the upstream gets.
    pub fn target(&self) -> Option<&[u8]> {
        self.target.as_ref().map(|part| self.text(part))
    }

    /// The host that the upstream gets.
    pub fn host(&self) -> Option<&[u8]> {
        self.host.as_ref().map(|part| self.text(part))
    }

    /// The host gets `-shadow` at the end of its name: `a.example-shadow:8080`.
    pub fn shadow(&mut self, authority: &[u8]) {
        let host = self.host().unwrap_or(authority).to_vec();
        let port =
            host.iter().rposition(|byte| *byte == b':').filter(|at| host[*at + 1..].iter().all(u8::is_ascii_digit));
        let (name, port) = host.split_at(port.unwrap_or(host.len()));
        let start = self.bytes.len() as u32;
        for part in [name, b"-shadow", port] {
            self.bytes.extend_from_slice(part);
        }
        self.host = Some(start..self.bytes.len() as u32);
    }

    /// Fields added to the request.
    pub fn request_fields(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.request.iter().map(|(name, value)| (self.text(name), self.text(value)))
    }

    /// Fields added to the response.
    pub fn response_fields(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.response.iter().map(|(name, value)| (self.text(name), self.text(value)))
    }

    /// Whether a field of the response does not go on.
    pub fn drops_response(&self, filters: &Filters, name: &[u8]) -> bool {
        filters.response.drops(name)
            || (filters.cors.is_some() && CORS_FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field)))
    }

    /// Whether some fields are kept from the request.
    pub fn dropped(fields: &[Field], bytes: &[u8], drops: impl Fn(&[u8]) -> bool) -> u128 {
        let dropped = fields.iter().enumerate().filter(|(_, field)| drops(field.name.of(bytes)));
        dropped.fold(0, |bits, (index, _)| bits | 1 << index)
    }
}
