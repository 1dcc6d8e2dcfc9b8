//! Between the `http` crate's types, which `h2` speaks, and the heads that an exchange works with.

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use onehop_wire::http1::{
    BodyLength, Edits, Known, Limits, Method as Verb, Reject, RequestHead, ResponseHead, is_told,
};
use onehop_wire::http2::{self, Parts};

use super::block::{self, Block, Kept};

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
    write(parts, lines(&parts.headers), ends, key, limits, head, out)
}

/// Writes of one that was refused down what the form of its answer depends on; false if that is to be refused too.
pub fn gist(parts: &http::request::Parts, head: &mut RequestHead, out: &mut Vec<u8>) -> bool {
    // That it is too large was said.
    let limits = Limits { head_bytes: u32::MAX, request_line: u32::MAX, ..Limits::default() };
    out.clear();
    write(parts, lines(&parts.headers).filter(|(name, _)| is_told(name)), true, b"", &limits, head, out).is_ok()
}

fn write<'a>(
    parts: &'a http::request::Parts,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ends: bool,
    key: &'a [u8],
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
        // Without an authority, `h2` drops the scheme that it has checked: a `Uri` cannot hold it. Both schemes are alike here.
        scheme: uri
            .scheme_str()
            .or(uri.authority().is_none().then_some("http"))
            .filter(|_| !connect)
            .map(str::as_bytes),
        authority: uri.authority().map(|authority| authority.as_str().as_bytes()),
        path: path.map(str::as_bytes),
        protocol: protocol.map(|protocol| protocol.as_str().as_bytes()),
        ends,
        key,
    };
    http2::request(&wanted, fields, limits, head, out)
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

/// How a request goes to an upstream.
pub struct Way<'a> {
    /// By TLS.
    pub tls: bool,
    /// As an extended CONNECT for this protocol (RFC 8441 4).
    pub protocol: Option<&'a [u8]>,
    /// What requests say again and again.
    pub kept: &'a Kept,
    /// It is the first one of its connection.
    pub is_first: bool,
}

/// Whether an extended CONNECT can say what a request to upgrade says: it stands for a GET without content (RFC 8441 5).
pub fn is_extended_connect(head: &RequestHead) -> bool {
    head.method == Verb::Get && head.body == BodyLength::None
}

/// The request as `h2` sends it to an upstream.
///
/// # Errors
/// When the target or the authority cannot be one.
pub fn to_upstream(
    head: &RequestHead,
    buf: &[u8],
    target: &[u8],
    way: &Way<'_>,
    edits: &Edits<'_>,
) -> Result<Request<()>, Reject> {
    let Way { tls, protocol, kept, is_first } = *way;
    if protocol.is_some() && !is_extended_connect(head) {
        return Err(Reject::ConnectWithBody);
    }
    let mut block = Block::request(head.fields.len() + edits.add.len(), head.head_len + 512, kept, is_first);
    http2::request_fields(head, buf, edits, |known, name, value| {
        // The key of the HTTP/1 handshake has no use here (RFC 8441 5), and a tunnel has no length, not even zero.
        let is_left_out = known == Known::ContentLength || name.eq_ignore_ascii_case(b"sec-websocket-key");
        if protocol.is_none() || !is_left_out {
            block.push(known, name, value);
        }
    });
    let method = match protocol {
        Some(_) => Method::CONNECT,
        None => Method::from_bytes(head.method_span.of(buf)).map_err(|_| Reject::BadRequestLine)?,
    };
    // A rewritten host stands among the added fields.
    let host = edits.add.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"host"));
    let authority = host.map_or(head.authority.of(buf), |(_, host)| host);
    let mut uri = http::uri::Parts::default();
    uri.authority = Some(kept.authority(authority).ok_or(Reject::BadHost)?);
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
    http2::response_fields(head, buf, edits, |known, name, value| block.push(known, name, value));
    response_of(head, block.map)
}

/// Whether a response that came by HTTP/2 may go to a client with the fields that it came with.
pub fn passes(head: &ResponseHead, edits: &Edits<'_>) -> bool {
    edits.drop == 0 && !head.tunnels && !head.fields.iter().any(|field| block::is_unlike(field.known))
}

/// The response as `h2` sends it to a client, with the fields that it came with.
pub fn pass_on(fields: HeaderMap, head: &ResponseHead, edits: &Edits<'_>) -> Response<()> {
    let mut block = Block::with(fields);
    http2::added_fields(edits, |known, name, value| block.push(known, name, value));
    response_of(head, block.map)
}

fn response_of(head: &ResponseHead, fields: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    // The handshake of an upgraded HTTP/1 connection is a plain success here (RFC 8441 5).
    let status = if head.status == 101 { 200 } else { head.status };
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = fields;
    response
}

/// Trailers that HTTP/1 wrote.
///
/// # Errors
/// When they are malformed.
pub fn trailers(section: &[u8], limits: &Limits) -> Result<HeaderMap, Reject> {
    let mut block = Block::new(4, section.len());
    http2::trailer_fields(section, limits, |name, value| block.push(Known::Other, name, value))?;
    Ok(block.map)
}
