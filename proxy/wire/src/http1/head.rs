//! Heads parsed in place, to offsets. httparse does the scanning with every lenient switch off; what it lets
//! through and a strict reader must not is refused here.

use std::mem::MaybeUninit;

use super::limits::{Limits, MAX_FIELDS};
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

    fn from(base: &[u8], part: &[u8]) -> Span {
        Span { start: (part.as_ptr() as usize - base.as_ptr() as usize) as u32, len: part.len() as u32 }
    }
}

macro_rules! known {
    ($($name:ident = $text:literal,)*) => {
        /// Fields that the proxy itself reads or writes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each variant is the field of that name")]
        pub enum Known { Other, $($name,)* }

        impl Known {
            /// Recognises a name by its length first, then without regard to case.
            #[inline]
            pub fn recognise(name: &[u8]) -> Known {
                $(if name.len() == $text.len() && name.eq_ignore_ascii_case($text) { return Known::$name; })*
                Known::Other
            }
        }
    };
}

known! {
    Host = b"host", Connection = b"connection", KeepAlive = b"keep-alive", ProxyConnection = b"proxy-connection",
    TransferEncoding = b"transfer-encoding", ContentLength = b"content-length", Te = b"te", Trailer = b"trailer",
    Upgrade = b"upgrade", Expect = b"expect", Via = b"via", XForwardedFor = b"x-forwarded-for",
    XForwardedProto = b"x-forwarded-proto", XForwardedHost = b"x-forwarded-host", Forwarded = b"forwarded",
    XRequestId = b"x-request-id", Traceparent = b"traceparent", Tracestate = b"tracestate", Date = b"date",
    Server = b"server", RetryAfter = b"retry-after", IdempotencyKey = b"idempotency-key",
    ContentType = b"content-type", Cookie = b"cookie", Authorization = b"authorization",
    Http2Settings = b"http2-settings", ServerTiming = b"server-timing",
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
        let mut at = self.scanned.max(leading(buf));
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

#[inline]
fn position_of_lf(bytes: &[u8]) -> Option<usize> {
    // Eight bytes at a time: a zero byte of the difference shows in the high bits.
    const LF: u64 = 0x0a0a_0a0a_0a0a_0a0a;
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut chunks = bytes.chunks_exact(8);
    let mut offset = 0;
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default()) ^ LF;
        let found = word.wrapping_sub(LOW) & !word & HIGH;
        if found != 0 {
            return Some(offset + found.trailing_zeros() as usize / 8);
        }
        offset += 8;
    }
    chunks.remainder().iter().position(|byte| *byte == b'\n').map(|at| offset + at)
}

/// At most two empty lines in front of a request.
fn leading(buf: &[u8]) -> usize {
    let mut at = 0;
    while at < 4 && buf[at..].starts_with(b"\r\n") {
        at += 2;
    }
    at
}

/// A parsed request head: offsets into the bytes it was parsed from.
#[derive(Default, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// Its bytes.
    pub method_span: Span,
    /// The target as received.
    pub target: Span,
    /// Its path.
    pub path: Span,
    /// Its query, without the question mark.
    pub query: Span,
    /// The authority: of the target where it has one, else the Host field's value.
    pub authority: Span,
    /// The client's version.
    pub version: Version,
    /// The fields, in order.
    pub fields: Vec<Field>,
    /// Bytes of the head.
    pub head_len: usize,
    /// How the body is framed.
    pub body: BodyLength,
    /// Whether the client wants the connection to go on.
    pub keep_alive: bool,
    /// Whether it waits for `100 Continue`.
    pub expect_continue: bool,
    /// The protocol that it wants to change to.
    pub upgrade: Option<Span>,
    /// Bit i: field i is named in Connection, and so is for this hop alone.
    pub named_by_connection: u128,
    /// Whether the target carries an authority.
    pub absolute_form: bool,
}

