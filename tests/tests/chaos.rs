//! Everything goes wrong at once, in all pairings and under every policy that keeps something of a request: origins reset, cut,
//! stall and refuse, clients leave, stop reading and stop sending, connections die under their streams. What is drawn comes
//! from a seed. Afterwards nothing is left: each gauge is at zero, descriptors and memory are back, each request was recorded
//! once, and no client got a byte of another's answer.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Request, Response};
use onehop_tests::http2::Incoming;
use onehop_tests::{Connection, Origin, Proxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ROUTES: [&str; 10] = [
    "/1/plain",
    "/1/retried",
    "/1/hedged",
    "/1/mirrored",
    "/1/bounded",
    "/2/plain",
    "/2/retried",
    "/2/hedged",
    "/2/mirrored",
    "/2/bounded",
];
/// Requests of each round, from each kind of client.
const REQUESTS: u64 = 400;
/// Those of one connection of HTTP/2.
const STREAMS: u64 = 25;

/// SplitMix64: enough to draw from.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn pause(random: &mut Random, most_ms: u64) -> Duration {
    Duration::from_millis(random.below(most_ms + 1))
}

/// A request of that number gets an answer of such bytes alone.
fn byte(number: u64) -> u8 {
    (number % 251) as u8
}

fn number_in(path: &str) -> u64 {
    path.rsplit('?').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Sizes from nothing to more than a window.
fn size(random: &mut Random) -> usize {
    let most = [1, 100, 5000, 70_000, 300_000][random.below(5) as usize];
    random.below(most) as usize
}

/// What an origin does; each request that arrives is drawn for anew, so that one that is sent again may do better.
static ARRIVED: AtomicU64 = AtomicU64::new(0);

fn arrived(number: u64) -> Random {
    Random(number << 20 ^ ARRIVED.fetch_add(1, Ordering::SeqCst))
}

fn http1_origin() -> Origin {
    Origin::start(|connection| {
        while let Some(head) = connection.head() {
            let number = number_in(head.split(' ').nth(1).expect("a target"));
            if !answer_http1(connection, &head, number) {
                return;
            }
        }
    })
}

/// False: the connection is closed.
fn answer_http1(connection: &mut Connection, head: &str, number: u64) -> bool {
    let mut random = arrived(number);
    let (what, size) = (random.below(10), size(&mut random));
    let body = vec![byte(number); size];
    let said = format!("X-Number: {number}\r\nContent-Length: {size}\r\n\r\n");
    match what {
        // Early, and then gone.
        4 => {
            connection.send([format!("HTTP/1.1 200 OK\r\n{said}").as_bytes(), &body].concat());
            return false;
        }
        5 => return false,
        6 => {
            connection.reset();
            return false;
        }
        7 => {
            connection.send([format!("HTTP/1.1 200 OK\r\n{said}").as_bytes(), &body[..size / 2]].concat());
            return false;
        }
        8 => {
            connection.wait_for_end();
            return false;
        }
        _ => drop(connection.body(head)),
    }
    match what {
        3 => connection.send([format!("HTTP/1.1 503 Busy\r\n{said}").as_bytes(), &body].concat()),
        9 => {
            connection.send(format!("HTTP/1.1 200 OK\r\nX-Number: {number}\r\nTransfer-Encoding: chunked\r\n\r\n"));
            for piece in body.chunks(size / 8 + 1) {
                std::thread::sleep(pause(&mut random, 10));
                connection.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            }
            connection.send("0\r\nX-Sum: 1\r\n\r\n");
        }
        _ => connection.send([format!("HTTP/1.1 200 OK\r\n{said}").as_bytes(), &body].concat()),
    }
    true
}

/// Each connection serves some streams and then goes away, in order or not.
fn http2_origin() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.set_nonblocking(true).expect("a socket option");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("registers");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_http2(stream));
            }
        });
    });
    address
}

async fn serve_http2(stream: TcpStream) {
    let stream = stream.into_std().expect("deregisters");
    let cut = stream.try_clone().expect("a descriptor");
    let stream = TcpStream::from_std(stream).expect("registers");
    let mut random = Random(ARRIVED.fetch_add(1, Ordering::SeqCst));
    let (mut builder, lives) = (h2::server::Builder::new(), 5 + random.below(60) as usize);
    builder.initial_window_size([100, 5000, 65_535][random.below(3) as usize]).max_concurrent_streams(30);
    let Ok(mut accepting) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut served = 0;
    while let Some(Ok((request, respond))) = accepting.accept().await {
        tokio::spawn(answer_http2(Incoming { request, respond, connection: 0, number: served }));
        served += 1;
        match (served == lives, random.below(2)) {
            (true, 0) => accepting.graceful_shutdown(),
            // It may be gone already.
            (true, _) => drop(cut.shutdown(std::net::Shutdown::Both)),
            _ => {}
        }
    }
}

