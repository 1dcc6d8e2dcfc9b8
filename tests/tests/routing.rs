//! What routes match and what they do to messages, against an origin that answers with the head it got.

use onehop_tests::{Origin, Proxy};

fn start(origin: &Origin, routes: &str) -> Proxy {
    Proxy::start(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n{routes}\n[[cluster]]\nname = \"o\"\nendpoints = [\"{}\"]\n",
        origin.address()
    ))
}

fn line(head: &str) -> &str {
    head.lines().next().unwrap_or("")
}

#[test]
fn no_spelling_walks_around_a_rule() {
    let origin = Origin::mirror();
    let proxy = start(
        &origin,
        "[[route]]\npath = { prefix = \"/admin\" }\nrespond = { status = 403, text = \"no\" }\n[[route]]\ncluster = \"o\"\n",
    );
    for spelling in [
        "/admin",
        "/admin/",
        "/admin?x",
        "/a/../admin",
        "/a/%2e%2e/admin",
        "/a/.%2E/admin/x",
        "//admin",
        "/./admin",
        "/%61dmin",
        "/admin%2f",
        "/admin%2Fx",
        "/admin\\x",
        "/x/..%2fadmin",
        "/x%2f..%2f..%2fadmin",
        "///x//..//admin",
    ] {
        // A refused path ends its connection.
        let status = proxy.connect("edge").get(spelling).status;
        assert!(status == 403 || status == 400, "{spelling}: {status}");
    }
    for bad in ["/..", "/a/../../b", "/%", "/%zz", "/a%00b"] {
        let response = proxy.connect("edge").get(bad);
        assert_eq!(response.status, 400, "{bad}");
        assert!(response.field("proxy-status").is_some_and(|status| status.contains("bad-path")), "{}", response.head);
    }
    // What goes on is the path that was decided on; an encoded slash stays one, and the query is not touched.
    for (path, forwarded) in [
        ("/a/./b/../c?d=/../e", "/a/c?d=/../e"),
        ("/a%2fb/%7Ec", "/a%2Fb/~c"),
        ("/a%2fadmin", "/a%2Fadmin"),
        ("/plain?x=%zz", "/plain?x=%zz"),
    ] {
        let response = proxy.connect("edge").get(path);
        assert_eq!(line(&response.text()), format!("GET {forwarded} HTTP/1.1"), "{path}");
    }
}

#[test]
fn redirects_have_the_status_that_is_wanted() {
    const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
    let origin = Origin::mirror();
    let routes = STATUSES.map(|status| {
        format!("[[route]]\npath = {{ exact = \"/{status}\" }}\nredirect = {{ status = {status}, host = \"new.example\" }}\n")
    });
    let proxy = start(&origin, &routes.concat());
    let mut client = proxy.connect("edge");
    for status in STATUSES {
        let response = client.ask(format!("POST /{status}?q HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"));
        let location = format!("http://new.example/{status}?q");
        assert_eq!((response.status, response.field("location")), (status, Some(location.as_str())));
    }
}

