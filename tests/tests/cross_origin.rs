//! What scripts of other origins get to see of refusals: without the fields of CORS a browser shows them a network error
//! instead of a status, whatever the answer says. And preflights, which browsers send without any credentials.

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use http::Request;
use onehop_tests::frames::Frames;
use onehop_tests::http2::{Http2Origin, Incoming, ask, connect, run};
use onehop_tests::{Origin, Proxy, eventually, folder};

const APP: &str = "https://app.test";
const BINARY: &str = "application/grpc-web+proto";

async fn service(mut incoming: Incoming) {
    let path = incoming.request.uri().path().to_owned();
    if path == "/full.S/Hold" {
        std::future::pending::<()>().await;
    }
    let mut head = http::Response::new(());
    head.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
    head.headers_mut().insert("grpc-status", "0".parse().expect("a value"));
    let _ = incoming.respond.send_response(head, true);
}

/// Routes of one host, each with CORS but the last.
fn config(services: &Http2Origin, host: &str, app: &str) -> String {
    let cors = format!("cors = {{ origins = [\"{app}\"], headers = [\"authorization\"] }}");
    let mut config = "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n".to_owned();
    for (name, what) in [
        ("open", "grpc_web = true"),
        ("denied", "grpc_web = true"),
        (
            "limited",
            "grpc_web = true\nrate_limits = [{ requests = 1, per = \"1h\", by = { header = \"authorization\" } }]",
        ),
        ("full", "grpc_web = true\nlimits = { requests = 1 }"),
        // Whoever translates its answers is not us.
        ("foreign", "rate_limits = [{ requests = 1, per = \"1h\" }]"),
        ("posts", "grpc_web = true\nmethod = \"POST\""),
    ] {
        config.push_str(&format!(
            "[[route]]\n{host}\npath = {{ prefix = \"/{name}.S\" }}\ncluster = \"o\"\n{cors}\n{what}\n"
        ));
    }
    config.push_str(&format!("[[route]]\n{host}\npath = {{ prefix = \"/closed.S\" }}\ncluster = \"o\"\n"));
    config.push_str(&format!("[[route]]\n{host}\npath = {{ prefix = \"/posts.S\" }}\nrespond = {{ status = 404 }}\n"));
    config.push_str(&format!(
        "[[cluster]]\nname = \"o\"\nprotocol = \"http2\"\nendpoints = [\"{}\"]\n",
        services.address()
    ));
    config + "[[authorization]]\naction = \"deny\"\npaths = [\"/denied.S/*\", \"/closed.S/*\"]\n"
}

fn start(services: &Http2Origin) -> Proxy {
    Proxy::start_with(&config(services, "host = \"api.test\"", APP), &["--workers", "1"], None)
}

type Fields = Vec<(String, String)>;

/// An answer's status and fields.
#[derive(Debug)]
struct Answer(u16, Fields);

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.1.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} comes twice: {self:?}");
        value
    }

    /// What a script that makes calls can make of it.
    fn status_of_call(&self) -> Option<&str> {
        assert_eq!(self.0, 200, "{self:?}");
        let exposed = self.field("access-control-expose-headers").unwrap_or_default();
        let readable = self.field("access-control-allow-origin") == Some(APP) && self.field("vary") == Some("Origin");
        let is_told = exposed.split(", ").any(|name| name == "grpc-status");
        self.field("grpc-status").filter(|_| readable && is_told)
    }
}