async fn answer_http2(mut incoming: Incoming) {
    let number = number_in(&incoming.request.uri().to_string());
    let mut random = arrived(number);
    let (what, size) = (random.below(10), size(&mut random));
    let mut head = Response::builder().header("x-number", number).body(()).expect("well-formed");
    let body = Bytes::from(vec![byte(number); size]);
    match what {
        5 => return incoming.respond.send_reset(Reason::REFUSED_STREAM),
        6 => return incoming.respond.send_reset(Reason::INTERNAL_ERROR),
        8 => {
            let _ = poll_fn(|cx| incoming.respond.poll_reset(cx)).await;
            return;
        }
        4 | 7 => {}
        _ => drop(onehop_tests::http2::read(incoming.request.body_mut()).await),
    }
    if what == 3 {
        *head.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    }
    let Ok(mut send) = incoming.respond.send_response(head, false) else { return };
    match what {
        7 => {
            let _ = send.send_data(body.slice(..size / 2), false);
            tokio::time::sleep(pause(&mut random, 10)).await;
            send.send_reset(Reason::INTERNAL_ERROR);
        }
        9 => {
            for piece in body.chunks(size / 8 + 1) {
                tokio::time::sleep(pause(&mut random, 10)).await;
                let _ = send.send_data(Bytes::copy_from_slice(piece), false);
            }
            let _ = send.send_trailers(HeaderMap::from_iter([(http::header::ETAG, "\"1\"".parse().expect("a value"))]));
        }
        _ => drop(send.send_data(body, true)),
    }
}

/// What is drawn for the client's part of a request.
struct Part {
    number: u64,
    path: String,
    upload: Option<usize>,
    /// The upload stands still half-way, and is given up.
    stops: bool,
    /// It leaves, after so long, before the answer; or in the middle of it.
    leaves_before: Option<Duration>,
    leaves_within: bool,
    slow: bool,
    random: Random,
}

fn part(seed: u64, number: u64) -> Part {
    let mut random = Random(seed ^ number << 8);
    let path = format!("{}?{number}", ROUTES[random.below(ROUTES.len() as u64) as usize]);
    let upload = (random.below(2) == 0).then(|| 1 + size(&mut random));
    let what = random.below(10);
    Part {
        number,
        path,
        upload,
        stops: what == 0,
        leaves_before: (what == 1).then(|| pause(&mut random, 20)),
        leaves_within: what == 2,
        slow: what > 7,
        random,
    }
}

/// A whole answer: its status, the number that it is for, its body.
type Whole = (u16, Option<u64>, Vec<u8>);

/// Whether an answer of an origin is the one for this request.
fn check(number: u64, (status, told, body): &Whole) {
    let Some(told) = told else { return assert!(*status >= 400, "{number}: an answer of ours: {status}") };
    assert_eq!(*told, number, "someone else's answer");
    assert!(body.iter().all(|other| *other == byte(number)), "{number}: someone else's bytes");
}

async fn ask_http2(sender: h2::client::SendRequest<Bytes>, mut part: Part) -> Option<Whole> {
    let mut sender = sender.ready().await.ok()?;
    let request = Request::builder()
        .method(if part.upload.is_some() { "PUT" } else { "GET" })
        .uri(format!("http://test{}", part.path))
        .header("x-request-id", part.number)
        .body(())
        .expect("well-formed");
    let (answer, mut send) = sender.send_request(request, part.upload.is_none()).ok()?;
    if let Some(length) = part.upload {
        let sent = if part.stops { length / 2 } else { length };
        // It waits in the client's memory for credit.
        send.send_data(Bytes::from(vec![1; sent]), !part.stops).ok()?;
    }
    if part.leaves_before.is_some() || part.stops {
        let patience = part.leaves_before.unwrap_or(Duration::from_millis(50));
        let answered = tokio::time::timeout(patience, answer).await;
        send.send_reset(Reason::CANCEL);
        drop(answered);
        return None;
    }
    let mut answer = answer.await.ok()?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.body_mut().data().await {
        let chunk = chunk.ok()?;
        body.extend_from_slice(&chunk);
        if part.leaves_within {
            return None;
        }
        if part.slow {
            tokio::time::sleep(pause(&mut part.random, 5)).await;
        }
        answer.body_mut().flow_control().release_capacity(chunk.len()).ok()?;
    }
    answer.body_mut().trailers().await.ok()?;
    let told = answer.headers().get("x-number").map(|told| told.to_str().expect("text").parse().expect("a number"));
    Some((answer.status().as_u16(), told, body))
}

