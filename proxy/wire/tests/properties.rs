//! Properties of the parsers, for random bytes and for random valid messages, with a fixed seed.

mod checks;
#[path = "checks/runner.rs"]
mod runner;

use std::net::SocketAddr;

use onehop_wire::http1::{Limits, RequestHead};
use onehop_wire::proxy_protocol::{self, Addresses, Header};
use proptest::prelude::*;
use runner::check;

/// Pieces that heads and bodies are made of, good and bad, so that random concatenations come close to being valid.
fn crumbs() -> impl Strategy<Value = Vec<u8>> {
    let crumb = prop_oneof![
        8 => prop::sample::select(vec![
            "GET ", "POST ", "CONNECT ", "/", "/a?b", "*", "http://h/", "h:1", " HTTP/1.1", " HTTP/1.0", "\r\n", "\r\n",
            "\r\n\r\n", "\n", "\r", "Host: h", "Host:", "Content-Length: 5", "Content-Length: ", "Transfer-Encoding: chunked",
            "transfer-encoding:", "chunked", "Connection: close, x", "Upgrade: websocket", "Expect: 100-continue", "X: y",
            " ", "\t", ":", "5", "0", "a", ";e=\"q\"", ";", "=", "HTTP/1.1 200 OK", "HTTP/1.1 101 ", "HTTP/1.0 204",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY UNKNOWN", "\r\n\r\n\0\r\nQUIT\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(crumb, 0..16).prop_map(|crumbs| crumbs.concat())
}

#[test]
fn anything_at_all_is_survived() {
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let accepted = std::cell::Cell::new(0);
    let opening = prop::sample::select(vec![
        "",
        "",
        "GET / HTTP/1.1\r\nHost: h\r\n",
        "POST / HTTP/1.0\r\n",
        "HTTP/1.1 200 OK\r\n",
    ]);
    let near = (opening, crumbs()).prop_map(|(opening, crumbs)| [opening.as_bytes(), &crumbs].concat());
    check(20_000, &(prop_oneof![9 => near, 1 => noise], 1usize..9), |(bytes, step)| {
        checks::scanner(&bytes, step);
        accepted.set(accepted.get() + usize::from(checks::request(&bytes)));
        checks::response(&bytes);
        checks::chunked(&bytes, step);
        checks::proxy_header(&bytes);
        checks::sniffed(&bytes);
        checks::hello(&bytes);
    });
    assert!(accepted.get() >= 20, "only {} of them were requests: the pieces are badly chosen", accepted.get());
}

#[test]
fn valid_requests_are_accepted_as_they_are() {
    let name = "X-[A-Za-z!#$%&'*+.^_`|~0-9-]{1,12}";
    let value = "([!-~]([ -~]{0,30}[!-~])?)?";
    let fields = prop::collection::vec((name, value), 0..40);
    check(5_000, &("(GET|PUT|DELETE|x-Y)", "/[!-~&&[^#]]{0,60}", fields), |(method, target, fields)| {
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: example.com\r\n");
        for (name, value) in &fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut head = RequestHead::default();
        head.parse(text.as_bytes(), &Limits::default()).unwrap_or_else(|reject| panic!("{reject:?}: {text}"));
        assert_eq!(head.target.of(text.as_bytes()), target.as_bytes());
        assert_eq!(head.fields.len(), fields.len() + 1);
        for (field, (name, value)) in head.fields[1..].iter().zip(&fields) {
            assert_eq!(field.name.of(text.as_bytes()), name.as_bytes());
            assert_eq!(field.value.of(text.as_bytes()), value.as_bytes());
        }
        assert!(checks::request(text.as_bytes()));
    });
}

#[test]
fn chunked_bodies_are_decoded_to_what_was_encoded() {
    let chunk = (
        prop::collection::vec(any::<u8>(), 1..40),
        "(;[a-z]{1,5}(=(\"[a-z ]{0,5}\"|[a-z]{1,5}))?){0,2}",
        any::<bool>(),
    );
    let body = (prop::collection::vec(chunk, 0..10), prop::option::of("[a-z]{1,5}"), 1usize..20);
    check(5_000, &body, |(chunks, trailer, step)| {
        let (mut encoded, mut plain) = (Vec::new(), Vec::new());
        for (data, extension, upper) in &chunks {
            let size = if *upper { format!("{:X}", data.len()) } else { format!("{:x}", data.len()) };
            encoded.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
            encoded.extend_from_slice(data);
            encoded.extend_from_slice(b"\r\n");
            plain.extend_from_slice(data);
        }
        encoded.extend_from_slice(b"0\r\n");
        if let Some(value) = &trailer {
            encoded.extend_from_slice(format!("X-T: {value}\r\n").as_bytes());
        }
        encoded.extend_from_slice(b"\r\n");
        let end = encoded.len();
        encoded.extend_from_slice(b"GET /next");
        assert_eq!(checks::decode(&encoded, step), Some((plain, end)), "{:?}", String::from_utf8_lossy(&encoded));
    });
}

#[test]
fn proxy_headers_are_read_as_they_were_written() {
    let four = (any::<[u8; 4]>(), any::<u16>(), any::<[u8; 4]>(), any::<u16>())
        .prop_map(|(a, p, b, q)| (SocketAddr::from((a, p)), SocketAddr::from((b, q))));
    let six = (any::<[u8; 16]>(), any::<u16>(), any::<[u8; 16]>(), any::<u16>())
        .prop_map(|(a, p, b, q)| (SocketAddr::from((a, p)), SocketAddr::from((b, q))));
    check(2_000, &prop_oneof![four, six], |(source, destination)| {
        let addresses = Addresses { source, destination };
        for write in [proxy_protocol::write_v1, proxy_protocol::write_v2] {
            let mut bytes = Vec::new();
            write(&mut bytes, Some(&addresses));
            for end in 0..bytes.len() {
                assert_eq!(proxy_protocol::parse(&bytes[..end]), Ok(None), "{:?}", &bytes[..end]);
            }
            let length = bytes.len();
            bytes.extend_from_slice(b"GET /");
            match proxy_protocol::parse(&bytes) {
                Ok(Some((Header::Proxied(read), taken))) => {
                    assert_eq!((read.source, read.destination, taken), (source, destination, length));
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn what_fuzzing_found_stays_found() {
    // A bare LF in trailers was refused when it came in pieces and passed on to the next check when it came at once.
    let trailers = b"0\r\n\xebL\x04\0:\n\n\rA\x000\r\n\r\n";
    for step in 1..trailers.len() {
        assert_eq!(checks::decode(trailers, step), None);
    }
    assert_eq!(checks::decode(trailers, trailers.len()), None);
}