fn over_http1(proxy: &Proxy, request: &str) -> Answer {
    let answer = proxy.connect("edge").ask(request);
    let lines = answer.head.lines().skip(1).filter_map(|line| line.split_once(": "));
    Answer(answer.status, lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn over_http2(proxy: &Proxy, method: &str, url: &str, fields: &[(&str, &str)]) -> Answer {
    let request = fields
        .iter()
        .fold(Request::builder().method(method).uri(url), |request, (name, value)| request.header(*name, *value));
    let answer = run(async {
        let sender = connect(proxy.address("edge")).await;
        ask(&sender, request.body(()).expect("well-formed"), Vec::new()).await.expect("answers")
    });
    let text = |value: &http::HeaderValue| value.to_str().expect("text").to_owned();
    let fields = answer.head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    Answer(answer.head.status.as_u16(), fields.collect())
}

/// The same call over both versions.
fn call(proxy: &Proxy, host: &str, path: &str, origin: &str) -> [Answer; 2] {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Type: {BINARY}\r\nContent-Length: 0\r\n\r\n"
    );
    let fields = [("origin", origin), ("content-type", BINARY)];
    [over_http1(proxy, &head), over_http2(proxy, "POST", &format!("http://{host}{path}"), &fields)]
}

#[test]
fn refusals_can_be_read_by_those_who_may_read_answers() {
    let services = Http2Origin::start(service);
    let proxy = start(&services);
    let mut held = proxy.connect("edge");
    held.send(format!(
        "POST /full.S/Hold HTTP/1.1\r\nHost: api.test\r\nContent-Type: {BINARY}\r\nContent-Length: 0\r\n\r\n"
    ));
    eventually("the only place is taken", || proxy.metric("onehop_cluster_active", "") == 1.0);
    for path in ["/limited.S/M", "/foreign.S/M"] {
        call(&proxy, "api.test", path, APP);
    }
    for (path, status) in
        [("/open.S/M", "0"), ("/denied.S/M", "7"), ("/limited.S/M", "8"), ("/full.S/M", "14"), ("/foreign.S/M", "8")]
    {
        for answer in call(&proxy, "api.test", path, APP) {
            assert_eq!(answer.status_of_call(), Some(status), "{path} {answer:?}");
        }
        for answer in call(&proxy, "api.test", path, "https://evil.test") {
            assert_eq!(answer.field("access-control-allow-origin"), None, "{path} {answer:?}");
            assert_eq!(answer.field("vary"), Some("Origin"), "{path} {answer:?}");
        }
    }
    // Without a route there is nothing that says who may; nor does a route that says nothing let anybody.
    for (host, path, status) in
        [("api.test", "/none", "12"), ("other.test", "/open.S/M", "12"), ("api.test", "/closed.S/M", "7")]
    {
        for answer in call(&proxy, host, path, APP) {
            assert_eq!((answer.field("grpc-status"), answer.0), (Some(status), 200), "{path} {answer:?}");
            assert_eq!(answer.field("access-control-allow-origin"), None, "{path} {answer:?}");
        }
    }
}

#[test]
fn refused_heads_can_be_read_too() {
    let services = Http2Origin::start(service);
    let proxy = start(&services);
    let begin = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: api.test\r\nOrigin: {APP}\r\nContent-Type: {BINARY}\r\nContent-Length: 0\r\n"
        )
    };
    let many = "X: y\r\n".repeat(150);
    // More than a head may have, and no end of it is to come.
    let large = format!("Cookie: {}\r\n", "x".repeat(70 << 10));
    for (rest, status, name) in [
        (&*format!("{many}\r\n"), "13", "too-many-fields"),
        (&large, "13", "head-too-large"),
        ("X Y: z\r\n\r\n", "13", "bad-field-name"),
        ("Expect: better\r\n\r\n", "2", "bad-expectation"),
        ("Transfer-Encoding: gzip, chunked\r\n\r\n", "2", "unknown-transfer-coding"),
    ] {
        let answer = over_http1(&proxy, &format!("{}{rest}", begin("/open.S/M")));
        assert_eq!(answer.status_of_call(), Some(status), "{name} {answer:?}");
        assert_eq!(answer.field("grpc-message"), Some(name), "{answer:?}");
        assert_eq!(answer.field("connection"), Some("close"), "{answer:?}");
        // On a route that lets nobody read, and on none: a call's answer all the same.
        for path in ["/closed.S/M", "/none"] {
            let answer = over_http1(&proxy, &format!("{}{rest}", begin(path)));
            assert_eq!((answer.0, answer.field("grpc-status")), (200, Some(status)), "{name} {answer:?}");
            assert_eq!(answer.field("access-control-allow-origin"), None, "{name} {answer:?}");
        }
    }
    // What is no call gets its status as ever, and may be read.
    let answer =
        over_http1(&proxy, &format!("GET /open.S/M HTTP/1.1\r\nHost: api.test\r\nOrigin: {APP}\r\n{many}\r\n"));
    assert_eq!((answer.0, answer.field("access-control-allow-origin")), (431, Some(APP)), "{answer:?}");
    // Nothing is known of the one whose gist is in doubt as well.
    let answer = over_http1(&proxy, &format!("{}Host: other.test\r\n\r\n", begin("/open.S/M")));
    assert_eq!((answer.0, answer.field("access-control-allow-origin")), (400, None), "{answer:?}");
    for (fields, status) in [(vec![("x", "y"); 150], "13"), (vec![("expect", "better")], "2")] {
        let fields = [vec![("origin", APP), ("content-type", BINARY)], fields].concat();
        let answer = over_http2(&proxy, "POST", "http://api.test/open.S/M", &fields);
        assert_eq!(answer.status_of_call(), Some(status), "{answer:?}");
        let answer = over_http2(&proxy, "POST", "http://api.test/none", &fields);
        assert_eq!((answer.0, answer.field("grpc-status")), (200, Some(status)), "{answer:?}");
        assert_eq!(answer.field("access-control-allow-origin"), None, "{answer:?}");
    }
    let line = format!("/open.S/{}", "x".repeat(9000));
    let answer =
        over_http2(&proxy, "POST", &format!("http://api.test{line}"), &[("origin", APP), ("content-type", BINARY)]);
    assert_eq!(answer.status_of_call(), Some("13"), "{answer:?}");
}

