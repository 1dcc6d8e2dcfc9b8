//! HTTP/2 on both sides: every pairing carries heads, bodies and trailers as they are.

use bytes::Bytes;
use http::{HeaderMap, Response};
use onehop_tests::http2::{Http2Origin, ask, ask_with, connect, get, post, read, run};
use onehop_tests::{Origin, Proxy};

fn one_worker(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

#[test]
fn requests_and_bodies_pass_from_http2_to_http1() {
    let origin = Origin::echo();
    let proxy = one_worker(&origin.config("", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let answers = (0..50).map(|number| {
            let sender = sender.clone();
            async move { ask(&sender, get(&format!("/{number}")), Vec::new()).await.expect("answers").text() }
        });
        for (number, answer) in answers.enumerate() {
            assert_eq!(answer.await, format!("/{number}"));
        }
        let answer = ask(&sender, post("/large"), vec![7; 300_000]).await.expect("answers");
        let length: usize = answer.field("x-body").expect("counted").parse().expect("a number");
        // Chunked, with its framing, since no length was told.
        assert!(length > 300_000, "{length}");
        let mut known = post("/known");
        known.headers_mut().insert("content-length", "5".parse().expect("a value"));
        let answer = ask(&sender, known, b"hello".to_vec()).await.expect("answers");
        assert_eq!(answer.field("x-body"), Some("5"));
    });
}

#[test]
fn requests_and_bodies_pass_from_http1_to_http2() {
    let origin = Http2Origin::mirror();
    let proxy = one_worker(&origin.config("", "", ""));
    let mut client = proxy.connect("edge");
    let response = client.ask("GET /a?b HTTP/1.1\r\nHost: test\r\nCookie: a=1; b=2\r\nKeep-Alive: x\r\n\r\n");
    let text = response.text();
    assert!(text.starts_with("GET http://test/a?b\n"), "{text}");
    assert!(text.contains("cookie: a=1\ncookie: b=2\n") && !text.contains("keep-alive"), "{text}");
    assert!(!text.contains("\nhost:") && !text.contains("transfer-encoding"), "{text}");
    let body = "x".repeat(200_000);
    let response = client.ask(format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    assert!(response.text().contains("body: 200000\n"), "{}", response.text());
    let response = client.ask(
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n",
    );
    assert!(response.text().contains("body: 5\ntrailer x-sum: 5\n"), "{}", response.text());
    // All of it on one connection.
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn requests_and_trailers_pass_from_http2_to_http2() {
    let origin = Http2Origin::mirror();
    let proxy = one_worker(&origin.config("", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let mut request = post("/x");
        request.headers_mut().insert("te", "trailers".parse().expect("a value"));
        request.headers_mut().append("cookie", "a=1".parse().expect("a value"));
        request.headers_mut().append("cookie", "b=2".parse().expect("a value"));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "9".parse().expect("a value"));
        let answer = ask_with(&sender, request, vec![1; 100_000], Some(trailers)).await.expect("answers");
        let text = answer.text();
        for line in [
            "POST http://test/x\n",
            "te: trailers\n",
            "cookie: a=1\ncookie: b=2\n",
            "body: 100000\n",
            "trailer x-sum: 9\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
        assert!(text.contains("via: 2.0 "), "{text}");
    });
}

#[test]
fn an_answer_without_a_body_ends_for_an_http1_client() {
    let origin = Http2Origin::start(|mut incoming| async move {
        let status = incoming.request.uri().path()[1..].parse::<u16>().expect("a status");
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
        let _ = incoming.respond.send_response(response, true);
    });
    let proxy = one_worker(&origin.config("", "", ""));
    let mut client = proxy.connect("edge");
    for (status, length) in [(200, Some("0")), (404, Some("0")), (204, None), (304, None)] {
        let response = client.get(&format!("/{status}"));
        assert_eq!((response.status, response.field("content-length")), (status, length));
    }
    client.send("HEAD /200 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response_to("HEAD").field("content-length"), None);
}

#[test]
fn trailers_of_responses_pass_to_both_versions() {
    let origin = Http2Origin::start(|mut incoming| async move {
        let mut send = incoming.respond.send_response(Response::new(()), false).expect("sends");
        send.send_data(Bytes::from_static(b"body"), false).expect("sends");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "4".parse().expect("a value"));
        trailers.insert("grpc-status", "0".parse().expect("a value"));
        send.send_trailers(trailers).expect("sends");
    });
    let proxy = one_worker(&origin.config("", "", ""));
    let response = proxy.connect("edge").get("/");
    assert_eq!((response.text().as_str(), response.whole), ("body", true));
    assert!(response.trailers.to_lowercase().contains("x-sum: 4"), "{}", response.trailers);
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let answer = ask(&sender, get("/"), Vec::new()).await.expect("answers");
        assert_eq!((answer.text().as_str(), answer.trailers["x-sum"].to_str().expect("text")), ("body", "4"));
    });
    let chunked = Origin::start(|connection| {
        while connection.head().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 4\r\n\r\n");
        }
    });
    let proxy = one_worker(&chunked.config("", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let answer = ask(&sender, get("/"), Vec::new()).await.expect("answers");
        assert_eq!((answer.text().as_str(), answer.trailers["x-sum"].to_str().expect("text")), ("body", "4"));
        assert_eq!(answer.field("transfer-encoding"), None);
    });
}

