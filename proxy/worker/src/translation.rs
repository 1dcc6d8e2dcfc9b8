//! What must hold of each head that goes on, whichever version it came in and goes out in: for tests and for fuzzing
//! (`proxy/worker/fuzz`). What is written for HTTP/1 is read again by the strict parser, what goes to `h2` as `h2` would
//! hand it to the other side.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use onehop_meter::Registry;
use onehop_net::Peer;
use onehop_plan::{Listener, compile, model};
use onehop_wire::http1::{
    BodyLength, Fields, HeadScanner, Known, Limits, MAX_FIELDS, Method, RequestHead, ResponseHead, Version,
    encode_request, encode_response, is_authority,
};

use crate::exchange::Request;
use crate::exchange::body::Framing;
use crate::http1::forward::{self, Framed, Identity, Origin, ResponseEdits, Sent};
use crate::http2::{Kept, message};

type Owned = Vec<(Vec<u8>, Vec<u8>)>;

/// Room for what is added on the way.
const WIDE: Limits = Limits { head_bytes: 1 << 20, fields: MAX_FIELDS as u32, request_line: 1 << 19 };

/// A listener as a configuration that says nothing has it.
static LISTENER: LazyLock<Arc<Listener>> = LazyLock::new(|| {
    let listener = model::Listener { name: "edge".to_owned(), ..model::Listener::default() };
    let model = model::Model { listeners: vec![listener], ..model::Model::default() };
    let snapshot = compile(&model, &Registry::new(1), None).unwrap_or_else(|problems| panic!("{problems:?}"));
    snapshot.listeners[0].clone()
});

/// What belongs to one connection, by name.
const OF_CONNECTION: [&str; 7] =
    ["connection", "proxy-connection", "keep-alive", "upgrade", "te", "http2-settings", "transfer-encoding"];

