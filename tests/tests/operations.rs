//! What an operator meets: the admin endpoint, access records, the command line, limits, epoll instead of the ring.

use std::io::Write;
use std::process::{Command, Stdio};

use onehop_tests::{Origin, Proxy, eventually, folder};

#[test]
fn the_admin_endpoint_answers() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&origin.config("", "", ""));
    let mut client = proxy.connect("edge");
    client.get("/");
    assert_eq!(proxy.admin("/live").0, 200);
    assert_eq!(proxy.admin("/ready").0, 200);
    assert_eq!(proxy.admin("/nowhere").0, 404);
    let json = |path: &str| serde_json::from_str::<serde_json::Value>(&proxy.admin(path).1).expect("JSON");
    assert_eq!(json("/config")["generation"], 1);
    assert_eq!(json("/clusters")[0]["endpoints"][0]["address"], origin.address().to_string());
    let mut connections = json("/connections");
    eventually("no core is stuck", || {
        connections = json("/connections");
        connections["stuck_cores"] == 0
    });
    assert_eq!(connections["count"], 1);
    assert_eq!(connections["connections"][0]["listener"], "edge");
    assert!(proxy.admin("/metrics").1.contains("onehop_info{"));
}

#[test]
fn a_drained_endpoint_gets_nothing_until_it_is_restored() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&origin.config("", "", ""));
    let post = |action: &str| {
        let line = proxy.said.iter().find_map(|line| line.strip_prefix("admin http://")).expect("an admin line");
        let mut admin = onehop_tests::Client::connect(line.parse().expect("an address"));
        let request = format!(
            "POST /clusters/{action}?cluster=origin&endpoint={} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            origin.address()
        );
        admin.ask(request).status
    };
    assert_eq!(post("drain"), 200);
    assert_eq!(proxy.connect("edge").get("/").status, 503);
    assert_eq!(post("restore"), 200);
    assert_eq!(proxy.connect("edge").get("/").status, 200);
    // As tools write it that encode what need not be.
    let encoded = origin.address().to_string().replace(':', "%3A");
    assert_eq!(proxy.admin_post(&format!("/clusters/drain?endpoint={encoded}&cluster=origin")).0, 200);
    assert_eq!(proxy.connect("edge").get("/").status, 503);
    let (status, why) = proxy.admin_post("/clusters/drain?cluster=orgin&endpoint=127.0.0.1:1");
    assert!(status == 404 && why.contains("no endpoint \"127.0.0.1:1\" in a cluster \"orgin\""), "{status} {why}");
    // What changes something is not done by a link.
    let (status, why) = proxy.admin(&format!("/clusters/restore?cluster=origin&endpoint={encoded}"));
    assert!(status == 405 && why.contains("POST"), "{status} {why}");
    assert_eq!(proxy.connect("edge").get("/").status, 503);
}

