//! Heads parsed in place, to offsets. httparse does the scanning with every lenient switch off; what it lets
//! through and a strict reader must not is refused here.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::fields::{Fields, kind};
use super::limits::MAX_FIELDS;
use super::rules::Reject;

/// A range of the head's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Span {
    /// The bytes it stands for.
    #[inline]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.start as usize..self.end()]
    }

    /// Offset after the last byte.
    #[inline]
    pub fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    pub(super) fn from(base: &[u8], part: &[u8]) -> Span {
        Span { start: (part.as_ptr() as usize - base.as_ptr() as usize) as u32, len: part.len() as u32 }
    }
}

macro_rules! known {
    ($($length:literal: $($name:ident = $text:literal),*;)*) => {
        /// Fields that the proxy itself reads or writes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each variant is the field of that name")]
        pub enum Known { Other, $($($name,)*)* }

        impl Known {
            /// Recognises a name by its length first, then without regard to case.
            #[inline]
            pub fn recognise(name: &[u8]) -> Known {
                match name.len() {
                    $($length => {
                        $(if folds_to::<$length>(name, $text) { return Known::$name; })*
                        Known::Other
                    })*
                    _ => Known::Other,
                }
            }
        }

        #[cfg(test)]
        pub(super) const KNOWN: &[(usize, &[u8], Known)] = &[$($(($length, $text, Known::$name),)*)*];
    };
}

/// Whether a field's name is `text` without regard to case. Folds with one bit, eight bytes at a time: exact for names
/// that are tokens, since no byte of a token but a letter becomes one of `text`'s bytes by it.
#[inline]
fn folds_to<const LEN: usize>(name: &[u8], text: &[u8; LEN]) -> bool {
    const FOLD: u8 = 0x20;
    fn word<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
        bytes.first_chunk::<N>().map(|chunk| chunk.map(|byte| byte | FOLD))
    }
    if name.len() != LEN {
        return false;
    }
    let mut at = 0;
    while at + 8 <= LEN {
        if word::<8>(&name[at..]) != word::<8>(&text[at..]) {
            return false;
        }
        at += 8;
    }
    // The rest together with bytes that were compared already, in one step.
    if LEN >= 8 && at < LEN {
        return word::<8>(&name[LEN - 8..]) == word::<8>(&text[LEN - 8..]);
    }
    name[at..].iter().zip(&text[at..]).all(|(a, b)| a | FOLD == b | FOLD)
}

known! {
    2: Te = b"te";
    3: Via = b"via";
    4: Host = b"host", Date = b"date";
    6: Cookie = b"cookie", Expect = b"expect", Server = b"server";
    7: Upgrade = b"upgrade", Trailer = b"trailer";
    9: Forwarded = b"forwarded";
    10: Connection = b"connection", KeepAlive = b"keep-alive", Tracestate = b"tracestate";
    11: Traceparent = b"traceparent", RetryAfter = b"retry-after";
    12: ContentType = b"content-type", XRequestId = b"x-request-id";
    13: Authorization = b"authorization", ServerTiming = b"server-timing";
    14: ContentLength = b"content-length", Http2Settings = b"http2-settings";
    15: XForwardedFor = b"x-forwarded-for", IdempotencyKey = b"idempotency-key";
    16: ProxyConnection = b"proxy-connection", XForwardedHost = b"x-forwarded-host";
    17: TransferEncoding = b"transfer-encoding", XForwardedProto = b"x-forwarded-proto";
    23: XForwardedClientCert = b"x-forwarded-client-cert";
}

/// One field line.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name, as written.
    pub name: Span,
    /// Its value, without the white space around it.
    pub value: Span,
    /// Offset after its CRLF.
    pub line_end: u32,
    /// Which of the fields that we know it is.
    pub known: Known,
}

/// How a body's end is found (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    #[default]
    None,
    /// So many bytes.
    Length(u64),
    /// Chunked.
    Chunked,
    /// The connection's end ends it (responses only).
    UntilClose,
}

/// The versions that we speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the versions are")]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

/// Request methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the methods are")]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    Other,
}

