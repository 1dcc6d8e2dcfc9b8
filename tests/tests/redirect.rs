//! Two network namespaces, an unmodified app in each, and a sidecar that its traffic is redirected to: what goes over
//! the wire between them is mutual TLS. Needs root, `ip`, `nft`, `curl` and `python3`; skipped, and said so, without them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use onehop_tests::pki::{Authority, Leaf, files, put};
use onehop_tests::{binary, eventually, folder};

const MARK: &str = "119";

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two namespaces joined by a veth pair; gone with the test.
struct Net {
    names: [String; 2],
    four: [String; 2],
    six: [String; 2],
}

fn run(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(arguments[0]).args(&arguments[1..]).output().map_err(|error| error.to_string())?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(text) }
}

impl Net {
    fn new(number: u8) -> Result<Net, String> {
        for tool in [&["ip", "-V"][..], &["nft", "--version"], &["curl", "--version"], &["python3", "--version"]] {
            run(tool).map_err(|error| format!("{}: {error}", tool[0]))?;
        }
        let id = format!("{}{number}", std::process::id() % 10_000);
        let net = Net {
            names: [format!("oh-a{id}"), format!("oh-b{id}")],
            four: [format!("10.77.{number}.1"), format!("10.77.{number}.2")],
            six: [format!("fd77:{number}::1"), format!("fd77:{number}::2")],
        };
        let [a, b] = &net.names;
        let (va, vb) = (format!("va{id}"), format!("vb{id}"));
        run(&["ip", "netns", "add", a])?;
        run(&["ip", "netns", "add", b])?;
        run(&["ip", "link", "add", &va, "netns", a, "type", "veth", "peer", "name", &vb, "netns", b])?;
        for (at, (name, link)) in [(a, &va), (b, &vb)].into_iter().enumerate() {
            run(&["ip", "-n", name, "addr", "add", &format!("{}/24", net.four[at]), "dev", link])?;
            run(&["ip", "-n", name, "addr", "add", &format!("{}/64", net.six[at]), "dev", link, "nodad"])?;
            run(&["ip", "-n", name, "link", "set", link, "up"])?;
            run(&["ip", "-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(net)
    }

    fn exec(&self, side: usize, arguments: &[&str]) -> Result<String, String> {
        let mut all = vec!["ip", "netns", "exec", &self.names[side]];
        all.extend(arguments);
        run(&all)
    }

    fn spawn(&self, side: usize, arguments: &[&str]) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[side]]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts")
    }

    /// A sidecar, once it is ready.
    fn sidecar(&self, side: usize, config: &Path) -> Running {
        let binary = binary().to_str().expect("text");
        let mut child = self.spawn(side, &[binary, "sidecar", "--config", config.to_str().expect("text")]);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line == "ready");
        assert!(ready, "the sidecar does not start");
        std::thread::spawn(move || lines.for_each(drop));
        Running(child)
    }

    fn redirect(&self, side: usize, arguments: &[&str]) -> String {
        let mut all = vec![binary().to_str().expect("text"), "redirect"];
        all.extend(arguments);
        self.exec(side, &all).unwrap_or_else(|error| panic!("redirect {arguments:?}: {error}"))
    }

    fn curl(&self, url: &str) -> Result<String, String> {
        self.exec(0, &["curl", "-sS", "-g", "--max-time", "5", url])
    }

    fn metrics(&self, side: usize) -> String {
        self.exec(side, &["curl", "-sS", "--max-time", "5", "http://127.0.0.1:9901/metrics"]).unwrap_or_default()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = run(&["ip", "netns", "del", name]);
        }
    }
}

/// An app that answers HTTP with what it sees of its client, and one that speaks first.
const APP: &str = r#"
import http.server, socket, socketserver, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (self.path + " " + self.headers.get("x-forwarded-client-cert", "-") + "\n").encode()
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

/// What passes on the wire, as text.
fn capture(net: &Net, file: &Path, during: impl FnOnce()) -> Option<Vec<u8>> {
    let mut child = Command::new("ip")
        .args([
            "netns",
            "exec",
            &net.names[1],
            "tcpdump",
            "-U",
            "-i",
            "any",
            "-w",
            file.to_str().expect("text"),
            "tcp and not host 127.0.0.1 and not host ::1",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    if !lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on")) {
        eprintln!("SKIPPED: the capture, since tcpdump does not run here");
        during();
        return None;
    }
    std::thread::spawn(move || lines.for_each(drop));
    during();
    let _ = run(&["kill", "-INT", &child.id().to_string()]);
    child.wait().expect("ends");
    std::fs::read(file).ok()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn exercise(number: u8, mode: &[&str], transparent: bool) {
    let Some(setting) = setting(number, "", transparent) else { return };
    let net = &setting.net;
    let url = format!("http://{}:8080/secret-path", net.four[1]);
    assert!(net.curl(&url).expect("direct").starts_with("/secret-path -"), "without a mesh");
    let mut inner = net.sidecar(1, &setting.folder.join("api.toml"));
    let _outer = net.sidecar(0, &setting.folder.join("web.toml"));
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
        let answer = net.curl(&format!("http://[{}]:8080/secret-path", net.six[1])).expect("through two sidecars");
        assert!(answer.contains("URI=spiffe://mesh.test/ns/shop/sa/web"), "{answer}");
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
    // Without its sidecar nothing answers.
    let _ = inner.0.kill();
    let _ = inner.0.wait();
    let failed = net.curl(&url);
    assert!(failed.as_deref().is_ok_and(|text| !text.contains("secret-path")) || failed.is_err(), "{failed:?}");
    for side in [0, 1] {
        net.redirect(side, &["down"]);
        net.redirect(side, &["down"]);
        assert!(net.redirect(side, &["show"]).contains("nothing is redirected"));
    }
    assert!(net.curl(&url).expect("direct again").starts_with("/secret-path -"));
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
