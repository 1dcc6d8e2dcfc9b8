//! What a client speaks, from its first bytes.

/// The protocols that can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A TLS record that carries a handshake.
    Tls,
    /// An HTTP/1 request line.
    Http1,
    /// The HTTP/2 connection preface.
    Http2,
    /// Anything else.
    Opaque,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longer method names are no HTTP that anybody speaks.
const MAX_METHOD: usize = 24;

/// Decides as soon as it can; `None` needs more bytes.
pub fn sniff(first: &[u8]) -> Option<Protocol> {
    if first.is_empty() {
        return None;
    }
    if first[0] == 0x16 {
        return match first.get(1) {
            None => None,
            Some(3) => Some(Protocol::Tls),
            Some(_) => Some(Protocol::Opaque),
        };
    }
    if PREFACE.starts_with(&first[..first.len().min(PREFACE.len())]) {
        // `PRI` is no HTTP/1 method: four bytes decide between the preface and a method that begins alike.
        return if first.len() >= PREFACE.len() { Some(Protocol::Http2) } else { None };
    }
    let method = first.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    match first.get(method) {
        Some(b' ') if method > 0 && method <= MAX_METHOD => match first.get(method + 1) {
            None => None,
            Some(b'/' | b'*' | b'h' | b'H' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'[') => Some(Protocol::Http1),
            Some(_) => Some(Protocol::Opaque),
        },
        None if method <= MAX_METHOD => None,
        _ => Some(Protocol::Opaque),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_apart_from_any_prefix() {
        let cases: [(&[u8], Protocol); 6] = [
            (b"GET / HTTP/1.1\r\n", Protocol::Http1),
            (b"PATCH /x HTTP/1.1\r\n", Protocol::Http1),
            (PREFACE, Protocol::Http2),
            (b"\x16\x03\x01\x02\x00", Protocol::Tls),
            (b"SSH-2.0-OpenSSH_9\r\n", Protocol::Opaque),
            (b"\x00\x00\x00\x08", Protocol::Opaque),
        ];
        for (bytes, expected) in cases {
            let decided = (1..=bytes.len()).find_map(|length| sniff(&bytes[..length]));
            assert_eq!(decided, Some(expected), "{bytes:?}");
        }
        assert_eq!(sniff(b""), None);
    }
}
