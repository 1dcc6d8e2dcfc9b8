//! Two sides of a connection that talk to each other, and one that is talked to by nobody it should trust.

use super::super::encode::Numbers;
use super::*;

/// Two sides that have said their settings.
fn pair() -> (Link, Link) {
    let (mut a, mut b) = (Link::new(1 << 20, 1 << 24, &[(2, 0)]), Link::new(1 << 16, 1 << 20, &[(3, 7)]));
    for _ in 0..2 {
        assert!(pass(&mut a, &mut b, 5).iter().all(|event| !event.contains("Head")));
        pass(&mut b, &mut a, 1000);
    }
    (a, b)
}

/// Carries what waits from one side to the other, cut into pieces.
fn pass(from: &mut Link, to: &mut Link, cut: usize) -> Vec<String> {
    let bytes = from.out.waiting().to_vec();
    from.out.written(bytes.len());
    feed(to, &bytes, cut).expect("no rule is broken")
}

fn feed(to: &mut Link, bytes: &[u8], cut: usize) -> Result<Vec<String>, Breach> {
    let (mut have, mut events) = (Vec::new(), Vec::new());
    for part in bytes.chunks(cut) {
        have.extend_from_slice(part);
        let mut at = 0;
        loop {
            let (used, event) = to.next(&have[at..])?;
            at += used;
            match event {
                Some(event) => events.push(format!("{event:?}")),
                None if used == 0 => break,
                None => {}
            }
        }
        have.drain(..at);
    }
    assert!(have.is_empty() || to.body.is_none(), "{} bytes are left", have.len());
    Ok(events)
}

fn answer(numbers: &mut Numbers) -> Vec<Field> {
    let length = numbers.of("content-length", "5");
    vec![Field::new(":status", "200", None), Field::new("content-length", "5", Some(length))]
}

#[test]
fn settings_are_heard() {
    let (a, b) = pair();
    assert_eq!((a.peer.window, a.peer.streams, a.window), (1 << 16, 7, 1 << 20));
    assert_eq!((b.peer.window, b.window), (1 << 20, 1 << 24));
}

#[test]
fn heads_and_bodies_arrive_however_they_are_cut() {
    let fields = answer(&mut Numbers::default());
    for cut in [1, 2, 9, 10, 100] {
        let (mut a, mut b) = pair();
        for turn in 0..3 {
            a.head(1, &fields, false);
            a.body(1, [&b"he"[..], b"llo"].into_iter(), true);
            let events = pass(&mut a, &mut b, cut).join(" ");
            assert!(events.contains("status: 200") && events.contains("length: Some(5)"), "{turn} {events}");
            assert!(events.ends_with("end: true }"), "{events}");
            let weights: usize = events
                .split("weight: ")
                .skip(1)
                .map(|rest| rest.split(',').next().and_then(|digits| digits.parse::<usize>().ok()).expect("a number"))
                .sum();
            assert_eq!(weights, 5);
        }
        assert_eq!(b.taken, 15);
    }
}

#[test]
fn padding_and_priority_are_passed_over_and_weigh() {
    let (_, mut b) = pair();
    let mut bytes = vec![0, 0, 9, 1, PADDED | PRIORITY | END_HEADERS, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0x88, 0, 0];
    bytes.extend([0, 0, 6, 0, PADDED | END_STREAM, 0, 0, 0, 3, 3, b'h', b'i', 0, 0, 0]);
    for cut in [1, 4, 100] {
        let events = feed(&mut b, &bytes, cut).expect("good").join(" ");
        assert!(events.contains("status: 200"), "{events}");
        let bytes = events.matches("bytes: [104").count() + events.matches("bytes: [105").count();
        assert!(bytes >= 1 && events.ends_with("end: true }"), "{events}");
    }
    assert_eq!(b.taken, 18);
}

#[test]
fn a_large_head_is_continued() {
    let (mut a, mut b) = pair();
    let fields = vec![Field::new(":status", "200", None), Field::new("x", &"y".repeat(40_000), None)];
    a.head(1, &fields, true);
    let events = pass(&mut a, &mut b, 1 << 20);
    assert_eq!(events.len(), 1);
    assert!(events[0].contains("status: 200") && events[0].contains("end: true"));
}

#[test]
fn windows_bound_and_are_refilled() {
    let (mut a, mut b) = pair();
    assert_eq!(a.room(1 << 20), 16_384);
    assert_eq!(a.room(100), 100);
    assert_eq!(a.room(-5), 0);
    let piece = vec![0; 16_384];
    for _ in 0..33 {
        a.body(1, std::iter::once(&piece[..]), false);
    }
    assert_eq!(a.window, (1 << 20) - 33 * 16_384);
    pass(&mut a, &mut b, 1 << 20);
    pass(&mut b, &mut a, 1 << 20);
    assert_eq!(a.window, 1 << 20);
}

#[test]
fn broken_rules_are_named() {
    let frame = |length: usize, kind: u8, flags: u8, stream: u8| {
        let mut bytes = vec![0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, stream];
        bytes.resize(9 + length, 0);
        bytes
    };
    let cases: [(Vec<u8>, u32); 13] = [
        (frame(16_385, 0, 0, 1), code::FRAME_SIZE_ERROR),
        (frame(1, 0, 0, 0), code::PROTOCOL_ERROR),
        (frame(0, 1, 4, 0), code::PROTOCOL_ERROR),
        (frame(4, 1, 4 | PRIORITY, 1), code::PROTOCOL_ERROR),
        (frame(1, 1, 4, 1), code::COMPRESSION_ERROR),
        (frame(3, 3, 0, 1), code::FRAME_SIZE_ERROR),
        (frame(5, 4, 0, 0), code::FRAME_SIZE_ERROR),
        (frame(4, 5, 0, 1), code::PROTOCOL_ERROR),
        (frame(7, 6, 0, 0), code::FRAME_SIZE_ERROR),
        (frame(4, 8, 0, 0), code::PROTOCOL_ERROR),
        (frame(0, 9, 4, 1), code::PROTOCOL_ERROR),
        ([frame(0, 1, 0, 1), frame(0, 0, 1, 1)].concat(), code::PROTOCOL_ERROR),
        ([frame(0, 1, 0, 1), frame(0, 9, 0, 1)].concat(), code::ENHANCE_YOUR_CALM),
    ];
    for (bytes, code) in cases {
        let (_, mut b) = pair();
        assert_eq!(feed(&mut b, &bytes, 7), Err(Breach(code)), "{:?}", &bytes[..9]);
    }
    // A server that speaks HTTP/1, and one that does not begin with its settings.
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &frame(8, 6, 0, 0)] {
        assert!(feed(&mut Link::new(1, 1, &[]), bytes, 100).is_err());
    }
}

#[test]
fn nothing_that_comes_can_hurt() {
    let mut random = crate::random::Random::new(7, 7);
    for _ in 0..2000 {
        let (_, mut b) = pair();
        let mut bytes = Vec::new();
        for _ in 0..4 {
            let length = random.below(20) as usize;
            bytes.extend([
                0,
                0,
                length as u8,
                random.below(11) as u8,
                random.below(64) as u8,
                0,
                0,
                0,
                random.below(3) as u8,
            ]);
            bytes.extend((0..length).map(|_| random.below(256) as u8));
        }
        // Whatever it is, it is taken or refused.
        let _ = feed(&mut b, &bytes, 1 + random.below(30) as usize);
    }
}
