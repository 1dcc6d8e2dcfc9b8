//! A strict walker over chunked bodies (RFC 9112 7.1). What it has walked may be passed on byte for byte: every
//! recipient reads it alike.

use super::head::Known;
use super::limits::{Limits, MAX_FIELDS};
use super::rules::Reject;

/// Bytes of one chunk's extensions; nobody uses them, attackers stretch them.
const MAX_EXTENSION: usize = 1024;
/// Bytes of all extensions of one body.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Hexadecimal digits of a size: what fits 64 bits.
const MAX_DIGITS: u8 = 16;
/// Bytes of a trailer section before it is refused.
const MAX_TRAILERS: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size {
        digits: u8,
        size: u64,
    },
    Extension {
        size: u64,
        length: usize,
        at: Grammar,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    Trailers {
        /// Bytes of them that were looked at.
        seen: usize,
    },
    Done,
}

/// Where in `;name=value` or `;name="value"` (RFC 9112 7.1.1, without the white space that it calls bad).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grammar {
    NameStart,
    Name,
    ValueStart,
    Value,
    Quoted,
    QuotedPair,
    QuoteEnd,
}

impl Grammar {
    fn step(self, byte: u8) -> Option<Grammar> {
        use Grammar::*;
        let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let text = matches!(byte, b'\t' | 0x20..=0x7e);
        match (self, byte) {
            (NameStart | Name, _) if token => Some(Name),
            (Name, b'=') => Some(ValueStart),
            (Name | Value | QuoteEnd, b';') => Some(NameStart),
            (ValueStart, b'"') => Some(Quoted),
            (ValueStart | Value, _) if token => Some(Value),
            (Quoted, b'"') => Some(QuoteEnd),
            (Quoted, b'\\') => Some(QuotedPair),
            (Quoted | QuotedPair, _) if text => Some(Quoted),
            _ => None,
        }
    }

    fn may_end(self) -> bool {
        matches!(self, Grammar::Name | Grammar::Value | Grammar::QuoteEnd)
    }
}

/// What stands at the front of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// So many bytes of framing.
    Framing(usize),
    /// So many bytes of payload.
    Data(usize),
    /// The whole trailer section with its last CRLF: the body ends behind it.
    Trailers(usize),
    /// More bytes are needed.
    NeedMore,
}

/// How far a body can be passed on verbatim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Bytes of framing and payload.
    pub forward: usize,
    /// The length of the trailer section behind them, once all of it is there.
    pub trailers: Option<usize>,
}

/// The walker.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    extensions: usize,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        ChunkedDecoder::new()
    }
}

impl ChunkedDecoder {
    /// At the start of a body.
    pub fn new() -> ChunkedDecoder {
        ChunkedDecoder { state: State::Size { digits: 0, size: 0 }, extensions: 0 }
    }

    /// Whether the end was walked over.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Walks over the next part of `buf`, which begins where the last part ended.
    ///
    /// # Errors
    /// The rule that the framing breaks.
    pub fn next(&mut self, buf: &[u8]) -> Result<Part, Reject> {
        let mut at = 0;
        loop {
            if let State::Data { left } = self.state {
                if at > 0 {
                    return Ok(Part::Framing(at));
                }
                if buf.is_empty() {
                    return Ok(Part::NeedMore);
                }
                let length = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - length as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                return Ok(Part::Data(length));
            }
            if let State::Trailers { seen } = self.state {
                return if at > 0 { Ok(Part::Framing(at)) } else { self.trailers(buf, seen.min(buf.len())) };
            }
            let Some(byte) = buf.get(at).copied().filter(|_| self.state != State::Done) else {
                return Ok(if at > 0 { Part::Framing(at) } else { Part::NeedMore });
            };
            self.state = self.step(byte)?;
            at += 1;
        }
    }

