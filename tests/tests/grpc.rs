//! gRPC through the gateway: statuses and deadlines by hand, and all kinds of calls by Python's grpcio.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use onehop_tests::http2::{Http2Origin, ask, connect, run};
use onehop_tests::{Origin, Proxy, eventually};

fn call(path: &str, timeout: Option<&str>) -> Request<()> {
    let request = Request::post(format!("http://test{path}")).header("content-type", "application/grpc");
    let request = request.header("te", "trailers");
    let request = if let Some(timeout) = timeout { request.header("grpc-timeout", timeout) } else { request };
    request.body(()).expect("well-formed")
}

fn one_worker(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

#[test]
fn failures_of_ours_are_statuses_that_grpc_understands() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("binds");
    let proxy = one_worker(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\npath = {{ prefix = \"/pkg.Service\" }}\ncluster = \"a\"\n[[cluster]]\nname = \"a\"\nprotocol = \"http2\"\nendpoints = [\"{free}\"]\n"
    ));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        for (path, status) in [("/pkg.Service/Method", "14"), ("/other.Service/Method", "12")] {
            let answer = ask(&sender, call(path, None), Vec::new()).await.expect("answers");
            assert_eq!(answer.head.status, 200, "{path}");
            assert_eq!(answer.field("grpc-status"), Some(status), "{path}");
            assert_eq!(answer.field("content-type"), Some("application/grpc"));
            assert!(answer.field("grpc-message").is_some() && answer.field("proxy-status").is_some());
        }
        // Who does not speak gRPC gets HTTP's.
        let plain = Request::get("http://test/other").body(()).expect("well-formed");
        assert_eq!(ask(&sender, plain, Vec::new()).await.expect("answers").head.status, 404);
    });
}

/// A service whose methods end with the status that they are named by: `/s/14` in trailers, `/s/head14` in the head.
fn by_status() -> Http2Origin {
    Http2Origin::start(|mut incoming| async move {
        let method = incoming.request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        if method == "Never" {
            std::future::pending::<()>().await;
        }
        let value = |text: &str| http::HeaderValue::from_str(text).expect("a value");
        let mut head = Response::new(());
        head.headers_mut().insert("content-type", value("application/grpc"));
        if let Some(status) = method.strip_prefix("head") {
            head.headers_mut().insert("grpc-status", value(status));
            let _ = incoming.respond.send_response(head, true);
            return;
        }
        let Ok(mut send) = incoming.respond.send_response(head, false) else { return };
        let _ = send.send_data(bytes::Bytes::from_static(&[0; 5]), false);
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", value(&method));
        let _ = send.send_trailers(trailers);
    })
}

#[test]
fn every_refusal_of_ours_is_a_status() {
    let origin = by_status();
    let config = origin.config(
        "",
        "timeout = \"2s\"\nmax_body = \"1KiB\"",
        "limits = { requests = 1 }\n[[authorization]]\naction = \"deny\"\npaths = [\"/s/Denied\"]",
    );
    let proxy = one_worker(&config);
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let status = async |path: &str, body: usize| {
            let answer = ask(&sender, call(path, None), vec![0; body]).await.expect("answers");
            assert_eq!((answer.head.status.as_u16(), answer.field("content-type")), (200, Some("application/grpc")));
            answer
                .field("grpc-status")
                .or(answer.trailers.get("grpc-status").map(|value| value.to_str().expect("text")))
                .map(str::to_owned)
        };
        assert_eq!(status("/s/0", 5).await.as_deref(), Some("0"));
        // Time-out: DEADLINE_EXCEEDED. One more than the cluster takes meanwhile: UNAVAILABLE.
        let mut first = sender.clone().ready().await.expect("ready");
        let (late, _) = first.send_request(call("/s/Never", None), true).expect("sends");
        while proxy.metric("onehop_endpoint_requests_total", "") < 2.0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(status("/s/0", 5).await.as_deref(), Some("14"));
        assert_eq!(late.await.expect("answers").headers()["grpc-status"], "4");
        // Too large a message: RESOURCE_EXHAUSTED. Refused by a rule: PERMISSION_DENIED.
        assert_eq!(status("/s/0", 4096).await.as_deref(), Some("8"));
        assert_eq!(status("/s/Denied", 5).await.as_deref(), Some("7"));
    });
}

