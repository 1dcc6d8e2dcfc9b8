//! What must hold for fields and trailers on their way from one version to the other, and back.

use onehop_wire::http1::{
    BodyLength, ChunkedDecoder, Edits, Fields, HeadScanner, Known, Limits, MAX_FIELDS, Method, RequestHead,
    ResponseHead, forbidden_trailer, hop_by_hop, trailers as clean,
};
use onehop_wire::http2::{self, Parts, request_fields, response_fields, trailer_fields, trailer_lines};

use super::http2::{is_name, is_of_connection, is_value, pairs};

type Owned = Vec<(Vec<u8>, Vec<u8>)>;

/// Room for what is added on the way, and for cookies that are one field each.
const WIDE: Limits = Limits { head_bytes: 1 << 20, fields: MAX_FIELDS as u32, request_line: 1 << 19 };

fn lent(fields: &Owned) -> impl Iterator<Item = (&[u8], &[u8])> {
    fields.iter().map(|(name, value)| (&name[..], &value[..]))
}

/// Cookies as a server sees them, whichever way they are cut.
fn crumbs(fields: &Owned) -> Vec<Vec<u8>> {
    let cookies = fields.iter().filter(|(name, _)| name == b"cookie");
    let crumbs = cookies.flat_map(|(_, value)| value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii));
    crumbs.filter(|crumb| !crumb.is_empty()).map(<[u8]>::to_vec).collect()
}

fn others(fields: &Owned) -> Owned {
    fields.iter().filter(|(name, _)| name != b"cookie").cloned().collect()
}

/// Whether the message's meaning depends on a field, so that `Connection` does not remove it: written down once more.
fn is_kept_when_named(name: &[u8]) -> bool {
    [
        "host",
        "content-length",
        "transfer-encoding",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "forwarded",
        "via",
        "x-request-id",
        "traceparent",
        "tracestate",
        "authorization",
        "cookie",
        "content-type",
        "expect",
    ]
    .iter()
    .any(|kept| name == kept.as_bytes())
}

/// What goes on of a head's fields, with the names in lower case: found by name and by what `Connection` says, without
/// the bits that the codec works with.
fn end_to_end(fields: &Fields, bytes: &[u8]) -> Owned {
    let mut named: Vec<Vec<u8>> = Vec::new();
    for field in fields.iter().filter(|field| field.name.of(bytes).eq_ignore_ascii_case(b"connection")) {
        let tokens = field.value.of(bytes).split(|byte| *byte == b',');
        named.extend(tokens.map(|token| token.trim_ascii().to_ascii_lowercase()));
    }
    let each = fields.iter().map(|field| (field.name.of(bytes).to_ascii_lowercase(), field.value.of(bytes).to_vec()));
    each.filter(|(name, _)| !is_of_connection(name) && name != b"te")
        .filter(|(name, _)| is_kept_when_named(name) || !named.contains(name))
        .collect()
}

/// What may stand in a block of HTTP/2 once its names are in lower case.
fn are_well_formed(fields: &Owned) {
    for (name, value) in fields {
        assert!(is_name(name) && is_value(value), "{name:?}: {value:?}");
        assert!(!is_of_connection(name));
    }
}

/// A request of HTTP/1 on its way to an HTTP/2 upstream, and read there: it says the same. Says whether it was one.
pub fn request(bytes: &[u8]) -> bool {
    let Some(end) = HeadScanner::default().find_end(bytes) else { return false };
    let (bytes, mut head) = (&bytes[..end], RequestHead::default());
    if head.parse(bytes, &Limits::default()).is_err() || head.authority.len == 0 {
        return false;
    }
    let edits = Edits { drop: hop_by_hop(&head.fields, head.named_by_connection), add: &[(b"te", b"trailers")] };
    let mut sent = Owned::new();
    request_fields(&head, bytes, &edits, |known, name, value| {
        assert_eq!(known, Known::recognise(name));
        sent.push((name.to_ascii_lowercase(), value.to_vec()));
    });
    assert_eq!(sent.pop(), Some((b"te".to_vec(), b"trailers".to_vec())));
    are_well_formed(&sent);
    let mut wanted = end_to_end(&head.fields, bytes);
    wanted.retain(|(name, _)| name != b"host");
    assert_eq!((others(&sent), crumbs(&sent)), (others(&wanted), crumbs(&wanted)));
    let most = bytes.iter().filter(|byte| **byte == b';').count() + head.fields.len();
    assert!(most > 64 || sent.iter().all(|(name, value)| name != b"cookie" || !value.contains(&b';')), "a crumb each");
    assert!(sent.len() <= wanted.len() + 64, "they are bounded");
    let tunnel = head.method == Method::Connect;
    let path = if head.path.len == 0 { b"/" } else { &bytes[head.path.start as usize..head.target.end()] };
    let parts = Parts {
        method: head.method_span.of(bytes),
        scheme: (!tunnel).then_some(b"http"),
        authority: Some(head.authority.of(bytes)),
        path: (!tunnel).then_some(path),
        protocol: None,
        ends: head.body == BodyLength::None,
        key: b"",
    };
    let (mut again, mut out) = (RequestHead::default(), Vec::new());
    http2::request(&parts, lent(&sent), &WIDE, &mut again, &mut out).expect("what HTTP/1 allows, HTTP/2 can say");
    assert_eq!((again.method, again.body), (head.method, head.body));
    assert_eq!(again.authority.of(&out), head.authority.of(bytes));
    assert_eq!(
        (again.path.of(&out), again.query.of(&out)),
        (if tunnel { b"" } else { head_path(&head, bytes) }, head.query.of(bytes))
    );
    let back = end_to_end(&again.fields, &out);
    assert_eq!((others(&back), crumbs(&back)), (others(&sent), crumbs(&sent)));
    true
}

