//! Request heads: the request line, the target in its four forms, and the Host that must agree with it.

use std::mem::MaybeUninit;

use super::fields::Fields;
use super::head::{
    BodyLength, Field, Framing, Known, Method, Span, Version, collect, incomplete, leading, position_of_lf, refuse,
};
use super::limits::{Limits, MAX_FIELDS};
use super::rules::Reject;

/// A parsed request head: offsets into the bytes it was parsed from.
#[derive(Clone, Default, Debug)]
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
    pub fields: Fields,
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

impl RequestHead {
    /// Parses a whole head, as [`super::HeadScanner::find_end`] cut it.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(&mut self, head: &[u8], limits: &Limits) -> Result<(), Reject> {
        if head.len() > limits.head_bytes as usize {
            return Err(Reject::HeadTooLarge);
        }
        let skip = leading(head);
        self.check_request_line(&head[skip..], limits)?;
        let mut storage = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
        let allowed = limits.max_fields();
        let mut parsed = httparse::Request::new(&mut []);
        let status = parsed
            .parse_with_uninit_headers(&head[skip..], &mut storage[..allowed])
            .map_err(|error| refuse(error, head))?;
        if status.is_partial() {
            return Err(incomplete(head, Reject::BadRequestLine));
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Reject::BadRequestLine);
        };
        self.method = Method::recognise(method.as_bytes());
        self.method_span = Span::from(head, method.as_bytes());
        self.target = Span::from(head, target.as_bytes());
        self.version = if version == 0 { Version::Http10 } else { Version::Http11 };
        self.head_len = head.len();
        collect(&mut self.fields, head, parsed.headers)?;
        self.frame(head)?;
        let host = self.host(head)?;
        self.split_target(head, host)
    }

    /// httparse accepts bytes in a target that no parser should; and it reads versions before it can name them.
    fn check_request_line(&self, head: &[u8], limits: &Limits) -> Result<(), Reject> {
        let end = position_of_lf(head).ok_or(Reject::BadRequestLine)?;
        let line = head[..end].strip_suffix(b"\r").ok_or(Reject::BareLf)?;
        if line.len() > limits.request_line as usize {
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
        if self.method == Method::Connect && (framing.chunked || framing.length.is_some()) {
            return Err(Reject::ConnectWithBody);
        }
        self.keep_alive = framing.keeps_alive(self.version);
        self.named_by_connection = framing.named;
        // What CONNECT begins is a tunnel already.
        let may_upgrade = self.version == Version::Http11 && self.method != Method::Connect;
        self.upgrade = framing.upgrade.filter(|_| framing.upgrades && may_upgrade);
        self.expect_continue = false;
        if !self.fields.has(Known::Expect) {
            return Ok(());
        }
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
        let host = self.fields.find(Known::Host);
        if self.fields.bits(Known::Host).count_ones() > 1 {
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

    /// Whether servers expect a length even of an empty body (RFC 9110 8.6).
    pub fn wants_length(&self) -> bool {
        matches!(self.method, Method::Post | Method::Put | Method::Patch) && self.find(Known::ContentLength).is_none()
    }

    /// The first field of a kind.
    pub fn find(&self, known: Known) -> Option<&Field> {
        self.fields.find(known)
    }

    /// The first value of a field by name, without regard to case.
    pub fn value<'b>(&self, buf: &'b [u8], name: &str) -> Option<&'b [u8]> {
        let found = self.fields.iter().find(|field| field.name.of(buf).eq_ignore_ascii_case(name.as_bytes()));
        found.map(|field| field.value.of(buf))
    }
}

/// The bytes of a registered name (RFC 3986 3.2.2) without the comma, which separates hosts in lists.
static REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"-._~%!$&'()*+;=";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// A host (name, IPv4 or bracketed IPv6) and an optional port (RFC 3986 3.2); no user information. May be empty.
pub fn is_authority(value: &[u8]) -> bool {
    let (named, rest) = match value {
        [b'[', ..] => {
            let end = value.iter().position(|byte| *byte == b']').unwrap_or(0);
            let inner = value.get(1..end).unwrap_or_default();
            let is_inner = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            (!inner.is_empty() && inner.iter().all(is_inner), value.get(end + 1..).unwrap_or_default())
        }
        _ => {
            let end = value.iter().position(|byte| !REG_NAME[usize::from(*byte)]).unwrap_or(value.len());
            (end > 0, &value[end..])
        }
    };
    match rest {
        [] => named || value.is_empty(),
        [b':', port @ ..] => named && port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_authority;

    #[test]
    fn authorities_are_hosts_with_or_without_a_port() {
        for good in
            ["", "a", "a.example", "a.example:", "a.example:8080", "127.0.0.1:1", "[::1]", "[::1]:443", "a%41_~!"]
        {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            ":80", "a:b", "a:123456", "a:1:2", "a@b", "a b", "a,b", "a/", "[]", "[]:1", "[::1", "::1]", "[::1]x",
            "[::1]:x", "[g::1]", "a]", "[a]]", "a[", "[[::1]]", "[::1]]:1",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
