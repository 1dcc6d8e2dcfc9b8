//! Two compiled snapshots that take turns a hundred times a second on one core under load, beside the same core without
//! changes, in interleaved rounds: what users feel (p99), what a change costs the core, and whether memory stays flat.
//! Some requests and a WebSocket stay open throughout.
//!
//! `cargo bench -p onehop-bench --bench swap -- [SECONDS WITH CHANGES] [ROUTES]`; 20 and 1000 without them. It takes a little
//! more than twice as long, and says on stderr how far it is. The core runs on CPU 1, load and origin (`onehop-load`, built
//! for release) on CPU 0.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use onehop_meter::Registry;
use onehop_net::mailbox::{Sender, mailbox};
use onehop_net::runtime::Options;
use onehop_plan::Snapshot;
use onehop_plan::order::{Order, Socket};
use onehop_worker::{Outfit, Start};

const SWAPS_PER_SECOND: u64 = 100;
const ROUND: Duration = Duration::from_secs(5);
const CONNECTIONS: &str = "16";

fn config(variant: &str, routes: usize, origin: SocketAddr, open: SocketAddr) -> String {
    // What waits throughout would be ended by the time that a body may stand still.
    let mut text = "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\nbody_timeout = \"1h\"\n".to_owned();
    for number in 0..routes {
        let _ = write!(
            text,
            "[[route]]\nname = \"{variant}{number}\"\npath = {{ prefix = \"/{variant}/{number}\" }}\ncluster = \"origin\"\n"
        );
    }
    let _ = write!(
        text,
        "[[route]]\nname = \"open\"\npath = {{ prefix = \"/open\" }}\ncluster = \"open\"\ntimeout = \"off\"\n\
         [[route]]\nname = \"rest\"\ncluster = \"origin\"\n\
         [[cluster]]\nname = \"origin\"\nendpoints = [\"{origin}\"]\n\
         [[cluster]]\nname = \"open\"\nendpoints = [\"{open}\"]\n"
    );
    text
}

/// Upgrades what asks for it and echoes; lets everything else wait for ever.
fn open_origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                let mut is_open = false;
                while let Ok(count @ 1..) = stream.read(&mut chunk) {
                    let text = String::from_utf8_lossy(&chunk[..count]).to_lowercase();
                    let answer: &[u8] = match (is_open, text.contains("upgrade: websocket")) {
                        (true, _) => &chunk[..count],
                        (false, true) => {
                            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                        }
                        (false, false) => continue,
                    };
                    is_open = true;
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn load_binary() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("release/onehop-load")
}

fn on_cpu_0(arguments: &[&str]) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(load_binary()).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// One round: p99 and p50 in microseconds, requests that failed, and whether the generator found itself disturbed, as it does
/// where something else runs on its CPU.
struct Round {
    p99: f64,
    p50: f64,
    failures: u64,
    disturbed: bool,
}

fn round(to: SocketAddr, report: &Path) -> Round {
    let (url, seconds) = (format!("http://{to}/x"), format!("{}s", ROUND.as_secs()));
    let shown = report.display().to_string();
    let arguments = ["run", &url, "--rate", "4000", "-c", CONNECTIONS, "-d", &seconds, "-q", "--json", &shown];
    // There may be none yet.
    let _ = std::fs::remove_file(report);
    let status = on_cpu_0(&arguments).status().expect("runs");
    assert!(report.exists(), "the load generator failed: {status}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(report).expect("a report")).expect("JSON");
    let figure = |name: &str| json["latency"][name].as_f64().expect("a figure") / 1e3;
    let failures =
        json["counts"]["failures"].as_object().map_or(0, |all| all.values().filter_map(|count| count.as_u64()).sum());
    Round { p99: figure("p99"), p50: figure("p50"), failures, disturbed: !status.success() }
}

/// How long what is open may take to show that it is.
const OPEN_ANSWERS: Duration = Duration::from_secs(5);

/// The process's resident memory in MiB.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.unwrap_or(0.0) * 4.0 / 1024.0
}

fn core(snapshot: Arc<Snapshot>, registry: &Registry) -> (SocketAddr, Sender<Order>) {
    let (sender, receiver) = mailbox().expect("a mailbox");
    let fd = onehop_net::bind(&"127.0.0.1:0".parse().expect("an address"), true).expect("binds");
    let address = onehop_net::local_address(&fd).expect("bound");
    let outfit = Outfit {
        core: 0,
        cores: 1,
        seed: 7,
        instance: Arc::from("swap"),
        meters: registry.core().clone(),
        access: Arc::new(ArrayQueue::new(16)),
    };
    std::thread::spawn(move || {
        let start = Start {
            options: Options { cpu: Some(1), ..Options::default() },
            outfit,
            snapshot,
            sockets: vec![Socket { listener: Arc::from("edge"), fd }],
            mailbox: receiver,
        };
        onehop_worker::run(start, |_| {}).expect("a core runs");
    });
    (address, sender)
}

/// What stays open throughout: a WebSocket, and requests that are never answered.
struct Open {
    socket: TcpStream,
    waiting: Vec<TcpStream>,
    checked: u32,
}

/// Requests that wait for an answer throughout.
const WAITING: usize = 8;
const HANDSHAKE: &[u8] = b"GET /open/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

