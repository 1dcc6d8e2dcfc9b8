//! Two network namespaces, an unmodified app in each, and a sidecar that its traffic is redirected to: what goes over
//! the wire between them is mutual TLS. Needs root, `ip`, `nft`, `curl` and `python3`; skipped, and said so, without them.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use onehop_tests::net::{MARK, Net, Running, capture, contains};
use onehop_tests::pki::{Authority, Leaf, files, put};
use onehop_tests::{eventually, folder};

/// An app that answers HTTP with what it sees of its client, and one that speaks first.
const APP: &str = r#"
import http.server, socket, socketserver, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (self.path + " " + self.client_address[0] + " " + self.headers.get("x-forwarded-client-cert", "-") + "\n").encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
class Greeter(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"220 hello\n"); self.request.sendall(b"250 " + self.request.recv(100))
class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
for port, handler in ((8080, Handler), (2525, Greeter)):
    threading.Thread(target=Server(("::", port), handler).serve_forever).start()
print("up", flush=True)
"#;

struct Setting {
    net: Net,
    folder: PathBuf,
    _app: Running,
}

fn setting(number: u8, more: &str, transparent: bool) -> Option<Setting> {
    let net = match Net::new(number) {
        Ok(net) => net,
        Err(why) => {
            eprintln!("SKIPPED: network namespaces cannot be made here: {why}");
            return None;
        }
    };
    let (folder, authority) = (folder(), Authority::new("mesh"));
    put(&folder.join("bundle.pem"), authority.pem());
    for name in ["web", "api"] {
        files(&folder, name, &authority, &Leaf::svid(&format!("spiffe://mesh.test/ns/shop/sa/{name}")));
    }
    let base = |name: &str| {
        format!(
            "[runtime]\nadmin = \"127.0.0.1:9901\"\nmark = {MARK}\n\
             [identity]\ncertificate = \"{name}.pem\"\nkey = \"{name}.key\"\nbundle = \"bundle.pem\"\n\
             [sidecar]\noutbound = [\"127.0.0.1:15001\", \"[::1]:15001\"]\ninbound = [\"0.0.0.0:15006\", \"[::]:15006\"]\ntransparent = {transparent}\n"
        )
    };
    let (four, six) = (&net.four[1], &net.six[1]);
    let web = format!(
        "{}{more}[[sidecar.service]]\nname = \"api\"\naddresses = [\"{four}:8080\", \"[{six}]:8080\"]\nidentity = [\"spiffe://mesh.test/ns/shop/sa/api\"]\n\
         [[sidecar.service]]\nname = \"mail\"\naddresses = [\"{four}:2525\"]\nprotocol = \"tcp\"\n",
        base("web")
    );
    put(&folder.join("web.toml"), &web);
    put(&folder.join("api.toml"), &format!("{}[[sidecar.port]]\nport = 2525\nprotocol = \"tcp\"\n", base("api")));
    let mut app = net.spawn(1, &["python3", "-c", APP]);
    let mut line = String::new();
    BufReader::new(app.stdout.take().expect("piped")).read_line(&mut line).expect("text");
    assert_eq!(line, "up\n");
    Some(Setting { net, folder, _app: Running(app) })
}

fn exercise(number: u8, mode: &[&str], transparent: bool) {
    let Some(setting) = setting(number, "", transparent) else { return };
    let net = &setting.net;
    let url = format!("http://{}:8080/secret-path", net.four[1]);
    assert!(net.curl(&url).expect("direct").contains(" -\n"), "without a mesh");
    let inner = net.sidecar(1, &setting.folder.join("api.toml"));
    let outer = net.sidecar(0, &setting.folder.join("web.toml"));
    for side in [0, 1] {
        let mut up = vec!["up", "--mark", MARK];
        up.extend(mode);
        // Twice is once.
        net.redirect(side, &up);
        net.redirect(side, &up);
    }
    let wire = capture(net, &setting.folder.join("wire.pcap"), || {
        let answer = net.curl(&url).expect("through two sidecars");
        assert!(answer.contains("URI=spiffe://mesh.test/ns/shop/sa/web"), "{answer}");
        // What the app sees: its sidecar beside it, or, with TPROXY, the client.
        let seen = if transparent { format!(" ::ffff:{} ", net.four[0]) } else { " ::ffff:127.0.0.1 ".to_owned() };
        assert!(answer.contains(&seen), "{answer}");
        let answer = net.curl(&format!("http://[{}]:8080/secret-path", net.six[1])).expect("through two sidecars");
        assert!(answer.contains("URI=spiffe://mesh.test/ns/shop/sa/web"), "{answer}");
        assert!(
            answer.contains(&if transparent { format!(" {} ", net.six[0]) } else { " ::1 ".to_owned() }),
            "{answer}"
        );
        let script =
            format!("exec 3<>/dev/tcp/{}/2525; read -r a <&3; echo hi >&3; read -r b <&3; echo \"$a/$b\"", net.four[1]);
        assert_eq!(
            net.exec(0, &["bash", "-c", &script]).as_deref(),
            Ok("220 hello/250 hi\n"),
            "the server speaks first"
        );
    });
    if let Some(wire) = wire {
        assert!(
            wire.len() > 1000 && !contains(&wire, "secret-path") && !contains(&wire, "220 hello"),
            "it is not encrypted"
        );
    }
    eventually("both identities are in the metrics", || {
        net.metrics(1).contains("peer=\"spiffe://mesh.test/ns/shop/sa/web\"")
            && net.metrics(0).contains("peer=\"spiffe://mesh.test/ns/shop/sa/api\"")
    });
    // Not from a stranger: plain, past its own sidecar by the mark that spares a sidecar.
    let stranger = format!(
        "import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, 36, {MARK}); s.settimeout(5); \
         s.connect((\"{}\", 8080)); s.sendall(b\"GET /secret-path HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\"); print(s.recv(4096).decode())",
        net.four[1]
    );
    let direct = net.exec(0, &["python3", "-c", &stranger]).expect("an answer");
    assert!(direct.contains(" 400 ") && !direct.contains("secret-path"), "{direct}");
    // Without its sidecar nothing answers; without the client's nothing leaves.
    for gone in [inner, outer] {
        drop(gone);
        let failed = net.curl(&url);
        assert!(failed.as_deref().is_ok_and(|text| !text.contains("secret-path")) || failed.is_err(), "{failed:?}");
    }
    for side in [0, 1] {
        net.redirect(side, &["down"]);
        net.redirect(side, &["down"]);
        assert!(net.redirect(side, &["show"]).contains("nothing is redirected"));
    }
    assert!(net.curl(&url).expect("direct again").contains(" -\n"));
    let rules = net.exec(0, &["ip", "rule"]).expect("rules");
    assert!(!rules.contains("20961"), "{rules}");
}

