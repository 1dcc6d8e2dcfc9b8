//! Each rule with the message that breaks it.

use super::*;
use crate::http1::{BodyLength, Edits, Known, Limits, Method, Reject, RequestHead, ResponseHead};

type Fields<'a> = &'a [(&'a [u8], &'a [u8])];

fn get<'a>() -> Parts<'a> {
    Parts {
        method: b"GET",
        scheme: Some(b"https"),
        authority: Some(b"example.com"),
        path: Some(b"/a?b=c"),
        ends: true,
        ..Parts::default()
    }
}

fn parse(parts: &Parts<'_>, fields: Fields<'_>) -> Result<(RequestHead, Vec<u8>), Reject> {
    let (mut head, mut out) = (RequestHead::default(), Vec::new());
    request(parts, fields.iter().copied(), &Limits::default(), &mut head, &mut out)?;
    Ok((head, out))
}

#[test]
fn a_request_is_written_down_once() {
    let fields: Fields<'_> = &[
        (b"accept", b"*/*"),
        (b"cookie", b"a=1"),
        (b"te", b"trailers"),
        (b"cookie", b"b=2"),
        (b"host", b"Example.com"),
    ];
    let (head, bytes) = parse(&get(), fields).expect("well-formed");
    assert_eq!((head.method, head.authority.of(&bytes)), (Method::Get, &b"example.com"[..]));
    assert_eq!((head.path.of(&bytes), head.query.of(&bytes)), (&b"/a"[..], &b"b=c"[..]));
    assert_eq!(head.target.of(&bytes), b"/a?b=c");
    assert_eq!(head.body, BodyLength::None);
    let cookie = head.find(Known::Cookie).expect("joined");
    assert_eq!(cookie.value.of(&bytes), b"a=1; b=2");
    assert!(head.find(Known::Host).is_none());
    assert_eq!(&bytes[head.fields[0].name.start as usize..head.fields[0].line_end as usize], b"accept: */*\r\n");
}

