//! The floor that HTTP/2 is measured against passes messages on whole, and adds fields only where it is told to.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use http::{HeaderMap, HeaderValue};
use onehop_tests::build;
use onehop_tests::http2::{Http2Origin, ask, ask_with, connect, get, post, run};

struct Relay(Child, SocketAddr);

impl Relay {
    fn start(origin: &Http2Origin, fields: &[&str]) -> Relay {
        let mut command = Command::new(build("h2-relay"));
        command.args(["--listen", "127.0.0.1:0", "--to", &origin.address().to_string()]).args(fields);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("says where it listens");
        let address = line.trim().parse().expect("an address");
        Relay(child, address)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn messages_pass_whole_and_unchanged() {
    let origin = Http2Origin::mirror();
    let relay = Relay::start(&origin, &[]);
    run(async move {
        let sender = connect(relay.1).await;
        let answer = ask(&sender, get("/a?b=c"), Vec::new()).await.expect("is answered");
        assert_eq!(answer.text(), "GET http://test/a?b=c\nbody: 0\n");
        let mut trailers = HeaderMap::new();
        trailers.insert("check", HeaderValue::from_static("sum"));
        let answer = ask_with(&sender, post("/d"), vec![7; 50_000], Some(trailers)).await.expect("is answered");
        assert_eq!(answer.text(), "POST http://test/d\nbody: 50000\ntrailer check: sum\n");
        let second = connect(relay.1).await;
        ask(&second, get("/"), Vec::new()).await.expect("is answered");
    });
    assert_eq!(origin.accepted(), 1, "one connection serves all");
}

#[test]
fn fields_are_those_of_a_gateway() {
    let origin = Http2Origin::mirror();
    let relay = Relay::start(&origin, &["--fields"]);
    run(async move {
        let sender = connect(relay.1).await;
        for number in 0..2 {
            let text = ask(&sender, get("/"), Vec::new()).await.expect("is answered").text();
            let found: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
            let names =
                ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via", "x-request-id", "traceparent"];
            assert_eq!(found[..6], names);
            assert!(text.contains(&format!("x-request-id: 00000000-0000-4000-8000-{number:012x}\n")), "{text}");
        }
    });
}
