//! What must hold for messages that come by HTTP/2, whatever their names and values are.

use onehop_wire::http1::{
    BodyLength, Edits, Fields, Known, Limits, Method, RequestHead, ResponseHead, encode_request, encode_response,
};
use onehop_wire::http2::{self, Parts};

type List<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Limits that short messages exceed.
const NARROW: Limits = Limits { head_bytes: 200, fields: 5, request_line: 40 };

/// Room for what is added on the way.
const WIDE: Limits = Limits { head_bytes: 1 << 20, fields: 128, request_line: 1 << 19 };

/// Cuts what is left of the bytes into texts at 0xff, and the texts into names and values.
pub fn pairs<'a>(texts: impl Iterator<Item = &'a [u8]>) -> List<'a> {
    let texts: Vec<_> = texts.collect();
    texts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

fn limits(shape: u8) -> Limits {
    if shape & 1 == 1 { NARROW } else { Limits::default() }
}

/// A token in lower case.
pub fn is_name(name: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(|byte| is_token(byte) && !byte.is_ascii_uppercase())
}

/// No byte that ends a line or a text, and nothing around it that would be trimmed.
pub fn is_value(value: &[u8]) -> bool {
    value.trim_ascii() == value && !value.iter().any(|byte| matches!(byte, 0..=0x08 | 0x0a..=0x1f | 0x7f))
}

/// What belongs to one HTTP/1 connection (RFC 9113 8.2.2), by name.
pub fn is_of_connection(name: &[u8]) -> bool {
    ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "http2-settings"]
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

fn listed<'a>(fields: &Fields, bytes: &'a [u8]) -> List<'a> {
    fields.iter().map(|field| (field.name.of(bytes), field.value.of(bytes))).collect()
}

/// Field lines that stand one behind the other as they are to be copied, each what its spans say.
fn stand_in_line(fields: &Fields, bytes: &[u8]) {
    let mut at = fields.first().map_or(0, |field| field.name.start as usize);
    for field in fields {
        assert_eq!(field.name.start as usize, at, "nothing stands between the lines");
        assert!(is_name(field.name.of(bytes)) && is_value(field.value.of(bytes)), "{field:?}");
        assert!(!is_of_connection(field.name.of(bytes)));
        let line = [field.name.of(bytes), b": ", field.value.of(bytes), b"\r\n"].concat();
        at = field.line_end as usize;
        assert_eq!(&bytes[at - line.len()..at], line);
    }
}

/// The request that bytes describe: two bytes say which parts it has, the texts behind say what they are.
fn described<'a>(bytes: &'a [u8]) -> (Parts<'a>, Limits, List<'a>) {
    let (shape, more) = (bytes.first().copied().unwrap_or(0), bytes.get(1).copied().unwrap_or(0));
    let mut texts = bytes.get(2..).unwrap_or_default().split(|byte| *byte == 0xff);
    let mut next = || texts.next().unwrap_or_default();
    let parts = Parts {
        method: match shape & 3 {
            0 => b"GET",
            1 => b"CONNECT",
            2 => b"OPTIONS",
            _ => next(),
        },
        scheme: match shape >> 2 & 3 {
            0 => Some(b"http"),
            1 => Some(b"https"),
            2 => None,
            _ => Some(next()),
        },
        protocol: match shape >> 4 & 3 {
            0 | 1 => None,
            2 => Some(b"websocket"),
            _ => Some(next()),
        },
        ends: shape >> 6 & 1 == 0,
        authority: (shape >> 7 == 0).then(&mut next),
        path: match more >> 1 & 3 {
            0 | 1 => Some(next()),
            2 => Some(b"*"),
            _ => None,
        },
        key: b"a2V5",
    };
    (parts, limits(more), pairs(texts))
}

