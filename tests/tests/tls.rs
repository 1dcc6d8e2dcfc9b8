//! TLS with clients and with upstreams, as clients that we did not write see it.

use std::process::Command;

use onehop_tests::pki::{Authority, Leaf, files, put};
use onehop_tests::{Client, Origin, Proxy, Tls, eventually, folder};

fn config(origin: &Origin, tls: &str) -> String {
    origin.config(&format!("tls = {tls}"), "", "")
}

/// Runs a program to its end and returns what it said on both outputs.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(std::process::Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn curl_and_openssl_shake_hands_in_both_versions_and_resume() {
    let (folder, authority) = (folder(), Authority::new("root"));
    put(&folder.join("ca.pem"), authority.pem());
    files(&folder, "server", &authority, &Leaf::server(&["server.test"]));
    let origin = Origin::echo();
    let proxy = Proxy::start_in(&folder, &config(&origin, "{ certificate = \"server.pem\", key = \"server.key\" }"));
    let address = proxy.address("edge");
    let (ca, port) = (folder.join("ca.pem"), address.port());
    let ca = ca.to_str().expect("text");
    for version in ["--tlsv1.2", "--tlsv1.3"] {
        let max = if version == "--tlsv1.2" { "1.2" } else { "1.3" };
        let url = format!("https://server.test:{port}/curl");
        let resolve = format!("server.test:{port}:127.0.0.1");
        let answer =
            said("curl", &["-sS", version, "--tls-max", max, "--cacert", ca, "--resolve", &resolve, &url, &url]);
        assert_eq!(answer, "/curl/curl", "{version}");
    }
    let connect = format!("127.0.0.1:{port}");
    let session = folder.join("session");
    let session = session.to_str().expect("text");
    for version in ["-tls1_2", "-tls1_3"] {
        let base = [
            "s_client",
            "-connect",
            &connect,
            "-servername",
            "server.test",
            "-CAfile",
            ca,
            version,
            "-alpn",
            "http/1.1",
        ];
        let mut first = base.to_vec();
        first.extend(["-sess_out", session, "-ign_eof"]);
        // The tickets of TLS 1.3 come with the first answer, so one is asked for.
        let script = format!(
            "printf 'GET /o HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' | openssl {}",
            first.join(" ")
        );
        let once = said("sh", &["-c", &script]);
        assert!(once.contains("Verify return code: 0 (ok)") && once.contains("ALPN protocol: http/1.1"), "{once}");
        assert!(once.contains("HTTP/1.1 200 OK"), "{once}");
        let mut second = base.to_vec();
        second.extend(["-sess_in", session]);
        let again = said("openssl", &second);
        assert!(again.contains("Reused, "), "{version}: {again}");
    }
    eventually("both kinds are counted", || {
        proxy.metric("onehop_listener_tls_handshakes_total", "kind=\"resumed\"") >= 2.0
            && proxy.metric("onehop_listener_tls_handshakes_total", "kind=\"full\"") >= 4.0
    });
}

#[test]
fn the_name_chooses_the_certificate_and_misdirected_requests_are_told() {
    let (folder, authority) = (folder(), Authority::new("root"));
    let mut certificates = Vec::new();
    for (name, leaf) in [
        ("default", Leaf::server(&["default.test"])),
        ("exact", Leaf::server(&["a.wild.test"])),
        ("wild", Leaf { rsa: true, ..Leaf::server(&["*.wild.test"]) }),
    ] {
        files(&folder, name, &authority, &leaf);
        certificates.push(format!("{{ certificate = \"{name}.pem\", key = \"{name}.key\" }}"));
    }
    let origin = Origin::echo();
    let proxy =
        Proxy::start_in(&folder, &config(&origin, &format!("{{ certificates = [{}] }}", certificates.join(", "))));
    let address = proxy.address("edge");
    let shown = |name: &str| {
        Tls::new(None).get(address, name, "/").map(|(client, ..)| client.certificate()).expect("shakes hands")
    };
    let (default, exact, wild) = (shown("default.test"), shown("a.wild.test"), shown("b.wild.test"));
    assert!(default != exact && exact != wild && wild != default);
    assert_eq!(shown("unknown.test"), default);
    assert_eq!(shown("b.c.wild.test"), default, "a wildcard stands for one label");

    let mut client = Tls::new(None).connect(address, "a.wild.test").expect("shakes hands");
    assert_eq!(client.get("a.wild.test", "/").expect("an answer").0, 200);
    assert_eq!(client.get("b.wild.test:443", "/").expect("an answer").0, 421);
    assert_eq!(client.get("A.Wild.test", "/").expect("it goes on").0, 200);
}