impl Method {
    /// Recognises a method; they are case-sensitive (RFC 9110 9.1).
    pub fn recognise(name: &[u8]) -> Method {
        match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            _ => Method::Other,
        }
    }

    /// Whether repeating it has the effect of doing it once (RFC 9110 9.2.2).
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Method::Post | Method::Patch | Method::Connect | Method::Other)
    }
}

/// Finds a head's end as bytes arrive, never looking at a byte twice.
#[derive(Default, Debug)]
pub struct HeadScanner {
    scanned: usize,
}

impl HeadScanner {
    /// The offset after the blank line, once it is there. A blank line of bare LFs ends a head too, so that parsing
    /// it can say what is wrong instead of waiting for more.
    #[inline]
    pub fn find_end(&mut self, buf: &[u8]) -> Option<usize> {
        // Empty lines in front of a request are skipped by the parser (RFC 9112 2.2).
        let start = self.scanned.max(leading(buf));
        // A whole head in order, found in two strides.
        if let Some(blank) = BLANK.find(&buf[start..])
            && BARE.find(&buf[start..start + blank + 1]).is_none()
        {
            return Some(start + blank + 3);
        }
        self.find_line_by_line(buf, start)
    }

    fn find_line_by_line(&mut self, buf: &[u8], start: usize) -> Option<usize> {
        let mut at = start;
        while let Some(offset) = position_of_lf(&buf[at..]) {
            let lf = at + offset;
            match (buf.get(lf + 1), buf.get(lf + 2)) {
                (Some(b'\n'), _) => return Some(lf + 2),
                (Some(b'\r'), Some(b'\n')) => return Some(lf + 3),
                (Some(b'\r'), None) | (None, _) => {
                    self.scanned = lf;
                    return None;
                }
                _ => at = lf + 1,
            }
        }
        self.scanned = buf.len().max(leading(buf));
        None
    }

    /// Begins with a new head.
    pub fn reset(&mut self) {
        self.scanned = 0;
    }
}

static BLANK: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\r\n"));
static BARE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\n"));

#[inline]
pub(super) fn position_of_lf(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes)
}

/// At most two empty lines in front of a request.
pub(super) fn leading(buf: &[u8]) -> usize {
    let mut at = 0;
    while at < 4 && buf[at..].starts_with(b"\r\n") {
        at += 2;
    }
    at
}

/// Why httparse refused a head; what is wrong with its line ends comes first.
pub(super) fn refuse(error: httparse::Error, head: &[u8]) -> Reject {
    use httparse::Error;
    let reason = match error {
        Error::TooManyHeaders => Reject::TooManyFields,
        Error::Version => Reject::BadVersion,
        Error::HeaderName if has_obs_fold(head) => Reject::ObsFold,
        Error::HeaderName => Reject::BadFieldName,
        Error::HeaderValue => Reject::BadFieldValue,
        Error::NewLine => Reject::BareCr,
        Error::Status => Reject::BadStatusLine,
        Error::Token => Reject::BadRequestLine,
    };
    incomplete(head, reason)
}

/// The reason to refuse a head, unless its line ends are wrong: they confuse everything that comes after them.
pub(super) fn incomplete(head: &[u8], reason: Reject) -> Reject {
    check_line_ends(head).err().unwrap_or(reason)
}

fn has_obs_fold(head: &[u8]) -> bool {
    head.windows(2).any(|pair| pair[0] == b'\n' && matches!(pair[1], b' ' | b'\t'))
}

/// Every line ends with CRLF, and neither CR nor LF stands anywhere else.
fn check_line_ends(head: &[u8]) -> Result<(), Reject> {
    let mut at = 0;
    while let Some(offset) = position_of_lf(&head[at..]) {
        let lf = at + offset;
        if lf == 0 || head[lf - 1] != b'\r' {
            return Err(Reject::BareLf);
        }
        if matches!(head.get(lf + 1), Some(b' ' | b'\t')) {
            return Err(Reject::ObsFold);
        }
        at = lf + 1;
    }
    Ok(())
}