/// Streams of one connection, which may die under them. Those that were answered wholly.
async fn many_http2(address: SocketAddr, seed: u64, first: u64) -> Vec<(u64, u16)> {
    let mut random = Random(seed ^ !first);
    let stream = TcpStream::connect(address).await.expect("connects");
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size([300, 20_000, 65_535][random.below(3) as usize]);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.expect("shakes hands");
    let life = (random.below(4) == 0).then(|| pause(&mut random, 300));
    let driver = tokio::spawn(async move {
        let life = life.unwrap_or(Duration::from_secs(3600));
        let _ = tokio::time::timeout(life, connection).await;
    });
    let asked: Vec<_> = (first..first + STREAMS)
        .map(|number| (number, tokio::spawn(ask_http2(sender.clone(), part(seed, number)))))
        .collect();
    drop(sender);
    let mut whole = Vec::new();
    for (number, asked) in asked {
        if let Some(answer) = asked.await.expect("no panic") {
            check(number, &answer);
            whole.push((number, answer.0));
        }
    }
    driver.abort();
    whole
}

/// The content of a chunked body; none if it is cut.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).expect("a size");
        if size == 0 {
            return rest.ends_with(b"\r\n\r\n").then_some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 2 + size + 2..)?;
    }
}

async fn ask_http1(address: SocketAddr, mut part: Part) -> Option<Whole> {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let method = if part.upload.is_some() { "PUT" } else { "GET" };
    let length = part.upload.map_or_else(String::new, |length| format!("Content-Length: {length}\r\n"));
    let (path, number) = (&part.path, part.number);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nX-Request-Id: {number}\r\n{length}\r\n"
    );
    let sent = part.upload.map_or(0, |length| if part.stops { length / 2 } else { length });
    let (mut reading, mut writing) = stream.split();
    let written = async {
        // It may be answered before it has sent all.
        let _ = writing.write_all(&[head.as_bytes(), &vec![1; sent]].concat()).await;
    };
    if part.leaves_before.is_some() || part.stops {
        written.await;
        tokio::time::sleep(part.leaves_before.unwrap_or(Duration::from_millis(50))).await;
        return None;
    }
    let read = async {
        let (mut bytes, mut chunk) = (Vec::new(), vec![0; 16_384]);
        while let Ok(count @ 1..) = reading.read(&mut chunk).await {
            bytes.extend_from_slice(&chunk[..count]);
            if part.leaves_within {
                break;
            }
            if part.slow {
                tokio::time::sleep(pause(&mut part.random, 5)).await;
            }
        }
        bytes
    };
    let ((), bytes) = tokio::join!(written, read);
    if part.leaves_within {
        return None;
    }
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let body = match field("content-length") {
        Some(length) => Some(bytes[end..].to_vec()).filter(|body| body.len().to_string() == length)?,
        None => unchunked(&bytes[end..])?,
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Some((status, field("x-number").map(|told| told.parse().expect("a number")), body))
}

fn config(http1: SocketAddr, http2: SocketAddr, log: &Path) -> String {
    let mut text = format!(
        "[access_log]\npath = \"{}\"\n[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\nrequest_id = \"keep\"\nbody_timeout = \"2s\"\n",
        log.display()
    );
    for path in ROUTES {
        let (version, policy) = path[1..].split_once('/').expect("two parts");
        let policy = match policy {
            "retried" => {
                "retry = { attempts = 3, on = [\"reset-before-response\", \"5xx\", \"connect-failure\"], backoff = \"1ms\", max_body = \"64KiB\" }"
            }
            "hedged" => "hedge = { after = \"5ms\", budget = 50 }",
            "mirrored" => {
                if version == "1" {
                    "mirror = { cluster = \"2\" }"
                } else {
                    "mirror = { cluster = \"1\" }"
                }
            }
            "bounded" => "max_body = \"50KiB\"\nlimits = { requests = 20 }",
            _ => "",
        };
        text.push_str(&format!(
            "[[route]]\npath = {{ exact = \"{path}\" }}\ncluster = \"{version}\"\ntimeout = \"1s\"\n{policy}\n"
        ));
    }
    for (name, protocol, address) in [("1", "http1", http1), ("2", "http2", http2)] {
        text.push_str(&format!(
            "[[cluster]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\nendpoints = [\"{address}\"]\npool = {{ idle_timeout = \"1s\" }}\n"
        ));
    }
    text
}