fn is_any(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

fn count(fields: &Owned, name: &str) -> usize {
    fields.iter().filter(|(other, _)| other == name.as_bytes()).count()
}

fn listed(fields: &Fields, bytes: &[u8]) -> Owned {
    fields.iter().map(|field| (field.name.of(bytes).to_ascii_lowercase(), field.value.of(bytes).to_vec())).collect()
}

/// Names that `Connection` gives, in lower case.
fn nominated(fields: &Owned) -> Vec<Vec<u8>> {
    let lists = fields.iter().filter(|(name, _)| name == b"connection");
    let tokens = lists.flat_map(|(_, value)| value.split(|byte| *byte == b','));
    tokens.map(|token| token.trim_ascii().to_ascii_lowercase()).collect()
}

/// The fields but those of the connection, those of the framing, and (`named`) those that a hop could not know.
fn end_to_end(fields: &Owned, named: &[Vec<u8>]) -> Owned {
    let kept = [
        "via",
        "content-type",
        "authorization",
        "cookie",
        "host",
        "expect",
        "forwarded",
        "traceparent",
        "tracestate",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-request-id",
    ];
    let is_kept = |name: &[u8]| is_any(name, &kept);
    let goes = |name: &[u8]| !is_any(name, &OF_CONNECTION) && !is_any(name, &["content-length", "trailer"]);
    fields.iter().filter(|(name, _)| goes(name) && (is_kept(name) || !named.contains(name))).cloned().collect()
}

fn parse_request(bytes: &[u8]) -> Option<(RequestHead, &[u8])> {
    let bytes = &bytes[..HeadScanner::default().find_end(bytes)?];
    let mut head = RequestHead::default();
    head.parse(bytes, &Limits::default()).ok().map(|()| (head, bytes))
}

/// A block of HTTP/2 as `h2` hands it over: of names and values that it would let through.
fn block<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Option<HeaderMap> {
    let texts: Vec<_> = texts.collect();
    let mut map = HeaderMap::new();
    for pair in texts.chunks_exact(2) {
        // `h2` refuses names that are not in lower case.
        if pair[0].iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        map.append(HeaderName::from_bytes(pair[0]).ok()?, HeaderValue::from_bytes(pair[1]).ok()?);
    }
    Some(map)
}

/// An answer of an HTTP/2 upstream on its way to a client of each version. Says whether it was one.
///
/// # Panics
/// When what goes out is not what came in.
pub fn answer(bytes: &[u8]) -> bool {
    let [shape, status, rest @ ..] = bytes else { return false };
    let status = [200, 204, 304, 103, 404, 206, 100, 500][usize::from(status % 8)] + u16::from(status / 128);
    let (Some(fields), Ok(code)) = (block(rest.split(|byte| *byte == 0xff)), http::StatusCode::from_u16(status)) else {
        return false;
    };
    let mut response = Response::new(());
    *response.status_mut() = code;
    *response.headers_mut() = fields;
    let (request, close) = asked(*shape);
    let (mut head, mut out) = (ResponseHead::default(), Vec::new());
    let ends = shape & 32 == 32;
    if message::response(&response, request.method, ends, &Limits::default(), &mut head, &mut out).is_err() {
        return false;
    }
    passed(&request, &head, &out, close, Some(response.headers()));
    true
}

/// An answer of an HTTP/1 upstream likewise.
///
/// # Panics
/// When what goes out is not what came in.
pub fn answer_of_http1(bytes: &[u8]) -> bool {
    let Some((shape, bytes)) = bytes.split_first() else { return false };
    let Some(end) = HeadScanner::default().find_end(bytes) else { return false };
    let (request, close) = asked(*shape);
    let (bytes, mut head) = (&bytes[..end], ResponseHead::default());
    // Whether a 101 may pass is decided elsewhere.
    if head.parse(bytes, request.method, &Limits::default()).is_err() || head.status == 101 {
        return false;
    }
    passed(&request, &head, bytes, close, None);
    true
}

/// What was asked, and whether the client's connection is to end with the answer.
fn asked(shape: u8) -> (RequestHead, bool) {
    let (method, target) = [("GET", "/"), ("HEAD", "/"), ("POST", "/"), ("CONNECT", "h:1")][usize::from(shape & 3)];
    let version = [Version::Http11, Version::Http10, Version::Http2, Version::Http11][usize::from(shape >> 2 & 3)];
    let text = format!("{method} {target} HTTP/1.1\r\nHost: h:1\r\n\r\n");
    let (head, _) = parse_request(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
    (RequestHead { version, ..head }, shape & 16 == 16)
}

fn passed(request: &RequestHead, head: &ResponseHead, bytes: &[u8], close: bool, came: Option<&HeaderMap>) {
    if head.status < 200 {
        // As interim responses go; clients of HTTP/1.0 get none.
        let framed = Framed { close: false, framing: Framing::Verbatim };
        if request.version != Version::Http10 {
            sent_down(request, head, bytes, &framed, ResponseEdits::default(), came);
        }
        return;
    }
    let framed = forward::frame(request, head, close);
    sent_down(request, head, bytes, &framed, ResponseEdits::default(), came);
    let edits = ResponseEdits { timing: Some(b"x;dur=1"), cookie: Some(b"k=v"), changes: None };
    sent_down(request, head, bytes, &framed, edits, came);
}

fn sent_down(
    request: &RequestHead,
    head: &ResponseHead,
    bytes: &[u8],
    framed: &Framed,
    edits: ResponseEdits<'_>,
    came: Option<&HeaderMap>,
) {
    let said = listed(&head.fields, bytes);
    let mut wanted = end_to_end(&said, &nominated(&said));
    wanted.extend(edits.timing.map(|timing| (b"server-timing".to_vec(), timing.to_vec())));
    wanted.extend(edits.cookie.map(|cookie| (b"set-cookie".to_vec(), cookie.to_vec())));
    let silent = head.status < 200 || head.status == 204 || head.tunnels;
    if request.version == Version::Http2 {
        let response = forward::response(request, head, bytes, framed, edits, |edits| {
            let made = message::to_client(head, bytes, edits);
            if let Some(came) = came.filter(|_| message::passes(head, edits)) {
                let passed = message::pass_on(came.clone(), head, edits);
                assert_eq!((passed.status(), passed.headers()), (made.status(), made.headers()));
            }
            made
        });
        assert_eq!(response.status().as_u16(), head.status);
        let fields = response.headers();
        assert!(!fields.keys().any(|name| is_any(name.as_str().as_bytes(), &OF_CONNECTION)), "{fields:?}");
        assert!(!(silent && fields.contains_key("content-length")));
        let mut sent: Owned =
            fields.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec())).collect();
        sent = end_to_end(&sent, &[]);
        // A map keeps the order of one name's values alone.
        sent.sort_by(|one, other| one.0.cmp(&other.0));
        wanted.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(sent, wanted);
        return;
    }
    let mut wire = Vec::new();
    forward::response(request, head, bytes, framed, edits, |edits| encode_response(&mut wire, head, bytes, edits));
    let mut again = ResponseHead::default();
    assert_eq!(HeadScanner::default().find_end(&wire), Some(wire.len()), "one head");
    again
        .parse(&wire, request.method, &WIDE)
        .unwrap_or_else(|reject| panic!("{reject:?}: {:?}", wire.escape_ascii().to_string()));
    assert_eq!((again.status, again.tunnels), (head.status, head.tunnels));
    let sent = listed(&again.fields, &wire);
    assert_eq!(end_to_end(&sent, &[]), wanted);
    framed_once(request, head, &again, &sent, framed);
}