#[test]
fn what_could_smuggle_is_refused() {
    let cases: [(Fields<'_>, Reject); 13] = [
        (&[(b"Accept", b"x")], Reject::BadFieldName),
        (&[(b"a b", b"x")], Reject::BadFieldName),
        (&[(b"a:b", b"x")], Reject::BadFieldName),
        (&[(b"", b"x")], Reject::BadFieldName),
        (&[(b"a\r\nb", b"x")], Reject::BadFieldName),
        (&[(b"a", b"x\r\ny: z")], Reject::BadFieldValue),
        (&[(b"a", b"x\0")], Reject::BadFieldValue),
        (&[(b"a", b" x")], Reject::BadFieldValue),
        (&[(b"transfer-encoding", b"chunked")], Reject::ConnectionField),
        (&[(b"connection", b"close")], Reject::ConnectionField),
        (&[(b"te", b"gzip")], Reject::ConnectionField),
        (&[(b"content-length", b"1"), (b"content-length", b"1")], Reject::BadLength),
        (&[(b"host", b"other.org")], Reject::HostMismatch),
    ];
    for (fields, expected) in cases {
        assert_eq!(parse(&Parts { ends: false, ..get() }, fields).err(), Some(expected), "{fields:?}");
    }
    let parts: [(Parts<'_>, Reject); 11] = [
        (Parts { path: Some(b"/a b"), ..get() }, Reject::BadTarget),
        (Parts { path: Some(b"/a\r\nx: y"), ..get() }, Reject::BadTarget),
        (Parts { path: Some(b"a"), ..get() }, Reject::BadTarget),
        (Parts { path: Some(b""), ..get() }, Reject::BadTarget),
        (Parts { path: Some(b"*"), ..get() }, Reject::BadTarget),
        (Parts { path: None, ..get() }, Reject::BadTarget),
        (Parts { scheme: Some(b"ftp"), ..get() }, Reject::BadTarget),
        (Parts { method: b"GET /", ..get() }, Reject::BadRequestLine),
        (Parts { authority: Some(b"a@b"), ..get() }, Reject::BadHost),
        (Parts { authority: None, ..get() }, Reject::MissingHost),
        (Parts { protocol: Some(b"websocket"), ..get() }, Reject::BadRequestLine),
    ];
    for (parts, expected) in parts {
        assert_eq!(parse(&parts, &[]).err(), Some(expected), "{parts:?}");
    }
}

#[test]
fn nothing_stands_between_the_field_lines() {
    // Field lines are copied in runs: a host that looks like a field must not go along as one.
    let fields: Fields<'_> = &[(b"a", b"1"), (b"host", b"content-length:5"), (b"b", b"2")];
    for authority in [Some(&b"content-length:5"[..]), None] {
        let (head, bytes) = parse(&Parts { authority, ..get() }, fields).expect("well-formed");
        assert_eq!(head.authority.of(&bytes), b"content-length:5");
        assert_eq!(&bytes[head.fields[0].name.start as usize..head.fields[1].line_end as usize], b"a: 1\r\nb: 2\r\n");
    }
}

#[test]
fn nothing_stands_before_the_key_of_an_upgrade() {
    // Found by fuzzing: the host went upstream as the beginning of a field of its own choice.
    let parts = Parts {
        method: b"CONNECT",
        protocol: Some(b"websocket"),
        path: Some(b"/chat"),
        authority: None,
        ends: false,
        key: b"a2V5",
        ..get()
    };
    let (head, bytes) = parse(&parts, &[(b"host", b"x-forwarded-for:1"), (b"a", b"1")]).expect("well-formed");
    assert_eq!(head.authority.of(&bytes), b"x-forwarded-for:1");
    let lines = &bytes[head.fields[0].name.start as usize..head.fields[1].line_end as usize];
    assert_eq!(lines, b"a: 1\r\nsec-websocket-key: a2V5\r\n");
}

#[test]
fn crumbs_are_bounded_by_their_bytes_alone() {
    let crumb: &[u8] = b"0123456789abcdef";
    for (count, fits) in [(64, true), (65, true), (1000, true), (Limits::default().head_bytes as usize / 18 + 1, false)]
    {
        let fields = vec![(&b"cookie"[..], crumb); count];
        match parse(&get(), &fields) {
            Ok((head, bytes)) => {
                assert_eq!(
                    head.find(Known::Cookie).expect("joined").value.of(&bytes),
                    vec![crumb; count].join(&b"; "[..])
                );
                assert!(fits && head.fields.len() == 1, "{count}");
            }
            Err(reject) => assert!(!fits && reject == Reject::HeadTooLarge, "{count}: {reject:?}"),
        }
    }
}

#[test]
fn empty_crumbs_leave_no_blanks() {
    let fields: Fields<'_> =
        &[(b"cookie", b""), (b"cookie", b"a=1"), (b"cookie", b""), (b"cookie", b"b=2"), (b"cookie", b"")];
    let (head, bytes) = parse(&get(), fields).expect("well-formed");
    assert_eq!(head.find(Known::Cookie).expect("joined").value.of(&bytes), b"a=1; b=2");
    let (head, _) = parse(&get(), &fields[..1]).expect("well-formed");
    assert!(head.find(Known::Cookie).is_none());
}

#[test]
fn a_head_without_fields_has_a_limit_too() {
    let authority = [b'a'; 300];
    let limits = Limits { head_bytes: 200, ..Limits::default() };
    let parts = Parts { authority: Some(&authority), ..get() };
    let (mut head, mut out) = (RequestHead::default(), Vec::new());
    let read = request(&parts, std::iter::empty(), &limits, &mut head, &mut out);
    assert_eq!(read, Err(Reject::HeadTooLarge));
}

#[test]
fn trailers_have_limits() {
    let limits = Limits { head_bytes: 11, fields: 2, request_line: 0 };
    let lines = |fields: Fields<'_>| trailer_lines(fields.iter().copied(), &limits, &mut Vec::new());
    assert_eq!(lines(&[(b"a", b"1234")]), Ok(()));
    assert_eq!(lines(&[(b"a", b"12345")]), Err(Reject::TrailersTooLarge));
    // Those that are left out count.
    assert_eq!(lines(&[(b"te", b""), (b"host", b""), (b"via", b"")]), Err(Reject::TrailersTooLarge));
}

#[test]
fn connect_in_both_kinds() {
    let plain = Parts { method: b"CONNECT", authority: Some(b"db:5432"), ..Parts::default() };
    let (head, bytes) = parse(&plain, &[]).expect("well-formed");
    assert_eq!((head.method, head.target.of(&bytes)), (Method::Connect, &b"db:5432"[..]));
    assert_eq!(parse(&Parts { path: Some(b"/"), ..plain }, &[]).err(), Some(Reject::BadTarget));
    let extended = Parts { method: b"CONNECT", protocol: Some(b"websocket"), key: b"a2V5", ..get() };
    let (head, bytes) = parse(&extended, &[(b"sec-websocket-version", b"13")]).expect("well-formed");
    assert_eq!((head.method, head.upgrade.expect("set").of(&bytes)), (Method::Get, &b"websocket"[..]));
    assert_eq!(head.value(&bytes, "Sec-WebSocket-Key"), Some(&b"a2V5"[..]));
}

#[test]
fn lengths_agree_with_the_end_of_the_stream() {
    let length: Fields<'_> = &[(b"content-length", b"5")];
    assert_eq!(parse(&get(), length).err(), Some(Reject::BadLength));
    let (head, _) = parse(&Parts { ends: false, ..get() }, length).expect("well-formed");
    assert_eq!(head.body, BodyLength::Length(5));
    let (head, _) = parse(&Parts { ends: false, ..get() }, &[]).expect("well-formed");
    assert_eq!(head.body, BodyLength::Chunked);
}

#[test]
fn responses_and_their_bodies() {
    let parse = |status, method, ends, fields: Fields<'_>| {
        let (mut head, mut out) = (ResponseHead::default(), Vec::new());
        let fields = fields.iter().copied();
        response(status, "OK", method, ends, fields, &Limits::default(), &mut head, &mut out).map(|()| head.body)
    };
    assert_eq!(parse(200, Method::Get, false, &[]), Ok(BodyLength::Chunked));
    assert_eq!(parse(200, Method::Get, true, &[]), Ok(BodyLength::None));
    assert_eq!(parse(200, Method::Head, true, &[(b"content-length", b"9")]), Ok(BodyLength::None));
    assert_eq!(parse(200, Method::Get, true, &[(b"content-length", b"9")]), Err(Reject::BadLength));
    assert_eq!(parse(101, Method::Get, true, &[]), Err(Reject::BadStatusLine));
    assert_eq!(parse(200, Method::Get, true, &[(b"connection", b"x")]), Err(Reject::ConnectionField));
}

#[test]
fn cookies_are_split_and_hop_by_hop_fields_stay_behind() {
    let head_bytes = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; y=2\r\nConnection: close\r\nX-Y: z\r\n\r\n";
    let mut head = RequestHead::default();
    head.parse(head_bytes, &Limits::default()).expect("well-formed");
    let mut seen = Vec::new();
    let edits = Edits { drop: 0, add: &[(b"Via", b"1.1 x"), (b"Connection", b"TE"), (b"TE", b"trailers")] };
    request_fields(&head, head_bytes, &edits, |_, name, value| seen.push((name.to_vec(), value.to_vec())));
    let expected: Fields<'_> =
        &[(b"Cookie", b"x=1"), (b"Cookie", b"y=2"), (b"X-Y", b"z"), (b"Via", b"1.1 x"), (b"TE", b"trailers")];
    assert!(seen.iter().map(|(name, value)| (&name[..], &value[..])).eq(expected.iter().copied()), "{seen:?}");
}

#[test]
fn crumbs_of_cookies_are_bounded_by_their_number() {
    let sent = |cookies: &[String]| {
        let lines: String = cookies.iter().map(|cookie| format!("Cookie: {cookie}\r\n")).collect();
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes();
        let mut head = RequestHead::default();
        head.parse(&bytes, &Limits::default()).expect("well-formed");
        let mut seen = Vec::new();
        request_fields(&head, &bytes, &Edits { drop: 0, add: &[] }, |_, _, value| {
            seen.push(String::from_utf8_lossy(value).into_owned());
        });
        seen
    };
    let crumbs = |count: usize| vec!["a=b"; count].join("; ");
    assert_eq!(sent(&[crumbs(64)]).len(), 64);
    // One more, and nothing is lost or cut: they go as they came.
    assert_eq!(sent(&[crumbs(65)]), [crumbs(65)]);
    assert_eq!(sent(&[crumbs(30_000 / 5)]), [crumbs(30_000 / 5)]);
    assert_eq!(sent(&[crumbs(40), crumbs(40), crumbs(24)]).len(), 65, "all of a request together");
}

#[test]
fn trailers_pass_both_ways() {
    let mut out = Vec::new();
    let fields: Fields<'_> = &[(b"grpc-status", b"0"), (b"content-length", b"3")];
    trailer_lines(fields.iter().copied(), &Limits::default(), &mut out).expect("well-formed");
    assert_eq!(out, b"grpc-status: 0\r\n\r\n");
    let mut seen = Vec::new();
    trailer_fields(&out, &Limits::default(), |name, value| seen.push((name.to_vec(), value.to_vec()))).expect("parses");
    assert_eq!(seen, [(b"grpc-status".to_vec(), b"0".to_vec())]);
}
