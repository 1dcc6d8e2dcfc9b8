//! HTTP/2 upstreams that reset, leave, or say nothing: before the head, behind it, in mid-body, in mid-frame. The client of
//! either version gets the right status, or where the head went out already a reset (a cut body).

use onehop_tests::Proxy;
use onehop_tests::broken::Got::{ByLength, Cut, Late, Status, Whole};
use onehop_tests::broken::{Case, OK, as_http1, as_http2, begun, config, head, judge, stream};
use onehop_tests::frames::{frame, upstream};

#[test]
fn resets_and_ends() {
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    let cases: Vec<Case> = vec![
        ("RST_STREAM before the head", |peer, stream| peer.send(frame(3, 0, stream, &CANCEL)), Status(503), None),
        (
            "RST_STREAM without an error before the head",
            |peer, stream| peer.send(frame(3, 0, stream, &[0; 4])),
            Status(503),
            None,
        ),
        (
            "RST_STREAM after the head",
            |peer, stream| peer.send([head(&[OK], 4, stream), frame(3, 0, stream, &CANCEL)].concat()),
            Late,
            None,
        ),
        (
            "RST_STREAM in mid-body",
            |peer, stream| peer.send([begun(stream), frame(3, 0, stream, &CANCEL)].concat()),
            Cut,
            None,
        ),
        (
            "RST_STREAM without an error in mid-body",
            |peer, stream| peer.send([begun(stream), frame(3, 0, stream, &[0; 4])].concat()),
            Cut,
            None,
        ),
        (
            "RST_STREAM REFUSED_STREAM in mid-body",
            |peer, stream| peer.send([begun(stream), frame(3, 0, stream, &[0, 0, 0, 7])].concat()),
            Cut,
            None,
        ),
        ("an end before the head", |peer, _| peer.finish(), Status(503), None),
        (
            "an end within the head",
            |peer, stream| {
                peer.send(&head(&[OK, ("a", "b")], 5, stream)[..12]);
                peer.finish();
            },
            Status(503),
            None,
        ),
        (
            "an end within the head of a frame",
            |peer, stream| {
                peer.send(&head(&[OK], 5, stream)[..5]);
                peer.finish();
            },
            Status(503),
            None,
        ),
        (
            "an end behind the head",
            |peer, stream| {
                peer.send(head(&[OK], 4, stream));
                peer.finish();
            },
            Late,
            None,
        ),
        (
            "an end between frames of the body",
            |peer, stream| {
                peer.send(begun(stream));
                peer.finish();
            },
            Cut,
            None,
        ),
        (
            "an end within a frame of the body",
            |peer, stream| {
                peer.send([begun(stream), frame(0, 1, stream, b"other half")[..14].to_vec()].concat());
                peer.finish();
            },
            Cut,
            None,
        ),
        (
            "an end where the length is reached and END_STREAM is not",
            |peer, stream| {
                peer.send([head(&[OK, ("content-length", "4")], 4, stream), frame(0, 0, stream, b"half")].concat());
                peer.finish();
            },
            ByLength,
            None,
        ),
        (
            "GOAWAY of an error in mid-body, and an end",
            |peer, stream| {
                peer.send([begun(stream), frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 2])].concat());
                peer.finish();
            },
            Cut,
            None,
        ),
        (
            "GOAWAY that takes the request, and an end",
            |peer, _| {
                peer.send(frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 2]));
                peer.finish();
            },
            Status(503),
            None,
        ),
        (
            "GOAWAY in mid-body, and the rest",
            |peer, stream| {
                let rest = frame(0, 1, stream, b"rest");
                peer.send([begun(stream), frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]), rest].concat());
            },
            Whole,
            None,
        ),
    ];
    judge("", &cases);
}

#[test]
fn those_that_say_nothing_time_out() {
    let cases: Vec<Case> = vec![("no answer", |_, _| {}, Status(504), stream(8))];
    judge("timeout = \"1s\"", &cases);
    // SETTINGS never come, nor anything else.
    let mute = upstream(|peer| while peer.next().is_some() {});
    let proxy = Proxy::start_with(&config("timeout = \"1s\"", &[mute, mute]), &["--workers", "1"], None);
    assert_eq!(as_http1(&proxy, "/0"), Status(504));
    assert_eq!(as_http2(&proxy, "/1"), Status(504));
}
