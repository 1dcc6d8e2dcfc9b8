//! What must hold for any bytes at all: shared by the property tests and the fuzz targets.

#![allow(dead_code, reason = "each test and target uses its part of the checks")]

use onehop_wire::http1::{
    BodyLength, ChunkedDecoder, Edits, HeadScanner, Limits, Method, Part, RequestHead, ResponseHead, encode_request,
    encode_response, trailers,
};
use onehop_wire::{proxy_protocol, sniff};

pub mod grpc_web;
pub mod http2;
pub mod translated;

/// The end of a head is the same whether its bytes come at once or in pieces.
pub fn scanner(bytes: &[u8], step: usize) {
    let whole = HeadScanner::default().find_end(bytes);
    let mut scanner = HeadScanner::default();
    let mut pieces = None;
    for end in (0..bytes.len()).step_by(step.max(1)).chain([bytes.len()]) {
        if let Some(found) = scanner.find_end(&bytes[..end]) {
            pieces = Some(found);
            break;
        }
    }
    assert_eq!(whole, pieces, "{:?}", String::from_utf8_lossy(bytes));
    assert!(whole.is_none_or(|end| end <= bytes.len()));
}

/// Every line of an accepted head ends with CRLF, none is folded, and no CR or LF stands elsewhere.
fn line_ends(head: &[u8]) {
    for (at, byte) in head.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(head.get(at + 1), Some(&b'\n')),
            b'\n' => {
                assert!(at > 0 && head[at - 1] == b'\r', "{:?}", String::from_utf8_lossy(head));
                assert!(!matches!(head.get(at + 1), Some(b' ' | b'\t')));
            }
            _ => {}
        }
    }
}

/// The gist of a head is a head, of which a router and a browser's script see what they see of the whole.
fn gist_says_the_same(bytes: &[u8], head: &RequestHead) {
    let (mut short, mut gist) = (RequestHead::default(), Vec::new());
    assert!(onehop_wire::http1::gist(bytes, &mut gist));
    assert_eq!(short.parse(&gist, &Limits::default()), Ok(()), "{:?}", String::from_utf8_lossy(&gist));
    assert_eq!(short.method_span.of(&gist), head.method_span.of(bytes));
    assert_eq!(short.target.of(&gist), head.target.of(bytes));
    assert_eq!(short.authority.of(&gist), head.authority.of(bytes));
    for name in ["origin", "content-type", "accept", "access-control-request-method"] {
        assert_eq!(short.value(&gist, name), head.value(bytes, name), "{name}");
    }
}

/// A request head that is accepted cannot be read in two ways: it is written and read back unchanged, no forbidden
/// byte is in it, and its framing is told once. Says whether it was accepted.
pub fn request(bytes: &[u8]) -> bool {
    let Some(end) = HeadScanner::default().find_end(bytes) else {
        return false;
    };
    let (bytes, limits) = (&bytes[..end], Limits::default());
    let mut head = RequestHead::default();
    if head.parse(bytes, &limits).is_err() {
        return false;
    }
    line_ends(bytes);
    gist_says_the_same(bytes, &head);
    assert!(!head.authority.of(bytes).iter().any(u8::is_ascii_control));
    let mut framings = 0;
    for field in &head.fields {
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic), "{name:?}");
        assert!(!value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')), "{value:?}");
        framings += usize::from(
            name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding"),
        );
    }
    assert!(framings <= 1);
    assert!(head.body == BodyLength::None || framings == 1);
    let mut written = Vec::new();
    let target = head.target.of(bytes).to_vec();
    encode_request(&mut written, &head, bytes, &target, &Edits { drop: 0, add: &[] });
    let mut again = RequestHead::default();
    if again.parse(&written, &limits).is_err() {
        // What HTTP/1.0 allows and HTTP/1.1 does not: no Host. The proxy adds one.
        assert_eq!(head.version, onehop_wire::http1::Version::Http10);
        return true;
    }
    assert_eq!(again.target.of(&written), target);
    assert_eq!((again.method, again.body), (head.method, head.body));
    assert_eq!(again.fields.len(), head.fields.len());
    for (one, other) in head.fields.iter().zip(&again.fields) {
        assert_eq!(one.name.of(bytes), other.name.of(&written));
        assert_eq!(one.value.of(bytes), other.value.of(&written));
    }
    true
}