/// What of the figures that go up and down is not at zero.
fn left(proxy: &Proxy) -> Vec<String> {
    let (_, text) = proxy.admin("/metrics");
    let gauges = ["onehop_listener_connections", "onehop_cluster_active", "onehop_cluster_connections"];
    let samples = text.lines().filter(|line| line.split(['{', ' ']).next().is_some_and(|name| gauges.contains(&name)));
    samples.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
}

/// Each request that was taken is recorded once, and each whole answer as what it was.
fn check_records(proxy: &Proxy, log: &Path, whole: &HashMap<u64, u16>) {
    let lines = || std::fs::read_to_string(log).unwrap_or_default();
    let taken = || proxy.metric("onehop_listener_requests_total", "") as usize;
    eventually("each is recorded", || lines().lines().count() >= taken());
    let mut recorded = HashMap::new();
    for line in lines().lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let number: u64 = record["request_id"].as_str().and_then(|id| id.parse().ok()).expect("a number");
        assert!(recorded.insert(number, record["status"].as_u64()).is_none(), "{number} is recorded twice");
    }
    assert_eq!(recorded.len(), taken());
    for (number, status) in whole {
        assert_eq!(recorded.get(number), Some(&Some(u64::from(*status))), "{number}");
    }
}

#[test]
fn nothing_is_left_of_what_went_wrong() {
    let seed = std::env::var("ONEHOP_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("seed {seed}");
    let (http1, http2) = (http1_origin(), http2_origin());
    let log = onehop_tests::folder().join("access.log");
    let proxy = Proxy::start(&config(http1.address(), http2, &log));
    let address = proxy.address("edge");
    let descriptors = proxy.descriptors();
    let (mut whole, mut memory) = (HashMap::new(), Vec::new());
    for round in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let answered = runtime.block_on(async {
            let base = round * 10_000;
            let multiplexed =
                (0..REQUESTS / STREAMS).map(|at| tokio::spawn(many_http2(address, seed, base + at * STREAMS)));
            let multiplexed: Vec<_> = multiplexed.collect();
            let places = Arc::new(tokio::sync::Semaphore::new(100));
            let single = (0..REQUESTS).map(|at| {
                let (number, places) = (base + 5000 + at, places.clone());
                tokio::spawn(async move {
                    let _place = places.acquire().await.expect("open");
                    let answer = ask_http1(address, part(seed, number)).await?;
                    check(number, &answer);
                    Some((number, answer.0))
                })
            });
            let single: Vec<_> = single.collect();
            let mut answered = Vec::new();
            for many in multiplexed {
                answered.extend(many.await.expect("no panic"));
            }
            for one in single {
                answered.extend(one.await.expect("no panic"));
            }
            answered
        });
        drop(runtime);
        assert!(answered.len() as u64 > REQUESTS / 2, "most are answered: {}", answered.len());
        whole.extend(answered);
        let (begun, mut stays) = (std::time::Instant::now(), left(&proxy));
        while !stays.is_empty() {
            assert!(begun.elapsed().as_secs() < 60, "seed {seed}, round {round}: {stays:?}");
            stays = left(&proxy);
        }
        memory.push(proxy.memory_kib("VmRSS"));
    }
    check_records(&proxy, &log, &whole);
    // The log may have been opened after they were counted.
    eventually("descriptors are closed", || proxy.descriptors() <= descriptors + 1);
    // In debug builds `h2` asserts that a connection has ended its streams, and forgets those whose resets were still to be
    // sent when it was cut.
    let (known, panics): (Vec<_>, Vec<_>) =
        proxy.panics().into_iter().partition(|line| line.contains("!self.has_streams()"));
    // To say where it was, such a panic reads all that is known of the program into memory, where it is asked to.
    assert!(!known.is_empty() || memory[2] < memory[1] + 8192, "memory grows: {memory:?} KiB");
    assert!(panics.is_empty(), "{panics:#?}");
    // All of it still works, for as many at once as before.
    for path in ["/1/plain", "/2/plain", "/1/bounded", "/2/bounded"] {
        eventually(path, || proxy.connect("edge").get(&format!("{path}?1")).status == 200);
    }
}