#[test]
fn promtool_finds_no_fault_with_the_metrics() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&origin.config("", "", ""));
    proxy.connect("edge").get("/");
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else {
        eprintln!("skipped: promtool is not installed (tests/install-peers installs it)");
        return;
    };
    promtool.stdin.take().expect("piped").write_all(proxy.admin("/metrics").1.as_bytes()).expect("writes");
    let output = promtool.wait_with_output().expect("ends");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn access_records_are_written_and_a_full_disk_stops_nothing() {
    let origin = Origin::echo();
    let path = folder().join("access.log");
    let with = |path: &str| format!("[access_log]\npath = \"{path}\"\n{}", origin.config("", "name = \"r\"", ""));
    let proxy = Proxy::start(&with(&path.display().to_string()));
    proxy.connect("edge").get("/logged?x=1");
    eventually("the record is there", || std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n')));
    let line = std::fs::read_to_string(&path).expect("readable");
    let record: serde_json::Value = serde_json::from_str(line.trim()).expect("JSON");
    assert_eq!(
        (&record["path"], &record["status"], &record["route"]),
        (&"/logged?x=1".into(), &200.into(), &"r".into())
    );
    let number = |key: &str| record[key].as_u64().expect("a number");
    assert_eq!(number("total_ns"), number("hop_ns") + number("client_wait_ns") + number("upstream_wait_ns"));
    let proxy = Proxy::start(&with("/dev/full"));
    assert_eq!(proxy.connect("edge").get("/").status, 200);
    proxy.wait_for_error("access records are lost");
    eventually("the loss is counted", || proxy.metric("onehop_access_records_failed_total", "") >= 1.0);
    assert_eq!(proxy.connect("edge").get("/").status, 200);
}

#[test]
fn the_command_line_says_what_is_wrong() {
    let origin = Origin::echo();
    let folder = folder();
    let good = folder.join("good.toml");
    std::fs::write(&good, origin.config("", "", "")).expect("writes");
    let bad = folder.join("bad.toml");
    std::fs::write(&bad, "[[listener]]\nname = \"a\"\nadress = \"127.0.0.1:1\"\n").expect("writes");
    let check = |path: &std::path::Path| Proxy::run(&["check", "--config", path.to_str().expect("text")]);
    assert_eq!(check(&good).0, 0);
    let (code, _, error) = check(&bad);
    assert_eq!(code, 1);
    assert!(
        error.contains("bad.toml:3:1: unknown key \"adress\"") && error.contains("did you mean \"address\"?"),
        "{error}"
    );
    let (code, _, error) = check(std::path::Path::new("/nonexistent.toml"));
    assert!(code == 1 && error.contains("cannot be read"), "{error}");
    let (code, _, error) = check(&folder);
    assert!(code == 1 && error.contains("bad.toml"), "a folder is read as a whole: {error}");
    // Even root cannot read a folder that is named like a file.
    std::fs::create_dir(folder.join("folder.toml")).expect("a folder");
    let (code, _, error) = check(&folder.join("folder.toml"));
    assert!(code == 1 && !error.is_empty(), "{error}");
    let (code, _, error) = Proxy::run(&["gateway", "--lisen", "x"]);
    assert!(code == 2 && error.contains("--listen"), "{error}");
    let (code, out, _) = Proxy::run(&["schema"]);
    assert!(code == 0 && out.contains("header_timeout"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("bound").to_string();
    let (code, _, error) = Proxy::run(&["gateway", "--listen", &address, "--to", "127.0.0.1:9"]);
    assert!(code == 1 && error.contains("cannot listen on") && error.contains("help: another process"), "{error}");
}

#[test]
fn a_second_instance_cannot_steal_connections() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&origin.config("", "", ""));
    let address = proxy.address("edge").to_string();
    let (code, _, error) = Proxy::run(&["gateway", "--listen", &address, "--to", "127.0.0.1:9"]);
    assert!(code == 1 && error.contains("cannot listen on"), "{error}");
}

#[test]
fn limits_refuse_and_recover() {
    let origin = Origin::start(|connection| {
        while connection.head().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = Proxy::start_with(
        &origin.config("max_connections = 5", "", "limits = { connections = 2 }"),
        &["--workers", "1"],
        None,
    );
    let mut clients: Vec<_> = (0..5).map(|_| proxy.connect("edge")).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(origin.accepted() <= 2, "the upstream limit holds");
    assert!(proxy.connect("edge").is_closed(), "the sixth is refused");
    clients.clear();
    eventually("there is room again", || proxy.connections() == 0);
    assert_eq!(proxy.connect("edge").get("/").status, 200);
}

/// A program that starts the proxy in its own way.
fn script(text: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let launcher = folder().join("launcher");
    std::fs::write(&launcher, text).expect("writes");
    std::fs::set_permissions(&launcher, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    launcher
}

#[test]
fn descriptors_that_run_out_are_waited_for() {
    let origin = Origin::echo();
    let launcher = script("#!/bin/sh\nulimit -n 60\nexec \"$@\"\n");
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], Some(&launcher));
    proxy.wait_for_error("only 60 files may be open");
    let address = proxy.address("edge");
    // They use every descriptor that is left, the admin endpoint's too, so that nothing can be asked of it now.
    let clients: Vec<_> = (0..100).map(|_| onehop_tests::Client::connect(address)).collect();
    drop(clients);
    eventually("it serves again", || onehop_tests::Client::connect(address).get("/").status == 200);
    assert!(proxy.metric("onehop_core_accept_errors_total", "") >= 1.0);
}

#[test]
fn it_works_where_the_ring_is_refused() {
    let origin = Origin::echo();
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--rung", "epoll"], None);
    assert!(proxy.said[0].contains("on epoll"), "{:?}", proxy.said);
    let mut client = proxy.connect("edge");
    for number in 0..50 {
        assert_eq!(client.get(&format!("/{number}")).text(), format!("/{number}"));
    }
    let large = "x".repeat(1_000_000);
    let response = client.ask(format!("POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{large}", large.len()));
    assert_eq!(response.field("X-Body"), Some("1000000"));
    assert!(proxy.admin("/metrics").1.contains("rung=\"epoll\""));
}

#[test]
fn nginx_is_served_through_where_it_is_installed() {
    let nginx = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| std::path::Path::new(path).exists());
    let Some(nginx) = nginx else {
        eprintln!("skipped: nginx is not installed (tests/install-peers installs it)");
        return;
    };
    let folder = folder();
    std::fs::create_dir_all(folder.join("www")).expect("a folder");
    std::fs::write(folder.join("www/index.html"), "from nginx\n").expect("writes");
    std::fs::write(folder.join("www/large"), vec![b'l'; 3_000_000]).expect("writes");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let root = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\nevents {{ }}\nhttp {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s; server {{ listen 127.0.0.1:{port}; root {root}/www; }} }}\n"
    );
    let path = folder.join("nginx.conf");
    std::fs::write(&path, config).expect("writes");
    let mut nginx =
        Command::new(nginx).arg("-c").arg(&path).arg("-p").arg(&folder).stderr(Stdio::null()).spawn().expect("starts");
    eventually("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let config = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"n\"\n[[cluster]]\nname = \"n\"\nendpoints = [\"127.0.0.1:{port}\"]\n"
    );
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect("edge");
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "from nginx\n");
        let large = client.get("/large");
        assert!(large.whole && large.body.len() == 3_000_000);
        assert_eq!(client.get("/missing").status, 404);
    }
    nginx.kill().expect("it runs");
    nginx.wait().expect("ends");
    assert_eq!(client.get("/").status, 503);
}

