//! Answers of our own, of every kind, to every kind of caller: a status of HTTP to most, and to calls of gRPC and gRPC-Web
//! a status of theirs in a head without a message, since their clients take nothing else for an answer.

use http::Request;
use onehop_tests::http2::{Http2Origin, Incoming, ask, connect, run};
use onehop_tests::{Proxy, eventually};

/// What is asked for, and what it comes to.
struct Kind {
    /// The path, which names it.
    path: &'static str,
    status: u16,
    grpc_status: &'static str,
    /// What the call is told; `proxy-status` says it too if the failure is one.
    message: &'static str,
    fails: bool,
}

const fn fails(path: &'static str, status: u16, grpc_status: &'static str, message: &'static str) -> Kind {
    Kind { path, status, grpc_status, message, fails: true }
}

const fn says(path: &'static str, status: u16, grpc_status: &'static str, message: &'static str) -> Kind {
    Kind { path, status, grpc_status, message, fails: false }
}

const KINDS: [Kind; 16] = [
    says("/respond503", 503, "14", "closed for 100%25 of %C3%BCs"),
    says("/respond200", 200, "2", "hello"),
    says("/respond404", 404, "12", ""),
    says("/respond204", 204, "2", ""),
    says("/redirect", 308, "2", ""),
    fails("/limited", 429, "8", "rate-limited"),
    fails("/denied", 403, "7", "access-denied"),
    fails("/abort503", 503, "14", "fault-injected"),
    fails("/abort200", 200, "2", "fault-injected"),
    fails("/small", 413, "8", "body-too-large"),
    fails("/none", 404, "12", "no-route"),
    fails("/drained", 503, "14", "no-endpoint"),
    fails("/refused", 503, "14", "connect-refused"),
    fails("/silent", 504, "4", "upstream-timeout"),
    fails("/overfull", 503, "14", "overflow"),
    fails("/reset", 503, "14", "upstream-reset"),
];

fn config(origin: &Http2Origin) -> String {
    let refused = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("binds");
    let mut config = "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n".to_owned();
    for (path, what) in [
        ("respond503", "respond = { status = 503, text = \"closed for 100% of üs\\n\" }"),
        ("respond200", "respond = { text = \"hello\" }"),
        ("respond404", "respond = { status = 404 }"),
        ("respond204", "respond = { status = 204 }"),
        ("redirect", "redirect = { status = 308, host = \"other.test\" }"),
        ("limited", "cluster = \"origin\"\nrate_limits = [{ requests = 1, per = \"1h\" }]"),
        ("denied", "cluster = \"origin\""),
        ("abort503", "cluster = \"origin\"\nfaults = [{ abort = 503 }]"),
        ("abort200", "cluster = \"origin\"\nfaults = [{ abort = 200 }]"),
        ("small", "cluster = \"origin\"\nmax_body = \"3B\""),
        ("drained", "cluster = \"drained\""),
        ("refused", "cluster = \"refused\"\nretry = { on = [] }"),
        ("silent", "cluster = \"origin\"\ntimeout = \"1s\""),
        ("overfull", "cluster = \"full\"\ntimeout = \"off\""),
        ("reset", "cluster = \"origin\"\nretry = { on = [] }"),
    ] {
        // Browsers are let read all of it.
        let cors = "cors = { origins = [\"https://app.test\"] }\ngrpc_web = true";
        config.push_str(&format!("[[route]]\npath = {{ prefix = \"/{path}\" }}\n{cors}\n{what}\n"));
    }
    for (name, endpoint, more) in [
        ("origin", origin.address().to_string(), ""),
        ("drained", "127.0.0.1:9".to_owned(), ""),
        ("refused", refused.to_string(), ""),
        ("full", origin.address().to_string(), "limits = { requests = 1 }"),
    ] {
        config.push_str(&format!(
            "[[cluster]]\nname = \"{name}\"\nprotocol = \"http2\"\nendpoints = [\"{endpoint}\"]\n{more}\n"
        ));
    }
    config + "[[authorization]]\naction = \"deny\"\npaths = [\"/denied\"]\n"
}

async fn origin(mut incoming: Incoming) {
    match incoming.request.uri().path() {
        "/silent" | "/overfull" => std::future::pending().await,
        "/reset" => incoming.respond.send_reset(h2::Reason::INTERNAL_ERROR),
        _ => {
            let _ = incoming.respond.send_response(http::Response::new(()), true);
        }
    }
}

/// An answer of either version.
struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: usize,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} comes twice: {:?}", self.fields);
        value
    }
}

fn over_http1(proxy: &Proxy, path: &str, kind: &str) -> Answer {
    let response = proxy.connect("edge").ask(format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nOrigin: https://app.test\r\nContent-Type: {kind}\r\nContent-Length: 8\r\n\r\nAAAAAAA="
    ));
    assert!(response.whole, "{path}");
    let lines = response.head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let fields = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Answer { status: response.status, fields, body: response.body, trailers: response.trailers.trim().len() }
}