/// A parsed response head.
#[derive(Default, Debug)]
pub struct ResponseHead {
    /// The status.
    pub status: u16,
    /// The reason phrase.
    pub reason: Span,
    /// The upstream's version.
    pub version: Version,
    /// The fields, in order.
    pub fields: Vec<Field>,
    /// Bytes of the head.
    pub head_len: usize,
    /// How the body is framed, for the request's method and this status.
    pub body: BodyLength,
    /// Whether the upstream connection can go on.
    pub keep_alive: bool,
    /// As in [`RequestHead`].
    pub named_by_connection: u128,
    /// The protocol of a 101.
    pub upgrade: Option<Span>,
}

fn refuse(error: httparse::Error, head: &[u8]) -> Reject {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => Reject::TooManyFields,
        Error::Version => Reject::BadVersion,
        Error::HeaderName if has_obs_fold(head) => Reject::ObsFold,
        Error::HeaderName => Reject::BadFieldName,
        Error::HeaderValue => Reject::BadFieldValue,
        Error::NewLine => Reject::BareCr,
        Error::Status => Reject::BadStatusLine,
        Error::Token => Reject::BadRequestLine,
    }
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

fn collect(fields: &mut Vec<Field>, head: &[u8], parsed: &[httparse::Header<'_>]) {
    fields.clear();
    for header in parsed {
        let value = Span::from(head, header.value);
        let rest = &head[value.end()..];
        let line_end = value.end() + position_of_lf(rest).map_or(rest.len(), |lf| lf + 1);
        fields.push(Field {
            name: Span::from(head, header.name.as_bytes()),
            value,
            line_end: line_end as u32,
            known: Known::recognise(header.name.as_bytes()),
        });
    }
}

/// What both kinds of head take from their fields.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrades: bool,
    upgrade: Option<Span>,
    named: u128,
}

impl Framing {
    fn read(fields: &[Field], head: &[u8]) -> Result<Framing, Reject> {
        let mut framing = Framing::default();
        for field in fields {
            let value = field.value.of(head);
            match field.known {
                Known::ContentLength => {
                    if framing.length.is_some() {
                        return Err(Reject::BadLength);
                    }
                    framing.length = Some(decimal(value).ok_or(Reject::BadLength)?);
                }
                Known::TransferEncoding => {
                    if framing.chunked {
                        return Err(Reject::BadCoding);
                    }
                    framing.chunked = coding(value)?;
                }
                Known::Connection => framing.connection(value, fields, head),
                Known::Upgrade => framing.upgrade = framing.upgrade.or(Some(field.value)),
                _ => {}
            }
        }
        if framing.chunked && framing.length.is_some() {
            return Err(Reject::LengthAndCoding);
        }
        Ok(framing)
    }