    fn step(&mut self, byte: u8) -> Result<State, Reject> {
        match (self.state, byte) {
            (State::Size { digits, size }, _) if byte.is_ascii_hexdigit() => {
                if digits >= MAX_DIGITS {
                    return Err(Reject::BadChunkSize);
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                Ok(State::Size { digits: digits + 1, size: size << 4 | u64::from(digit) })
            }
            (State::Size { digits: 1.., size }, b';') => {
                Ok(State::Extension { size, length: 0, at: Grammar::NameStart })
            }
            (State::Size { digits: 1.., size }, b'\r') => Ok(State::SizeLf { size }),
            (State::Size { .. }, _) => Err(Reject::BadChunkSize),
            (State::Extension { size, at, .. }, b'\r') if at.may_end() => Ok(State::SizeLf { size }),
            (State::Extension { size, length, at }, _) => {
                self.extensions += 1;
                let at = at.step(byte).filter(|_| length < MAX_EXTENSION && self.extensions <= MAX_EXTENSIONS);
                let at = at.ok_or(Reject::BadChunkExtension)?;
                Ok(State::Extension { size, length: length + 1, at })
            }
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::Trailers { seen: 0 }),
            (State::SizeLf { size }, b'\n') => Ok(State::Data { left: size }),
            (State::SizeLf { .. }, _) => Err(Reject::BareCr),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { digits: 0, size: 0 }),
            _ => Err(Reject::BadChunkEnd),
        }
    }

    /// The section is looked at once, however many pieces it comes in.
    fn trailers(&mut self, buf: &[u8], seen: usize) -> Result<Part, Reject> {
        if buf.starts_with(b"\r\n") {
            self.state = State::Done;
            return Ok(Part::Trailers(2));
        }
        // Its end may have begun with the last three of the bytes before.
        let from = seen.saturating_sub(3);
        let end = memchr::memmem::find(&buf[from..], b"\r\n\r\n").map(|at| from + at + 4);
        // Said as soon as it is seen, so that the same bytes get the same answer however they arrive.
        let fresh = &buf[from..end.unwrap_or(buf.len())];
        if buf.first() == Some(&b'\n') || fresh.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r') {
            return Err(Reject::BareLf);
        }
        match end {
            Some(end) if end <= MAX_TRAILERS => {
                self.state = State::Done;
                Ok(Part::Trailers(end))
            }
            None if buf.len() < MAX_TRAILERS => {
                self.state = State::Trailers { seen: buf.len() };
                Ok(Part::NeedMore)
            }
            _ => Err(Reject::TrailersTooLarge),
        }
    }

    /// Walks as far as it can.
    ///
    /// # Errors
    /// The rule that the framing breaks.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Scan, Reject> {
        let mut forward = 0;
        loop {
            match self.next(&buf[forward..])? {
                Part::Framing(length) | Part::Data(length) => forward += length,
                Part::Trailers(length) => {
                    return Ok(Scan { forward, trailers: Some(length) });
                }
                Part::NeedMore => {
                    return Ok(Scan { forward, trailers: None });
                }
            }
        }
    }
}

/// Fields that must not come in trailers: framing, routing, authentication, content (RFC 9110 6.5.1).
pub fn forbidden_trailer(name: &[u8]) -> bool {
    use Known::*;
    let known = Known::recognise(name);
    let listed: [&[u8]; 8] = [
        b"content-encoding",
        b"content-range",
        b"set-cookie",
        b"www-authenticate",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"cache-control",
        b"max-forwards",
    ];
    !matches!(known, Other | ServerTiming | RetryAfter | Date)
        || listed.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// Copies the fields of a trailer section that may be passed on, and its end.
///
/// # Errors
/// When it is malformed or has too many fields.
pub fn trailers(section: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Result<(), Reject> {
    let mut storage = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let bare = section.iter().enumerate().any(|(at, byte)| match byte {
        b'\n' => at == 0 || section[at - 1] != b'\r',
        b'\r' => section.get(at + 1) != Some(&b'\n'),
        _ => false,
    });
    if bare {
        return Err(Reject::BadTrailer);
    }
    match httparse::parse_headers(section, &mut storage[..limits.max_fields()]) {
        Ok(httparse::Status::Complete((length, fields))) if length == section.len() => {
            for field in fields.iter().filter(|field| !forbidden_trailer(field.name.as_bytes())) {
                out.extend_from_slice(field.name.as_bytes());
                out.extend_from_slice(b": ");
                out.extend_from_slice(field.value);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"\r\n");
            Ok(())
        }
        Err(httparse::Error::TooManyHeaders) => Err(Reject::TrailersTooLarge),
        _ => Err(Reject::BadTrailer),
    }
}