fn over_http2(proxy: &Proxy, path: &str, kind: &str) -> Answer {
    let request = Request::post(format!("http://test{path}")).header("origin", "https://app.test");
    let request = request.header("content-type", kind).header("content-length", 8).header("te", "trailers");
    let answer = run(async {
        let sender = connect(proxy.address("edge")).await;
        ask(&sender, request.body(()).expect("well-formed"), b"AAAAAAA=".to_vec()).await.expect("answers")
    });
    let text = |value: &http::HeaderValue| value.to_str().expect("text").to_owned();
    let fields = answer.head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let trailers = answer.trailers.len();
    Answer { status: answer.head.status.as_u16(), fields, body: answer.body, trailers }
}

/// A caller: what it sends, what content type it is answered with if it calls, and how it asks.
type Caller = (&'static str, Option<&'static str>, fn(&Proxy, &str, &str) -> Answer);

const CALLERS: [Caller; 8] = [
    ("application/grpc", Some("application/grpc"), over_http2),
    ("application/grpc+proto", Some("application/grpc"), over_http2),
    ("application/grpc-web+proto", Some("application/grpc-web+proto"), over_http2),
    ("application/grpc-web-text", Some("application/grpc-web-text+proto"), over_http2),
    ("application/grpc-web", Some("application/grpc-web+proto"), over_http1),
    ("application/grpc-web-text", Some("application/grpc-web-text+proto"), over_http1),
    ("application/json", None, over_http1),
    ("application/json", None, over_http2),
];

fn check(kind: &Kind, caller: &Caller, answer: &Answer) {
    let about = format!("{} to {} ({:?}): {} {:?}", kind.path, caller.0, caller.1, answer.status, answer.fields);
    let routed = kind.path != "/none";
    assert_eq!(answer.field("access-control-allow-origin").is_some(), routed, "{about}");
    assert_eq!(answer.field("location").is_some(), kind.path == "/redirect", "{about}");
    assert_eq!(answer.field("proxy-status").is_some(), kind.fails, "{about}");
    assert_eq!(answer.trailers, 0, "{about}");
    let Some(content_type) = caller.1 else {
        assert_eq!((answer.status, answer.field("grpc-status")), (kind.status, None), "{about}");
        return;
    };
    assert_eq!((answer.status, answer.field("content-type")), (200, Some(content_type)), "{about}");
    assert_eq!(answer.field("grpc-status"), Some(kind.grpc_status), "{about}");
    assert_eq!(answer.field("grpc-message").unwrap_or_default(), kind.message, "{about}");
    assert!(answer.body.is_empty(), "{about}");
}

#[test]
fn every_kind_to_every_caller() {
    let origin = Http2Origin::start(origin);
    let proxy = Proxy::start_with(&config(&origin), &["--workers", "1"], None);
    assert_eq!(proxy.admin_post("/clusters/drain?cluster=drained&endpoint=127.0.0.1:9").0, 200);
    // The one that may pass, and the one that fills its cluster, for as long as all this takes.
    assert_eq!(over_http1(&proxy, "/limited", "text/plain").status, 200);
    let mut full = proxy.connect("edge");
    full.send("GET /overfull HTTP/1.1\r\nHost: test\r\n\r\n");
    eventually("its cluster is full", || proxy.metric("onehop_cluster_active", "cluster=\"full\"") == 1.0);
    for kind in &KINDS {
        for caller in &CALLERS {
            check(kind, caller, &caller.2(&proxy, kind.path, caller.0));
        }
    }
    let calls = CALLERS.iter().filter(|caller| caller.1.is_some()).count() as f64;
    for (path, count) in [("\"2\"", 4.0), ("\"14\"", 6.0), ("\"8\"", 2.0), ("\"7\"", 1.0)] {
        let labels = format!("status={path}");
        // Those of no route are no route's.
        eventually("calls are counted by status", || {
            proxy.metric("onehop_route_grpc_calls_total", &labels) == count * calls
        });
    }
}

/// The author of this one knows who asks.
#[test]
fn a_fixed_response_that_is_written_for_calls_goes_as_it_is() {
    let config = "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\nrespond = { text = \"\", content_type = \"application/grpc\" }\nresponse_headers = { set = { grpc-status = \"5\", grpc-message = \"not here\" } }\n";
    let proxy = Proxy::start_with(config, &["--workers", "1"], None);
    let answer = over_http2(&proxy, "/s/m", "application/grpc");
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("5")), "{:?}", answer.fields);
    assert_eq!(
        (answer.field("grpc-message"), answer.field("content-type")),
        (Some("not here"), Some("application/grpc"))
    );
}

/// One that does not make a call is no caller, whatever it says of its content: a success might mean something else to it.
#[test]
fn what_is_no_post_is_no_call() {
    let config = "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\npath = { prefix = \"/x\" }\nrespond = { status = 503 }\n";
    let proxy = Proxy::start_with(config, &["--workers", "1"], None);
    run(async {
        let sender = connect(proxy.address("edge")).await;
        for (path, status) in [("/x", 503), ("/none", 404)] {
            let request = Request::get(format!("http://test{path}")).header("content-type", "application/grpc");
            let answer = ask(&sender, request.body(()).expect("well-formed"), Vec::new()).await.expect("answers");
            assert_eq!((answer.head.status.as_u16(), answer.field("grpc-status")), (status, None), "{path}");
        }
    });
}
