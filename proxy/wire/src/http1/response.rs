//! Response heads: the status line, and the framing that depends on the request's method.

use std::mem::MaybeUninit;

use super::fields::Fields;
use super::head::{BodyLength, Field, Framing, Known, Method, Span, Version, collect, incomplete, refuse};
use super::limits::{Limits, MAX_FIELDS};
use super::rules::Reject;

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
    pub fields: Fields,
    /// Bytes of the head.
    pub head_len: usize,
    /// How the body is framed, for the request's method and this status.
    pub body: BodyLength,
    /// Whether the upstream connection can go on.
    pub keep_alive: bool,
    /// As in [`super::RequestHead`].
    pub named_by_connection: u128,
    /// Bytes of another protocol follow: after a 101, or a 2xx to CONNECT, whose framing fields mean nothing
    /// (RFC 9110 9.3.6).
    pub tunnels: bool,
    /// The protocol of a 101.
    pub upgrade: Option<Span>,
}

impl ResponseHead {
    /// Parses a whole head. The status of a refusal is for requests: whoever asked gets 502.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(&mut self, head: &[u8], method: Method, limits: &Limits) -> Result<(), Reject> {
        if head.len() > limits.head_bytes as usize {
            return Err(Reject::HeadTooLarge);
        }
        let mut storage = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let status = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut parsed, head, &mut storage[..limits.max_fields()])
            .map_err(|error| refuse(error, head))?;
        let (false, Some(version), Some(status)) = (status.is_partial(), parsed.version, parsed.code) else {
            return Err(incomplete(head, Reject::BadStatusLine));
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
        collect(&mut self.fields, head, parsed.headers)?;
        let framing = Framing::read(&self.fields, head)?;
        self.named_by_connection = framing.named;
        self.upgrade = framing.upgrade.filter(|_| framing.upgrades || status == 101);
        self.tunnels = status == 101 || (method == Method::Connect && (200..300).contains(&status));
        let bodiless = method == Method::Head || self.tunnels || status < 200 || status == 204 || status == 304;
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
        self.fields.find(known)
    }
}
