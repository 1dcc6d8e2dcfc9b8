//! `onehop demo`: an origin, a gateway in front of it, and what the hop cost each request that comes by.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use onehop_agent::Source;
use onehop_net::runtime::Rung;
use onehop_plan::{AccessLog, LogFormat};

const GATEWAY: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9901";

/// Runs it.
pub fn run(requests: u64) -> Result<(), String> {
    let origin =
        TcpListener::bind("127.0.0.1:0").map_err(|error| format!("the demo's origin cannot listen: {error}"))?;
    let origin_at = origin.local_addr().map_err(|error| error.to_string())?;
    std::thread::spawn(move || serve_origin(&origin));
    let free = |wanted: &str| -> SocketAddr {
        // The well-known port where it is free, any other where it is not.
        let wanted: SocketAddr = wanted.parse().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)));
        if TcpListener::bind(wanted).is_ok() { wanted } else { SocketAddr::from(([127, 0, 0, 1], 0)) }
    };
    let mut model = onehop_config::gateway(free(GATEWAY), &[origin_at.to_string()])?;
    model.runtime.admin = Some(free(ADMIN));
    model.listeners[0].http.server_timing = true;
    let records = records_pipe().map_err(|error| format!("the demo's pipe cannot be made: {error}"))?;
    model.access_log = Some(AccessLog {
        path: Some(records.clone()),
        format: LogFormat::Template("{method} {path} {status} {hop_ns} {upstream_wait_ns} {total_ns}".to_owned()),
    });
    let pipe = records.clone();
    std::thread::spawn(move || tell(&pipe, requests));
    println!("An origin on {origin_at}, and Onehop in front of it. Try, in another terminal:");
    println!("  curl -i http://{}/hello", model.listeners[0].address);
    println!("  curl -s http://{}/hello?[1-1000] -o /dev/null", model.listeners[0].address);
    if let Some(admin) = model.runtime.admin {
        println!("  curl http://{admin}/metrics | grep onehop_hop_seconds");
    }
    println!("Every request that comes by is told below with what the hop took. Ctrl-C ends it.\n");
    let ended = crate::boot::run(&model, None, Source::Fixed, Rung::Deferred, None);
    // A clean-up at the end: the pipe's name may be gone already.
    let _ = std::fs::remove_file(records);
    ended
}

/// A named pipe that the access log writes to and the demo reads from.
fn records_pipe() -> std::io::Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("onehop-demo-{}", std::process::id()));
    onehop_net::make_pipe(&path)?;
    Ok(path)
}

fn tell(path: &PathBuf, requests: u64) {
    let Ok(pipe) = std::fs::OpenOptions::new().read(true).write(true).open(path) else {
        return;
    };
    let mut told = 0;
    for line in BufReader::new(pipe).lines() {
        let Ok(line) = line else { return };
        let words: Vec<&str> = line.split(' ').collect();
        let [method, target, status, hop, wait, total] = words.as_slice() else {
            continue;
        };
        let us = |ns: &str| ns.parse::<f64>().unwrap_or(0.0) / 1000.0;
        println!(
            "{method} {target} -> {status}: the hop took {:.1} us of {:.1} us; the origin was waited for {:.1} us",
            us(hop),
            us(total),
            us(wait)
        );
        told += 1;
        if told == requests {
            let _ = std::fs::remove_file(path);
            std::process::exit(0);
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