/// The client finds the end of the body where the exchange will put it, and in one way.
fn framed_once(request: &RequestHead, head: &ResponseHead, again: &ResponseHead, sent: &Owned, framed: &Framed) {
    let silent = head.status < 200 || head.status == 204 || head.tunnels;
    let framings = count(sent, "content-length") + count(sent, "transfer-encoding");
    assert!(framings <= usize::from(!silent), "{sent:?}");
    assert!(!(request.version == Version::Http10 && count(sent, "transfer-encoding") > 0));
    let bodiless = silent || request.method == Method::Head || head.status == 304;
    let expected = match (framed.framing, head.body) {
        _ if bodiless => BodyLength::None,
        (Framing::Chunked, _) => BodyLength::Chunked,
        (Framing::Unchunked, _) => BodyLength::UntilClose,
        // It has ended, and the client is told.
        (Framing::Verbatim, BodyLength::None) => BodyLength::Length(0),
        (Framing::Verbatim, body) => body,
    };
    assert_eq!(again.body, expected);
    assert!(framed.close || again.body != BodyLength::UntilClose, "its end would never be seen");
    if !again.tunnels && head.status >= 200 {
        assert_eq!(again.keep_alive, !framed.close);
        let said: &[u8] = if framed.close { b"close" } else { b"keep-alive" };
        let speaks = framed.close || request.version == Version::Http10;
        let connection: Vec<_> = sent.iter().filter(|(name, _)| name == b"connection").collect();
        assert_eq!(connection.len(), usize::from(speaks));
        assert!(connection.iter().all(|(_, value)| value == said));
    }
    assert!(!sent.iter().any(|(name, _)| is_any(name, &["te", "upgrade", "keep-alive", "proxy-connection"])));
}

/// A request of an HTTP/1 client on its way to an upstream of each version. Says whether it was one.
///
/// # Panics
/// When what goes out is not what came in.
pub fn request(bytes: &[u8]) -> bool {
    let Some((shape, bytes)) = bytes.split_first() else { return false };
    let Some((head, bytes)) = parse_request(bytes) else { return false };
    let request = Request {
        head: &head,
        bytes,
        origin: &Origin {
            peer: Peer::Tcp(SocketAddr::from(([192, 0, 2, 1], 7))),
            tls: shape & 1 == 1,
            destination: None,
            secure: None,
        },
        identity: &Identity::new(|| 7),
        listener: &LISTENER,
        deadline: None,
    };
    // As where a route lets WebSocket through.
    let upgrades = head.upgrade.is_some_and(|protocol| protocol.of(bytes).eq_ignore_ascii_case(b"websocket"));
    let sent = Sent { instance: "edge", upgrade: upgrades && shape & 2 == 2, attempt: u32::from(shape >> 2 & 1) };
    // Without an authority a request has no route.
    if head.authority.len == 0 {
        return false;
    }
    sent_up_http1(&request, sent);
    sent_up_http2(&request, sent, shape & 8 == 8);
    true
}

/// The path and query that an upstream gets.
fn origin_form<'b>(head: &RequestHead, bytes: &'b [u8]) -> &'b [u8] {
    if head.method == Method::Connect {
        return head.target.of(bytes);
    }
    // RFC 9112 3.2.4.
    if head.absolute_form && head.path.len == 0 && head.method == Method::Options {
        return b"*";
    }
    if head.path.len == 0 { b"/" } else { &bytes[head.path.start as usize..head.target.end()] }
}

/// What this hop says itself, in place of what came.
const REPLACED: [&str; 9] = [
    "host",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-client-cert",
    "x-attempt-count",
    "traceparent",
    "tracestate",
];

/// The fields that are nobody's on the way.
fn others(fields: Owned, named: &[Vec<u8>]) -> Owned {
    let mut fields = end_to_end(&fields, named);
    fields.retain(|(name, _)| !is_any(name, &REPLACED) && name != b"x-request-id" && name != b"cookie");
    fields
}

