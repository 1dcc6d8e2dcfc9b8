//! What is left of a head that was refused: as much as the form of its answer depends on. It is nothing to act on.

/// The fields that say how a refusal is to be told: whose route it would have taken, what kind of call it is, and whose
/// script asks.
const TOLD: [&[u8]; 5] = [b"host", b"origin", b"content-type", b"accept", b"access-control-request-method"];

/// Whether a field is of interest for the form of a refusal.
pub fn is_told(name: &[u8]) -> bool {
    TOLD.iter().any(|told| name.eq_ignore_ascii_case(told))
}

/// Writes the gist of an HTTP/1 head down, whole or as far as it came, as a small head of its own; the caller parses that one
/// as strictly as any. False if not even its request line is there.
pub fn gist(head: &[u8], out: &mut Vec<u8>) -> bool {
    let mut lines = head.split_inclusive(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\n")?;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    });
    let Some(first) = lines.by_ref().find(|line| !line.is_empty()) else {
        return false;
    };
    out.extend_from_slice(first);
    out.extend_from_slice(b"\r\n");
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        if is_told(&line[..colon]) {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
    true
}

#[cfg(test)]
mod tests {
    use super::gist;

    #[test]
    fn what_the_answer_depends_on_is_kept_and_nothing_else() {
        let gist = |head: &str| {
            let mut out = Vec::new();
            gist(head.as_bytes(), &mut out).then(|| String::from_utf8(out).expect("text"))
        };
        let head =
            "\r\nPOST /a.B/C HTTP/1.1\r\nHost: x\r\nX: y\r\n Origin: folded\r\nno colon\r\nORIGIN: https://a\r\n";
        let kept = "POST /a.B/C HTTP/1.1\r\nHost: x\r\nORIGIN: https://a\r\n";
        // Cut in the middle of a line, and behind its end.
        for rest in ["", "Content-Type: application/grpc-we", "\r\nHost: behind\r\n"] {
            assert_eq!(gist(&format!("{head}{rest}")).as_deref(), Some(&*format!("{kept}\r\n")), "{rest:?}");
        }
        // A second one stays, so that the gist is refused as well.
        assert_eq!(
            gist("GET / HTTP/1.1\nHost: a\nHost: b\n").as_deref(),
            Some("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        );
        for none in ["", "GET / HTTP/1.1", "\r\n\r\n"] {
            assert_eq!(gist(none), None, "{none:?}");
        }
    }
}
