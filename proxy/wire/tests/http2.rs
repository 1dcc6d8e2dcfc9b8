//! Properties of the translation between the versions, for random and for nearly valid messages, with a fixed seed.

mod checks;
#[path = "checks/runner.rs"]
mod runner;

use std::cell::Cell;

use proptest::prelude::*;

/// Runs a check; says for how many of the cases it has said yes.
fn check(cases: u32, strategy: &impl Strategy<Value = Vec<u8>>, test: impl Fn(&[u8]) -> bool) -> u32 {
    let accepted = Cell::new(0);
    runner::check(cases, strategy, |bytes| accepted.set(accepted.get() + u32::from(test(&bytes))));
    accepted.get()
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..200)
}

/// One hostile byte somewhere, or none.
fn spoiled(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let hostile = proptest::option::weighted(0.3, (any::<u8>(), any::<prop::sample::Index>()));
    (bytes, hostile).prop_map(|(mut bytes, hostile)| {
        if let Some((byte, at)) = hostile {
            let at = at.index(bytes.len() + 1);
            bytes.insert(at, byte);
        }
        bytes
    })
}

fn names() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "a",
        "x-y",
        "content-length",
        "cookie",
        "cookie",
        "host",
        "te",
        "expect",
        "via",
        "connection",
        "keep-alive",
        "transfer-encoding",
        "upgrade",
        "trailer",
        "proxy-connection",
        "sec-websocket-key",
        "grpc-status",
        "authorization",
        "set-cookie",
        "content-encoding",
        "http2-settings",
        ":path",
        "x-forwarded-for",
    ])
}

fn values() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "",
        "1",
        "trailers",
        "test",
        "a=b",
        "a=b; c=d;;e",
        "100-continue",
        "0",
        "x-y",
        "close, a",
        "chunked",
        "5",
        "Trailers",
        "x: y",
        "test:80",
        "18446744073709551615",
        "+5",
        "TE, cookie,Host",
    ])
}

/// Names and values, none of them of the connection unless that is asked for.
fn fields(plain: bool) -> impl Strategy<Value = Vec<u8>> {
    let name = names().prop_filter("fits", move |name| {
        !plain || !(checks::http2::is_of_connection(name.as_bytes()) || name.starts_with(':'))
    });
    proptest::collection::vec((name, values()), 0..8).prop_map(|fields| {
        let lines = fields.iter().map(|(name, value)| [name.as_bytes(), value.as_bytes()].join(&0xff));
        lines.collect::<Vec<_>>().join(&0xff)
    })
}

#[test]
fn a_request_that_is_accepted_is_one_http1_head() {
    check(4000, &noise(), checks::http2::request);
    let parts = prop::sample::select(vec![
        // What the two bytes of shape say, and the texts that they ask for.
        (0b0000_0000, 0, "test\u{1}/p?q"),
        (0b0100_0000, 0, "test\u{1}/p?q"),
        (0b0100_0100, 1, "test\u{1}/"),
        (0b0000_0011, 0, "POST\u{1}test:80\u{1}/p"),
        (0b0000_1000, 0, "test\u{1}/p"),
        (0b0000_1100, 0, "ftp\u{1}test\u{1}/p"),
        (0b1000_0000, 0, "/p?q"),
        (0b0000_0010, 4, "test"),
        (0b0000_0001, 6, "test:80"),
        (0b0100_1001, 6, "test:80"),
        (0b0110_0001, 0, "test\u{1}/chat?x"),
        (0b0111_0001, 0, "h2c\u{1}test\u{1}/chat"),
        (0b0011_0000, 0, "websocket\u{1}test\u{1}/"),
        (0b1110_0001, 0, "/chat\u{1}host\u{1}test:1"),
    ]);
    let nearly = (parts, fields(true)).prop_map(|((shape, more, texts), fields)| {
        let texts = texts.as_bytes().split(|byte| *byte == 1).collect::<Vec<_>>().join(&0xff);
        [&[shape, more][..], &texts, &[0xff], &fields].concat()
    });
    let accepted = check(30_000, &spoiled(nearly), checks::http2::request);
    assert!(accepted > 3000, "only {accepted} of them were requests: the pieces are badly chosen");
}

#[test]
fn a_response_has_a_body_where_one_may_be() {
    check(4000, &noise(), checks::http2::response);
    let head = (prop::sample::select(vec![0u16, 1, 2, 3, 100, 200, 304, 599, 600, 101]), any::<u8>());
    let nearly = (head, fields(true))
        .prop_map(|((status, shape), fields)| [&status.to_be_bytes()[..], &[shape], &fields].concat());
    let accepted = check(30_000, &spoiled(nearly), checks::http2::response);
    assert!(accepted > 3000, "only {accepted} of them were responses: the pieces are badly chosen");
}

#[test]
fn trailers_say_the_same_in_both_versions() {
    check(4000, &noise(), checks::translated::trailers);
    let accepted = check(20_000, &spoiled(fields(true)), checks::translated::trailers);
    assert!(accepted > 3000, "only {accepted} of them were trailers: the pieces are badly chosen");
    let lines =
        proptest::collection::vec((names(), prop::sample::select(vec![":", ": ", ":\t ", " :"]), values()), 0..6);
    let section = lines.prop_map(|lines| {
        let lines = lines.iter().map(|(name, colon, value)| format!("{name}{colon}{value} \r\n"));
        (lines.collect::<String>() + "\r\n").into_bytes()
    });
    let accepted = check(20_000, &spoiled(section), checks::translated::section);
    assert!(accepted > 3000, "only {accepted} of them were sections: the pieces are badly chosen");
}

#[test]
fn heads_of_http1_say_the_same_by_http2() {
    let lines = proptest::collection::vec((names(), values()), 0..8)
        .prop_map(|fields| {
            let lines = fields.iter().map(|(name, value)| {
                // As some clients spell them.
                let name = if value.len().is_multiple_of(2) { name.to_uppercase() } else { (*name).to_owned() };
                format!("{name}:{value}\r\n")
            });
            lines.collect::<String>() + "\r\n"
        })
        .boxed();
    let opening = prop::sample::select(vec![
        "GET /p?q HTTP/1.1\r\nHost: test\r\n",
        "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n",
        "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n",
        "GET http://test?x HTTP/1.1\r\nHost: test\r\n",
        "GET http://test HTTP/1.1\r\nHost: test\r\n",
        "CONNECT test:80 HTTP/1.1\r\nHost: test:80\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n",
        "GET /p HTTP/1.0\r\n",
    ]);
    let requests = (opening, lines.clone()).prop_map(|(opening, lines)| (opening.to_owned() + &lines).into_bytes());
    let accepted = check(20_000, &spoiled(requests), checks::translated::request);
    assert!(accepted > 2000, "only {accepted} of them were requests: the pieces are badly chosen");
    let opening = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 204 \r\n",
        "HTTP/1.0 304 x\r\n",
        "HTTP/1.1 103 Early Hints\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
    ]);
    let responses = (opening, lines).prop_map(|(opening, lines)| (opening.to_owned() + &lines).into_bytes());
    let accepted = check(20_000, &spoiled(responses), checks::translated::response);
    assert!(accepted > 2000, "only {accepted} of them were responses: the pieces are badly chosen");
}