#[test]
fn clients_show_certificates_that_are_good_and_not_revoked() {
    let (folder, authority) = (folder(), Authority::new("root"));
    put(&folder.join("ca.pem"), authority.pem());
    put(&folder.join("crl.pem"), &authority.revoke(&[66]));
    files(&folder, "server", &authority, &Leaf::server(&["server.test"]));
    let good = files(&folder, "good", &authority, &Leaf::server(&["client.test"]));
    let revoked = files(&folder, "revoked", &authority, &Leaf { serial: 66, ..Leaf::server(&["client.test"]) });
    let foreign = files(&folder, "foreign", &Authority::new("other"), &Leaf::server(&["client.test"]));
    let late = files(&folder, "late", &authority, &Leaf { from: -9, until: -3, ..Leaf::server(&["client.test"]) });
    let early = files(&folder, "early", &authority, &Leaf { from: 9, until: 30, ..Leaf::server(&["client.test"]) });
    let origin = Origin::echo();
    let tls = "{ certificate = \"server.pem\", key = \"server.key\", client = \"required\", client_ca = \"ca.pem\", crl = [\"crl.pem\"] }";
    let proxy = Proxy::start_in(&folder, &config(&origin, tls));
    let address = proxy.address("edge");
    let ask = |shown: Option<&(std::path::PathBuf, std::path::PathBuf)>| {
        Tls::new(shown.map(|(certificate, key)| (certificate.as_path(), key.as_path())))
            .get(address, "server.test", "/x")
            .map(|(_, status, _)| status)
    };
    assert_eq!(ask(Some(&good)), Ok(200));
    for (shown, reason) in [
        (None, "no-certificate"),
        (Some(&revoked), "revoked"),
        (Some(&foreign), "unknown-issuer"),
        (Some(&late), "expired"),
        (Some(&early), "not-yet-valid"),
    ] {
        assert!(ask(shown).is_err(), "{reason}");
        eventually(reason, || proxy.metric("onehop_listener_tls_failures_total", &format!("\"{reason}\"")) >= 1.0);
        proxy.wait_for_error(&format!("({reason})"));
    }
    // Resumed sessions are let in, too.
    let tls = Tls::new(Some((&good.0, &good.1)));
    assert!(tls.get(address, "server.test", "/").is_ok());
    let (client, status, _) = tls.get(address, "server.test", "/").expect("an answer");
    assert!(client.resumed() && status == 200);
}

#[test]
fn the_wrong_protocol_is_told_at_once() {
    let (folder, authority) = (folder(), Authority::new("root"));
    files(&folder, "server", &authority, &Leaf::server(&["server.test"]));
    let origin = Origin::echo();
    let text = config(&origin, "{ certificate = \"server.pem\", key = \"server.key\", handshake_timeout = \"2s\" }")
        + "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n";
    let proxy = Proxy::start_in(&folder, &text);
    let response = Client::connect(proxy.address("edge")).get("/");
    assert_eq!(response.status, 400);
    assert!(response.text().contains("https://"), "{}", response.text());
    let refused = Tls::new(None).connect(proxy.address("plain"), "server.test");
    assert!(refused.is_err(), "an answer in plain text is no TLS");
    // Half a hello, and a hello byte by byte.
    let mut half = Client::connect(proxy.address("edge"));
    half.send([22, 3, 1, 2, 0, 1, 0, 1]);
    assert!(half.read(1).is_empty(), "closed when its time is over");
    eventually("counted", || proxy.metric("onehop_listener_tls_failures_total", "\"timeout\"") >= 1.0);
    let mut oversized = Client::connect(proxy.address("edge"));
    oversized.send([22, 3, 1, 0xff, 0xff, 1, 0, 1]);
    assert!(oversized.read(7).len() <= 7);
    eventually("counted", || proxy.metric("onehop_listener_tls_failures_total", "\"malformed\"") >= 1.0);
}