/// The rest of what we answer by ourselves: each is a status in a head without a message, and says why.
#[test]
fn every_other_answer_of_ours_is_a_status() {
    let origin = by_status();
    let route = |path: &str, what: &str| format!("[[route]]\npath = {{ prefix = \"/{path}\" }}\n{what}\n");
    let to = |path: &str, what: &str| route(path, &format!("cluster = \"origin\"\n{what}"));
    let routes = [
        to("Limited", "rate_limits = [{ requests = 1, per = \"1h\" }]"),
        to("Small", "max_body = \"1KiB\""),
        to("Abort503", "faults = [{ abort = 503 }]"),
        to("Abort504", "faults = [{ abort = 504 }]"),
        to("Abort429", "faults = [{ abort = 429 }]"),
        to("Abort401", "faults = [{ abort = 401 }]"),
        to("Abort418", "faults = [{ abort = 418 }]"),
        route("Nobody", "cluster = \"nobody\""),
        "[[cluster]]\nname = \"nobody\"\nprotocol = \"http2\"\nendpoints = [\"127.0.0.1:9\"]\n".to_owned(),
    ];
    let proxy = one_worker(&origin.config("", "path = { prefix = \"/s\" }", &routes.concat()));
    assert_eq!(proxy.admin_post("/clusters/drain?cluster=nobody&endpoint=127.0.0.1:9").0, 200);
    run(async {
        let sender = connect(proxy.address("edge")).await;
        assert_eq!(
            ask(&sender, call("/Limited/0", None), vec![0; 5]).await.expect("answers").trailers["grpc-status"],
            "0"
        );
        for (method, body, status, reason) in [
            ("Limited/0", 5, "8", "rate-limited"),
            ("Small/0", 4096, "8", "body-too-large"),
            ("Nobody/0", 5, "14", "no-endpoint"),
            ("Abort503/0", 5, "14", "fault-injected"),
            ("Abort504/0", 5, "4", "fault-injected"),
            ("Abort429/0", 5, "8", "fault-injected"),
            ("Abort401/0", 5, "16", "fault-injected"),
            ("Abort418/0", 5, "2", "fault-injected"),
            ("Unknown/0", 5, "12", "no-route"),
        ] {
            let request =
                Request::post(format!("http://test/{method}")).header("content-type", "application/grpc+proto");
            let request =
                request.header("te", "trailers").header("content-length", body).body(()).expect("well-formed");
            let answer = ask(&sender, request, vec![0; body]).await.expect("answers");
            assert_eq!((answer.head.status.as_u16(), answer.field("grpc-status")), (200, Some(status)), "{method}");
            assert_eq!(answer.field("content-type"), Some("application/grpc"), "{method}");
            assert_eq!(answer.field("grpc-message"), Some(reason), "{method}");
            assert!(answer.field("proxy-status").is_some_and(|text| text.contains(reason)), "{method}");
            assert!(answer.body.is_empty() && answer.trailers.is_empty(), "{method}");
            assert_eq!(answer.field("retry-after").is_some(), reason == "rate-limited", "{method}");
        }
    });
    // Booked after the answer has gone out.
    eventually("all are counted", || proxy.metric("onehop_route_grpc_calls_total", "status=\"8\"") == 3.0);
}

#[test]
fn a_call_whose_head_is_refused_is_told_so_as_a_call() {
    let origin = by_status();
    let proxy = one_worker(&origin.config("", "", ""));
    let long = format!("/s/{}", "x".repeat(9000));
    let many: Vec<(String, String)> = (0..110).map(|number| (format!("x-{number}"), "y".to_owned())).collect();
    run(async {
        let sender = connect(proxy.address("edge")).await;
        for (kind, answered) in [
            ("application/grpc", "application/grpc"),
            ("application/grpc-web-text+proto", "application/grpc-web-text+proto"),
        ] {
            for (path, fields, reason) in
                [(&*long, &[][..], "request-line-too-long"), ("/s/0", &many[..], "too-many-fields")]
            {
                let mut request = Request::post(format!("http://test{path}")).header("content-type", kind);
                for (name, value) in fields {
                    request = request.header(name, value);
                }
                let answer = ask(&sender, request.body(()).expect("well-formed"), vec![0; 5]).await.expect("answers");
                assert_eq!((answer.head.status.as_u16(), answer.field("grpc-status")), (200, Some("13")), "{reason}");
                assert_eq!(answer.field("content-type"), Some(answered), "{reason}");
                assert_eq!(answer.field("grpc-message"), Some(reason));
            }
        }
    });
}