/// Fields to offsets. Refuses heads whose lines end otherwise than with CRLF, which httparse lets pass.
pub(super) fn collect(fields: &mut Fields, head: &[u8], parsed: &[httparse::Header<'_>]) -> Result<(), Reject> {
    fields.clear();
    // Neither names nor values hold a CR or LF; so where each line follows directly on the CRLF of the one before,
    // and the blank line on the last, no other line end can be anywhere, and the head needs no second scan.
    let mut plain = true;
    let mut previous_end = None;
    for header in parsed {
        let (name, value) = (Span::from(head, header.name.as_bytes()), Span::from(head, header.value));
        let rest = &head[value.end()..];
        let line_end = if rest.starts_with(b"\r\n") {
            value.end() + 2
        } else {
            plain = false;
            value.end() + position_of_lf(rest).map_or(rest.len(), |lf| lf + 1)
        };
        plain &= match previous_end {
            Some(end) => end == name.start as usize,
            None => ends_first_line(&head[..name.start as usize]),
        };
        previous_end = Some(line_end);
        fields.push(Field { name, value, line_end: line_end as u32, known: Known::recognise(header.name.as_bytes()) });
    }
    plain &= previous_end.is_some_and(|end| &head[end..] == b"\r\n");
    if plain { Ok(()) } else { check_line_ends(head) }
}

/// Whether this is one line, with its CRLF at the end and no line end before.
fn ends_first_line(line: &[u8]) -> bool {
    line.ends_with(b"\r\n") && position_of_lf(line) == Some(line.len() - 1)
}

/// What both kinds of head take from their fields.
#[derive(Default)]
pub(super) struct Framing {
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrades: bool,
    pub(super) upgrade: Option<Span>,
    pub(super) named: u128,
    /// Names in all the `Connection` fields.
    tokens: usize,
}

impl Framing {
    pub(super) fn read(fields: &Fields, head: &[u8]) -> Result<Framing, Reject> {
        const READ: u64 =
            kind(Known::ContentLength) | kind(Known::TransferEncoding) | kind(Known::Connection) | kind(Known::Upgrade);
        let mut framing = Framing::default();
        if !fields.has_any(READ) {
            return Ok(framing);
        }
        for field in fields.iter() {
            match field.known {
                Known::ContentLength => {
                    if framing.length.is_some() {
                        return Err(Reject::BadLength);
                    }
                    framing.length = Some(decimal(field.value.of(head)).ok_or(Reject::BadLength)?);
                }
                Known::TransferEncoding => {
                    if framing.chunked {
                        return Err(Reject::BadCoding);
                    }
                    framing.chunked = coding(field.value.of(head))?;
                }
                Known::Connection => framing.connection(field.value.of(head), fields, head)?,
                Known::Upgrade => framing.upgrade = framing.upgrade.or(Some(field.value)),
                _ => {}
            }
        }
        if framing.chunked && framing.length.is_some() {
            return Err(Reject::LengthAndCoding);
        }
        Ok(framing)
    }

    fn connection(&mut self, value: &[u8], fields: &[Field], head: &[u8]) -> Result<(), Reject> {
        // As nearly everyone writes it.
        match value {
            b"keep-alive" => {
                self.keep_alive = true;
                return Ok(());
            }
            b"close" => {
                self.close = true;
                return Ok(());
            }
            _ => {}
        }
        for token in value.split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrades = true;
            } else if !token.is_empty() {
                // Each is looked for among all fields, and a head is long enough for thousands: no more than there can be
                // fields to name.
                self.tokens += 1;
                if self.tokens > MAX_FIELDS {
                    return Err(Reject::TooManyFields);
                }
                for (index, field) in fields.iter().enumerate() {
                    if field.name.of(head).eq_ignore_ascii_case(token) {
                        self.named |= 1 << index;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

/// Digits alone: no sign, no space, no list (RFC 9112 6.3 lets a recipient refuse repeats).
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// `chunked` and nothing else; another coding that is a token is not implemented (RFC 9112 6.1).
fn coding(value: &[u8]) -> Result<bool, Reject> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(true);
    }
    let token =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b',' | b' ' | b';' | b'=' | b'.');
    if value.is_empty() || !value.iter().all(token) {
        return Err(Reject::BadCoding);
    }
    Err(Reject::UnknownCoding)
}
