//! What the next hop is told about the last one, and what it is not.

use onehop_tests::{Origin, Proxy};

fn forwarded(listener: &str, request: &str) -> String {
    let origin = Origin::mirror();
    let proxy = Proxy::start(&origin.config(listener, "", ""));
    let response = proxy.connect("edge").ask(request);
    assert_eq!(response.status, 200, "{}", response.head);
    response.text()
}

fn field<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
}

#[test]
fn fields_of_this_hop_go_and_ours_come() {
    let head = forwarded(
        "",
        "GET /p?q=1 HTTP/1.1\r\nHost: Shop.example:81\r\nx-KEPT-case: 1\r\nConnection: X-Hop, keep-alive, Host\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: trailers, gzip\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: lie\r\nX-Request-Id: mine\r\nVia: 1.1 other\r\n\r\n",
    );
    assert!(head.starts_with("GET /p?q=1 HTTP/1.1\r\n"), "{head}");
    for gone in ["X-Hop", "Keep-Alive", "Proxy-Connection"] {
        assert!(field(&head, gone).is_empty(), "{gone} in {head}");
    }
    assert_eq!(field(&head, "Host"), ["Shop.example:81"]);
    assert_eq!(field(&head, "x-KEPT-case"), ["1"]);
    assert_eq!((field(&head, "TE"), field(&head, "Connection")), (vec!["trailers"], vec!["TE"]));
    assert_eq!(field(&head, "X-Forwarded-For"), ["1.2.3.4, 127.0.0.1"]);
    assert_eq!(field(&head, "X-Forwarded-Proto"), ["http"]);
    assert_eq!(field(&head, "X-Forwarded-Host"), ["Shop.example:81"]);
    assert!(field(&head, "Via")[0].starts_with("1.1 other, 1.1 onehop-"), "{head}");
    assert_eq!(field(&head, "X-Request-Id")[0].len(), 36);
    assert_eq!(field(&head, "traceparent")[0].len(), 55);
}

#[test]
fn trusted_proxies_are_believed_and_ids_kept_where_configured() {
    let head = forwarded(
        "trusted_hops = 1\nrequest_id = \"keep\"\nforwarded = true",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Request-Id: mine\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
    );
    assert_eq!(field(&head, "X-Forwarded-Proto"), ["https"]);
    assert_eq!(field(&head, "X-Request-Id"), ["mine"]);
    assert_eq!(field(&head, "Forwarded"), ["for=127.0.0.1;proto=http"]);
    assert_eq!(field(&head, "traceparent"), ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]);
}

/// The id that the upstream gets is what texts call by its name, in both directions.
#[test]
fn a_requests_id_can_be_written_into_fields() {
    let fields = "request_headers = { set = { X-Trace = \"<{request_id}>\" } }\nresponse_headers = { set = { X-Trace = \"{request_id}\" } }";
    for (listener, brought) in [("", None), ("request_id = \"keep\"", None), ("request_id = \"keep\"", Some("mine"))] {
        let origin = Origin::mirror();
        let proxy = Proxy::start(&origin.config(listener, fields, ""));
        let mut client = proxy.connect("edge");
        let mut seen = Vec::new();
        for _ in 0..2 {
            let id = brought.map(|id| format!("X-Request-Id: {id}\r\n")).unwrap_or_default();
            let response = client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{id}\r\n"));
            let head = response.text();
            let id = field(&head, "X-Request-Id")[0];
            assert_eq!(field(&head, "X-Trace"), [format!("<{id}>")]);
            assert_eq!(response.field("x-trace"), Some(id));
            seen.push(id.to_owned());
        }
        match brought {
            Some(id) => assert_eq!(seen, [id, id]),
            None => assert!(seen[0] != seen[1] && seen.iter().all(|id| id.len() == 36), "{seen:?}"),
        }
    }
}

#[test]
fn absolute_form_becomes_origin_form() {
    let head = forwarded("", "GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "Host"), ["a"]);
    // Without a path: of the server as a whole (RFC 9112 3.2.4).
    let head = forwarded("", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("OPTIONS * HTTP/1.1\r\n"), "{head}");
    let head = forwarded("", "OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("OPTIONS / HTTP/1.1\r\n"), "{head}");
}

#[test]
fn server_timing_says_what_the_hop_took() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&origin.config("server_timing = true", "", ""));
    let response = proxy.connect("edge").get("/");
    assert!(
        response.field("server-timing").is_some_and(|timing| timing.starts_with("onehop;dur=")),
        "{}",
        response.head
    );
}

#[test]
fn a_request_that_comes_back_is_refused() {
    // The gateway's upstream is the gateway itself.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let config = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:{port}\"\n[[route]]\ncluster = \"me\"\n[[cluster]]\nname = \"me\"\nendpoints = [\"localhost:{port}\"]\n"
    );
    let proxy = Proxy::start(&config);
    onehop_tests::eventually("the name is resolved", || proxy.admin("/clusters").1.contains("127.0.0.1"));
    let response = proxy.connect("edge").get("/");
    assert_eq!(response.status, 508, "{}", response.head);
}