#[test]
fn a_thousand_handshakes_at_once_starve_nobody() {
    let (folder, authority) = (folder(), Authority::new("root"));
    files(&folder, "server", &authority, &Leaf::server(&["server.test"]));
    let origin = Origin::echo();
    let text = config(&origin, "{ certificate = \"server.pem\", key = \"server.key\", handshake_timeout = \"60s\" }")
        + "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n";
    let proxy = Proxy::start_in(&folder, &text);
    let (edge, plain) = (proxy.address("edge"), proxy.address("plain"));
    let storm: Vec<_> = (0..20)
        .map(|_| {
            std::thread::spawn(move || {
                let tls = Tls::new(None);
                let clients: Vec<_> =
                    (0..50).map(|_| tls.connect(edge, "server.test").expect("shakes hands")).collect();
                clients
                    .into_iter()
                    .map(|mut client| client.get("server.test", "/s").expect("an answer").0)
                    .filter(|status| *status == 200)
                    .count()
            })
        })
        .collect();
    let mut client = Client::connect(plain);
    for _ in 0..200 {
        assert_eq!(client.get("/quick").status, 200);
    }
    assert_eq!(storm.into_iter().map(|thread| thread.join().expect("no panic")).sum::<usize>(), 1000);
}

#[test]
fn upstreams_are_verified_by_default_and_by_name() {
    let (folder, authority) = (folder(), Authority::new("root"));
    put(&folder.join("ca.pem"), authority.pem());
    files(&folder, "server", &authority, &Leaf::server(&["server.test"]));
    let origin = Origin::echo();
    let inner = Proxy::start_in(&folder, &config(&origin, "{ certificate = \"server.pem\", key = \"server.key\" }"));
    let to = inner.address("edge");
    let outer = |tls: &str| {
        let text = format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"web\"\nretry = {{ attempts = 0 }}\n\
             [[cluster]]\nname = \"web\"\nendpoints = [\"{to}\"]\ntls = {tls}\n"
        );
        let path = folder.join("outer.toml");
        std::fs::write(&path, text).expect("writes");
        Proxy::start_file(path, &[], None)
    };
    for (tls, status, reason) in [
        ("{ ca = \"ca.pem\", server_name = \"server.test\" }", 200, ""),
        ("{ verify = false }", 200, ""),
        ("{ ca = \"ca.pem\", expect = [\"server.test\"] }", 200, ""),
        ("{}", 503, "unknown-issuer"),
        ("{ ca = \"ca.pem\" }", 503, "wrong-name"),
        ("{ ca = \"ca.pem\", server_name = \"other.test\" }", 503, "wrong-name"),
        ("{ ca = \"ca.pem\", expect = [\"spiffe://td/a\"] }", 503, "wrong-name"),
    ] {
        let proxy = outer(tls);
        let response = proxy.connect("edge").get("/up");
        assert_eq!(response.status, status, "{tls}: {}", response.head);
        if !reason.is_empty() {
            assert!(response.head.contains("tls-failed"), "{}", response.head);
            assert!(proxy.metric("onehop_cluster_tls_failures_total", &format!("\"{reason}\"")) >= 1.0, "{tls}");
        }
    }
}

