//! Upstreams that break HTTP/2, by a table: what the client of either version gets, and what the upstream is told.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use h2::Reason;

use crate::Proxy;
use crate::frames::{Frames, Verdict, block, frame, upstream};
use crate::http2::{ask, connect, get, run};

/// What the client gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Got {
    /// An answer of ours.
    Status(u16),
    /// A head, and then a body that does not look whole.
    Cut,
    /// The upstream's answer, whole: it was complete before the rule was broken.
    Whole,
    /// All bytes that its length says, and no END_STREAM: whole in HTTP/1, cut in HTTP/2.
    ByLength,
    /// Cut; or in HTTP/1, where the head waits for the body's first bytes, an answer of ours if both came at once.
    Late,
}
use Got::{ByLength, Cut, Late, Status, Whole};

/// What an upstream does with the request on that stream.
pub type Script = fn(&mut Frames, u32);
/// Its name, what the client gets, what the upstream is told.
pub type Case = (&'static str, Script, Got, Option<Verdict>);

/// It is told so of the stream.
pub fn stream(code: u32) -> Option<Verdict> {
    Some(Verdict::Stream(1, code))
}

/// HEADERS.
pub fn head(fields: &[(&str, &str)], flags: u8, stream: u32) -> Vec<u8> {
    frame(1, flags, stream, &block(fields))
}

/// The usual status.
pub const OK: (&str, &str) = (":status", "200");

/// A head, and some of a body.
pub fn begun(stream: u32) -> Vec<u8> {
    [head(&[OK], 4, stream), frame(0, 0, stream, b"half")].concat()
}

/// An upstream for one case and one client, and what it was told.
fn play(script: Script) -> (SocketAddr, Receiver<Verdict>) {
    let (told, heard) = channel();
    let address = upstream(move |peer| {
        if let Some(stream) = peer.greet() {
            script(peer, stream);
            // The test may have ended.
            let _ = told.send(peer.verdict());
        }
    });
    (address, heard)
}

/// A gateway with a route and a cluster for each.
pub fn config(route: &str, upstreams: &[SocketAddr]) -> String {
    let mut config = "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n".to_owned();
    for (number, address) in upstreams.iter().enumerate() {
        config.push_str(&format!(
            "[[route]]\npath = {{ exact = \"/{number}\" }}\ncluster = \"c{number}\"\n{route}\n[[cluster]]\nname = \"c{number}\"\nprotocol = \"http2\"\nendpoints = [\"{address}\"]\n"
        ));
    }
    config
}

/// What a client of HTTP/1 gets.
pub fn as_http1(proxy: &Proxy, path: &str) -> Got {
    let mut client = proxy.connect("edge");
    let mut response = client.get(path);
    while matches!(response.status, 100..=199) {
        response = client.response();
    }
    assert_ne!(response.status, 0, "{path}: no answer");
    let ours = response.field("proxy-status").is_some();
    match (ours, response.whole) {
        (true, true) => Status(response.status),
        (_, false) => Cut,
        (false, true) => Whole,
    }
}

/// What one of HTTP/2 gets.
pub fn as_http2(proxy: &Proxy, path: &str) -> Got {
    run(async {
        let sender = connect(proxy.address("edge")).await;
        match ask(&sender, get(path), Vec::new()).await {
            Ok(answer) if answer.field("proxy-status").is_some() => Status(answer.head.status.as_u16()),
            Ok(_) => Whole,
            Err(error) => {
                assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{path}: {error}");
                Cut
            }
        }
    })
}

/// Plays each case to a client of either version; panics with all that went otherwise.
pub fn judge(route: &str, cases: &[Case]) {
    let played: Vec<_> = cases.iter().flat_map(|case| [play(case.1), play(case.1)]).collect();
    let addresses: Vec<_> = played.iter().map(|(address, _)| *address).collect();
    let proxy = Proxy::start_with(&config(route, &addresses), &["--workers", "1"], None);
    let mut wrong = Vec::new();
    for (number, (name, _, wanted, told)) in cases.iter().enumerate() {
        for (version, at) in [(1, 2 * number), (2, 2 * number + 1)] {
            let path = format!("/{at}");
            let got = if version == 1 { as_http1(&proxy, &path) } else { as_http2(&proxy, &path) };
            let fits = match (wanted, version) {
                (ByLength, 1) => got == Whole,
                (Late, 1) => matches!(got, Status(502) | Cut),
                (ByLength | Late, _) => got == Cut,
                _ => got == *wanted,
            };
            if !fits {
                wrong.push(format!("{name}: HTTP/{version} got {got:?}, not {wanted:?}"));
            }
            if let Some(told) = told {
                let heard = played[at].1.recv_timeout(Duration::from_secs(30));
                if heard != Ok(*told) {
                    wrong.push(format!("{name}: HTTP/{version}: it was told {heard:?}, not {told:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