#[test]
fn preflights_need_neither_a_right_nor_an_allowance() {
    let services = Http2Origin::start(service);
    let proxy = start(&services);
    // Those of the origin's own pages and of strangers get an answer too; that it may not be used is for the browser to see.
    for (path, origin, is_allowed) in [
        ("/open.S/M", APP, true),
        ("/denied.S/M", APP, true),
        ("/denied.S/M", "https://evil.test", false),
        ("/limited.S/M", APP, true),
        ("/limited.S/M", APP, true),
        ("/foreign.S/M", APP, true),
        ("/foreign.S/M", APP, true),
        // The route is one for POST alone; what takes the others says nothing of origins.
        ("/posts.S/M", APP, true),
    ] {
        let fields =
            [("origin", origin), ("access-control-request-method", "POST"), ("access-control-request-headers", "x")];
        let head = format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: api.test\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\r\n"
        );
        for answer in
            [over_http1(&proxy, &head), over_http2(&proxy, "OPTIONS", &format!("http://api.test{path}"), &fields)]
        {
            assert_eq!(answer.0, 204, "{path} {answer:?}");
            assert_eq!(answer.field("access-control-allow-origin").is_some(), is_allowed, "{path} {answer:?}");
            assert!(answer.field("access-control-allow-headers").is_some_and(|names| names.contains("authorization")));
        }
    }
    let options = |path: &str, more: &str| {
        over_http1(&proxy, &format!("OPTIONS {path} HTTP/1.1\r\nHost: api.test\r\nOrigin: {APP}\r\n{more}\r\n")).0
    };
    let asks = |method: &str| format!("Access-Control-Request-Method: {method}\r\n");
    // What only looks like one is judged as any request is: without the method that is meant, where the route says nothing of
    // origins, and where the method that is meant has no such route.
    assert_eq!(options("/denied.S/M", ""), 403);
    assert_eq!(options("/closed.S/M", &asks("POST")), 403);
    assert_eq!(options("/posts.S/M", &asks("PUT")), 404);
    // No preflight has used up what the first call may have.
    let answer = &call(&proxy, "api.test", "/foreign.S/M", APP)[0];
    assert_eq!(answer.field("grpc-status"), Some("0"), "{answer:?}");
}

/// Frames by hand, since no client sends such fields: what breaks a rule of HTTP/2 itself ends its stream, and is no answer.
#[test]
fn what_is_malformed_over_http2_is_no_answer() {
    let services = Http2Origin::start(service);
    let proxy = start(&services);
    let mut client = Frames::connect(proxy.address("edge"));
    let malformed = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "api.test"),
        (":path", "/open.S/M"),
        ("content-type", BINARY),
        ("origin", APP),
        ("connection", "close"),
    ];
    client.headers(1, &malformed, true);
    loop {
        let next = client.next().expect("a stream error");
        assert_ne!((next.kind, next.stream), (1, 1), "no HEADERS");
        if (next.kind, next.stream) == (3, 1) {
            break;
        }
    }
}

const PAGE: &str = r#"<!doctype html><script type="module">
const found = [];
const call = async (path, headers) => {
  try {
    const body = new Uint8Array(5);
    const kind = { "content-type": "application/grpc-web+proto", "x-grpc-web": "1", authorization: "me" };
    const answer = await fetch("PROXY" + path, { method: "POST", headers: { ...kind, ...headers }, body });
    return answer.headers.get("grpc-status") ?? "hidden";
  } catch { return "network error"; }
};
const large = { authorization: "x".repeat(70000) };
const paths = ["/open.S/M", "/denied.S/M", "/limited.S/M", "/limited.S/M", "/closed.S/M", "/none"];
for (const path of paths) found.push(path + " " + await call(path, {}));
found.push("too large " + await call("/open.S/M", large));
await fetch("/result", { method: "POST", body: found.join("\n") });
</script>"#;

/// As a browser meets it: each call of another origin, with its preflight.
#[test]
fn a_page_sees_the_status_of_refusals() {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }) else {
        eprintln!("skipped: no Chromium is here");
        return;
    };
    let services = Http2Origin::start(service);
    let (sender, results) = channel();
    let (sender, target) = (Mutex::new(sender), std::sync::Arc::new(Mutex::new(String::new())));
    let to = target.clone();
    let pages = Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            let body = connection.body(&head);
            if head.starts_with("POST /result ") {
                let _ = sender.lock().expect("no panic").send(String::from_utf8_lossy(&body).into_owned());
            }
            let page = PAGE.replace("PROXY", &to.lock().expect("no panic"));
            connection.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}",
                page.len()
            ));
        }
    });
    let app = format!("http://{}", pages.address());
    let proxy = Proxy::start_with(&config(&services, "", &app), &["--workers", "1"], None);
    *target.lock().expect("no panic") = format!("http://{}", proxy.address("edge"));
    let quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];
    let mut child = Command::new(browser)
        .args(quiet)
        .arg(format!("--user-data-dir={}", folder().display()))
        .arg("--remote-debugging-port=0")
        .arg(&app)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let found = results.recv_timeout(Duration::from_secs(120));
    let _ = child.kill();
    let _ = child.wait();
    let found = found.expect("the page tells what it found");
    let wanted = [
        "/open.S/M 0",
        "/denied.S/M 7",
        "/limited.S/M 0",
        "/limited.S/M 8",
        "/closed.S/M network error",
        "/none network error",
        "too large 13",
    ];
    assert_eq!(found.lines().collect::<Vec<_>>(), wanted);
}