fn head_path<'b>(head: &RequestHead, bytes: &'b [u8]) -> &'b [u8] {
    if head.path.len == 0 { b"/" } else { head.path.of(bytes) }
}

/// A response of HTTP/1 on its way to an HTTP/2 client, and read there: it says the same. Says whether it was one.
pub fn response(bytes: &[u8]) -> bool {
    let Some(end) = HeadScanner::default().find_end(bytes) else { return false };
    let (bytes, mut all) = (&bytes[..end], false);
    for method in [Method::Get, Method::Head, Method::Connect] {
        let mut head = ResponseHead::default();
        if head.parse(bytes, method, &Limits::default()).is_err() || head.status == 101 {
            return all;
        }
        let edits = Edits { drop: hop_by_hop(&head.fields, head.named_by_connection), add: &[] };
        let mut sent = Owned::new();
        response_fields(&head, bytes, &edits, |_, name, value| sent.push((name.to_ascii_lowercase(), value.to_vec())));
        are_well_formed(&sent);
        assert_eq!(sent, end_to_end(&head.fields, bytes));
        let ends = matches!(head.body, BodyLength::None | BodyLength::Length(0));
        let (mut again, mut out) = (ResponseHead::default(), Vec::new());
        http2::response(head.status, "", method, ends, lent(&sent), &WIDE, &mut again, &mut out)
            .expect("what HTTP/1 allows, HTTP/2 can say");
        let body = match head.body {
            BodyLength::Length(0) => BodyLength::None,
            BodyLength::UntilClose => BodyLength::Chunked,
            other => other,
        };
        assert_eq!((again.status, again.tunnels, again.body), (head.status, head.tunnels, body));
        assert_eq!(end_to_end(&again.fields, &out), sent);
        all = true;
    }
    all
}

/// Reads trailers as the section that ends a chunked body; its length.
fn walked(section: &[u8], step: usize) -> Option<usize> {
    let mut decoder = ChunkedDecoder::new();
    let body = [b"0\r\n", section].concat();
    let (mut at, mut seen) = (0, 0);
    while seen < body.len() {
        seen = (seen + step).min(body.len());
        let scan = decoder.scan(&body[at..seen]).ok()?;
        at += scan.forward;
        if let Some(length) = scan.trailers {
            return Some(length);
        }
    }
    None
}

/// Trailers of HTTP/2 on their way to HTTP/1 and back: one section, with what may be there alone. Says whether they were
/// accepted.
pub fn trailers(bytes: &[u8]) -> bool {
    let said = pairs(bytes.split(|byte| *byte == 0xff));
    let narrow = Limits { head_bytes: 120, fields: 4, request_line: 0 };
    let mut section = Vec::new();
    if trailer_lines(said.iter().copied(), &narrow, &mut section).is_ok() {
        assert!(section.len() <= narrow.head_bytes as usize && said.len() <= narrow.max_fields());
    }
    section.clear();
    let limits = Limits::default();
    if trailer_lines(said.iter().copied(), &limits, &mut section).is_err() {
        return false;
    }
    let wanted: Owned = said
        .iter()
        .filter(|(name, _)| !forbidden_trailer(name))
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    are_well_formed(&wanted);
    for step in [1, 7, section.len() + 3] {
        assert_eq!(walked(&section, step), Some(section.len()), "one section, and nothing behind it");
    }
    let mut cleaned = Vec::new();
    clean(&section, &limits, &mut cleaned).expect("what was written is read");
    assert_eq!(cleaned, section);
    let mut back = Owned::new();
    trailer_fields(&section, &limits, |name, value| back.push((name.to_vec(), value.to_vec()))).expect("read");
    assert_eq!(back, wanted);
    true
}

/// The trailer section of a chunked body on its way to HTTP/2: no pseudo-header, nothing that a trailer may not be,
/// nothing that changes when it goes back. Says whether it was one.
pub fn section(bytes: &[u8]) -> bool {
    let limits = Limits::default();
    let mut fields = Owned::new();
    let read = trailer_fields(bytes, &limits, |name, value| fields.push((name.to_ascii_lowercase(), value.to_vec())));
    if read.is_err() {
        return false;
    }
    are_well_formed(&fields);
    for name in ["content-length", "te", "trailer", "host", "authorization", "cookie", "set-cookie", "content-encoding"]
    {
        assert!(!fields.iter().any(|(field, _)| field == name.as_bytes()), "{name}");
    }
    let (mut lines, mut cleaned) = (Vec::new(), Vec::new());
    trailer_lines(lent(&fields), &limits, &mut lines).expect("what came by HTTP/1 can be said in HTTP/2");
    clean(bytes, &limits, &mut cleaned).expect("as before");
    // Only names have a case: values are taken as they are.
    let folded = lines_of(&cleaned);
    assert_eq!(lines_of(&lines), folded);
    assert_eq!(folded.len(), fields.len());
    true
}

fn lines_of(section: &[u8]) -> Owned {
    let mut fields = Owned::new();
    let _ = trailer_fields(section, &Limits::default(), |name, value| {
        fields.push((name.to_ascii_lowercase(), value.to_vec()));
    });
    fields
}
