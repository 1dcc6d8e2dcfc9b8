//! Answers of our own: every one carries a machine-readable `proxy-status` (RFC 9209) and is counted by reason.

use std::io::Write;

use onehop_net::Stream;
use onehop_net::deadline::Alarm;
use onehop_wire::http1::Version;

use crate::fault::Fault;
use crate::http2::grpc;

/// The reason phrases of the statuses that we send ourselves (RFC 9110 15).
pub fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        500 => "Internal Server Error",
        // A phrase says nothing that the status does not (RFC 9112 4).
        _ => "",
    }
}

/// The answer to a failed call of gRPC-Web: a status in the head, and no message. Without fields for browsers, which
/// the caller adds; [`finish`] ends it.
pub fn encode_call(out: &mut Vec<u8>, fault: &Fault, status: u16, kind: &str) {
    let reason = fault.name();
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 0\r\ngrpc-status: {}\r\ngrpc-message: {reason}\r\nProxy-Status: onehop; error={}; details=\"{reason}\"\r\n",
        grpc::status_of(status),
        rfc9209(fault),
    );
    if let Some(limited) = &fault.limited {
        add_fields(out, &limited.fields());
    }
}

/// Ends a head.
pub fn finish(out: &mut Vec<u8>, version: Version, close: bool) {
    if close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if version == Version::Http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Adds fields.
pub fn add_fields(out: &mut Vec<u8>, fields: &[(&'static str, Vec<u8>)]) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

/// Begins the answer to a failed request; [`finish`] ends its head, and [`body`] follows.
pub fn encode(out: &mut Vec<u8>, fault: &Fault, status: u16) {
    let reason = fault.name();
    let body_length = phrase(status).len() + reason.len() + 3;
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain\r\nContent-Length: {body_length}\r\nProxy-Status: onehop; error={error}; details=\"{reason}\"\r\n",
        phrase = phrase(status),
        error = rfc9209(fault),
    );
    if let Some(limited) = &fault.limited {
        add_fields(out, &limited.fields());
    } else if matches!(status, 503) {
        out.extend_from_slice(b"Retry-After: 1\r\n");
    }
    if status == 405 {
        out.extend_from_slice(b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n");
    }
}

/// Writes the body that [`encode`] has announced.
pub fn body(out: &mut Vec<u8>, fault: &Fault, status: u16) {
    // Writing to a vector cannot fail.
    let _ = writeln!(out, "{}: {}", phrase(status), fault.name());
}

/// The registered error type of RFC 9209 2.3 that fits best.
pub fn rfc9209(fault: &Fault) -> &'static str {
    use onehop_meter::names::Reason::*;
    match fault.reason {
        NoRoute => "destination_not_found",
        NoEndpoint => "destination_unavailable",
        ConnectRefused => "connection_refused",
        ConnectTimeout => "connection_timeout",
        ConnectFailed => "destination_ip_unroutable",
        UpstreamReset | UpstreamClosed => "connection_terminated",
        UpstreamTimeout | UpstreamIdleTimeout => "http_response_timeout",
        UpstreamBadResponse => "http_protocol_error",
        UpstreamTruncated => "http_response_incomplete",
        HeaderTimeout | BodyTimeout | Rejected | BodyTooLarge => "http_request_error",
        Overflow | QueueAge | OverCapacity | Shed => "connection_limit_reached",
        RateLimited => "http_request_denied",
        Loop => "proxy_loop_detected",
        TlsFailed => "tls_protocol_error",
        DestinationRefused => "destination_ip_prohibited",
        Misdirected => "http_request_error",
        AccessDenied | UpgradeRefused | ConnectMethodRefused => "http_request_denied",
        _ => "proxy_internal_error",
    }
}

/// What is read and thrown away of a client that still sends, before the connection is closed: a close with unread
/// bytes would reset it and take the answer away from the client (RFC 9112 9.6).
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_NS: u64 = 2_000_000_000;

/// Ends our side and reads on for a little. Of one that sends more than that nothing more is read, but the reset waits as
/// long: clients read their answer while they are held up, and those that send alone gain nothing by it.
pub async fn linger(stream: &mut Stream) {
    if stream.ended() || stream.shutdown_write().is_err() {
        return;
    }
    let due = onehop_net::clock::now() + LINGER_NS;
    stream.deadline().arm(due, onehop_net::deadline::Ends::Both);
    let mut left = LINGER_BYTES;
    while left > 0 {
        let buffered = stream.buffered().len();
        stream.consume(buffered);
        match stream.fill(onehop_net::Size::Medium).await {
            Ok(count @ 1..) => left = left.saturating_sub(count),
            _ => return,
        }
    }
    let alarm = Alarm::at(due);
    std::future::poll_fn(|cx| alarm.poll(cx)).await;
}