/// As Go's net/http answers: it knows the length of short bodies, and announces trailers all the same.
#[test]
fn trailers_that_are_announced_pass_behind_a_body_of_known_length() {
    let origin = Http2Origin::start(|mut incoming| async move {
        let response =
            Response::builder().header("content-length", 4).header("trailer", "X-Sum").body(()).expect("a head");
        let is_head = incoming.request.method() == "HEAD";
        let mut send = incoming.respond.send_response(response, is_head).expect("sends");
        if is_head {
            return;
        }
        send.send_data(Bytes::from_static(b"body"), false).expect("sends");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "4".parse().expect("a value"));
        send.send_trailers(trailers).expect("sends");
    });
    let proxy = one_worker(&origin.config("", "", ""));
    let mut client = proxy.connect("edge");
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!((response.text().as_str(), response.whole), ("body", true));
        assert_eq!((response.field("content-length"), response.field("transfer-encoding")), (None, Some("chunked")));
        assert!(response.trailers.to_lowercase().contains("x-sum: 4"), "{}", response.trailers);
    }
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_to("HEAD").field("content-length"), Some("4"));
    // One of HTTP/1.0 knows no chunks.
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let response = client.response();
    assert_eq!((response.text().as_str(), response.field("content-length")), ("body", Some("4")));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let answer = ask(&sender, get("/"), Vec::new()).await.expect("answers");
        assert_eq!((answer.text().as_str(), answer.field("content-length")), ("body", Some("4")));
        assert_eq!(answer.trailers["x-sum"].to_str().expect("text"), "4");
    });
}

#[test]
fn interim_responses_pass_and_head_has_no_body() {
    let origin = Origin::start(|connection| {
        while let Some(head) = connection.head() {
            if head.starts_with("HEAD") {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
            } else {
                connection.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
            }
        }
    });
    let proxy = one_worker(&origin.config("", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let (mut answer, _) = sender.clone().send_request(get("/"), true).expect("sends");
        let hint = std::future::poll_fn(|cx| answer.poll_informational(cx)).await.expect("one").expect("whole");
        assert_eq!((hint.status().as_u16(), hint.headers()["link"].to_str().expect("text")), (103, "</a>"));
        assert_eq!(answer.await.expect("answers").status(), 204);
        let head = http::Request::head("http://test/").body(()).expect("well-formed");
        let answer = ask(&sender, head, Vec::new()).await.expect("answers");
        assert_eq!((answer.field("content-length"), answer.body.len()), (Some("9"), 0));
    });
}

#[test]
fn a_stalled_stream_blocks_no_other() {
    let origin = Origin::start(|connection| {
        while let Some(head) = connection.head() {
            let length = if head.contains("/large") { 8_000_000 } else { 5 };
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
            connection.send("x".repeat(length));
        }
    });
    let proxy = one_worker(&origin.config("", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let mut stalled = Vec::new();
        for _ in 0..3 {
            let (answer, _) =
                sender.clone().ready().await.expect("ready").send_request(get("/large"), true).expect("sends");
            stalled.push(answer.await.expect("a head").into_body());
        }
        for _ in 0..20 {
            assert_eq!(ask(&sender, get("/small"), Vec::new()).await.expect("answers").text(), "xxxxx");
        }
        for mut body in stalled {
            assert_eq!(read(&mut body).await.expect("whole").0.len(), 8_000_000);
        }
    });
}

