//! `onehop demo`: an origin, and a gateway and two sidecars before it, with mutual TLS between the sidecars: what each hop
//! cost each request that comes by, side by side.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use onehop_agent::Source;
use onehop_net::runtime::Rung;
use onehop_plan::{AccessLog, LogFormat, RequestId};

use crate::certs;

const GATEWAY: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9901";
/// The hops in the order in which a request passes them.
const HOPS: [&str; 3] = ["gateway", "outbound", "inbound"];
/// Requests that were heard of at one hop and not yet at the others.
const MAX_OPEN: usize = 1000;

/// What one hop says of one request: which, and what it took.
struct Heard {
    hop: usize,
    id: String,
    line: String,
    status: String,
    hop_ns: f64,
    total_ns: f64,
}

/// A sidecar that ends with the demo.
struct Sidecar(Child);

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Ctrl-C has reached it, too.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs it.
pub fn run(requests: u64) -> Result<(), String> {
    let folder = std::env::temp_dir().join(format!("onehop-demo-{}", std::process::id()));
    let ended = run_in(&folder, requests);
    // A clean-up at the end: it may be gone already.
    let _ = std::fs::remove_dir_all(folder);
    ended
}

fn run_in(folder: &Path, requests: u64) -> Result<(), String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("the demo's {what} cannot be made: {error}");
    std::fs::create_dir_all(folder).map_err(failed("folder"))?;
    certs::make(folder, "demo.test", &["web".to_owned(), "api".to_owned()])?;
    let origin = TcpListener::bind("127.0.0.1:0").map_err(failed("origin"))?;
    let origin_at = origin.local_addr().map_err(|error| error.to_string())?;
    std::thread::spawn(move || serve_origin(&origin));
    let (inbound, outbound) = (free("127.0.0.1:0"), free("127.0.0.1:0"));
    let (sender, heard) = channel();
    let mut pipes = Vec::new();
    for (hop, name) in HOPS.iter().enumerate() {
        let pipe = folder.join(format!("{name}.pipe"));
        onehop_net::make_pipe(&pipe).map_err(failed("pipe"))?;
        listen(hop, pipe.clone(), sender.clone());
        pipes.push(pipe);
    }
    let port = format!("[[sidecar.port]]\nport = 80\nlisten = \"{inbound}\"\napp = \"{origin_at}\"\n");
    let _inner = sidecar(folder, "api", &pipes[2], &port)?;
    let service = format!(
        "[[sidecar.service]]\nname = \"api\"\nlisten = \"{outbound}\"\nendpoints = [\"{inbound}\"]\nidentity = [\"spiffe://demo.test/ns/default/sa/api\"]\n"
    );
    let _outer = sidecar(folder, "web", &pipes[1], &service)?;
    let mut model = onehop_config::gateway(free(GATEWAY), &[outbound.to_string()])?;
    model.runtime.admin = Some(free(ADMIN));
    model.listeners[0].http.server_timing = true;
    model.listeners[0].http.request_id = RequestId::Replace;
    model.access_log =
        Some(AccessLog { path: Some(pipes[0].clone()), format: LogFormat::Template(TEMPLATE.to_owned()) });
    std::thread::spawn(move || tell(&heard, requests));
    println!("client -> gateway -> sidecar of web =mutual TLS=> sidecar of api -> an origin on {origin_at}.");
    println!("Try, in another terminal:");
    println!("  curl -i http://{}/hello", model.listeners[0].address);
    println!("  curl -s http://{}/hello?[1-1000] -o /dev/null", model.listeners[0].address);
    if let Some(admin) = model.runtime.admin {
        println!("  curl http://{admin}/metrics | grep onehop_hop_seconds");
    }
    println!("Every request that comes by is told below with what each hop took. Ctrl-C ends it.\n");
    crate::boot::run(model, None, Source::Fixed, Rung::Deferred, None)
}

const TEMPLATE: &str = "{request_id} {method} {path} {status} {hop_ns} {total_ns}";

