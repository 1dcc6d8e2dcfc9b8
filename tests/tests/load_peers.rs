//! The load generator's HTTP/2 and gRPC against servers that others wrote, and through the gateway. What is not
//! installed is said, and skipped.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use onehop_tests::net::Running;
use onehop_tests::pki::{Authority, Leaf, files, put};
use onehop_tests::{Load, LoadOrigin, Proxy, eventually, folder};

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("binds")
}

/// Starts a server and waits until it listens; `None` where it is not installed.
fn serve(program: &str, arguments: &[&str], address: SocketAddr) -> Option<Running> {
    let folders = ["/usr/bin", "/usr/sbin", "/usr/local/bin"];
    let Some(path) = folders.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.is_file()) else {
        println!("skipped: {program} is not installed (tests/install-peers)");
        return None;
    };
    let child = Command::new(path).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let running = Running(child);
    eventually("the server listens", || TcpStream::connect(address).is_ok());
    Some(running)
}

/// Both loops, with few and with many streams: nothing fails.
fn well(url: &str, more: &[&str]) {
    let base = ["-d", "300ms", "--warm-up", "0s", "--spin", "0us", "-c", "2"];
    for pace in [&["--closed", "--streams", "40"][..], &["--rate", "200", "--streams", "3"]] {
        let load = Load::run(&[&base[..], pace, more, &[url]].concat());
        // On a busy machine the last arrival may come too late; what was sent is answered.
        assert_eq!(load.number("/counts/failed"), 0.0, "{more:?} {pace:?}: {}{}", load.out, load.error);
        assert!(load.number("/counts/ok") > 10.0, "{more:?} {pace:?}: {}", load.out);
    }
}

#[test]
fn nghttpd_answers_it() {
    let (address, folder) = (free(), folder());
    put(&folder.join("file"), &"x".repeat(100_000));
    let (port, root) = (address.port().to_string(), folder.to_str().expect("text"));
    let Some(_server) = serve("nghttpd", &["--no-tls", "-d", root, &port], address) else { return };
    let url = format!("http://{address}/file");
    well(&url, &["--http2", "--expect-length", "100000"]);
    well(&url, &["--http2", "--expect-length", "100000", "--window", "10000"]);
    // A file that is not there is a status.
    let load = Load::run(&["--http2", "--closed", "-d", "200ms", "--warm-up", "0s", &format!("http://{address}/none")]);
    assert_eq!(load.number("/counts/failures/status"), load.number("/counts/sent"), "{}", load.out);
}

