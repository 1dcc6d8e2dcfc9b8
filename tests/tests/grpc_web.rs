//! gRPC-Web at the edge: by hand in both formats over both versions, and by clients from npm.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use http::{HeaderMap, Response};
use onehop_tests::http2::{Http2Origin, Incoming, ask, connect, read, run};
use onehop_tests::{Proxy, eventually};

fn message(text: &[u8]) -> Vec<u8> {
    [&[0][..], &(text.len() as u32).to_be_bytes(), text].concat()
}

fn answer(incoming: &mut Incoming) -> Option<h2::SendStream<Bytes>> {
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", "application/grpc+proto".parse().expect("a value"));
    incoming.respond.send_response(head, false).ok()
}

/// A service, as any gRPC server answers. It takes nothing but gRPC.
async fn service(mut incoming: Incoming) {
    let fields = incoming.request.headers();
    let is_grpc = ["application/grpc", "application/grpc+proto"]
        .contains(&fields["content-type"].to_str().unwrap_or("?"))
        && fields.get("te").is_some_and(|te| te == "trailers")
        && !fields.contains_key("content-length");
    let path = incoming.request.uri().path().to_owned();
    let Ok((body, _)) = read(incoming.request.body_mut()).await else { return };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", if is_grpc { "0" } else { "3" }.parse().expect("a value"));
    match path.as_str() {
        "/web.Echo/Fails" => {
            let mut head = Response::new(());
            head.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
            head.headers_mut().insert("grpc-status", "9".parse().expect("a value"));
            head.headers_mut().insert("grpc-message", "not like this".parse().expect("a value"));
            let _ = incoming.respond.send_response(head, true);
        }
        "/web.Echo/Plain" => {
            let mut head = Response::new(());
            *head.status_mut() = http::StatusCode::NOT_FOUND;
            head.headers_mut().insert("content-type", "text/plain".parse().expect("a value"));
            let Ok(mut send) = incoming.respond.send_response(head, false) else { return };
            let _ = send.send_data(Bytes::from_static(b"nothing here"), true);
        }
        "/web.Echo/Never" => std::future::pending().await,
        "/web.Echo/Cut" => {
            let Some(mut send) = answer(&mut incoming) else { return };
            let _ = send.send_data(Bytes::from(message(b"half")), false);
            // The half is out before the reset overtakes it.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            send.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        "/web.Echo/Many" => {
            let Some(mut send) = answer(&mut incoming) else { return };
            for number in 0..3 {
                let _ = send.send_data(Bytes::from(message(format!("{number}").as_bytes())), false);
                tokio::task::yield_now().await;
            }
            let _ = send.send_trailers(trailers);
        }
        _ => {
            let Some(mut send) = answer(&mut incoming) else { return };
            let _ = send.send_data(Bytes::from(body), false);
            trailers.insert("x-end", "yes".parse().expect("a value"));
            let _ = send.send_trailers(trailers);
        }
    }
}

fn digit(byte: u8) -> u32 {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    digits.iter().position(|digit| *digit == byte).map_or(0, |at| at as u32)
}

/// Base64 in groups of four, each padded or not.
fn from_base64(text: &[u8]) -> Vec<u8> {
    assert!(text.len().is_multiple_of(4), "{text:?}");
    let groups = text.chunks(4).map(|group| {
        let bits = group.iter().fold(0, |bits, byte| bits << 6 | digit(*byte));
        let padding = group.iter().filter(|byte| **byte == b'=').count();
        bits.to_be_bytes()[1..4 - padding].to_vec()
    });
    groups.flatten().collect()
}

