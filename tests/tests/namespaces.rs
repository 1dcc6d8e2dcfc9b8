//! Programs that know nothing of a mesh, each in a network namespace with a sidecar: Redis, PostgreSQL, nginx, an app on a
//! Unix socket, and the example of `configs/`. Each part is skipped, and said so, where its program is not installed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use onehop_tests::net::{MARK, Net, Running, capture, contains, run};
use onehop_tests::pki::put;
use onehop_tests::{Proxy, eventually, folder};

fn net(number: u8) -> Option<Net> {
    Net::new(number).map_err(|why| eprintln!("SKIPPED: network namespaces cannot be made here: {why}")).ok()
}

fn installed(program: &str) -> bool {
    let found = run(&["sh", "-c", &format!("command -v {program}")]).is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

/// A program with processes of its own, which end with it only if it is asked to end.
struct App(Child);

impl Drop for App {
    fn drop(&mut self) {
        let _ = run(&["kill", &self.0.id().to_string()]);
        let _ = self.0.wait();
    }
}

/// A program in the second namespace.
fn app(net: &Net, arguments: &[&str]) -> App {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &net.names[1]]).args(arguments);
    App(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"))
}

/// The identities of `web` and `api` in `folder/certs`, and a configuration that shows one.
fn identities(folder: &Path) {
    let to = folder.join("certs");
    let arguments = ["certs", to.to_str().expect("text"), "--service", "web", "--service", "api"];
    assert_eq!(Proxy::run(&arguments).0, 0);
}

fn config(name: &str, more: &str) -> String {
    format!(
        "[runtime]\nadmin = \"127.0.0.1:9901\"\nmark = {MARK}\n\
         [identity]\ncertificate = \"certs/{name}/cert.pem\"\nkey = \"certs/{name}/key.pem\"\nbundle = \"certs/bundle.pem\"\n\
         [sidecar]\noutbound = [\"127.0.0.1:15001\", \"[::1]:15001\"]\ninbound = [\"0.0.0.0:15006\", \"[::]:15006\"]\n{more}"
    )
}

fn both_up(net: &Net) {
    for side in [0, 1] {
        net.redirect(side, &["up", "--mark", MARK]);
    }
}

fn redis(net: &Net, folder: &Path) -> Option<App> {
    if !installed("redis-server") {
        return None;
    }
    let folder = folder.to_str().expect("text");
    let all = ["redis-server", "--port", "6379", "--bind", "127.0.0.1", "::1", "--save", "", "--dir", folder];
    Some(app(net, &all))
}

fn nginx(net: &Net, folder: &Path) -> Option<App> {
    if !installed("nginx") {
        return None;
    }
    let path = folder.display();
    let text = format!(
        "daemon off; worker_processes 1; pid {path}/nginx.pid; error_log {path}/nginx.err; events {{}}\n\
         http {{ access_log off; client_body_temp_path {path}/t1; proxy_temp_path {path}/t2; fastcgi_temp_path {path}/t3; \
         uwsgi_temp_path {path}/t4; scgi_temp_path {path}/t5;\n\
         server {{ listen 127.0.0.1:80; listen [::1]:80; return 200 \"nginx $remote_addr $host$uri\\n\"; }}\n\
         server {{ listen unix:{path}/app.sock; return 200 \"socket $uri\\n\"; }} }}\n"
    );
    put(&folder.join("nginx.conf"), &text);
    let file = folder.join("nginx.conf");
    Some(app(net, &["nginx", "-p", folder.to_str().expect("text"), "-c", file.to_str().expect("text")]))
}

/// PostgreSQL does not run as root, so that it takes a user of its own.
fn postgres(net: &Net, folder: &Path) -> Option<App> {
    if !installed("initdb") || !installed("psql") || run(&["id", "postgres"]).is_err() {
        return None;
    }
    let data = folder.join("pg");
    std::fs::create_dir_all(&data).expect("a folder");
    let data = data.to_str().expect("text");
    run(&["chown", "postgres", data]).expect("root");
    let made = run(&["runuser", "-u", "postgres", "--", "initdb", "-D", data, "-A", "trust", "--no-sync"]);
    made.unwrap_or_else(|error| panic!("initdb: {error}"));
    let settings = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", data];
    let mut all = vec!["runuser", "-u", "postgres", "--", "postgres", "-D", data];
    all.extend(settings);
    Some(app(net, &all))
}