#[test]
fn conditions_decide() {
    let origin = Origin::mirror();
    let named = |name: &str, conditions: &str| {
        format!("[[route]]\nname = \"{name}\"\n{conditions}\nrespond = {{ text = \"{name}\" }}\n")
    };
    let routes = [
        named("beta", "headers = { \"X-Beta\" = \"1\" }"),
        named("joined", "headers = { x-two = \"a,b\" }"),
        named("absent", "headers = { x-plain = { present = true }, x-no = { present = false } }"),
        named("pattern", "headers = { user-agent = { regex = \"curl/[0-9.]+\" } }"),
        named("version", "headers = { x-version = { prefix = \"v2.\" } }"),
        named("preview", "query = { preview = { present = true } }"),
        named("mode", "query = { mode = \"fast\" }"),
        named("numbered", "query = { n = { regex = \"[0-9]+\" } }"),
        named("begun", "query = { tag = { prefix = \"a-\" } }"),
        named("local", "path = { exact = \"/source\" }\nsource = [\"127.0.0.0/8\"]"),
        named("elsewhere", "path = { exact = \"/other\" }\nsource = [\"10.0.0.0/8\"]"),
        named("template", "path = { template = \"/users/{id}/posts\" }"),
        named("regex", "path = { regex = \"/items/[0-9]+\" }"),
        named("post", "method = \"POST\""),
        named("rest", ""),
    ];
    let proxy = start(&origin, &routes.concat());
    let mut client = proxy.connect("edge");
    let mut ask = |line: &str, fields: &str, expected: &str| {
        let response = client.ask(format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
        assert_eq!(response.text(), expected, "{line} {fields}");
    };
    ask("GET /", "x-beta: 1\r\n", "beta");
    ask("GET /", "x-beta: 2\r\n", "rest");
    // A second line cannot hide behind the first.
    ask("GET /", "x-beta: 1\r\nx-beta: 2\r\n", "rest");
    ask("GET /", "x-two: a\r\nX-Two: b\r\n", "joined");
    ask("GET /", "x-plain: x\r\n", "absent");
    ask("GET /", "x-plain: x\r\nx-no: y\r\n", "rest");
    ask("GET /", "User-Agent: curl/8.5.0\r\n", "pattern");
    ask("GET /", "User-Agent: curl/8.5.0 evil\r\n", "rest");
    ask("GET /", "X-Version: v2.1\r\n", "version");
    ask("GET /", "X-Version: xv2.1\r\n", "rest");
    ask("GET /?a=b&preview", "", "preview");
    ask("GET /?mode=fast", "", "mode");
    ask("GET /?mode=faster", "", "rest");
    ask("GET /?n=12", "", "numbered");
    ask("GET /?n=12x", "", "rest");
    ask("GET /?tag=a-1", "", "begun");
    ask("GET /?tag=b-a-1", "", "rest");
    ask("GET /source", "", "local");
    ask("GET /other", "", "rest");
    ask("GET /users/7/posts", "", "template");
    ask("GET /users//posts", "", "rest");
    ask("GET /users/7/posts/1", "", "rest");
    ask("GET /items/12", "", "regex");
    ask("GET /items/12x", "", "rest");
    ask("POST /", "", "post");
}

#[test]
fn heads_are_changed_as_the_route_says() {
    let origin = Origin::start(|connection| {
        while let Some(head) = connection.head() {
            connection.send(format!(
                "HTTP/1.1 200 OK\r\nX-Powered-By: old\r\nX-From: 1\r\nContent-Length: {}\r\n\r\n{head}",
                head.len()
            ));
        }
    });
    let proxy = start(
        &origin,
        r#"[[route]]
name = "users"
path = { template = "/users/{id}/{*rest}" }
cluster = "o"
rewrite = { path = "/v2/{id}", host = "accounts.internal" }
request_headers = { set = { "X-Account" = "{id}:{rest}", "X-Forwarded-For" = "hidden" }, add = { "X-Seen" = "{client} {route} {method}" }, remove = ["Cookie"], rename = { "X-Old" = "X-New" } }
response_headers = { set = { "X-Powered-By" = "onehop" }, rename = { "X-From" = "X-To" } }
[[route]]
path = { prefix = "/api" }
cluster = "o"
rewrite = { prefix = "/" }
"#,
    );
    let mut client = proxy.connect("edge");
    let response = client.ask(
        "GET /users/7/a/b?q=1 HTTP/1.1\r\nHost: h\r\nCookie: secret\r\nX-Old: kept\r\nx-account: forged\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
    );
    let seen = response.text();
    assert_eq!(line(&seen), "GET /v2/7?q=1 HTTP/1.1");
    for field in [
        "Host: accounts.internal",
        "X-Account: 7:a/b",
        "X-Seen: 127.0.0.1 users GET",
        "X-New: kept",
        "X-Forwarded-For: hidden",
        "X-Forwarded-Host: h",
    ] {
        assert!(seen.contains(&format!("{field}\r\n")), "{field} in {seen}");
    }
    for gone in ["Cookie", "X-Old", "forged", "1.2.3.4"] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
    assert_eq!(seen.matches("Host: ").count(), 2, "{seen}");
    assert_eq!(response.field("x-powered-by"), Some("onehop"));
    assert_eq!((response.field("x-to"), response.field("x-from")), (Some("1"), None));
    let encoded = [("/api%2Fx", "/x"), ("/api%2f@evil.example/", "/@evil.example/"), ("/api\\x", "/x")];
    for (path, expected) in
        [("/api/x", "/x"), ("/api", "/"), ("/api/?q", "/?q"), ("/api//y", "/y")].into_iter().chain(encoded)
    {
        assert_eq!(line(&client.get(path).text()), format!("GET {expected} HTTP/1.1"), "{path}");
    }
}

#[test]
fn redirects_and_fixed_responses_need_no_upstream() {
    let origin = Origin::mirror();
    let folder = onehop_tests::folder();
    std::fs::write(folder.join("page.html"), "<p>hello").expect("writes");
    let config = folder.join("onehop.toml");
    std::fs::write(
        &config,
        r#"[[listener]]
name = "edge"
address = "127.0.0.1:0"
[[route]]
path = { prefix = "/old" }
redirect = { status = 308, scheme = "https", prefix = "/new" }
[[route]]
path = { template = "/u/{name}" }
redirect = { host = "{name}.example.com", path = "/", drop_query = true }
[[route]]
path = { exact = "/page" }
respond = { file = "page.html", content_type = "text/html", status = 201 }
[[route]]
path = { exact = "/gone" }
respond = { status = 204 }
response_headers = { set = { "X-Route" = "{route}" } }
"#,
    )
    .expect("writes");
    let proxy = Proxy::start_file(config, &[], None);
    let mut client = proxy.connect("edge");
    let moved = client.get("/old/x?q=1");
    assert_eq!((moved.status, moved.field("location")), (308, Some("https://test/new/x?q=1")));
    let moved = client.get("/u/ann?q=1");
    assert_eq!((moved.status, moved.field("location")), (302, Some("http://ann.example.com/")));
    let page = client.get("/page");
    assert_eq!((page.status, page.text().as_str(), page.field("content-type")), (201, "<p>hello", Some("text/html")));
    client.send("HEAD /page HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.response_to("HEAD");
    assert_eq!((head.status, head.field("content-length")), (201, Some("8")));
    let gone = client.get("/gone");
    assert_eq!((gone.status, gone.field("content-length"), gone.field("x-route")), (204, None, Some("route-4")));
    // A body that nobody reads ends the connection, in order.
    let answered = client.ask("POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!((answered.status, answered.field("connection")), (201, Some("close")));
    assert!(client.is_closed());
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn cross_origin_requests_are_answered_as_configured() {
    let origin = Origin::start(|connection| {
        while connection.head().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = start(
        &origin,
        "[[route]]\ncluster = \"o\"\ncors = { origins = [\"https://app.example.com\"], methods = [\"PUT\"], headers = [\"X-Token\"], credentials = true, max_age = \"10m\" }\n",
    );
    let mut client = proxy.connect("edge");
    let preflight = client.ask(
        "OPTIONS /x HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example.com\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
    );
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.field("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(preflight.field("access-control-allow-methods"), Some("PUT"));
    assert_eq!(preflight.field("access-control-allow-credentials"), Some("true"));
    assert_eq!(preflight.field("access-control-max-age"), Some("600"));
    let allowed = client.ask("GET /x HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example.com\r\n\r\n");
    assert_eq!(allowed.field("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(allowed.head.to_lowercase().matches("access-control-allow-origin").count(), 1);
    let other = client.ask("GET /x HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\n\r\n");
    assert_eq!((other.status, other.field("access-control-allow-origin")), (200, None));
    assert_eq!(other.field("vary"), Some("Origin"));
    // An OPTIONS that is no preflight goes to the upstream.
    assert_eq!(client.ask("OPTIONS /x HTTP/1.1\r\nHost: a\r\n\r\n").text(), "ok");
}

#[test]
fn a_split_by_a_cookie_is_stable_and_follows_the_weights() {
    let one = Origin::start(|connection| {
        while connection.head().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1");
        }
    });
    let two = Origin::start(|connection| {
        while connection.head().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2");
        }
    });
    let proxy = Proxy::start(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\nsplit = [{{ cluster = \"a\", weight = 3 }}, {{ cluster = \"b\", weight = 1 }}]\nsplit_by = {{ cookie = \"id\" }}\n[[cluster]]\nname = \"a\"\nendpoints = [\"{}\"]\n[[cluster]]\nname = \"b\"\nendpoints = [\"{}\"]\n",
        one.address(),
        two.address()
    ));
    let mut client = proxy.connect("edge");
    let mut ones = 0;
    for user in 0..200 {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=y; id=user-{user}\r\n\r\n");
        let first = client.ask(&request).text();
        assert_eq!(client.ask(&request).text(), first, "user {user} moved");
        ones += usize::from(first == "1");
    }
    assert!((120..180).contains(&ones), "{ones} of 200");
}

#[test]
fn the_route_command_explains() {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/routing.toml");
    let ask = |arguments: &[&str]| {
        let all: Vec<&str> = ["route", "--config", config].iter().chain(arguments).copied().collect();
        let (code, out, error) = Proxy::run(&all);
        assert_eq!(code, 0, "{error}");
        out
    };
    let beta = ["GET", "http://shop.example.com/users/7?preview", "-H", "x-beta: 1", "-H", "User-Agent: Firefox"];
    assert!(ask(&beta).contains("* beta") && ask(&beta).contains("-> beta"), "{}", ask(&beta));
    let plain = ask(&["GET", "http://shop.example.com/users/7"]);
    assert!(plain.contains("header \"user-agent\" does not match") && plain.contains("-> no route: 404"), "{plain}");
    let admin = ask(&["GET", "http://x/a/../admin%2fx", "--source", "10.1.2.3"]);
    assert!(admin.contains("the path is read as /admin/x") && admin.contains("-> admin"), "{admin}");
    assert!(admin.contains("\"admin\" names a source address"), "{admin}");
    let outside = ask(&["GET", "http://x/admin"]);
    assert!(outside.contains("is not in 10.0.0.0/8") && outside.contains("-> no-admin"), "{outside}");
}