#[test]
fn a_call_that_is_shed_is_unavailable() {
    // No task ever has its turn within a nanosecond: to this target the core is always saturated.
    let origin = by_status();
    let config = format!("[runtime]\nshed_after = \"0.001us\"\n{}", origin.config("", "priority = \"low\"", ""));
    let proxy = one_worker(&config);
    run(async {
        let sender = connect(proxy.address("edge")).await;
        loop {
            let answer = ask(&sender, call("/s/0", None), vec![0; 5]).await.expect("answers");
            if answer.field("grpc-message") == Some("shed") {
                assert_eq!((answer.head.status.as_u16(), answer.field("grpc-status")), (200, Some("14")));
                return;
            }
        }
    });
}

#[test]
fn calls_are_repeated_by_their_status() {
    // The first answer to each method is its status alone; the second is well.
    let first = Arc::new(Mutex::new(HashSet::new()));
    let origin = Http2Origin::start(move |mut incoming| {
        let first = first.clone();
        async move {
            let path = incoming.request.uri().path().to_owned();
            let Ok((body, _)) = onehop_tests::http2::read(incoming.request.body_mut()).await else { return };
            let status = path.rsplit('/').next().unwrap_or_default().trim_start_matches("late").to_owned();
            let mut head = Response::new(());
            if !first.lock().expect("no panic").insert(path.clone()) {
                head.headers_mut().insert("x-body", body.len().into());
                head.headers_mut().insert("grpc-status", 0.into());
                let _ = incoming.respond.send_response(head, true);
                return;
            }
            let status = http::HeaderValue::from_str(&status).expect("a value");
            if path.contains("late") {
                // Something was said already: it is too late for another attempt.
                let Ok(mut send) = incoming.respond.send_response(head, false) else { return };
                let _ = send.send_trailers(http::HeaderMap::from_iter([(
                    http::HeaderName::from_static("grpc-status"),
                    status,
                )]));
            } else {
                head.headers_mut().insert("grpc-status", status);
                let _ = incoming.respond.send_response(head, true);
            }
        }
    });
    let on = "retry = { on = [\"unavailable\", \"cancelled\", \"deadline-exceeded\", \"internal\", \"resource-exhausted\"] }";
    let proxy = one_worker(&origin.config("", on, "retry_budget = 100"));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        for status in ["14", "1", "4", "13", "8"] {
            let answer = ask(&sender, call(&format!("/s/{status}"), None), vec![0; 5]).await.expect("answers");
            assert_eq!((answer.field("grpc-status"), answer.field("x-body")), (Some("0"), Some("5")), "{status}");
        }
        for status in ["2", "5", "16"] {
            let answer = ask(&sender, call(&format!("/s/{status}"), None), vec![0; 5]).await.expect("answers");
            assert_eq!(answer.field("grpc-status"), Some(status), "not named");
        }
        let answer = ask(&sender, call("/s/late14", None), vec![0; 5]).await.expect("answers");
        assert_eq!(answer.trailers["grpc-status"], "14");
    });
    assert_eq!(proxy.metric("onehop_route_retries_total", ""), 5.0);
}