fn cookies(fields: &Owned) -> Vec<Vec<u8>> {
    let values =
        fields.iter().filter(|(name, _)| name == b"cookie").flat_map(|(_, value)| value.split(|byte| *byte == b';'));
    values.map(<[u8]>::trim_ascii).filter(|crumb| !crumb.is_empty()).map(<[u8]>::to_vec).collect()
}

/// Once each, and what they say.
fn own_fields(request: &Request<'_>, sent: &Owned) {
    for name in ["via", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "traceparent"] {
        assert_eq!(count(sent, name), 1, "{name}");
    }
    let value = |name: &[u8]| sent.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice());
    assert!(value(b"x-forwarded-for").is_some_and(|value| value.ends_with(b"192.0.2.1")));
    assert!(value(b"via").is_some_and(|value| value.ends_with(b" edge")));
    assert_eq!(value(b"x-forwarded-host"), Some(request.head.authority.of(request.bytes)));
    assert_eq!(count(sent, "x-forwarded-client-cert"), 0, "nobody has shown one");
}

fn sent_up_http1(request: &Request<'_>, sent: Sent<'_>) {
    let (head, bytes) = (request.head, request.bytes);
    let (mut wire, mut again) = (Vec::new(), RequestHead::default());
    forward::request(&mut Vec::new(), request, None, sent, |target, edits| {
        encode_request(&mut wire, head, bytes, target, edits);
    });
    assert_eq!(HeadScanner::default().find_end(&wire), Some(wire.len()), "one head");
    again.parse(&wire, &WIDE).unwrap_or_else(|reject| panic!("{reject:?}: {:?}", wire.escape_ascii().to_string()));
    assert_eq!((again.method, again.body), (head.method, head.body));
    assert_eq!(again.target.of(&wire), origin_form(head, bytes));
    assert_eq!(again.authority.of(&wire), head.authority.of(bytes));
    let (said, goes) = (listed(&head.fields, bytes), listed(&again.fields, &wire));
    own_fields(request, &goes);
    assert_eq!(count(&goes, "host"), 1);
    assert!(count(&goes, "content-length") + count(&goes, "transfer-encoding") <= 1);
    assert_eq!(others(goes.clone(), &[]), others(said.clone(), &nominated(&said)));
    assert_eq!(cookies(&goes), cookies(&said));
    let upgrade = head.upgrade.filter(|_| sent.upgrade).map(|protocol| protocol.of(bytes));
    assert_eq!(again.upgrade.map(|protocol| protocol.of(&wire)), upgrade);
    for name in ["proxy-connection", "keep-alive", "http2-settings"] {
        assert_eq!(count(&goes, name), 0, "{name}");
    }
    assert!(goes.iter().all(|(name, value)| name != b"te" || value == b"trailers"));
}

fn sent_up_http2(request: &Request<'_>, sent: Sent<'_>, is_first: bool) {
    let (head, bytes) = (request.head, request.bytes);
    let protocol = head.upgrade.filter(|_| sent.upgrade).map(|protocol| protocol.of(bytes));
    let kept = Kept::default();
    let way = message::Way { tls: false, protocol, kept: &kept, is_first };
    let made = forward::request(&mut Vec::new(), request, None, sent, |target, edits| {
        message::to_upstream(head, bytes, target, &way, edits)
    });
    // What `http` has no form for is refused; it is never sent as something else.
    let Ok(made) = made else { return };
    assert!(protocol.is_none() || message::is_extended_connect(head));
    let (parts, ()) = made.into_parts();
    assert!(!parts.headers.keys().any(|name| is_any(name.as_str().as_bytes(), &OF_CONNECTION) && name != "te"));
    assert!(!parts.headers.contains_key("host"));
    let ends = head.body == BodyLength::None && protocol.is_none();
    let (mut again, mut out) = (RequestHead::default(), Vec::new());
    message::request(&parts, ends, b"a2V5", &WIDE, &mut again, &mut out).expect("an HTTP/2 peer accepts it");
    let extended = protocol.is_some();
    assert!(extended || (again.method, again.body) == (head.method, head.body));
    assert_eq!(again.upgrade.map(|protocol| protocol.of(&out)), protocol);
    assert_eq!(again.target.of(&out), origin_form(head, bytes));
    assert!(is_authority(again.authority.of(&out)));
    assert_eq!(again.authority.of(&out), head.authority.of(bytes));
    let (said, goes) = (listed(&head.fields, bytes), listed(&again.fields, &out));
    own_fields(request, &goes);
    let without_key = |mut fields: Owned| {
        fields.retain(|(name, _)| !(extended && name == b"sec-websocket-key"));
        fields.sort_by(|one, other| one.0.cmp(&other.0));
        fields
    };
    assert_eq!(without_key(others(goes.clone(), &[])), without_key(others(said.clone(), &nominated(&said))));
    assert_eq!(cookies(&goes), cookies(&said));
    assert!(again.find(Known::Te).is_none_or(|te| te.value.of(&out) == b"trailers"));
}

