//! The rules of a strict reading, one case each.

use super::*;

fn request(text: &str) -> Result<RequestHead, Reject> {
    let mut head = RequestHead::default();
    head.parse(text.as_bytes(), &Limits::default()).map(|()| head)
}

fn rejected(text: &str) -> Reject {
    request(text).expect_err(text)
}

#[test]
fn a_plain_request_is_read() {
    let text = "GET /a/b?c=d HTTP/1.1\r\nHost: Example.com:80\r\nX-A: 1\r\nConnection: X-A, close\r\n\r\n";
    let head = request(text).expect("valid");
    let bytes = text.as_bytes();
    assert_eq!((head.path.of(bytes), head.query.of(bytes)), (&b"/a/b"[..], &b"c=d"[..]));
    assert_eq!(head.authority.of(bytes), b"Example.com:80");
    assert_eq!((head.body, head.keep_alive), (BodyLength::None, false));
    assert_eq!(hop_by_hop(&head.fields, head.named_by_connection), 0b110);
}

#[test]
fn smuggling_is_refused_by_name() {
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    let cases = [
        ("Content-Length: 1\r\nTransfer-Encoding: chunked", Reject::LengthAndCoding),
        ("Content-Length: 1\r\nContent-Length: 2", Reject::BadLength),
        ("Content-Length: 1\r\nContent-Length: 1", Reject::BadLength),
        ("Content-Length: +1", Reject::BadLength),
        ("Content-Length: 1, 1", Reject::BadLength),
        ("Content-Length: 0x1", Reject::BadLength),
        ("Content-Length: 99999999999999999999", Reject::BadLength),
        ("Transfer-Encoding: gzip", Reject::UnknownCoding),
        ("Transfer-Encoding: chunked, chunked", Reject::UnknownCoding),
        ("Transfer-Encoding: \x0bchunked", Reject::BadFieldValue),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Reject::BadCoding),
        ("Transfer-Encoding : chunked", Reject::BadFieldName),
        ("X: a\r\n b", Reject::ObsFold),
        ("X: a\nY: b", Reject::BareLf),
        ("X: a\rY: b", Reject::BareCr),
        ("X: a\0b", Reject::BadFieldValue),
        ("Host: b", Reject::DuplicateHost),
        ("Expect: 200-ok", Reject::BadExpectation),
    ];
    for (fields, reject) in cases {
        let got = rejected(&with(fields));
        assert_eq!(got.status(), reject.status(), "{fields:?} gave {got:?}");
    }
}

