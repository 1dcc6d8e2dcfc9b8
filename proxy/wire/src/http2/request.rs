//! Request heads: pseudo-header fields and fields become the head that HTTP/1 requests become too.

use super::field::{Lines, body, check_name, check_value, is_connection_specific};
use crate::http1::{BodyLength, Known, Limits, Method, Reject, RequestHead, Span, Version, is_authority};

/// The pseudo-header fields of a request (RFC 9113 8.3.1, RFC 8441 4).
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts<'a> {
    /// `:method`.
    pub method: &'a [u8],
    /// `:scheme`.
    pub scheme: Option<&'a [u8]>,
    /// `:authority`.
    pub authority: Option<&'a [u8]>,
    /// `:path`.
    pub path: Option<&'a [u8]>,
    /// `:protocol`.
    pub protocol: Option<&'a [u8]>,
    /// The stream ends with the head.
    pub ends: bool,
    /// For an extended CONNECT: the `Sec-WebSocket-Key` of the HTTP/1 request that it becomes.
    pub key: &'a [u8],
}

/// Cookie crumbs that are remembered without room of their own. Browsers send one for each cookie.
const USUAL_CRUMBS: usize = 64;

/// Writes a request down. `out` is empty.
///
/// # Errors
/// The first rule that it breaks; all but the limits make it malformed (RFC 9113 8.1.1: PROTOCOL_ERROR).
pub fn request<'a>(
    parts: &Parts<'a>,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    limits: &Limits,
    head: &mut RequestHead,
    out: &mut Vec<u8>,
) -> Result<(), Reject> {
    let connect = parts.method == b"CONNECT";
    let extended = connect && parts.protocol.is_some();
    check_parts(parts, connect, extended, limits)?;
    head.fields.clear();
    let mut lines = Lines { fields: &mut head.fields, out, limits, length: None };
    // An extended CONNECT is the HTTP/1 upgrade that it stands for (RFC 8441 5.1).
    let method: &[u8] = if extended { b"GET" } else { parts.method };
    head.method = Method::recognise(method);
    head.method_span = lines.span(method);
    lines.out.push(b' ');
    head.target = match parts.path {
        Some(path) => lines.span(path),
        None => lines.span(parts.authority.unwrap_or_default()),
    };
    let target = head.target;
    lines.out.extend_from_slice(b" HTTP/2\r\n");
    head.version = Version::Http2;
    head.authority = lines.span(parts.authority.unwrap_or_default());
    lines.out.extend_from_slice(b"\r\n");
    let host = take_fields(fields, &mut lines, parts.authority)?;
    head.upgrade = None;
    if extended {
        upgrade(parts, &mut lines)?;
    }
    // Behind all field lines: they are copied in runs, and what stands between them would go along.
    if let Some(host) = host.filter(|_| parts.authority.is_none()) {
        head.authority = lines.span(host);
    }
    if head.authority.len == 0 {
        return Err(Reject::MissingHost);
    }
    if extended {
        head.upgrade = Some(lines.span(parts.protocol.unwrap_or_default()));
        lines.out.extend_from_slice(b"\r\n");
    }
    let length = lines.length;
    // Of what no field stands behind: an authority.
    if out.len() > limits.head_bytes as usize {
        return Err(Reject::HeadTooLarge);
    }
    // What a tunnel carries is no body (RFC 9110 9.3.6).
    if connect && length.is_some() {
        return Err(Reject::ConnectWithBody);
    }
    head.body = if connect { BodyLength::None } else { body(length, parts.ends)? };
    split(head, target, connect && !extended, out);
    head.head_len = out.len();
    head.keep_alive = true;
    head.named_by_connection = 0;
    head.absolute_form = false;
    expectation(head, out)
}