/// As for requests; whatever method was asked.
pub fn response(bytes: &[u8]) {
    let Some(end) = HeadScanner::default().find_end(bytes) else {
        return;
    };
    let (bytes, limits) = (&bytes[..end], Limits::default());
    for method in [Method::Get, Method::Head, Method::Connect] {
        let mut head = ResponseHead::default();
        if head.parse(bytes, method, &limits).is_err() {
            return;
        }
        line_ends(bytes);
        assert!((100..=599).contains(&head.status));
        assert!(!head.tunnels || head.body == BodyLength::None);
        let mut written = Vec::new();
        encode_response(&mut written, &head, bytes, &Edits { drop: 0, add: &[] });
        let mut again = ResponseHead::default();
        again.parse(&written, method, &limits).expect("what was accepted is written so that it is accepted again");
        assert_eq!((again.status, again.body), (head.status, head.body));
        assert_eq!(again.fields.len(), head.fields.len());
    }
}

/// Decodes a chunked body that comes in steps; the payload, and where the body ended.
pub fn decode(bytes: &[u8], step: usize) -> Option<(Vec<u8>, usize)> {
    let (mut decoder, mut payload) = (ChunkedDecoder::new(), Vec::new());
    let (mut at, mut seen) = (0, step.max(1).min(bytes.len()));
    loop {
        match decoder.next(&bytes[at..seen]).ok()? {
            Part::Framing(count) => at += count,
            Part::Data(count) => {
                payload.extend_from_slice(&bytes[at..at + count]);
                at += count;
            }
            Part::Trailers(count) => {
                assert!(decoder.is_done());
                return Some((payload, at + count));
            }
            Part::NeedMore if seen == bytes.len() => return None,
            Part::NeedMore => seen = (seen + step.max(1)).min(bytes.len()),
        }
        assert!(at <= seen, "no byte is consumed that is not there");
    }
}

/// A chunked body is read alike at once and in pieces; its trailers never bring what forges a head.
pub fn chunked(bytes: &[u8], step: usize) {
    let whole = decode(bytes, bytes.len());
    // A limit on unfinished lines may refuse pieces of what is refused as a whole anyway, never the other way round.
    if whole.is_some() {
        assert_eq!(whole, decode(bytes, step));
    }
    let mut out = Vec::new();
    if trailers(bytes, &Limits::default(), &mut out).is_ok() {
        let text = String::from_utf8_lossy(&out).to_ascii_lowercase();
        assert!(!text.lines().any(|line| line.starts_with("content-length:") || line.starts_with("host:")), "{text}");
    }
}

/// A PROXY header is found within the bytes, and more bytes behind it change nothing.
pub fn proxy_header(bytes: &[u8]) {
    if let Ok(Some((header, length))) = proxy_protocol::parse(bytes) {
        assert!(length <= bytes.len());
        assert_eq!(proxy_protocol::parse(&bytes[..length]), Ok(Some((header, length))));
    }
}

/// Once the protocol is decided, more bytes do not change it.
pub fn sniffed(bytes: &[u8]) {
    let mut decided = None;
    for end in 0..=bytes.len().min(64) {
        let now = sniff::sniff(&bytes[..end]);
        assert!(decided.is_none() || now == decided, "{:?}", &bytes[..end]);
        decided = now;
    }
}

/// A ClientHello, whole or in pieces: more bytes never change what fewer have settled, and in records of any size it says
/// the same.
pub fn hello(bytes: &[u8]) {
    use onehop_wire::client_hello::{ClientHello, MAX_RECORDS, NoHello, parse};
    let mut settled: Option<Result<ClientHello, NoHello>> = None;
    for end in 0..=bytes.len() {
        let now = parse(&bytes[..end]).transpose();
        assert!(settled.is_none() || now == settled, "{:?}", &bytes[..end]);
        settled = now;
    }
    // As one handshake message, in records of three sizes.
    let message = [&[1, 0, (bytes.len() >> 8) as u8, bytes.len() as u8], bytes].concat();
    let records = |size: usize| -> Vec<u8> {
        let record = |part: &[u8]| [&[22, 3, 1, (part.len() >> 8) as u8, part.len() as u8], part].concat();
        message.chunks(size).flat_map(record).collect()
    };
    let whole = parse(&records(16_000));
    for size in [1, 7, 100].into_iter().filter(|size| message.len().div_ceil(*size) <= MAX_RECORDS) {
        assert_eq!(parse(&records(size)), whole, "in records of {size}");
    }
    if let Ok(Some(hello)) = whole {
        assert!(hello.server_name.is_none_or(|name| !name.is_empty() && name.len() <= 255 && name.is_ascii()));
    }
}