    fn connection(&mut self, value: &[u8], fields: &[Field], head: &[u8]) {
        for token in value.split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrades = true;
            } else if !token.is_empty() {
                for (index, field) in fields.iter().enumerate() {
                    if field.name.of(head).eq_ignore_ascii_case(token) {
                        self.named |= 1 << index;
                    }
                }
            }
        }
    }

    fn keeps_alive(&self, version: Version) -> bool {
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

impl RequestHead {
    /// Parses a whole head, as [`HeadScanner::find_end`] cut it.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(&mut self, head: &[u8], limits: &Limits) -> Result<(), Reject> {
        check_line_ends(head)?;
        if head.len() > limits.head_bytes {
            return Err(Reject::HeadTooLarge);
        }
        let skip = leading(head);
        self.check_request_line(&head[skip..], limits)?;
        let mut storage = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
        let allowed = limits.fields.min(MAX_FIELDS);
        let mut parsed = httparse::Request::new(&mut []);
        let status = parsed
            .parse_with_uninit_headers(&head[skip..], &mut storage[..allowed])
            .map_err(|error| refuse(error, head))?;
        if status.is_partial() {
            return Err(Reject::BadRequestLine);
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Reject::BadRequestLine);
        };
        self.method = Method::recognise(method.as_bytes());
        self.method_span = Span::from(head, method.as_bytes());
        self.target = Span::from(head, target.as_bytes());
        self.version = if version == 0 { Version::Http10 } else { Version::Http11 };
        self.head_len = head.len();
        collect(&mut self.fields, head, parsed.headers);
        self.frame(head)?;
        let host = self.host(head)?;
        self.split_target(head, host)
    }

    /// httparse accepts bytes in a target that no parser should; and it reads versions before it can name them.
    fn check_request_line(&self, head: &[u8], limits: &Limits) -> Result<(), Reject> {
        let end = position_of_lf(head).ok_or(Reject::BadRequestLine)?;
        let line = &head[..end - 1];
        if line.len() > limits.request_line {
            return Err(Reject::LineTooLong);
        }
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Reject::BadRequestLine);
        };
        if method.is_empty() || target.is_empty() {
            return Err(Reject::BadRequestLine);
        }
        if !target.iter().all(|byte| (0x21..0x7f).contains(byte) && *byte != b'#') {
            return Err(Reject::BadTarget);
        }
        match version {
            b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Reject::BadVersion),
            _ => Err(Reject::BadRequestLine),
        }
    }

    fn frame(&mut self, head: &[u8]) -> Result<(), Reject> {
        let framing = Framing::read(&self.fields, head)?;
        if framing.chunked && self.version == Version::Http10 {
            return Err(Reject::CodingInHttp10);
        }
        self.body = match (framing.chunked, framing.length) {
            (true, _) => BodyLength::Chunked,
            (false, Some(length)) if length > 0 => BodyLength::Length(length),
            _ => BodyLength::None,
        };
        self.keep_alive = framing.keeps_alive(self.version);
        self.named_by_connection = framing.named;
        self.upgrade = framing.upgrade.filter(|_| framing.upgrades && self.version == Version::Http11);
        self.expect_continue = false;
        for field in self.fields.iter().filter(|field| field.known == Known::Expect) {
            if !field.value.of(head).eq_ignore_ascii_case(b"100-continue") {
                return Err(Reject::BadExpectation);
            }
            // HTTP/1.0 knows no interim responses: there it is ignored (RFC 9110 10.1.1).
            self.expect_continue = self.version == Version::Http11 && self.body != BodyLength::None;
        }
        Ok(())
    }

    fn host(&self, head: &[u8]) -> Result<Option<Span>, Reject> {
        let mut hosts = self.fields.iter().filter(|field| field.known == Known::Host);
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(Reject::DuplicateHost);
        }
        match host {
            None if self.version == Version::Http11 => Err(Reject::MissingHost),
            None => Ok(None),
            Some(field) if is_authority(field.value.of(head)) => Ok(Some(field.value)),
            Some(_) => Err(Reject::BadHost),
        }
    }

    fn split_target(&mut self, head: &[u8], host: Option<Span>) -> Result<(), Reject> {
        let target = self.target.of(head);
        self.absolute_form = false;
        self.authority = host.unwrap_or(Span { start: self.target.start, len: 0 });
        let mut path_start = self.target.start as usize;
        if self.method == Method::Connect {
            // authority-form (RFC 9112 3.2.3): host and port.
            let has_port = target.iter().rposition(|byte| *byte == b':').is_some_and(|at| at + 1 < target.len());
            if !is_authority(target) || !has_port {
                return Err(Reject::BadTarget);
            }
            if host.is_some_and(|host| !host.of(head).eq_ignore_ascii_case(target)) {
                return Err(Reject::HostMismatch);
            }
            self.authority = self.target;
            self.path = Span { start: self.target.start, len: 0 };
            self.query = self.path;
            return Ok(());
        }
        if target.starts_with(b"/") {
        } else if target == b"*" {
            if self.method != Method::Options {
                return Err(Reject::BadTarget);
            }
        } else {
            path_start = self.absolute(head, host)?;
        }
        let rest = &head[path_start..self.target.end()];
        let path_len = rest.iter().position(|byte| *byte == b'?').unwrap_or(rest.len());
        self.path = Span { start: path_start as u32, len: path_len as u32 };
        let query_start = (path_start + path_len + 1).min(self.target.end());
        self.query = Span { start: query_start as u32, len: (self.target.end() - query_start) as u32 };
        // `http://host?query` would need a slash that is not there: nobody sends it, and parsers disagree on it.
        if self.absolute_form && path_len == 0 && !rest.is_empty() { Err(Reject::BadTarget) } else { Ok(()) }
    }

    /// absolute-form (RFC 9112 3.2.2): its authority must be the one that Host names.
    fn absolute(&mut self, head: &[u8], host: Option<Span>) -> Result<usize, Reject> {
        let target = self.target.of(head);
        let scheme = [&b"http://"[..], b"https://"]
            .into_iter()
            .find(|scheme| target.len() > scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme))
            .ok_or(Reject::BadTarget)?;
        let rest = &target[scheme.len()..];
        let len = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let authority = Span { start: self.target.start + scheme.len() as u32, len: len as u32 };
        if len == 0 || !is_authority(authority.of(head)) {
            return Err(Reject::BadTarget);
        }
        if host.is_some_and(|host| !host.of(head).eq_ignore_ascii_case(authority.of(head))) {
            return Err(Reject::HostMismatch);
        }
        self.absolute_form = true;
        self.authority = authority;
        Ok(authority.end())
    }

    /// The first field of a kind.
    pub fn find(&self, known: Known) -> Option<&Field> {
        self.fields.iter().find(|field| field.known == known)
    }

    /// The first value of a field by name, without regard to case.
    pub fn value<'b>(&self, buf: &'b [u8], name: &str) -> Option<&'b [u8]> {
        let found = self.fields.iter().find(|field| field.name.of(buf).eq_ignore_ascii_case(name.as_bytes()));
        found.map(|field| field.value.of(buf))
    }
}