#[test]
fn redirect_takes_unmodified_apps_into_the_mesh() {
    exercise(1, &[], false);
}

#[test]
fn tproxy_does_the_same() {
    exercise(2, &["--tproxy"], true);
}

#[test]
fn unknown_destinations_are_passed_on_or_refused_as_configured() {
    for (number, unknown, works) in [(3, "allow", true), (4, "refuse", false)] {
        let Some(setting) = setting(number, &format!("unknown = \"{unknown}\"\n"), false) else { return };
        let net = &setting.net;
        let _outer = net.sidecar(0, &setting.folder.join("web.toml"));
        net.redirect(0, &["up", "--mark", MARK, "--exclude-outbound", "9999"]);
        let script = format!("exec 3<>/dev/tcp/{}/2525 && read -r a <&3 && echo \"$a\"", net.six[1]);
        let answer = net.exec(0, &["bash", "-c", &script]);
        assert_eq!(answer.is_ok_and(|text| text.contains("220 hello")), works, "{unknown}");
        let metrics = net.metrics(0);
        assert_eq!(metrics.contains("reason=\"destination-refused\""), !works, "{metrics}");
        // The sidecar's own port is nobody's destination.
        let ourselves = net.exec(0, &["curl", "-sS", "--max-time", "5", "http://127.0.0.1:15001/"]);
        assert!(ourselves.is_err(), "{ourselves:?}");
    }
}

/// The checks of a sidecar's own cluster go where they are meant to go: if they were captured, they would be refused as an
/// unknown destination.
#[test]
fn a_sidecars_own_checks_are_not_captured() {
    let more = |address: &str| {
        format!(
            "unknown = \"refuse\"\n[[listener]]\nname = \"own\"\naddress = \"127.0.0.1:7000\"\n[[route]]\nlisteners = [\"own\"]\ncluster = \"checked\"\n\
             [[cluster]]\nname = \"checked\"\nendpoints = [\"{address}:8080\"]\npanic_threshold = 0\n\
             health = {{ http = \"/checked\", interval = \"50ms\", unhealthy = 1 }}\n"
        )
    };
    let Some(setting) = setting(5, &more("10.77.5.2"), false) else { return };
    let net = &setting.net;
    assert_eq!(net.four[1], "10.77.5.2");
    net.redirect(0, &["up", "--mark", MARK]);
    let sidecar = net.sidecar(0, &setting.folder.join("web.toml"));
    let figure = |name: &str| {
        let metrics = net.metrics(0);
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0)
    };
    eventually("checks are made", || figure("onehop_health_checks_total") >= 3.0);
    assert_eq!(figure("onehop_health_check_failures_total"), 0.0);
    let metrics = net.metrics(0);
    assert!(!metrics.contains("reason=\"destination-refused\""), "{metrics}");
    assert!(net.curl("http://127.0.0.1:7000/x").expect("an answer").starts_with("/x "));
    // What has no mark is captured all the same.
    assert!(net.curl(&format!("http://{}:2526/", net.four[1])).is_err());
    eventually("it is refused", || net.metrics(0).contains("reason=\"destination-refused\""));
    // And so are the checks of a sidecar that marks nothing.
    drop(sidecar);
    let web = std::fs::read_to_string(setting.folder.join("web.toml")).expect("readable");
    put(&setting.folder.join("unmarked.toml"), &web.replace(&format!("mark = {MARK}\n"), ""));
    let _sidecar = net.sidecar(0, &setting.folder.join("unmarked.toml"));
    eventually("they fail", || figure("onehop_health_check_failures_total") >= 1.0);
}
