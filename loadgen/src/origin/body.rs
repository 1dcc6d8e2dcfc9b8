//! Encoding of answers.

/// Payload bytes of a chunk.
const CHUNK: usize = 16 * 1024;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nServer: onehop-load\r\nContent-Type: text/plain\r\n";

/// The head of an answer with so many bytes of body.
pub(super) fn head(length: usize, chunked: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(HEAD);
    if chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    } else {
        out.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
    }
}

/// A part of a chunked body, in chunks.
pub(super) fn chunks(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(CHUNK) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
}

/// What ends a chunked body.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A whole answer, with its body or, for HEAD, without it.
pub(super) fn whole(bytes: &[u8], chunked: bool, body: bool) -> Vec<u8> {
    let mut out = Vec::new();
    head(bytes.len(), chunked, &mut out);
    match (body, chunked) {
        (true, true) => {
            chunks(bytes, &mut out);
            out.extend_from_slice(LAST_CHUNK);
        }
        (true, false) => out.extend_from_slice(bytes),
        (false, _) => {}
    }
    out
}