/// A request by HTTP/2 that is accepted is what was said and nothing besides, and one HTTP/1 head once it is encoded for
/// an HTTP/1 upstream. Says whether it was accepted.
pub fn request(bytes: &[u8]) -> bool {
    let (parts, limits, said) = described(bytes);
    let (mut head, mut out) = (RequestHead::default(), Vec::new());
    if http2::request(&parts, said.iter().copied(), &limits, &mut head, &mut out).is_err() {
        return false;
    }
    assert!(out.len() <= limits.head_bytes as usize && head.fields.len() <= limits.max_fields());
    let tunnel = parts.method == b"CONNECT" && parts.protocol.is_none();
    // RFC 9113 8.3.1 and 8.5, RFC 8441 4.
    assert_eq!(tunnel, parts.path.is_none());
    assert!(if tunnel { parts.scheme.is_none() } else { matches!(parts.scheme, Some(b"http" | b"https")) });
    assert!(parts.protocol.is_none() || parts.method == b"CONNECT");
    let target = if tunnel { parts.authority } else { parts.path }.expect("there is one");
    assert_eq!(head.target.of(&out), target);
    assert!(tunnel || head.method_span.len as usize + target.len() + 10 <= limits.request_line as usize);
    let host = said.iter().find(|(name, _)| *name == b"host").map(|(_, value)| *value);
    let authority = head.authority.of(&out);
    assert!(!authority.is_empty() && Some(authority) == parts.authority.or(host));
    assert!(host.is_none_or(|host| host.eq_ignore_ascii_case(authority)));
    request_fields(&parts, &said, &head, &out);
    let length = said.iter().find(|(name, _)| *name == b"content-length").map(|(_, value)| *value);
    let length: Option<u64> = length.map(|text| std::str::from_utf8(text).expect("digits").parse().expect("digits"));
    match head.body {
        BodyLength::None => {
            assert!((parts.method == b"CONNECT" && length.is_none()) || parts.ends && length.unwrap_or(0) == 0)
        }
        BodyLength::Length(count) => assert_eq!((length, parts.ends), (Some(count), false)),
        BodyLength::Chunked => assert!(length.is_none() && !parts.ends),
        BodyLength::UntilClose => panic!("no request ends so"),
    }
    as_http1(&head, &out);
    true
}

/// The fields are those that were said, in their order: without Host, with the cookies as one, and with a key where the
/// handshake of HTTP/1 needs one.
fn request_fields(parts: &Parts<'_>, said: &List<'_>, head: &RequestHead, out: &[u8]) {
    stand_in_line(&head.fields, out);
    let crumbs: Vec<_> =
        said.iter().filter(|(name, value)| *name == b"cookie" && !value.is_empty()).map(|(_, value)| *value).collect();
    let cookie = crumbs.join(&b"; "[..]);
    let mut wanted: List<'_> = said.iter().copied().filter(|(name, _)| !matches!(*name, b"cookie" | b"host")).collect();
    if !crumbs.is_empty() {
        wanted.push((b"cookie", &cookie));
    }
    if parts.protocol == Some(b"websocket") && !wanted.iter().any(|(name, _)| *name == b"sec-websocket-key") {
        wanted.push((b"sec-websocket-key", parts.key));
    }
    assert_eq!(listed(&head.fields, out), wanted);
    assert!(wanted.iter().all(|(name, value)| *name != b"te" || value.eq_ignore_ascii_case(b"trailers")));
}