#[test]
fn an_endpoint_whose_calls_fail_is_ejected() {
    // A try that may be hedged has no client of its own: it is a call all the same.
    let hedge = "hedge = { after = \"60s\" }";
    for (method, route, ejects) in [
        ("14", "", true),
        ("head14", "", true),
        ("13", "", true),
        ("5", "", false),
        ("head7", "", false),
        ("14", hedge, true),
        ("5", hedge, false),
    ] {
        let (bad, good) = (by_status(), by_status());
        let config = bad.config("", route, "outlier = { consecutive_5xx = 3, ejection = \"60s\" }");
        let both = format!("[\"{}\", \"{}\"]", bad.address(), good.address());
        let proxy = one_worker(&config.replace(&format!("[\"{}\"]", bad.address()), &both));
        run(async {
            let sender = connect(proxy.address("edge")).await;
            for _ in 0..6 {
                let mut request = call(&format!("/s/{method}"), None);
                request.headers_mut().insert("idempotency-key", http::HeaderValue::from_static("1"));
                ask(&sender, request, vec![0; 5]).await.expect("answers");
            }
        });
        let ejections = || proxy.metric("onehop_cluster_ejections_total", "");
        if ejects {
            // One of the two: the last one is never ejected.
            eventually(method, || ejections() == 1.0);
        } else {
            assert_eq!(ejections(), 0.0, "{method}");
        }
    }
}

#[test]
fn a_deadline_is_kept_and_passed_on() {
    let origin = Http2Origin::start(|mut incoming| async move {
        let left = incoming.request.headers()["grpc-timeout"].clone();
        if incoming.request.uri().path() == "/s/Never" {
            std::future::pending::<()>().await;
        }
        let mut response = Response::new(());
        response.headers_mut().insert("x-left", left);
        response.headers_mut().insert("grpc-status", "0".parse().expect("a value"));
        let _ = incoming.respond.send_response(response, true);
    });
    let proxy = one_worker(&origin.config("", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let answer = ask(&sender, call("/s/Now", Some("20S")), Vec::new()).await.expect("answers");
        let left = answer.field("x-left").expect("passed on").to_owned();
        let (digits, unit) = left.split_at(left.len() - 1);
        assert_eq!(unit, "u", "{left}");
        let micros: u64 = digits.parse().expect("digits");
        assert!((10_000_000..20_000_000).contains(&micros), "{left}");
        let answer = ask(&sender, call("/s/Never", Some("100m")), Vec::new()).await.expect("answers");
        assert_eq!(answer.field("grpc-status"), Some("4"));
    });
    for status in ["0", "4"] {
        let labels = format!("status=\"{status}\"");
        eventually("calls are counted by status", || proxy.metric("onehop_route_grpc_calls_total", &labels) == 1.0);
    }
}

#[test]
fn a_websocket_over_http2_becomes_an_upgrade() {
    let origin = Origin::start(|connection| {
        let head = connection.head().expect("a head");
        assert!(head.contains("Upgrade: websocket\r\n") && head.contains("sec-websocket-key: "), "{head}");
        connection.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello");
        let said = connection.read(4);
        connection.send(said);
    });
    let proxy = one_worker(&origin.config("", "", ""));
    run(async {
        let mut sender = connect(proxy.address("edge")).await.ready().await.expect("ready");
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let mut request = Request::builder().method("CONNECT").uri("http://test/chat").body(()).expect("well-formed");
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (answer, mut send) = sender.send_request(request, false).expect("sends");
        let answer = answer.await.expect("answers");
        assert_eq!(answer.status(), 200);
        let mut body = answer.into_body();
        assert_eq!(body.data().await.expect("some").expect("whole"), "hello");
        send.send_data(bytes::Bytes::from_static(b"ping"), true).expect("sends");
        assert_eq!(body.data().await.expect("some").expect("whole"), "ping");
        // The end may come in a frame of its own.
        while let Some(rest) = body.data().await {
            assert!(rest.expect("in order").is_empty());
        }
    });
}

#[test]
fn all_kinds_of_calls_by_grpcio() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let environment = root.join("target/grpc");
    let python = environment.join("bin/python");
    let made = python.exists()
        || Command::new("python3").args(["-m", "venv"]).arg(&environment).status().is_ok_and(|status| status.success());
    let installed = made
        && Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "grpcio"])
            .status()
            .is_ok_and(|status| status.success());
    if !installed {
        eprintln!("skipped: grpcio cannot be installed from PyPI");
        return;
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("binds");
    let proxy = one_worker(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"a\"\n[[cluster]]\nname = \"a\"\nprotocol = \"http2\"\nendpoints = [\"{free}\"]\n"
    ));
    let output = Command::new(&python)
        .arg(root.join("tests/judges/grpc_calls.py"))
        .args([free.port().to_string(), proxy.address("edge").to_string()])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
