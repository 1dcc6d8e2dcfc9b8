//! Trailers from one version to the other. The fields that may not be there are left out (RFC 9110 6.5.1).

use super::field::{check_name, check_value, is_connection_specific};
use crate::http1::{Known, Limits, Reject, forbidden_trailer, trailers};

/// Writes HTTP/2 trailers down as the trailer section of a chunked body, with its last blank line.
///
/// # Errors
/// When there are too many, or one is malformed.
pub fn trailer_lines<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    limits: &Limits,
    out: &mut Vec<u8>,
) -> Result<(), Reject> {
    let start = out.len();
    for (index, (name, value)) in fields.enumerate() {
        check_name(name)?;
        check_value(value)?;
        if is_connection_specific(Known::recognise(name)) {
            return Err(Reject::ConnectionField);
        }
        if index >= limits.max_fields() {
            return Err(Reject::TrailersTooLarge);
        }
        if forbidden_trailer(name) {
            continue;
        }
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
        // With the blank line that ends them.
        if out.len() - start + 2 > limits.head_bytes as usize {
            return Err(Reject::TrailersTooLarge);
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Calls `emit` with each field of a trailer section that may be passed on.
///
/// # Errors
/// When it is malformed.
pub fn trailer_fields(section: &[u8], limits: &Limits, mut emit: impl FnMut(&[u8], &[u8])) -> Result<(), Reject> {
    let mut clean = Vec::with_capacity(section.len());
    trailers(section, limits, &mut clean)?;
    for line in clean.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(colon) = line.iter().position(|byte| *byte == b':') {
            emit(&line[..colon], line[colon + 1..].trim_ascii());
        }
    }
    Ok(())
}