/// An endpoint whose handshakes fail is as good as one that cannot be connected to.
#[test]
fn an_endpoint_whose_handshakes_fail_is_ejected() {
    let (folder, trusted, other) = (folder(), Authority::new("root"), Authority::new("other"));
    put(&folder.join("ca.pem"), trusted.pem());
    files(&folder, "good", &trusted, &Leaf::server(&["server.test"]));
    files(&folder, "bad", &other, &Leaf::server(&["server.test"]));
    let origin = Origin::echo();
    let inner = |name: &str| {
        // A file of its own: it is watched.
        let path = folder.join(format!("{name}.toml"));
        let tls = format!("{{ certificate = \"{name}.pem\", key = \"{name}.key\" }}");
        std::fs::write(&path, config(&origin, &tls)).expect("writes");
        Proxy::start_file(path, &[], None)
    };
    let (good, bad) = (inner("good"), inner("bad"));
    let text = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"web\"\n\
         [[cluster]]\nname = \"web\"\nbalance = \"round-robin\"\nendpoints = [\"{}\", \"{}\"]\ntls = {{ ca = \"ca.pem\", server_name = \"server.test\" }}\n\
         outlier = {{ consecutive_connect_failures = 2, ejection = \"600s\" }}\n",
        good.address("edge"),
        bad.address("edge")
    );
    let path = folder.join("outer.toml");
    std::fs::write(&path, text).expect("writes");
    let outer = Proxy::start_file(path, &[], None);
    let state =
        format!("endpoint=\"{}\",state=\"ejected\",reason=\"consecutive-connect-failures\"", bad.address("edge"));
    onehop_tests::eventually("it is ejected", || {
        // Nobody has read the request: it goes to the other one.
        let response = outer.connect("edge").get("/");
        assert_eq!(response.status, 200, "{}", response.head);
        outer.metric("onehop_endpoint_state", &state) == 1.0
    });
}

#[test]
fn what_does_not_fit_together_is_refused_with_the_files_name() {
    let (folder, authority) = (folder(), Authority::new("root"));
    files(&folder, "one", &authority, &Leaf::server(&["one.test"]));
    files(&folder, "two", &authority, &Leaf::server(&["two.test"]));
    put(&folder.join("empty.pem"), "");
    let origin = Origin::echo();
    for (tls, expected) in [
        ("{ certificate = \"one.pem\", key = \"two.key\" }", "two.key does not belong to the certificate"),
        ("{ certificate = \"none.pem\", key = \"two.key\" }", "none.pem cannot be read"),
        ("{ certificate = \"empty.pem\", key = \"two.key\" }", "empty.pem holds no certificate"),
        ("{ certificate = \"one.pem\", key = \"one.pem\" }", "is no PEM file of a private key"),
        ("{ certificate = \"one.pem\" }", "a certificate and its key go together"),
        ("{}", "TLS needs a certificate"),
        (
            "{ certificate = \"one.pem\", key = \"one.key\", client = \"required\" }",
            "whose certificates may clients show?",
        ),
        ("{ identity = true }", "this process has no identity"),
    ] {
        let path = folder.join("wrong.toml");
        std::fs::write(&path, config(&origin, tls)).expect("writes");
        let (code, _, error) = Proxy::run(&["check", "--config", path.to_str().expect("text")]);
        assert!(code == 1 && error.contains(expected), "{tls}: {error}");
        assert!(error.contains("wrong.toml:4:"), "{tls}: {error}");
    }
}