fn check_parts(parts: &Parts<'_>, connect: bool, extended: bool, limits: &Limits) -> Result<(), Reject> {
    if parts.method.is_empty() || !parts.method.iter().all(|byte| is_token(*byte)) {
        return Err(Reject::BadRequestLine);
    }
    if parts.authority.is_some_and(|authority| authority.is_empty() || !is_authority(authority)) {
        return Err(Reject::BadHost);
    }
    if connect && !extended {
        // RFC 9113 8.5: authority alone.
        let port = parts.authority.is_some_and(|authority| {
            authority.iter().rposition(|byte| *byte == b':').is_some_and(|at| at + 1 < authority.len())
        });
        return if port && parts.scheme.is_none() && parts.path.is_none() { Ok(()) } else { Err(Reject::BadTarget) };
    }
    if parts.protocol.is_some_and(|protocol| !connect || !protocol.iter().all(|byte| is_token(*byte))) {
        return Err(Reject::BadRequestLine);
    }
    if !matches!(parts.scheme, Some(b"http" | b"https")) {
        return Err(Reject::BadTarget);
    }
    let path = parts.path.ok_or(Reject::BadTarget)?;
    if path.len() + parts.method.len() + 10 > limits.request_line as usize {
        return Err(Reject::LineTooLong);
    }
    let form = path.starts_with(b"/") || (path == b"*" && parts.method == b"OPTIONS");
    // A space or a control byte would end the request line of an HTTP/1 upstream.
    if form && path.iter().all(|byte| (0x21..0x7f).contains(byte) && *byte != b'#') {
        Ok(())
    } else {
        Err(Reject::BadTarget)
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Takes the fields; returns the Host field's value, which may stand in for `:authority`.
fn take_fields<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    lines: &mut Lines<'_>,
    authority: Option<&[u8]>,
) -> Result<Option<&'a [u8]>, Reject> {
    let mut crumbs = [&b""[..]; USUAL_CRUMBS];
    let mut more_crumbs = Vec::new();
    let (mut crumb_count, mut crumb_bytes) = (0, 0);
    let mut host: Option<&'a [u8]> = None;
    for (name, value) in fields {
        check_name(name)?;
        check_value(value)?;
        let known = Known::recognise(name);
        match known {
            // It says nothing, and joined to others it would leave a blank at an end of the value.
            Known::Cookie if value.is_empty() => {}
            Known::Cookie => {
                // They are one field, so that no count of fields bounds them: their bytes are bounded, as they will be written.
                crumb_bytes += value.len() + 2;
                if crumb_bytes > lines.limits.head_bytes as usize {
                    return Err(Reject::HeadTooLarge);
                }
                match crumbs.get_mut(crumb_count) {
                    Some(crumb) => *crumb = value,
                    None => more_crumbs.push(value),
                }
                crumb_count += 1;
            }
            Known::Host => {
                if host.is_some() {
                    return Err(Reject::DuplicateHost);
                }
                if value.is_empty() || !is_authority(value) {
                    return Err(Reject::BadHost);
                }
                if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(value)) {
                    return Err(Reject::HostMismatch);
                }
                // The authority is the head's; a Host field is made from it where one is needed.
                host = Some(value);
            }
            Known::Te if !value.eq_ignore_ascii_case(b"trailers") => return Err(Reject::ConnectionField),
            known if is_connection_specific(known) => return Err(Reject::ConnectionField),
            known => {
                if known == Known::ContentLength {
                    lines.length(value)?;
                }
                lines.push(name, value, known)?;
            }
        }
    }
    if crumb_count > 0 {
        let first = &crumbs[..crumb_count.min(USUAL_CRUMBS)];
        lines.join(b"cookie", first.iter().chain(&more_crumbs), Known::Cookie)?;
    }
    Ok(host)
}

/// What the HTTP/1 handshake needs beyond the extended CONNECT's own fields.
fn upgrade(parts: &Parts<'_>, lines: &mut Lines<'_>) -> Result<(), Reject> {
    if parts.protocol == Some(b"websocket") {
        let brought = lines.fields.iter().any(|field| field.name.of(lines.out) == b"sec-websocket-key");
        if !brought {
            lines.push(b"sec-websocket-key", parts.key, Known::Other)?;
        }
    }
    Ok(())
}

fn split(head: &mut RequestHead, target: Span, connect: bool, out: &[u8]) {
    let bytes = target.of(out);
    if connect {
        head.path = Span { start: target.start, len: 0 };
        head.query = head.path;
        return;
    }
    let path_len = bytes.iter().position(|byte| *byte == b'?').unwrap_or(bytes.len());
    head.path = Span { start: target.start, len: path_len as u32 };
    let query_start = (target.start as usize + path_len + 1).min(target.end());
    head.query = Span { start: query_start as u32, len: (target.end() - query_start) as u32 };
}

fn expectation(head: &mut RequestHead, out: &[u8]) -> Result<(), Reject> {
    head.expect_continue = false;
    for field in head.fields.iter().filter(|field| field.known == Known::Expect) {
        if !field.value.of(out).eq_ignore_ascii_case(b"100-continue") {
            return Err(Reject::BadExpectation);
        }
        head.expect_continue = head.body != BodyLength::None;
    }
    Ok(())
}