#[test]
fn unmodified_programs_talk_through_two_sidecars() {
    let Some(net) = net(5) else { return };
    let folder = folder();
    identities(&folder);
    let (redis, nginx, postgres) = (redis(&net, &folder), nginx(&net, &folder), postgres(&net, &folder));
    let address = &net.four[1];
    let unix = folder.join("app.sock");
    let ports = format!("[[sidecar.port]]\nport = 8081\napp = \"unix:{}\"\n", unix.display());
    put(&folder.join("api.toml"), &config("api", &ports));
    let destinations = [6379, 5432, 80, 8081].map(|port| format!("\"{address}:{port}\", \"[{}]:{port}\"", net.six[1]));
    let service = format!(
        "[[sidecar.service]]\nname = \"api\"\naddresses = [{}]\nidentity = [\"spiffe://example.org/ns/default/sa/api\"]\n",
        destinations.join(", ")
    );
    put(&folder.join("web.toml"), &config("web", &service));
    let inner = net.sidecar(1, &folder.join("api.toml"));
    let outer = net.sidecar(0, &folder.join("web.toml"));
    both_up(&net);
    let tries = || {
        if redis.is_some() {
            let ask = ["redis-cli", "-h", address, "set", "k", "redis-secret"];
            eventually("Redis answers", || net.exec(0, &ask).is_ok_and(|text| text.trim() == "OK"));
            let six = ["redis-cli", "-h", &net.six[1], "get", "k"];
            assert_eq!(net.exec(0, &six).map(|text| text.trim().to_owned()).as_deref(), Ok("redis-secret"));
        }
        if nginx.is_some() {
            // Where the client meant to go is what the app is asked for.
            eventually("nginx answers", || {
                net.curl(&format!("http://{address}/up")).is_ok_and(|text| text.contains("/up"))
            });
            let answer = net.curl(&format!("http://{address}/nginx-secret")).expect("an answer");
            assert_eq!(answer, format!("nginx 127.0.0.1 {address}/nginx-secret\n"));
            let answer = net.curl(&format!("http://[{}]/nginx-secret", net.six[1])).expect("an answer");
            assert_eq!(answer, format!("nginx ::1 [{}]/nginx-secret\n", net.six[1]));
            let answer = net.curl(&format!("http://{address}:8081/unix-secret")).expect("an answer");
            assert_eq!(answer, "socket /unix-secret\n", "an app on a Unix socket");
        }
        if postgres.is_some() {
            let ask = ["psql", "-h", address, "-U", "postgres", "-tAc", "select 'postgres-secret'"];
            eventually("PostgreSQL answers", || net.exec(0, &ask).is_ok_and(|text| text.trim() == "postgres-secret"));
        }
    };
    if let Some(wire) = capture(&net, &folder.join("wire.pcap"), tries) {
        let plain = ["redis-secret", "nginx-secret", "unix-secret", "postgres-secret"];
        assert!(wire.len() > 1000 && !plain.iter().any(|text| contains(&wire, text)), "it is not encrypted");
    }
    for (side, peer) in [(0, "api"), (1, "web")] {
        let label = format!("peer=\"spiffe://example.org/ns/default/sa/{peer}\"");
        assert!(net.metrics(side).contains(&label), "{label}");
    }
    // Strict fails closed when a sidecar is taken away, on either side.
    for gone in [outer, inner] {
        drop(gone);
        let redis = net.exec(0, &["redis-cli", "-h", address, "get", "k"]);
        assert!(redis.as_ref().map_or(true, |text| !text.contains("secret")), "{redis:?}");
        assert!(net.curl(&format!("http://{address}/nginx-secret")).is_err());
    }
}

#[test]
fn the_example_sidecar_guards_an_app() {
    let Some(net) = net(6) else { return };
    let folder = folder();
    identities(&folder);
    let example = include_str!("../../configs/sidecar.toml");
    assert!(example.contains("10.0.0.2:80"));
    let example = example.replace("10.0.0.2:80", &format!("{}:80", net.four[1]));
    put(&folder.join("sidecar.toml"), &example);
    put(&folder.join("api.toml"), &example.replace("certs/web/", "certs/api/"));
    // (HTTPServer asks the resolver for its own name, which a namespace has none to answer.)
    const APP: &str = "import http.server as h, socketserver as s\n\
        s.TCPServer.allow_reuse_address = True\n\
        class H(h.BaseHTTPRequestHandler):\n\
        \x20def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b'app ' + self.path.encode())\n\
        \x20def log_message(self, *_): pass\n\
        t = s.ThreadingTCPServer(('127.0.0.1', 80), H); print('up', flush=True); t.serve_forever()";
    let mut app = net.spawn(1, &["python3", "-c", APP]);
    let mut line = String::new();
    BufReader::new(app.stdout.take().expect("piped")).read_line(&mut line).expect("text");
    let _app = Running(app);
    let _inner = net.sidecar(1, &folder.join("api.toml"));
    let _outer = net.sidecar(0, &folder.join("sidecar.toml"));
    both_up(&net);
    let get = |path: &str| {
        net.exec(
            0,
            &["curl", "-sS", "--max-time", "5", "-w", " %{http_code}", &format!("http://{}{path}", net.four[1])],
        )
    };
    assert_eq!(get("/shop").as_deref(), Ok("app /shop 200"));
    let denied = get("/admin/users").expect("an answer");
    assert!(denied.ends_with(" 403") && !denied.contains("app "), "{denied}");
    assert!(net.metrics(1).contains("peer=\"spiffe://example.org/ns/default/sa/web\""));
}
