//! Response heads from HTTP/2 upstreams.

use super::field::{Lines, body, check_name, check_value, is_connection_specific};
use crate::http1::{BodyLength, Known, Limits, Method, Reject, ResponseHead, Span, Version};

/// Writes a response down; `phrase` is the reason phrase that HTTP/1 clients get, `method` the request's, `ends` that
/// the stream ends with the head. `out` is empty.
///
/// # Errors
/// The first rule that it breaks.
#[allow(clippy::too_many_arguments, reason = "each is a different part of one message")]
pub fn response<'a>(
    status: u16,
    phrase: &str,
    method: Method,
    ends: bool,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    limits: &Limits,
    head: &mut ResponseHead,
    out: &mut Vec<u8>,
) -> Result<(), Reject> {
    // 101 does not exist in HTTP/2 (RFC 9113 8.6).
    if !(100..=599).contains(&status) || status == 101 {
        return Err(Reject::BadStatusLine);
    }
    head.fields.clear();
    let mut lines = Lines { fields: &mut head.fields, out, limits, length: None };
    head.status = status;
    head.reason = lines.span(phrase.as_bytes());
    lines.out.extend_from_slice(b"\r\n");
    for (name, value) in fields {
        check_name(name)?;
        check_value(value)?;
        let known = Known::recognise(name);
        if is_connection_specific(known) || known == Known::Te {
            return Err(Reject::ConnectionField);
        }
        if known == Known::ContentLength {
            lines.length(value)?;
        }
        lines.push(name, value, known)?;
    }
    let length = lines.length;
    let bodiless = method == Method::Head || status < 200 || status == 204 || status == 304;
    head.tunnels = method == Method::Connect && (200..300).contains(&status);
    head.body = if bodiless || head.tunnels { BodyLength::None } else { body(length, ends)? };
    head.version = Version::Http2;
    head.head_len = out.len();
    head.keep_alive = true;
    head.named_by_connection = 0;
    head.upgrade = None;
    if head.reason.len == 0 {
        head.reason = Span::default();
    }
    Ok(())
}