#[test]
fn targets_and_versions() {
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    assert_eq!(rejected("GET / HTTP/1.1\r\n\r\n"), Reject::MissingHost);
    assert!(request("GET / HTTP/1.0\r\n\r\n").is_ok());
    assert_eq!(rejected(&line("GET / HTTP/2.0")), Reject::BadVersion);
    assert_eq!(rejected(&line("GET  / HTTP/1.1")), Reject::BadRequestLine);
    assert_eq!(rejected(&line("GET /a#b HTTP/1.1")), Reject::BadTarget);
    assert_eq!(rejected(&line("GET /\u{e9} HTTP/1.1")), Reject::BadTarget);
    assert_eq!(rejected(&line("GET http://b/ HTTP/1.1")), Reject::HostMismatch);
    assert_eq!(rejected(&line("GET * HTTP/1.1")), Reject::BadTarget);
    assert_eq!(rejected(&line("GET a HTTP/1.1")), Reject::BadTarget);
    assert_eq!(rejected("CONNECT a:1 HTTP/1.1\r\nHost: b:1\r\n\r\n"), Reject::HostMismatch);
    assert!(request(&line("GET http://A/x HTTP/1.1")).is_ok_and(|head| head.absolute_form));
    assert!(request(&line("OPTIONS * HTTP/1.1")).is_ok());
    assert!(request("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    assert_eq!(rejected(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000))), Reject::LineTooLong);
    assert_eq!(
        rejected(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(100))),
        Reject::TooManyFields
    );
    assert_eq!(rejected("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), Reject::BadHost);
    assert_eq!(rejected("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"), Reject::BadHost);
    assert!(request("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").is_ok());
}

#[test]
fn responses_are_framed_by_method_and_status() {
    let parse = |text: &str, method| {
        let mut head = ResponseHead::default();
        head.parse(text.as_bytes(), method, &Limits::default()).map(|()| (head.body, head.keep_alive))
    };
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(parse(length, Method::Get), Ok((BodyLength::Length(5), true)));
    assert_eq!(parse(length, Method::Head), Ok((BodyLength::None, true)));
    assert_eq!(parse("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", Method::Get), Ok((BodyLength::None, true)));
    assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\n", Method::Get), Ok((BodyLength::UntilClose, false)));
    assert_eq!(parse("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Method::Get), Ok((BodyLength::Length(5), false)));
    assert_eq!(parse("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Method::Get), Ok((BodyLength::Length(0), true)));
    assert!(parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Method::Get).is_err());
    assert!(parse("HTTP/1.1 2000 OK\r\n\r\n", Method::Get).is_err());
}

#[test]
fn chunks_are_walked_alike_in_any_split() {
    let body = b"5;a=b\r\nhello\r\n0A\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\nrest";
    for split in 0..body.len() - 4 {
        let mut decoder = ChunkedDecoder::new();
        let mut seen = Vec::new();
        let mut at = 0;
        for end in [split, body.len()] {
            while let part @ (Part::Framing(_) | Part::Data(_) | Part::Trailers(_)) =
                decoder.next(&body[at..end]).expect("valid")
            {
                let (Part::Framing(length) | Part::Data(length) | Part::Trailers(length)) = part else {
                    break;
                };
                if matches!(part, Part::Data(_)) {
                    seen.extend_from_slice(&body[at..at + length]);
                }
                at += length;
            }
        }
        assert!(decoder.is_done(), "split at {split}");
        assert_eq!((seen.as_slice(), &body[at..]), (&b"hello0123456789"[..], &b"rest"[..]));
    }
}

#[test]
fn bad_chunks_are_refused() {
    for bad in [
        "x\r\n",
        "\r\n",
        "5 \r\nhello\r\n",
        "5\nhello\r\n",
        "5\r\nhelloX",
        "-1\r\n",
        "5;a\nb\r\n",
        "5;\r\n",
        "5;a=\r\n",
        "5;a=\"b\r\n",
        "5; a\r\n",
        "11111111111111111\r\n",
        "5\r\rhello",
    ] {
        assert!(ChunkedDecoder::new().scan(bad.as_bytes()).is_err(), "{bad:?}");
    }
    let mut out = Vec::new();
    trailers(b"X-T: 1\r\nContent-Length: 3\r\nHost: a\r\n\r\n", &Limits::default(), &mut out).expect("well-formed");
    assert_eq!(out, b"X-T: 1\r\n\r\n");
    assert!(trailers(b"X T: 1\r\n\r\n", &Limits::default(), &mut out).is_err());
}

#[test]
fn a_tunnel_is_not_upgraded() {
    let upgrade =
        |line: &str| request(&format!("{line}\r\nHost: h:1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"));
    assert!(upgrade("GET / HTTP/1.1").expect("valid").upgrade.is_some());
    assert!(upgrade("CONNECT h:1 HTTP/1.1").expect("valid").upgrade.is_none());
}

#[test]
fn trailers_are_found_in_any_pieces() {
    for section in [&b"\r\n"[..], b"a: b\r\n\r\n", b"a: b\r\n\r", b"a: b\r\nc: d\r\n\r\n\r\n", b"a\n\r\n", b"\n"] {
        let whole = ChunkedDecoder::new().scan(&[b"0\r\n", section].concat());
        for cut in 1..=section.len() {
            let mut decoder = ChunkedDecoder::new();
            assert_eq!(decoder.scan(b"0\r\n").map(|scan| scan.forward), Ok(3));
            let mut end = 0;
            let last = loop {
                end = (end + cut).min(section.len());
                match decoder.scan(&section[..end]) {
                    Ok(Scan { trailers: None, .. }) if end < section.len() => {}
                    last => break last,
                }
            };
            assert_eq!(last.map(|scan| scan.trailers), whole.map(|scan| scan.trailers), "{section:?} by {cut}");
        }
    }
}

#[test]
fn connection_names_no_more_than_there_can_be() {
    let head = |names: usize| {
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\nx: y\r\n\r\n", vec!["x"; names].join(","))
    };
    let read = |names| RequestHead::default().parse(head(names).as_bytes(), &Limits::default());
    assert_eq!(read(MAX_FIELDS), Ok(()));
    assert_eq!(read(MAX_FIELDS + 1), Err(Reject::TooManyFields));
}

#[test]
fn heads_end_where_they_end_in_any_split() {
    let text = b"\r\nGET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\nbody";
    for split in 0..text.len() {
        let mut scanner = HeadScanner::default();
        let early = scanner.find_end(&text[..split]);
        let end = early.or_else(|| scanner.find_end(text));
        assert_eq!(end, Some(text.len() - 4), "split at {split}");
    }
}

#[test]
fn an_edited_head_keeps_the_other_lines_as_they_were() {
    let text = b"GET /x HTTP/1.1\r\nHost: a\r\nx-LOWER:  v  \r\nDrop: me\r\nLast: 1\r\n\r\n";
    let mut head = RequestHead::default();
    head.parse(text, &Limits::default()).expect("valid");
    let mut out = Vec::new();
    encode_request(&mut out, &head, text, b"/y", &Edits { drop: 0b100, add: &[(b"Via", b"1.1 me")] });
    assert_eq!(out, b"GET /y HTTP/1.1\r\nHost: a\r\nx-LOWER:  v  \r\nLast: 1\r\nVia: 1.1 me\r\n\r\n");
}

#[test]
fn every_known_field_is_recognised_in_any_case() {
    for (length, name, known) in super::head::KNOWN {
        assert_eq!(name.len(), *length, "{known:?}");
        assert_eq!(Known::recognise(&name.to_ascii_uppercase()), *known);
        for at in 0..name.len() {
            let mut other = name.to_vec();
            other[at] = if other[at] == b'q' { b'j' } else { b'q' };
            assert_eq!(Known::recognise(&other), Known::Other, "{}", String::from_utf8_lossy(&other));
        }
    }
    assert_eq!(Known::recognise(b"hosts"), Known::Other);
}