#[cfg(test)]
#[path = "../../wire/tests/checks/runner.rs"]
mod runner;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::runner;

    /// Enough of the cases must be messages.
    fn check(cases: u32, strategy: &impl Strategy<Value = Vec<u8>>, test: impl Fn(&[u8]) -> bool) {
        let accepted = Cell::new(0);
        runner::check(cases, strategy, |bytes| accepted.set(accepted.get() + u32::from(test(&bytes))));
        assert!(accepted.get() > cases / 10, "only {} of them were messages", accepted.get());
    }

    fn fields() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
        let name = prop::sample::select(vec![
            "a",
            "x-y",
            "content-length",
            "cookie",
            "te",
            "expect",
            "via",
            "connection",
            "keep-alive",
            "upgrade",
            "trailer",
            "set-cookie",
            "date",
            "server-timing",
            "x-forwarded-for",
            "x-request-id",
            "traceparent",
            "sec-websocket-key",
            "http2-settings",
            "authorization",
            "forwarded",
            "transfer-encoding",
        ]);
        let value = prop::sample::select(vec![
            "",
            "1",
            "0",
            "5",
            "trailers",
            "a=b; c=d;;e",
            "100-continue",
            "close",
            "x-y, Via, a",
            "keep-alive",
            "websocket",
            "upgrade",
            "chunked",
            "Trailers;q=1, gzip",
            "x, upgrade",
            "\ta\u{e9}",
        ]);
        prop::collection::vec((name, value), 0..7)
    }

    #[test]
    fn answers_by_http2_are_passed_on_as_they_are_meant() {
        let head = (any::<u8>(), any::<u8>(), fields()).prop_map(|(shape, status, fields)| {
            let fields: Vec<_> = fields
                .iter()
                .filter(|(name, value)| {
                    // Few, so that few answers are refused.
                    !super::is_any(name.as_bytes(), &super::OF_CONNECTION) && !value.starts_with('\t')
                })
                .map(|(name, value)| [name.as_bytes(), value.as_bytes()].join(&0xff))
                .collect();
            [&[shape, status][..], &fields.join(&0xff)].concat()
        });
        check(20_000, &head, super::answer);
    }

    #[test]
    fn answers_by_http1_are_passed_on_as_they_are_meant() {
        let line = prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 204 No Content\r\n",
            "HTTP/1.1 304 x\r\n",
            "HTTP/1.0 200 OK\r\n",
            "HTTP/1.1 103 \r\n",
            "HTTP/1.1 404 x\r\nContent-Length:\t7\r\n",
            "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n",
        ]);
        let head = (any::<u8>(), line, fields()).prop_map(|(shape, line, fields)| {
            let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            [&[shape], line.as_bytes(), fields.as_bytes(), b"\r\n"].concat()
        });
        check(20_000, &head, super::answer_of_http1);
    }

    #[test]
    fn requests_are_passed_on_as_they_are_meant() {
        let line = prop::sample::select(vec![
            "GET /a?b HTTP/1.1\r\nHost: h\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n",
            "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n",
            "GET http://h HTTP/1.1\r\nHost: h\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: h:80\r\n",
            "OPTIONS http://h HTTP/1.1\r\nHost: h\r\n",
            "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n",
            "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
            "GET / HTTP/1.0\r\nHost: h\r\n",
        ]);
        let head = (any::<u8>(), line, fields()).prop_map(|(shape, line, fields)| {
            let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            [&[shape], line.as_bytes(), fields.as_bytes(), b"\r\n"].concat()
        });
        check(20_000, &head, super::request);
    }

    #[test]
    fn what_was_found_stays_found() {
        // As extended CONNECTs these went out malformed: without a path, or with a body.
        let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
        for (line, rest) in [
            ("CONNECT h:1 HTTP/1.1", ""),
            ("POST / HTTP/1.1", "Content-Length: 5\r\n"),
            ("GET / HTTP/1.1", "Transfer-Encoding: chunked\r\n"),
            ("GET / HTTP/1.1", "Content-Length: 0\r\n"),
        ] {
            assert!(super::request(format!("\x02{line}\r\nHost: h:1\r\n{upgrade}{rest}\r\n").as_bytes()), "{line}");
        }
    }
}