/// A host (name, IPv4 or bracketed IPv6) and an optional port (RFC 3986 3.2); no user information. May be empty.
fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value.iter().rposition(|byte| *byte == b':') {
        Some(at) if !value.ends_with(b"]") => (&value[..at], &value[at + 1..]),
        _ => (value, &[][..]),
    };
    let port_ok = port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    let host_ok = match host {
        [b'[', inner @ .., b']'] => {
            !inner.is_empty() && inner.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        }
        _ => host.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'-' | b'.'
                        | b'_'
                        | b'~'
                        | b'%'
                        | b'!'
                        | b'$'
                        | b'&'
                        | b'\''
                        | b'('
                        | b')'
                        | b'*'
                        | b'+'
                        | b';'
                        | b'='
                )
        }),
    };
    port_ok && host_ok && !(host.is_empty() && !value.is_empty())
}

impl ResponseHead {
    /// Parses a whole head. The status of a refusal is for requests: whoever asked gets 502.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(&mut self, head: &[u8], method: Method, limits: &Limits) -> Result<(), Reject> {
        check_line_ends(head)?;
        if head.len() > limits.head_bytes {
            return Err(Reject::HeadTooLarge);
        }
        let mut storage = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let status = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut parsed, head, &mut storage[..limits.fields.min(MAX_FIELDS)])
            .map_err(|error| refuse(error, head))?;
        let (false, Some(version), Some(status)) = (status.is_partial(), parsed.version, parsed.code) else {
            return Err(Reject::BadStatusLine);
        };
        if !(100..=599).contains(&status) {
            return Err(Reject::BadStatusLine);
        }
        self.status = status;
        self.reason = parsed
            .reason
            .filter(|reason| !reason.is_empty())
            .map_or(Span::default(), |reason| Span::from(head, reason.as_bytes()));
        self.version = if version == 0 { Version::Http10 } else { Version::Http11 };
        self.head_len = head.len();
        collect(&mut self.fields, head, parsed.headers);
        let framing = Framing::read(&self.fields, head)?;
        self.named_by_connection = framing.named;
        self.upgrade = framing.upgrade.filter(|_| framing.upgrades || status == 101);
        let bodiless = method == Method::Head || status < 200 || status == 204 || status == 304;
        self.body = match (bodiless, framing.chunked, framing.length) {
            (true, _, _) => BodyLength::None,
            (false, true, _) if self.version == Version::Http10 => {
                return Err(Reject::CodingInHttp10);
            }
            (false, true, _) => BodyLength::Chunked,
            (false, false, Some(length)) => BodyLength::Length(length),
            (false, false, None) => BodyLength::UntilClose,
        };
        self.keep_alive = framing.keeps_alive(self.version) && self.body != BodyLength::UntilClose;
        Ok(())
    }

    /// The first field of a kind.
    pub fn find(&self, known: Known) -> Option<&Field> {
        self.fields.iter().find(|field| field.known == known)
    }
}