#[test]
fn passthrough_goes_by_the_server_name_without_decrypting() {
    let (folder, authority) = (folder(), Authority::new("root"));
    let origin = Origin::echo();
    let inner = |name: &str| {
        files(&folder, name, &authority, &Leaf::server(&[&format!("{name}.test")]));
        let path = folder.join(format!("{name}.toml"));
        let tls = format!("{{ certificate = \"{name}.pem\", key = \"{name}.key\" }}");
        std::fs::write(&path, config(&origin, &tls)).expect("writes");
        Proxy::start_file(path, &[], None)
    };
    let (one, two) = (inner("one"), inner("two"));
    let proxy = Proxy::start_in(
        &folder,
        &format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\nlayer = \"tcp\"\n\
             sni = [{{ name = \"one.test\", cluster = \"one\" }}, {{ name = \"*.two.test\", cluster = \"two\" }}]\n\
             [[cluster]]\nname = \"one\"\nendpoints = [\"{}\"]\n[[cluster]]\nname = \"two\"\nendpoints = [\"{}\"]\n",
            one.address("edge"),
            two.address("edge")
        ),
    );
    let shown = |address, name: &str| Tls::new(None).get(address, name, "/").map(|(client, ..)| client.certificate());
    let address = proxy.address("edge");
    assert_eq!(shown(address, "one.test"), shown(one.address("edge"), "x.test"));
    assert_eq!(shown(address, "a.two.test"), shown(two.address("edge"), "x.test"));
    assert!(shown(address, "other.test").is_err());
    let mut plain = Client::connect(address);
    plain.send("GET / HTTP/1.1\r\n\r\n");
    assert!(plain.read(1).is_empty(), "no TLS, no name: nothing to go by");
}

/// What a handshake tells decides and is passed on: the server name as a condition of routes, and the identity of the client's
/// certificate as a value in fields and as the key of a rate.
#[test]
fn routes_know_the_server_name_and_the_clients_identity() {
    let (folder, authority) = (folder(), Authority::new("root"));
    put(&folder.join("ca.pem"), authority.pem());
    files(&folder, "server", &authority, &Leaf::server(&["one.test", "x.two.test"]));
    let id = |name: &str| format!("spiffe://mesh.test/ns/shop/sa/{name}");
    let svid = |name: &str| files(&folder, name, &authority, &Leaf::svid(&id(name)));
    let (web, batch) = (svid("web"), svid("batch"));
    let origin = Origin::mirror();
    let tls = "{ certificate = \"server.pem\", key = \"server.key\", client = \"optional\", client_ca = \"ca.pem\" }";
    let text = config(&origin, tls)
        + "[[route]]\nname = \"by-name\"\npath = { exact = \"/name\" }\nsni = [\"*.two.test\"]\nrespond = { text = \"two\" }\n\
           [[route]]\nname = \"told\"\npath = { exact = \"/told\" }\ncluster = \"origin\"\nrequest_headers = { set = { \"X-Caller\" = \"<{identity}>\" } }\n\
           [[route]]\nname = \"limited\"\npath = { exact = \"/limited\" }\nrespond = { text = \"ok\" }\nrate_limits = [{ requests = 2, per = \"1h\", by = { identity = true } }]\n";
    let proxy = Proxy::start_in(&folder, &text);
    let ask = |shown: Option<&(std::path::PathBuf, std::path::PathBuf)>, name: &str, path: &str| {
        let tls = Tls::new(shown.map(|(certificate, key)| (certificate.as_path(), key.as_path())));
        tls.get(proxy.address("edge"), name, path).map(|(_, status, body)| (status, body)).expect("an answer")
    };
    assert_eq!(ask(None, "x.two.test", "/name"), (200, "two".to_owned()));
    assert!(ask(None, "one.test", "/name").1.starts_with("GET /name "));
    for (shown, caller) in [(Some(&web), id("web")), (Some(&batch), id("batch")), (None, String::new())] {
        let (status, head) = ask(shown, "one.test", "/told");
        assert!(status == 200 && head.contains(&format!("X-Caller: <{caller}>\r\n")), "{head}");
        // Each has its own allowance, also who has shown nothing.
        let statuses = [(); 3].map(|()| ask(shown, "one.test", "/limited").0);
        assert_eq!(statuses, [200, 200, 429], "{caller}");
    }
}