/// The well-known port where it is free, any other where it is not.
fn free(wanted: &str) -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let wanted: SocketAddr = wanted.parse().unwrap_or(any);
    let bound = TcpListener::bind(wanted).or_else(|_| TcpListener::bind(any));
    bound.and_then(|listener| listener.local_addr()).unwrap_or(any)
}

fn sidecar(folder: &Path, name: &str, pipe: &Path, part: &str) -> Result<Sidecar, String> {
    let file = folder.join(format!("{name}.toml"));
    let text = format!(
        "[access_log]\npath = \"{}\"\nformat = \"{TEMPLATE}\"\n\
         [identity]\ncertificate = \"{name}/cert.pem\"\nkey = \"{name}/key.pem\"\nbundle = \"bundle.pem\"\n\
         [sidecar]\noutbound = []\ninbound = []\n{part}",
        pipe.display()
    );
    let failed = |error: std::io::Error| format!("the demo's sidecar of {name} cannot be started: {error}");
    std::fs::write(&file, text).map_err(failed)?;
    let binary = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(binary);
    command.arg("sidecar").arg("--config").arg(&file).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line == "ready");
    if !ready {
        return Err(format!("the demo's sidecar of {name} did not start"));
    }
    std::thread::spawn(move || lines.for_each(drop));
    Ok(Sidecar(child))
}

/// Reads what one hop writes down of each request.
fn listen(hop: usize, path: PathBuf, sender: Sender<Heard>) {
    std::thread::spawn(move || {
        let Ok(pipe) = std::fs::OpenOptions::new().read(true).write(true).open(&path) else {
            return;
        };
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            let [id, method, target, status, hop_ns, total_ns] = words.as_slice() else {
                continue;
            };
            let ns = |text: &str| text.parse::<f64>().unwrap_or(0.0);
            let heard = Heard {
                hop,
                id: (*id).to_owned(),
                line: format!("{method} {target}"),
                status: (*status).to_owned(),
                hop_ns: ns(hop_ns),
                total_ns: ns(total_ns),
            };
            if sender.send(heard).is_err() {
                return;
            }
        }
    });
}

/// Ends the demo as Ctrl-C would, so that everything it started ends as well.
fn end() {
    let ended = Command::new("kill").arg("-TERM").arg(std::process::id().to_string()).status();
    if ended.is_err() {
        std::process::exit(1);
    }
}

/// Tells of each request once every hop has spoken.
fn tell(heard: &Receiver<Heard>, requests: u64) {
    let mut open: HashMap<String, Vec<Heard>> = HashMap::new();
    let mut told = 0;
    for one in heard {
        if open.len() >= MAX_OPEN {
            open.clear();
        }
        let id = one.id.clone();
        let parts = open.entry(id.clone()).or_default();
        parts.push(one);
        if parts.len() < HOPS.len() {
            continue;
        }
        let Some(mut parts) = open.remove(&id) else { continue };
        parts.sort_by_key(|part| part.hop);
        let us = |ns: f64| ns / 1000.0;
        let costs: Vec<String> =
            parts.iter().map(|part| format!("{} {:.1} us", HOPS[part.hop], us(part.hop_ns))).collect();
        println!(
            "{} -> {}: {}, together {:.1} us of {:.1} us",
            parts[0].line,
            parts[0].status,
            costs.join(", "),
            us(parts.iter().map(|part| part.hop_ns).sum()),
            us(parts[0].total_ns)
        );
        told += 1;
        if told == requests {
            end();
        }
    }
}

/// A plain origin with one thread per connection: it is there to be asked a few times, not to be fast.
fn serve_origin(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            // A connection that breaks is at its end.
            let _ = serve_connection(stream);
        });
    }
}

fn serve_connection(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0u64);
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let request = line.trim_end().to_owned();
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 || line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        let body = format!("Hello from the origin: {request}\n");
        writer.write_all(
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .as_bytes(),
        )?;
    }
}