impl Open {
    fn new(address: SocketAddr) -> Open {
        let mut socket = TcpStream::connect(address).expect("connects");
        socket.set_read_timeout(Some(OPEN_ANSWERS)).expect("a socket option");
        socket.write_all(HANDSHAKE).expect("sends");
        let mut chunk = [0; 4096];
        let count = socket.read(&mut chunk).expect("an answer");
        assert!(chunk[..count].starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&chunk[..count]));
        let wait = || {
            let mut stream = TcpStream::connect(address).expect("connects");
            stream.write_all(b"GET /open/wait HTTP/1.1\r\nHost: a\r\n\r\n").expect("sends");
            stream
        };
        Open { socket, waiting: (0..WAITING).map(|_| wait()).collect(), checked: 0 }
    }

    fn check(&mut self) {
        let mut chunk = [0; 4096];
        self.socket.write_all(b"still open").expect("the WebSocket is open");
        let count = self.socket.read(&mut chunk).expect("an echo");
        assert_eq!(&chunk[..count], b"still open");
        for stream in &self.waiting {
            stream.set_nonblocking(true).expect("a socket option");
            let still = stream.peek(&mut chunk);
            assert!(
                still.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
                "an open request was cut"
            );
        }
        self.checked += 1;
    }
}

/// Posts the snapshots in turn while it is told to.
fn swap(both: [Arc<Snapshot>; 2], sender: Sender<Order>, swapping: Arc<AtomicBool>) {
    let mut due = Instant::now();
    for turn in 0usize.. {
        due += Duration::from_micros(1_000_000 / SWAPS_PER_SECOND);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if swapping.load(Ordering::Relaxed) {
            let order = Order::Install { snapshot: both[turn % 2].clone(), sockets: Vec::new() };
            assert!(sender.send(order).is_ok(), "the core does not take its orders");
        }
    }
}

type Rounds = Vec<Round>;

fn report(seen: &[Rounds; 2], registry: &Registry, memory: &[f64], routes: usize, open: &Open) {
    let block = registry.core().core(0);
    let (installs, spent) = (block.installs.get(), block.install_ns.get());
    println!(
        "| {routes} routes, {SWAPS_PER_SECOND} changes a second | p99 us (median of rounds) | p50 us | failures |\n|---|---|---|---|"
    );
    let median = |list: &Rounds, figure: fn(&Round) -> f64| {
        let mut figures: Vec<f64> = list.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    for (name, list) in [("without changes", &seen[0]), ("with changes", &seen[1])] {
        let failures: u64 = list.iter().map(|round| round.failures).sum();
        println!("| {name} | {:.1} | {:.1} | {failures} |", median(list, |one| one.p99), median(list, |one| one.p50));
    }
    let rounds = |list: &Rounds| list.iter().map(|one| format!("{:.0}", one.p99)).collect::<Vec<_>>().join(" ");
    println!("\np99 of each round, us: without {}; with {}.", rounds(&seen[0]), rounds(&seen[1]));
    println!(
        "p99 with / without: {:.2} (asked for: at most 1.2). A change took {:.1} us of the core's time ({installs} changes; asked for: under 1000).",
        median(&seen[1], |one| one.p99) / median(&seen[0], |one| one.p99),
        spent as f64 / 1e3 / installs.max(1) as f64,
    );
    let disturbed = |list: &Rounds| list.iter().filter(|round| round.disturbed).count();
    println!(
        "The generator found itself disturbed, or requests failed, in {} of {} rounds without and {} of {} with changes.",
        disturbed(&seen[0]),
        seen[0].len(),
        disturbed(&seen[1]),
        seen[1].len(),
    );
    let at = |part: usize| memory[(memory.len() - 1) * part / 4];
    println!(
        "Resident memory, MiB: {:.1} before, {:.1}, {:.1}, {:.1} on the way, {:.1} at the end. A WebSocket and {WAITING} requests stayed open throughout, looked at {} times.",
        at(0),
        at(1),
        at(2),
        at(3),
        at(4),
        open.checked,
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let seconds: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(20);
    let routes: usize = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1000);
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("binds");
    let listen = free.to_string();
    let origin = on_cpu_0(&["origin", "--listen", &listen, "--size", "128B"]).spawn();
    let origin = Ended(origin.expect("onehop-load is built for release"));
    let begun = Instant::now();
    while TcpStream::connect(free).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the origin does not listen");
        std::thread::yield_now();
    }
    let open_origin = open_origin();
    let registry = Registry::new(1);
    let compiled = |variant: &str, previous: Option<&Snapshot>| {
        let loaded = onehop_config::parse(&[("swap.toml".to_owned(), config(variant, routes, free, open_origin))]);
        let loaded = loaded.expect("the language");
        Arc::new(onehop_plan::compile(&loaded.model, &registry, previous).expect("compiles"))
    };
    let first = compiled("a", None);
    let both = [first.clone(), compiled("b", Some(&first))];
    drop(first);
    let (address, sender) = core(both[0].clone(), &registry);
    let mut open = Open::new(address);
    let swapping = Arc::new(AtomicBool::new(false));
    let told = swapping.clone();
    std::thread::spawn(move || swap(both, sender, told));
    let file = std::env::temp_dir().join(format!("onehop-swap-{}.json", std::process::id()));
    round(address, &file);
    let mut memory = vec![resident()];
    let mut seen: [Rounds; 2] = Default::default();
    let rounds = (seconds / ROUND.as_secs()).max(1) * 2;
    for number in 0..rounds {
        // Without, with, with, without: what drifts meets both alike.
        let with = usize::from(matches!(number % 4, 1 | 2));
        swapping.store(with == 1, Ordering::Relaxed);
        let one = round(address, &file);
        open.check();
        memory.push(resident());
        let (name, shown) = (["without", "with"][with], resident());
        eprintln!("round {} of {rounds}, {name} changes: p99 {:.0} us, {shown:.1} MiB", number + 1, one.p99);
        seen[with].push(one);
    }
    report(&seen, &registry, &memory, routes, &open);
    // The core's thread has no end: what would be dropped with this one is dropped before.
    drop((open, origin));
    // The file may be gone.
    let _ = std::fs::remove_file(file);
    std::process::exit(0);
}