/// Encoded with what an HTTP/1 connection needs, and read again.
fn as_http1(head: &RequestHead, out: &[u8]) {
    let mut add: List<'_> = vec![(b"Host", head.authority.of(out))];
    if head.body == BodyLength::Chunked {
        add.push((b"Transfer-Encoding", b"chunked"));
    }
    let upgrade = head.upgrade.map(|protocol| protocol.of(out));
    if let Some(protocol) = upgrade {
        add.extend([(&b"Connection"[..], &b"Upgrade"[..]), (b"Upgrade", protocol)]);
    }
    let mut wire = Vec::new();
    encode_request(&mut wire, head, out, head.target.of(out), &Edits { drop: 0, add: &add });
    let end = wire.windows(4).position(|window| window == b"\r\n\r\n").expect("an end");
    assert_eq!(end + 4, wire.len(), "one head");
    let mut again = RequestHead::default();
    again.parse(&wire, &WIDE).expect("what was accepted is a head of HTTP/1");
    // A stream may end behind a length of zero.
    let body = if head.body == BodyLength::Length(0) { BodyLength::None } else { head.body };
    assert_eq!((again.method, again.body), (head.method, body));
    assert_eq!(again.method_span.of(&wire), head.method_span.of(out));
    assert_eq!(again.target.of(&wire), head.target.of(out));
    assert_eq!((again.path.of(&wire), again.query.of(&wire)), (head.path.of(out), head.query.of(out)));
    assert_eq!(again.authority.of(&wire), head.authority.of(out));
    assert_eq!(again.upgrade.map(|protocol| protocol.of(&wire)), upgrade);
    let mut wanted = listed(&head.fields, out);
    wanted.extend(add);
    assert_eq!(listed(&again.fields, &wire), wanted);
    assert!(again.keep_alive && again.named_by_connection == 0);
}

/// A response by HTTP/2 that is accepted is what was said, and has a body only where one may be. Says whether it was
/// accepted.
pub fn response(bytes: &[u8]) -> bool {
    let [high, low, shape, rest @ ..] = bytes else { return false };
    let status = match shape >> 4 {
        0..8 => u16::from_be_bytes([*high, *low]),
        8..12 => [200, 204, 304, 205][usize::from(low % 4)],
        _ => 100 + u16::from(low % 5),
    };
    let method = [Method::Get, Method::Head, Method::Connect, Method::Post][usize::from(shape >> 2 & 3)];
    let (ends, limits) = (shape & 2 == 2, limits(*shape));
    let said = pairs(rest.split(|byte| *byte == 0xff));
    let (mut head, mut out) = (ResponseHead::default(), Vec::new());
    let phrase = if status == 200 { "OK" } else { "" };
    if http2::response(status, phrase, method, ends, said.iter().copied(), &limits, &mut head, &mut out).is_err() {
        return false;
    }
    assert!((100..=599).contains(&status) && status != 101);
    assert!(out.len() <= limits.head_bytes as usize && head.fields.len() <= limits.max_fields());
    stand_in_line(&head.fields, &out);
    assert_eq!(listed(&head.fields, &out), said);
    assert!(head.find(Known::Te).is_none());
    assert_eq!(head.tunnels, method == Method::Connect && (200..300).contains(&status));
    let length = head.find(Known::ContentLength).map(|field| field.value.of(&out));
    let length: Option<u64> = length.map(|text| std::str::from_utf8(text).expect("digits").parse().expect("digits"));
    let bodiless = method == Method::Head || head.tunnels || status < 200 || matches!(status, 204 | 304);
    match head.body {
        BodyLength::None => assert!(bodiless || ends && length.unwrap_or(0) == 0),
        BodyLength::Length(count) => assert!(!bodiless && !ends && length == Some(count)),
        BodyLength::Chunked => assert!(!bodiless && !ends && length.is_none()),
        BodyLength::UntilClose => panic!("no stream ends so"),
    }
    let add: &[(&[u8], &[u8])] =
        if head.body == BodyLength::Chunked { &[(b"Transfer-Encoding", b"chunked")] } else { &[] };
    let (mut wire, mut again) = (Vec::new(), ResponseHead::default());
    encode_response(&mut wire, &head, &out, &Edits { drop: 0, add });
    again.parse(&wire, method, &WIDE).expect("what was accepted is a head of HTTP/1");
    assert_eq!((again.status, again.fields.len()), (status, said.len() + add.len()));
    assert!(again.body == head.body || head.body == BodyLength::None);
    true
}
