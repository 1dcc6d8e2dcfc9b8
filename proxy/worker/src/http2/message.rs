//! Between the `http` crate's types, which `h2` speaks, and the heads that an exchange works with.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use onehop_wire::http1::{Edits, Limits, Method as Verb, Reject, RequestHead, ResponseHead};
use onehop_wire::http2::{self, Parts};

/// Writes a request down that `h2` has received.
///
/// # Errors
/// The rule that it breaks.
pub fn request(
    parts: &http::request::Parts,
    ends: bool,
    key: &[u8],
    limits: &Limits,
    head: &mut RequestHead,
    out: &mut Vec<u8>,
) -> Result<(), Reject> {
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let uri = &parts.uri;
    let connect = parts.method == Method::CONNECT && protocol.is_none();
    let path = uri.path_and_query().filter(|_| !connect).map(|path| path.as_str());
    let wanted = Parts {
        method: parts.method.as_str().as_bytes(),
        scheme: uri.scheme_str().filter(|_| !connect).map(str::as_bytes),
        authority: uri.authority().map(|authority| authority.as_str().as_bytes()),
        path: path.map(str::as_bytes),
        protocol: protocol.map(|protocol| protocol.as_str().as_bytes()),
        ends,
        key,
    };
    http2::request(&wanted, lines(&parts.headers), limits, head, out)
}

fn lines(map: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    map.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// Writes a response down that `h2` has received.
///
/// # Errors
/// The rule that it breaks.
pub fn response(
    response: &Response<()>,
    method: Verb,
    ends: bool,
    limits: &Limits,
    head: &mut ResponseHead,
    out: &mut Vec<u8>,
) -> Result<(), Reject> {
    let status = response.status();
    let phrase = status.canonical_reason().unwrap_or_default();
    http2::response(status.as_u16(), phrase, method, ends, lines(response.headers()), limits, head, out)
}

/// Collects fields; their values share one allocation.
struct Block {
    map: HeaderMap,
    values: BytesMut,
}

impl Block {
    fn new(fields: usize, bytes: usize) -> Block {
        Block { map: HeaderMap::with_capacity(fields), values: BytesMut::with_capacity(bytes) }
    }

    /// A field that cannot be said in HTTP/2 was refused where it came in; should one come this far it is left out.
    fn push(&mut self, name: &[u8], value: &[u8]) {
        let Ok(name) = HeaderName::from_bytes(name) else { return };
        let value = self.share(value);
        if let Ok(value) = HeaderValue::from_maybe_shared(value) {
            self.map.append(name, value);
        }
    }

    fn share(&mut self, bytes: &[u8]) -> Bytes {
        self.values.extend_from_slice(bytes);
        self.values.split().freeze()
    }
}

/// The request as `h2` sends it to an upstream; with `protocol` as an extended CONNECT for it (RFC 8441 4).
///
/// # Errors
/// When the target or the authority cannot be one.
pub fn to_upstream(
    head: &RequestHead,
    buf: &[u8],
    target: &[u8],
    tls: bool,
    protocol: Option<&[u8]>,
    edits: &Edits<'_>,
) -> Result<Request<()>, Reject> {
    let mut block = Block::new(head.fields.len() + edits.add.len() + 4, head.head_len + 512);
    http2::request_fields(head, buf, edits, |name, value| {
        // The key of the HTTP/1 handshake has no use here (RFC 8441 5).
        if protocol.is_none() || !name.eq_ignore_ascii_case(b"sec-websocket-key") {
            block.push(name, value);
        }
    });
    let method = match protocol {
        Some(_) => Method::CONNECT,
        None => Method::from_bytes(head.method_span.of(buf)).map_err(|_| Reject::BadRequestLine)?,
    };
    // A rewritten host stands among the added fields.
    let host = edits.add.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"host"));
    let authority = block.share(host.map_or(head.authority.of(buf), |(_, host)| host));
    let mut uri = http::uri::Parts::default();
    uri.authority = Some(Authority::from_maybe_shared(authority).map_err(|_| Reject::BadHost)?);
    if method != Method::CONNECT || protocol.is_some() {
        let path = block.share(target);
        uri.path_and_query = Some(PathAndQuery::from_maybe_shared(path).map_err(|_| Reject::BadTarget)?);
        uri.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    }
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Reject::BadTarget)?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = block.map;
    if let Some(protocol) = protocol {
        let protocol = std::str::from_utf8(protocol).map_err(|_| Reject::BadRequestLine)?;
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    Ok(request)
}

/// The response as `h2` sends it to a client.
pub fn to_client(head: &ResponseHead, buf: &[u8], edits: &Edits<'_>) -> Response<()> {
    let mut block = Block::new(head.fields.len() + edits.add.len(), head.head_len);
    http2::response_fields(head, buf, edits, |name, value| block.push(name, value));
    let mut response = Response::new(());
    // The handshake of an upgraded HTTP/1 connection is a plain success here (RFC 8441 5).
    let status = if head.status == 101 { 200 } else { head.status };
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = block.map;
    response
}

/// Trailers that HTTP/1 wrote.
///
/// # Errors
/// When they are malformed.
pub fn trailers(section: &[u8], limits: &Limits) -> Result<HeaderMap, Reject> {
    let mut block = Block::new(4, section.len());
    http2::trailer_fields(section, limits, |name, value| block.push(name, value))?;
    Ok(block.map)
}
