//! A deadline that the client brings: `grpc-timeout` of gRPC calls, `X-Request-Timeout` where the listener believes it.
//! It is passed on less what has passed, in the form it came in.

use std::io::Write;
use std::time::Duration;

use onehop_net::clock::{self, Nanos};
use onehop_plan::Listener;
use onehop_wire::http1::{Method, RequestHead};

use crate::http2::grpc;

/// The field that carries it beside gRPC.
const FIELD: &str = "x-request-timeout";

/// How it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Grpc,
    /// A bare number: seconds.
    Seconds,
    /// With a unit.
    Unit,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// When it passes.
    pub at: Nanos,
    told: Told,
}

impl Deadline {
    /// That of a gRPC call over HTTP/2, which bounds all of it.
    pub fn of_call(head: &RequestHead, bytes: &[u8], now: Nanos) -> Option<Deadline> {
        grpc::timeout(head, bytes).map(|timeout| Deadline { at: clock::after(now, timeout), told: Told::Grpc })
    }

    /// That of an HTTP/1 request: a call of gRPC-Web's, which is a POST, or any other's.
    #[inline]
    pub fn of_http1(head: &RequestHead, bytes: &[u8], listener: &Listener, now: Nanos) -> Option<Deadline> {
        let timeout = if head.method == Method::Post { grpc::web_timeout(head, bytes) } else { None };
        let call = timeout.map(|timeout| Deadline { at: clock::after(now, timeout), told: Told::Grpc });
        call.or_else(|| Deadline::of_request(head, bytes, listener, now))
    }

    /// That of any request, which bounds the time to its response's head.
    #[inline]
    pub fn of_request(head: &RequestHead, bytes: &[u8], listener: &Listener, now: Nanos) -> Option<Deadline> {
        if !listener.http.trusts_timeout {
            return None;
        }
        let (timeout, told) = parse(head.value(bytes, FIELD)?)?;
        Some(Deadline { at: clock::after(now, timeout), told })
    }

    /// Whether it bounds a whole gRPC call.
    pub fn is_call(&self) -> bool {
        self.told == Told::Grpc
    }

    /// The field that carries it.
    pub fn field(&self) -> &'static [u8] {
        if self.is_call() { grpc::TIMEOUT } else { b"X-Request-Timeout" }
    }

    /// What is left of it.
    pub fn write_left(&self, out: &mut Vec<u8>) {
        let left = clock::until(self.at);
        // Writing to a vector cannot fail. Rounded up, so that it is not nothing before it has passed.
        let _ = match self.told {
            Told::Grpc => return grpc::write_timeout(out, left),
            Told::Seconds => write!(out, "{:.3}", left.as_secs_f64()),
            Told::Unit => write!(out, "{}ms", left.as_nanos().div_ceil(1_000_000)),
        };
    }
}

/// A number with a unit (`us`, `ms`, `s`, `m`), or of seconds; at most eight digits, as gRPC has it.
fn parse(value: &[u8]) -> Option<(Duration, Told)> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let at = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let (scale, told) = match unit {
        "" => (1.0, Told::Seconds),
        "us" => (1e-6, Told::Unit),
        "ms" => (1e-3, Told::Unit),
        "s" => (1.0, Told::Unit),
        "m" => (60.0, Told::Unit),
        _ => return None,
    };
    let number: f64 = Some(number).filter(|number| number.len() <= 9)?.parse().ok()?;
    Some((Duration::try_from_secs_f64(number * scale).ok()?, told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        let ms = |ms| Duration::from_millis(ms);
        assert_eq!(parse(b"250ms"), Some((ms(250), Told::Unit)));
        assert_eq!(parse(b"1.5"), Some((ms(1500), Told::Seconds)));
        assert_eq!(parse(b" 2s "), Some((ms(2000), Told::Unit)));
        for wrong in [&b""[..], b"ms", b"-1", b"1h", b"1e9", b"123456789012", b"\xff", b"1 s", b"inf", b"."] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_left_goes_on_in_the_form_it_came_in() {
        let left = |told| {
            let mut out = Vec::new();
            Deadline { at: clock::now() + 60_000_000_000, told }.write_left(&mut out);
            String::from_utf8(out).expect("ASCII")
        };
        assert!(left(Told::Seconds).starts_with("59.") || left(Told::Seconds) == "60.000");
        assert!(left(Told::Unit).ends_with("ms"));
        let mut out = Vec::new();
        Deadline { at: 1, told: Told::Unit }.write_left(&mut out);
        assert_eq!(out, b"0ms");
    }
}
