//! Field lines of an HTTP/2 message, checked as RFC 9113 8.2 has it and written down as HTTP/1 writes them.

use crate::http1::{BodyLength, Field, Fields, Known, Limits, Reject, Span};

/// A lower-case token (RFC 9113 8.2.1; the colon of pseudo-header fields is no part of one).
pub fn check_name(name: &[u8]) -> Result<(), Reject> {
    let is_token = name.iter().fold(true, |so_far, byte| so_far & TOKEN[*byte as usize]);
    if !name.is_empty() && is_token { Ok(()) } else { Err(Reject::BadFieldName) }
}

/// Which bytes a lower-case token is of: looked up, since every name of every message is checked.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
            | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

/// No control byte but the tab, and no white space at either end (RFC 9113 8.2.1).
pub fn check_value(value: &[u8]) -> Result<(), Reject> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let control = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
    // Without an early end, so that many bytes are looked at in one step.
    let controls = value.iter().fold(false, |so_far, byte| so_far | control(byte));
    if blank(value.first()) || blank(value.last()) || controls {
        return Err(Reject::BadFieldValue);
    }
    Ok(())
}

/// Fields that HTTP/2 knows no use for (RFC 9113 8.2.2).
pub fn is_connection_specific(known: Known) -> bool {
    use Known::*;
    matches!(known, Connection | ProxyConnection | KeepAlive | TransferEncoding | Upgrade | Http2Settings)
}

/// Writes field lines down and remembers where they stand.
pub struct Lines<'a> {
    pub fields: &'a mut Fields,
    pub out: &'a mut Vec<u8>,
    pub limits: &'a Limits,
    pub length: Option<u64>,
}

impl Lines<'_> {
    /// Takes a field that was checked.
    pub fn push(&mut self, name: &[u8], value: &[u8], known: Known) -> Result<(), Reject> {
        self.join(name, [value].iter(), known)
    }

    /// Takes a field whose value comes in parts: crumbs of a cookie are one field again (RFC 9113 8.2.3).
    pub fn join<'x>(
        &mut self,
        name: &[u8],
        values: impl Iterator<Item = &'x &'x [u8]>,
        known: Known,
    ) -> Result<(), Reject> {
        if self.fields.len() >= self.limits.max_fields() {
            return Err(Reject::TooManyFields);
        }
        let name = self.span(name);
        self.out.extend_from_slice(b": ");
        let start = self.out.len();
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.out.extend_from_slice(b"; ");
            }
            self.out.extend_from_slice(value);
        }
        let value = Span { start: start as u32, len: (self.out.len() - start) as u32 };
        self.out.extend_from_slice(b"\r\n");
        if self.out.len() > self.limits.head_bytes as usize {
            return Err(Reject::HeadTooLarge);
        }
        self.fields.push(Field { name, value, line_end: self.out.len() as u32, known });
        Ok(())
    }

    /// Writes bytes down and says where.
    pub fn span(&mut self, bytes: &[u8]) -> Span {
        let start = self.out.len() as u32;
        self.out.extend_from_slice(bytes);
        Span { start, len: bytes.len() as u32 }
    }

    /// A length, once (RFC 9110 8.6: a list of equal ones may be refused).
    pub fn length(&mut self, value: &[u8]) -> Result<(), Reject> {
        let digits = !value.is_empty() && value.len() < 20 && value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        match (number, self.length) {
            (Some(number), None) => {
                self.length = Some(number);
                Ok(())
            }
            _ => Err(Reject::BadLength),
        }
    }
}

/// How the body's end is found by who reads it in HTTP/1 terms; the frames' own end is what counts.
pub fn body(length: Option<u64>, ends: bool) -> Result<BodyLength, Reject> {
    match (length, ends) {
        (Some(1..), true) => Err(Reject::BadLength),
        (_, true) => Ok(BodyLength::None),
        (Some(length), false) => Ok(BodyLength::Length(length)),
        (None, false) => Ok(BodyLength::Chunked),
    }
}