#[test]
fn streams_come_in_crowds_again_and_again() {
    const CROWD: usize = 300;
    // Nobody is answered before all are there: each has a task of its own, of which fewer are kept.
    let all = std::sync::Arc::new(tokio::sync::Barrier::new(CROWD));
    let origin = Http2Origin::start(move |mut incoming| {
        let all = all.clone();
        async move {
            all.wait().await;
            let path = incoming.request.uri().path().to_owned();
            let Ok(mut send) = incoming.respond.send_response(Response::new(()), false) else { return };
            let _ = send.send_data(Bytes::from(path), true);
        }
    });
    let streams = "http2 = { max_streams = 512 }";
    let proxy = one_worker(&origin.config(streams, "", streams));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        for round in 0..3 {
            let asked: Vec<_> = (0..CROWD)
                .map(|number| {
                    let sender = sender.clone();
                    let path = format!("/{round}/{number}");
                    tokio::spawn(
                        async move { (ask(&sender, get(&path), Vec::new()).await.expect("answers").text(), path) },
                    )
                })
                .collect();
            for one in asked {
                let (text, path) = one.await.expect("no panic");
                assert_eq!(text, path);
            }
        }
    });
}

#[test]
fn fields_of_answers_go_on_as_they_came_or_as_the_route_has_them() {
    let origin = Http2Origin::start(|mut incoming| async move {
        let mut response = Response::new(());
        let fields = [("set-cookie", "a=1"), ("x-powered-by", "y"), ("set-cookie", "b=2"), ("x-request-id", "7")];
        for (name, value) in fields {
            response.headers_mut().append(name, value.parse().expect("a value"));
        }
        let _ = incoming.respond.send_response(response, true);
    });
    let edits = "response_headers = { add = { \"X-Served-By\" = \"us\" }, remove = [\"X-Powered-By\"] }";
    for (route, removed, added) in [("", Some("y"), None), (edits, None, Some("us"))] {
        let proxy = one_worker(&origin.config("", route, ""));
        run(async {
            let sender = connect(proxy.address("edge")).await;
            for _ in 0..3 {
                let answer = ask(&sender, get("/"), Vec::new()).await.expect("answers");
                let cookies: Vec<_> = answer.head.headers.get_all("set-cookie").iter().collect();
                assert_eq!(cookies, ["a=1", "b=2"]);
                let found = (answer.field("x-powered-by"), answer.field("x-served-by"), answer.field("x-request-id"));
                assert_eq!(found, (removed, added, Some("7")));
            }
        });
    }
}

#[test]
fn what_each_request_has_of_its_own_reaches_the_upstream_whole() {
    let origin = Http2Origin::start(|mut incoming| async move {
        let headers = incoming.request.headers();
        let text = ["x-request-id", "traceparent", "authorization", "x-forwarded-proto", "x-forwarded-host"]
            .map(|name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned())
            .join(" ");
        let Ok(mut send) = incoming.respond.send_response(Response::new(()), false) else { return };
        let _ = send.send_data(Bytes::from(text), true);
    });
    let proxy = one_worker(&origin.config("", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let mut ids = std::collections::HashSet::new();
        for number in 0..5 {
            let mut request = get("/");
            request.headers_mut().insert("authorization", format!("Basic {number}").parse().expect("a value"));
            let text = ask(&sender, request, Vec::new()).await.expect("answers").text();
            let told: Vec<_> = text.split(' ').collect();
            assert_eq!([told[2], told[3]], ["Basic", &number.to_string()], "{text}");
            assert!(told[0].len() == 36 && ids.insert(told[0].to_owned()), "{text}");
            assert_eq!(told[4..], ["http", "test"], "{text}");
            assert_eq!(told[1].len(), 55, "{text}");
        }
    });
}

#[test]
fn requests_of_one_connection_are_balanced_one_by_one() {
    let origins = [Http2Origin::mirror(), Http2Origin::mirror()];
    let [one, two] = origins.each_ref().map(|origin| origin.address());
    let config = origins[0].config("", "", "").replace(&format!("[\"{one}\"]"), &format!("[\"{one}\", \"{two}\"]"));
    let proxy = one_worker(&config);
    run(async {
        let sender = connect(proxy.address("edge")).await;
        for _ in 0..10 {
            ask(&sender, get("/"), Vec::new()).await.expect("answers");
        }
    });
    for address in [one, two] {
        assert_eq!(proxy.metric("onehop_endpoint_requests_total", &address.to_string()), 5.0);
    }
}