/// The messages of a body, and the trailers that end it.
fn frames(mut body: &[u8]) -> (Vec<Vec<u8>>, String) {
    let (mut messages, mut trailers) = (Vec::new(), String::new());
    while let [flag, a, b, c, d, ..] = *body {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let content = body[5..5 + length].to_vec();
        body = &body[5 + length..];
        match flag {
            0x80 => trailers = String::from_utf8(content).expect("text"),
            _ => messages.push(content),
        }
    }
    assert!(body.is_empty());
    (messages, trailers)
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
    whole: bool,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

fn over_http1(proxy: &Proxy, path: &str, kind: &str, fields: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: {kind}\r\nX-Grpc-Web: 1\r\nAccept: {kind}\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let response = proxy.connect("edge").ask([head.as_bytes(), body].concat());
    let (status, head, whole) = (response.status, response.head.clone(), response.whole);
    Answer { status, head, body: response.body, whole }
}

fn over_http2(proxy: &Proxy, path: &str, kind: &str, fields: &str, body: &[u8]) -> Answer {
    let mut request = http::Request::post(format!("http://test{path}")).header("content-type", kind);
    for (name, value) in fields.lines().filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    let request = request.header("content-length", body.len()).body(()).expect("well-formed");
    run(async {
        let sender = connect(proxy.address("edge")).await;
        match ask(&sender, request, body.to_vec()).await {
            Err(_) => Answer { status: 0, head: String::new(), body: Vec::new(), whole: false },
            Ok(answer) => {
                assert!(answer.trailers.is_empty(), "trailers belong into the body");
                let fields = answer.head.headers.iter();
                let head = fields.map(|(name, value)| format!("{name}: {}\n", value.to_str().expect("text"))).collect();
                Answer { status: answer.head.status.as_u16(), head, body: answer.body, whole: true }
            }
        }
    })
}

type Ask = fn(&Proxy, &str, &str, &str, &[u8]) -> Answer;
const WAYS: [Ask; 2] = [over_http1, over_http2];
const ROUTE: &str =
    "path = { prefix = \"/web.Echo\" }\ngrpc_web = true\ncors = { origins = [\"https://app.example.com\"] }";
const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

fn proxy(origin: &Http2Origin) -> Proxy {
    Proxy::start_with(&origin.config("", ROUTE, ""), &["--workers", "1"], None)
}

#[test]
fn calls_in_both_formats_over_both_versions() {
    let origin = Http2Origin::start(service);
    let proxy = proxy(&origin);
    for way in WAYS {
        let answer = way(&proxy, "/web.Echo/Say", BINARY, "", &message(b"hello"));
        assert_eq!((answer.status, answer.field("content-type")), (200, Some(BINARY)), "{}", answer.head);
        let (messages, trailers) = frames(&answer.body);
        assert_eq!(messages, [b"hello"]);
        assert!(trailers.contains("grpc-status: 0\r\n") && trailers.contains("x-end: yes\r\n"), "{trailers}");
        // Two messages, each with padding of its own, as clients that stream write them.
        let answer = way(&proxy, "/web.Echo/Say", TEXT, "", b"AAAAAAVoZWxsbw==AAAAAAEh");
        assert_eq!((answer.status, answer.field("content-type")), (200, Some(TEXT)), "{}", answer.head);
        let (messages, trailers) = frames(&from_base64(&answer.body));
        assert_eq!(messages, [&b"hello"[..], b"!"]);
        assert!(trailers.contains("grpc-status: 0\r\n"), "{trailers}");
        let answer = way(&proxy, "/web.Echo/Many", TEXT, "", b"AAAAAAA=");
        assert_eq!(frames(&from_base64(&answer.body)).0, [b"0", b"1", b"2"]);
        // Larger than any buffer between.
        let large = vec![7; 300_000];
        let answer = way(&proxy, "/web.Echo/Say", BINARY, "", &message(&large));
        assert_eq!(frames(&answer.body).0, [large]);
    }
    let labels = "status=\"0\"";
    eventually("calls are counted", || proxy.metric("onehop_route_grpc_calls_total", labels) == 8.0);
}

/// A client says by Accept what it can read, whatever it writes itself.
#[test]
fn an_answer_is_in_the_format_that_its_caller_accepts() {
    let origin = Http2Origin::start(service);
    let proxy = proxy(&origin);
    let over_http1 = |kind: &str, accepts: &str, body: &[u8]| {
        let head = format!(
            "POST /web.Echo/Say HTTP/1.1\r\nHost: test\r\nContent-Type: {kind}\r\nAccept: {accepts}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let response = proxy.connect("edge").ask([head.as_bytes(), body].concat());
        let (status, head, whole) = (response.status, response.head.clone(), response.whole);
        Answer { status, head, body: response.body, whole }
    };
    let fields = |accepts: &str| format!("accept: {accepts}\n");
    for (kind, accepts, body, text) in [
        (BINARY, "application/grpc-web-text", &message(b"hello")[..], true),
        (BINARY, "text/html, application/grpc-web-text+proto", &message(b"hello"), true),
        (TEXT, "application/grpc-web+proto, */*", b"AAAAAAVoZWxsbw==", false),
        (TEXT, "*/*", b"AAAAAAVoZWxsbw==", true),
    ] {
        for answer in
            [over_http1(kind, accepts, body), over_http2(&proxy, "/web.Echo/Say", kind, &fields(accepts), body)]
        {
            let expected = if text { TEXT } else { BINARY };
            assert_eq!((answer.status, answer.field("content-type")), (200, Some(expected)), "{kind} {accepts}");
            let body = if text { from_base64(&answer.body) } else { answer.body };
            assert_eq!(frames(&body).0, [b"hello"], "{kind} {accepts}");
        }
    }
    let answer = over_http2(&proxy, "/none", BINARY, &fields("application/grpc-web-text"), b"");
    assert_eq!((answer.field("content-type"), answer.field("grpc-status")), (Some(TEXT), Some("12")));
}

#[test]
fn browsers_may_ask_and_read() {
    let origin = Http2Origin::start(service);
    let proxy = proxy(&origin);
    let preflight = proxy.connect("edge").ask(
        "OPTIONS /web.Echo/Say HTTP/1.1\r\nHost: test\r\nOrigin: https://app.example.com\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type,x-grpc-web\r\n\r\n",
    );
    assert_eq!(preflight.status, 204);
    let allowed = preflight.field("access-control-allow-headers").expect("headers");
    for name in ["content-type", "x-grpc-web", "x-user-agent", "grpc-timeout"] {
        assert!(allowed.contains(name), "{allowed}");
    }
    let origin_field = "Origin: https://app.example.com\r\n";
    for way in WAYS {
        // An answer, an error of the service, and one of ours.
        for (path, timeout) in
            [("/web.Echo/Say", ""), ("/web.Echo/Fails", ""), ("/web.Echo/Never", "grpc-timeout: 50m\r\n")]
        {
            let fields = format!("{origin_field}{timeout}");
            let answer = way(&proxy, path, BINARY, &fields, &message(b"x"));
            assert_eq!(answer.field("access-control-allow-origin"), Some("https://app.example.com"), "{path}");
            let exposed = answer.field("access-control-expose-headers").expect("exposed");
            assert!(exposed.contains("grpc-status") && exposed.contains("grpc-message"), "{exposed}");
        }
    }
}

#[test]
fn failures_are_statuses_that_its_clients_understand() {
    let origin = Http2Origin::start(service);
    let proxy = proxy(&origin);
    for way in WAYS {
        let answer = way(&proxy, "/web.Echo/Fails", BINARY, "", &message(b"x"));
        assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("9")));
        assert_eq!(
            (answer.field("grpc-message"), answer.field("content-type")),
            (Some("not like this"), Some("application/grpc-web"))
        );
        assert!(answer.body.is_empty() && answer.whole);
        let answer = way(&proxy, "/web.Echo/Never", TEXT, "grpc-timeout: 50m\r\n", b"AAAAAAA=");
        assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("4")));
        assert_eq!(answer.field("content-type"), Some(TEXT));
        let answer = way(&proxy, "/other.Echo/Say", BINARY, "", &message(b"x"));
        assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("12")));
        // No base64: nothing of it may be passed off as a message.
        for wrong in [&b"AAAA*AAA"[..], b"AAAAA", b"AAA=A==="] {
            let answer = way(&proxy, "/web.Echo/Say", TEXT, "", wrong);
            assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("13")), "{wrong:?} {}", answer.head);
        }
        // What is no gRPC passes as it is.
        let answer = way(&proxy, "/web.Echo/Plain", BINARY, "", &message(b"x"));
        assert_eq!((answer.status, answer.body.as_slice()), (404, &b"nothing here"[..]));
        // A body that was cut never ends as a whole one does.
        assert!(!way(&proxy, "/web.Echo/Cut", BINARY, "", &message(b"x")).whole);
    }
}

#[test]
fn by_clients_from_npm() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let folder = root.join("target/grpc-web");
    std::fs::create_dir_all(&folder).expect("a folder");
    let packages = ["grpc-web@2", "xhr2@0.2", "@protobuf-ts/grpcweb-transport@2", "@protobuf-ts/runtime-rpc@2"];
    let is_installed = folder.join("node_modules/@protobuf-ts/grpcweb-transport").exists();
    let installed = is_installed
        || Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
            .arg(&folder)
            .args(packages)
            .status()
            .is_ok_and(|status| status.success());
    if !installed {
        eprintln!("skipped: Node is not here, or npm cannot install {packages:?}");
        return;
    }
    let script = folder.join("grpc_web_calls.mjs");
    std::fs::copy(root.join("tests/judges/grpc_web_calls.mjs"), &script).expect("copies");
    let origin = Http2Origin::start(service);
    let proxy = proxy(&origin);
    let output = Command::new("node").arg(&script).arg(proxy.address("edge").to_string()).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.lines().count(), 10, "{said}");
}