#[test]
fn nginx_answers_it() {
    let (address, folder) = (free(), folder());
    let at = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/error;\nevents {{}}\nhttp {{ access_log off; \
         client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; \
         scgi_temp_path {at}/s; client_max_body_size 10m; keepalive_requests 100; server {{ listen {address} http2; \
         location / {{ return 200 \"good\"; }} }} }}\n"
    );
    put(&folder.join("nginx.conf"), &config);
    let (path, error) = (folder.join("nginx.conf"), folder.join("error"));
    let arguments = ["-c", path.to_str().expect("text"), "-e", error.to_str().expect("text")];
    let Some(_server) = serve("nginx", &arguments, address) else { return };
    let url = format!("http://{address}/");
    // It ends a connection with GOAWAY after a hundred requests: one at a time, none of them is lost.
    let load = Load::run(&["--http2", "--closed", "-c", "1", "-d", "300ms", "--warm-up", "0s", &url]);
    assert_eq!(load.number("/counts/failed"), 0.0, "{}", load.out);
    assert!(load.number("/counts/ok") > 150.0 && load.number("/counts/connects") > 0.0, "{}", load.out);
}

#[test]
fn haproxy_passes_it_on() {
    let (origin, address, folder) = (LoadOrigin::start(&["--size", "1000"]), free(), folder());
    for upstream in ["", " proto h2"] {
        let config = format!(
            "global\n  nbthread 1\ndefaults\n  mode http\n  timeout client 20s\n  timeout server 20s\n  timeout connect 5s\n\
             frontend f\n  bind {address} proto h2\n  default_backend b\nbackend b\n  server s {}{upstream}\n",
            origin.address()
        );
        put(&folder.join("haproxy.cfg"), &config);
        let path = folder.join("haproxy.cfg");
        let Some(_server) = serve("haproxy", &["-db", "-q", "-f", path.to_str().expect("text")], address) else {
            return;
        };
        let url = format!("http://{address}/");
        well(&url, &["--http2", "--expect-length", "1000"]);
        if !upstream.is_empty() {
            well(&url, &["--grpc=bidi", "--messages", "5", "--body-size", "300", "--expect-length", "1000"]);
        }
    }
}

#[test]
fn the_gateway_passes_it_on() {
    let (origin, folder, authority) = (LoadOrigin::start(&["--size", "1000"]), folder(), Authority::new("root"));
    put(&folder.join("ca.pem"), authority.pem());
    files(&folder, "server", &authority, &Leaf::server(&["localhost"]));
    for upstream in ["http1", "http2"] {
        let text = format!(
            "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n\
             tls = {{ certificate = \"server.pem\", key = \"server.key\" }}\n[[route]]\ncluster = \"web\"\n[[cluster]]\nname = \"web\"\n\
             protocol = \"{upstream}\"\nendpoints = [\"{}\"]\n",
            origin.address()
        );
        let path = folder.join("onehop.toml");
        std::fs::write(&path, text).expect("writes");
        let proxy = Proxy::start_file(path, &["--workers", "1"], None);
        let (plain, secure) = (
            format!("http://{}/", proxy.address("plain")),
            format!("https://localhost:{}/", proxy.address("edge").port()),
        );
        let ca = folder.join("ca.pem");
        let trust = ["--ca", ca.to_str().expect("text"), "--expect-length", "1000"];
        well(&plain, &["--http2", "--expect-length", "1000"]);
        well(&secure, &[&["--http2"][..], &trust].concat());
        if upstream == "http2" {
            for kind in ["unary", "client", "server", "bidi"] {
                let grpc = format!("--grpc={kind}");
                let more = [grpc.as_str(), "--messages", "10", "--body-size", "2000"];
                well(&secure, &[&more[..], &trust].concat());
            }
        }
        // The listener without TLS is not mistaken for one with it.
        let load = Load::run(&["--http2", "--closed", "-d", "100ms", &secure.replace("https", "http")]);
        assert_eq!(load.code, 1, "{}", load.error);
    }
}

/// All four kinds of methods over bytes, and one that refuses.
const SERVER: &str = r#"
import grpc
from concurrent import futures

def refuse(request, context):
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")

def last(requests, context):
    for request in requests:
        pass
    return request

METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
    "ClientStream": grpc.stream_unary_rpc_method_handler(last),
    "ServerStream": grpc.unary_stream_rpc_method_handler(lambda request, context: (request for _ in range(7))),
    "BidiStream": grpc.stream_stream_rpc_method_handler(lambda requests, context: (request for request in requests)),
    "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
}

class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return METHODS.get(details.method.rsplit("/", 1)[1])

server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((Handler(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
server.wait_for_termination()
"#;

#[test]
fn grpcio_answers_all_kinds_of_calls() {
    let known = Command::new("python3").args(["-c", "import grpc"]).stderr(Stdio::null()).status();
    if !known.is_ok_and(|status| status.success()) {
        println!("skipped: grpcio is not installed (tests/install-peers)");
        return;
    }
    let mut child =
        Command::new("python3").args(["-c", SERVER]).stdout(Stdio::piped()).spawn().expect("python3 starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let _server = Running(child);
    let url = format!("http://127.0.0.1:{}/", line.trim());
    let size = ["--messages", "7", "--body-size", "1000", "--expect-length", "1000"];
    for kind in ["unary", "client", "server", "bidi"] {
        let grpc = format!("--grpc={kind}");
        let base = ["-d", "300ms", "--warm-up", "0s", "--spin", "0us", "-c", "2", "--streams", "3", "--closed"];
        let load = Load::run(&[&base[..], &[&grpc], &size, &[&url]].concat());
        assert_eq!(load.number("/counts/failed"), 0.0, "{kind}: {}{}", load.out, load.error);
        assert!(load.number("/counts/ok") > 0.0, "{kind}: {}", load.out);
    }
    for (method, status) in [("/a.B/Refuse", "7"), ("/a.B/None", "12")] {
        let load = Load::run(&["--grpc", "--grpc-method", method, "--closed", "-d", "200ms", "--warm-up", "0s", &url]);
        assert_eq!(load.number("/counts/failures/grpc-status"), load.number("/counts/sent"), "{}", load.out);
        assert_eq!(load.number(&format!("/counts/grpc_statuses/{status}")), load.number("/counts/sent"));
    }
}
