//! What must hold for gRPC-Web's base64 and its trailers, whatever comes.

use onehop_wire::grpc_web::{Decoder, encode, trailer_frame};
use onehop_wire::http1::Limits;
use onehop_wire::http2::{trailer_fields, trailer_lines};

use super::http2::pairs;

/// Decodes what comes in pieces; what one piece takes of memory is bounded by the piece.
pub fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let (mut decoder, mut all) = (Decoder::default(), Vec::new());
    for piece in pieces {
        let mut out = Vec::new();
        let read = decoder.decode(piece, &mut out);
        assert!(out.capacity() <= piece.len() + 8, "{} bytes for {}", out.capacity(), piece.len());
        read.ok()?;
        all.extend(out);
    }
    decoder.finish().ok().map(|()| all)
}

/// Groups of four by the book (RFC 4648 4), each of which may be padded.
fn by_the_book(text: &[u8]) -> Option<Vec<u8>> {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    let mut groups = text.chunks_exact(4);
    for group in &mut groups {
        let kept = group.iter().position(|byte| *byte == b'=').unwrap_or(4);
        if kept < 2 || group[kept..].iter().any(|byte| *byte != b'=') {
            return None;
        }
        let mut bits = 0;
        for byte in &group[..kept] {
            bits = bits * 64 + digits.iter().position(|digit| digit == byte)?;
        }
        bits *= [0, 0, 4096, 64, 1][kept];
        out.extend([(bits >> 16) as u8, (bits >> 8) as u8, bits as u8][..kept - 1].iter());
    }
    groups.remainder().is_empty().then_some(out)
}

/// A text is decoded by the book, however it is cut; what is no base64 is refused, however it is cut.
pub fn text(bytes: &[u8], step: usize) {
    let whole = by_the_book(bytes);
    assert_eq!(decode(std::iter::once(bytes)), whole);
    assert_eq!(decode(bytes.chunks(step.max(1))), whole);
    // Cut where the bytes themselves say so.
    let mut uneven = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(1 + usize::from(rest[0] % 5)));
        uneven.push(piece);
        rest = more;
    }
    assert_eq!(decode(uneven.into_iter()), whole);
}

/// Any bytes in any pieces, each encoded by itself as they come, are read back as one body.
pub fn body(bytes: &[u8], step: usize) {
    let mut text = Vec::new();
    bytes.chunks(step.max(1)).for_each(|piece| encode(piece, &mut text));
    assert_eq!(by_the_book(&text).as_deref(), Some(bytes));
    assert_eq!(decode(text.chunks(step.max(1) + 1)).as_deref(), Some(bytes));
}

/// Trailers become one frame whose length is that of their lines, and are read from it as they were.
pub fn trailers(bytes: &[u8]) {
    let said = pairs(bytes.split(|byte| *byte == 0xff));
    let (limits, mut lines) = (Limits::default(), Vec::new());
    if trailer_lines(said.iter().copied(), &limits, &mut lines).is_err() {
        return;
    }
    // Behind a message, as a client finds it.
    let mut out = b"\0\0\0\0\x01m".to_vec();
    trailer_frame(&lines, &mut out);
    let [0x80, a, b, c, d, content @ ..] = &out[6..] else { panic!("a frame of trailers: {out:?}") };
    assert_eq!(u32::from_be_bytes([*a, *b, *c, *d]) as usize, content.len());
    assert!(content.is_empty() || content.ends_with(b"\r\n") && !content.ends_with(b"\r\n\r\n"));
    let section = [content, b"\r\n"].concat();
    assert_eq!(section, lines);
    let mut count = 0;
    trailer_fields(&section, &limits, |_, _| count += 1).expect("its own");
    assert_eq!(count, content.split(|byte| *byte == b'\n').count() - 1);
}
