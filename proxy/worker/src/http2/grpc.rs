//! What gRPC asks of a proxy: its deadline, its statuses.

use std::time::Duration;

use onehop_plan::outlier::Event;
use onehop_wire::http1::{Known, Method, RequestHead, ResponseHead, Version};

use super::web::Web;

/// The field that carries a call's deadline.
pub const TIMEOUT: &[u8] = b"grpc-timeout";

/// The content type of calls.
pub const TYPE: &[u8] = b"application/grpc";

/// The field that carries a call's status.
pub const STATUS: &[u8] = b"grpc-status";

/// A status; whatever is no number is UNKNOWN.
pub fn parse_status(value: &[u8]) -> Option<u16> {
    Some(std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(2))
}

/// The status in a trailer section.
pub fn status_in(lines: &[u8]) -> Option<u16> {
    lines.split(|byte| *byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon].eq_ignore_ascii_case(STATUS).then(|| parse_status(line[colon + 1..].trim_ascii())).flatten()
    })
}

/// The status in a response's head: that of an answer without trailers of its own.
pub fn status_of_head(head: &ResponseHead, bytes: &[u8]) -> Option<u16> {
    let field = head.fields.iter().find(|field| field.name.of(bytes).eq_ignore_ascii_case(STATUS))?;
    parse_status(field.value.of(bytes))
}

/// What a call that ended with this status says of its endpoint: what the same HTTP status says in Envoy. UNAVAILABLE and
/// DEADLINE_EXCEEDED are 503 and 504; UNKNOWN, UNIMPLEMENTED, INTERNAL and DATA_LOSS are other errors of the server; the
/// rest is the caller's affair.
pub fn event(status: u16) -> Event {
    match status {
        4 | 14 => Event::GatewayError,
        2 | 12 | 13 | 15 | 17.. => Event::ServerError,
        _ => Event::Success,
    }
}

/// Whether a request is gRPC: `application/grpc`, with or without a suffix; gRPC-Web is another type.
pub fn is_grpc(head: &RequestHead, bytes: &[u8]) -> bool {
    head.find(Known::ContentType).is_some_and(|field| is_grpc_type(field.value.of(bytes)))
}

/// The content type that a call is answered with, where there is no message: of gRPC, which HTTP/2 alone carries, or of
/// gRPC-Web. A call is a POST: a status of 200 to another method might mean something else, to CONNECT a tunnel.
pub fn call_of(head: &RequestHead, bytes: &[u8]) -> Option<&'static str> {
    match (head.method, head.version) {
        (Method::Post, Version::Http2) if is_grpc(head, bytes) => Some("application/grpc"),
        (Method::Post, _) => Web::of_answer(head, bytes).map(Web::content_type),
        _ => None,
    }
}

/// A text as the value of `grpc-message` (the gRPC protocol over HTTP/2, `Percent-Encoded`), of so many bytes at most.
pub fn encode_message(text: &[u8], max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len().min(max));
    for byte in text {
        let as_is = matches!(byte, b' '..=b'~') && *byte != b'%';
        if out.len() + if as_is { 1 } else { 3 } > max {
            break;
        }
        if as_is {
            out.push(*byte);
        } else {
            use std::io::Write;
            // Writing to a vector cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// [`call_of`] by the content type of a POST that was refused before it had a head.
pub fn call_of_type(value: &[u8]) -> Option<&'static str> {
    if is_grpc_type(value) { Some("application/grpc") } else { Web::of_value(value).map(Web::content_type) }
}

/// Whether a content type is gRPC's.
pub fn is_grpc_type(value: &[u8]) -> bool {
    value.len() >= TYPE.len()
        && value[..TYPE.len()].eq_ignore_ascii_case(TYPE)
        && matches!(value.get(TYPE.len()), None | Some(b'+' | b';' | b' '))
}

/// [`timeout`] where only gRPC-Web is spoken.
pub fn web_timeout(head: &RequestHead, bytes: &[u8]) -> Option<Duration> {
    Web::of(head, bytes)?;
    head.value(bytes, "grpc-timeout").and_then(parse_timeout)
}

/// The deadline that a gRPC request brings.
pub fn timeout(head: &RequestHead, bytes: &[u8]) -> Option<Duration> {
    if !is_grpc(head, bytes) && Web::of(head, bytes).is_none() {
        return None;
    }
    head.value(bytes, "grpc-timeout").and_then(parse_timeout)
}

/// At most eight digits and a unit (the gRPC protocol over HTTP/2, `Timeout`).
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// What is left of a deadline, as it is sent on: in the finest unit that eight digits hold.
pub fn write_timeout(out: &mut Vec<u8>, left: Duration) {
    use std::io::Write;
    let units: [(u128, u8); 6] = [
        (1, b'n'),
        (1_000, b'u'),
        (1_000_000, b'm'),
        (1_000_000_000, b'S'),
        (60_000_000_000, b'M'),
        (3_600_000_000_000, b'H'),
    ];
    let (unit, letter) =
        units.into_iter().find(|(unit, _)| left.as_nanos() / unit <= 99_999_999).unwrap_or((3_600_000_000_000, b'H'));
    // Writing to a vector cannot fail.
    let _ = write!(out, "{}", (left.as_nanos() / unit).min(99_999_999));
    out.push(letter);
}

/// The gRPC status for a status of ours (the gRPC protocol's mapping, and Envoy's for time-outs).
pub fn status_of(status: u16) -> u16 {
    match status {
        400 | 431 | 414 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        408 | 504 => 4,
        413 | 429 => 8,
        502 | 503 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_and_written() {
        assert_eq!(parse_timeout(b"100m"), Some(Duration::from_millis(100)));
        assert_eq!(parse_timeout(b"3S"), Some(Duration::from_secs(3)));
        for wrong in [&b"m"[..], b"123456789m", b"1x", b"-1S", b""] {
            assert_eq!(parse_timeout(wrong), None);
        }
        for left in [1u64, 99_999_999, 100_000_000, 5_000_000_000, 86_400_000_000_000] {
            let mut text = Vec::new();
            write_timeout(&mut text, Duration::from_nanos(left));
            let read = parse_timeout(&text).expect("its own format").as_nanos() as u64;
            assert!(read <= left && left - read <= left / 10_000, "{left} {read}");
        }
    }

    #[test]
    fn statuses_say_whose_fault_it_was() {
        for (status, expected) in [
            (0, Event::Success),
            (1, Event::Success),
            (5, Event::Success),
            (16, Event::Success),
            (4, Event::GatewayError),
            (14, Event::GatewayError),
            (2, Event::ServerError),
            (13, Event::ServerError),
            (99, Event::ServerError),
        ] {
            assert_eq!(event(status), expected, "{status}");
        }
    }

    #[test]
    fn messages_are_fields() {
        assert_eq!(encode_message(b"closed: 50% of \xc3\xbc\r\n", 100), b"closed: 50%25 of %C3%BC%0D%0A");
        assert_eq!(encode_message(&[b'x'; 50], 10), [b'x'; 10]);
        assert_eq!(encode_message(b"123456789\n", 11), b"123456789", "no half of a code");
        assert_eq!(encode_message(b"", 10), b"");
    }

    #[test]
    fn types_are_told_apart() {
        assert!(is_grpc_type(b"application/grpc"));
        assert!(is_grpc_type(b"application/grpc+proto"));
        assert!(!is_grpc_type(b"application/grpc-web+proto"));
        assert_eq!(status_in(b"a: b\r\nGrpc-Status: 14\r\n\r\n"), Some(14));
        assert_eq!(status_in(b"a: b\r\n\r\n"), None);
    }
}