#[test]
fn a_panic_costs_one_connection() {
    let origin = Origin::echo();
    let launcher = script("#!/bin/sh\nONEHOP_TEST_PANIC=/panic exec \"$@\"\n");
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], Some(&launcher));
    let mut witness = proxy.connect("edge");
    assert_eq!(witness.get("/before").text(), "/before");
    let before = proxy.descriptors();
    for _ in 0..10 {
        let mut client = proxy.connect("edge");
        client.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.is_closed());
    }
    proxy.wait_for_error("panicked: asked to by /panic; the connection was closed");
    assert_eq!(witness.get("/after").text(), "/after");
    assert_eq!(proxy.metric("onehop_core_panics_total", ""), 10.0);
    eventually("only the witness is left", || proxy.connections() == 1);
    eventually("nothing leaks", || proxy.descriptors() <= before);
}

#[test]
fn addresses_of_version_6_work_on_both_sides() {
    let Ok(listener) = std::net::TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: there is no IPv6 here");
        return;
    };
    let upstream = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the proxy connects");
        let mut chunk = [0; 4096];
        let count = std::io::Read::read(&mut stream, &mut chunk).expect("a request");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n");
        stream.write_all(answer.as_bytes()).and_then(|()| stream.write_all(&chunk[..count])).expect("writes");
    });
    let proxy = Proxy::start(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"[::1]:0\"\nforwarded = true\n[[route]]\ncluster = \"six\"\n[[cluster]]\nname = \"six\"\nendpoints = [\"{upstream}\"]\n"
    ));
    let response = proxy.connect("edge").get("/");
    assert_eq!(response.status, 200, "{}", response.head);
    let seen = response.text();
    assert!(seen.contains("X-Forwarded-For: ::1\r\n") && seen.contains("for=\"[::1]\""), "{seen}");
}

#[test]
fn the_demo_tells_what_each_request_cost_and_ends() {
    let mut demo = Command::new(onehop_tests::binary())
        .args(["demo", "--requests", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(demo.stdout.take().expect("piped")));
    let mut next = |text: &str| lines.by_ref().map_while(Result::ok).find(|line| line.contains(text)).expect("told");
    let listening = next("listening edge");
    next("ready");
    let address = listening.rsplit(' ').next().expect("a word").parse().expect("an address");
    let mut client = onehop_tests::Client::connect(address);
    for path in ["/one", "/two"] {
        let response = client.get(path);
        assert!(response.text().starts_with(&format!("Hello from the origin: GET {path}")));
        assert!(response.field("server-timing").is_some_and(|timing| timing.starts_with("onehop;dur=")));
        let told = next("together");
        assert!(told.starts_with(&format!("GET {path} -> 200: gateway ")), "{told}");
        assert!(told.contains("outbound ") && told.contains("inbound "), "{told}");
    }
    assert!(demo.wait().expect("a child").success());
}
