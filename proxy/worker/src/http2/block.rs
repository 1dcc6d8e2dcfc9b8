//! A block of fields on its way to `h2`, which compresses it: names that we know cost nothing, values share one allocation,
//! and what is different in each message is kept out of the compression's table.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::Authority;
use onehop_wire::http1::Known;

/// Collects fields.
pub struct Block<'a> {
    /// What was collected.
    pub map: HeaderMap,
    values: BytesMut,
    kept: Option<&'a Kept>,
    is_first: bool,
}

/// What requests say over and over again, as `http` has it: made once, checked once.
#[derive(Default)]
pub struct Kept {
    via: RefCell<Option<HeaderValue>>,
    host: RefCell<Option<HeaderValue>>,
    authority: RefCell<Option<Authority>>,
}

impl Kept {
    /// The authority of a request's target.
    pub fn authority(&self, bytes: &[u8]) -> Option<Authority> {
        let mut kept = self.authority.borrow_mut();
        let known = kept.as_ref().filter(|known| known.as_str().as_bytes() == bytes);
        known.cloned().or_else(|| {
            let made = Authority::from_maybe_shared(Bytes::copy_from_slice(bytes)).ok()?;
            kept.replace(made.clone());
            Some(made)
        })
    }

    fn value(&self, known: Known, bytes: &[u8]) -> Option<HeaderValue> {
        let place = match known {
            Known::Via => &self.via,
            Known::XForwardedHost => &self.host,
            _ => return None,
        };
        let mut kept = place.borrow_mut();
        let known = kept.as_ref().filter(|known| known.as_bytes() == bytes);
        known.cloned().or_else(|| {
            let made = HeaderValue::from_bytes(bytes).ok()?;
            kept.replace(made.clone());
            Some(made)
        })
    }
}

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static HTTP: HeaderValue = HeaderValue::from_static("http");
static HTTPS: HeaderValue = HeaderValue::from_static("https");

impl<'a> Block<'a> {
    /// Room for so many fields, and for so many bytes of values.
    pub fn new(fields: usize, bytes: usize) -> Block<'a> {
        Block { values: BytesMut::with_capacity(bytes), ..Block::with(HeaderMap::with_capacity(fields)) }
    }

    /// More fields are to join these.
    pub fn with(map: HeaderMap) -> Block<'a> {
        Block { map, values: BytesMut::new(), kept: None, is_first: false }
    }

    /// Of a request; `is_first`: of its connection.
    pub fn request(fields: usize, bytes: usize, kept: &'a Kept, is_first: bool) -> Block<'a> {
        Block { kept: Some(kept), is_first, ..Block::new(fields, bytes) }
    }

    /// A field that cannot be said in HTTP/2 was refused where it came in; should one come this far it is left out.
    pub fn push(&mut self, known: Known, name: &[u8], value: &[u8]) {
        let Some(name) = named(known, name) else { return };
        let scheme = if known == Known::XForwardedProto { scheme(value) } else { None };
        let kept = scheme.or_else(|| self.kept?.value(known, value));
        let made = kept.or_else(|| HeaderValue::from_maybe_shared(self.share(value)).ok());
        if let Some(mut value) = made {
            // The first one of a connection leaves its name in the table, by which the others then go.
            value.set_sensitive(known == Known::Authorization || (is_unlike(known) && !self.is_first));
            self.map.append(name, value);
        }
    }

    /// Copies bytes to the others.
    pub fn share(&mut self, bytes: &[u8]) -> Bytes {
        self.values.extend_from_slice(bytes);
        self.values.split().freeze()
    }
}

/// The name as `http` has it, without parsing it where we know it.
fn named(known: Known, name: &[u8]) -> Option<HeaderName> {
    Some(match known {
        Known::XRequestId => REQUEST_ID.clone(),
        Known::Traceparent => TRACE_PARENT.clone(),
        Known::Tracestate => TRACE_STATE.clone(),
        Known::XForwardedFor => FORWARDED_FOR.clone(),
        Known::XForwardedHost => FORWARDED_HOST.clone(),
        Known::XForwardedProto => FORWARDED_PROTO.clone(),
        Known::Via => header::VIA,
        Known::Date => header::DATE,
        Known::Server => header::SERVER,
        Known::Cookie => header::COOKIE,
        Known::Forwarded => header::FORWARDED,
        Known::ContentType => header::CONTENT_TYPE,
        Known::ContentLength => header::CONTENT_LENGTH,
        Known::Authorization => header::AUTHORIZATION,
        _ => match name {
            // As clients of HTTP/2 spell them, in nearly every request.
            b"accept" => header::ACCEPT,
            b"user-agent" => header::USER_AGENT,
            b"accept-encoding" => header::ACCEPT_ENCODING,
            b"accept-language" => header::ACCEPT_LANGUAGE,
            b"cache-control" => header::CACHE_CONTROL,
            b"te" => header::TE,
            _ => return HeaderName::from_bytes(name).ok(),
        },
    })
}

fn scheme(value: &[u8]) -> Option<HeaderValue> {
    match value {
        b"http" => Some(HTTP.clone()),
        b"https" => Some(HTTPS.clone()),
        _ => None,
    }
}

/// Values that no other message has: in the peer's table they would only push out what comes again with each request.
/// They go as literals that are never indexed (RFC 7541 6.2.3). (So do credentials, which must not be guessed from the
/// length of what is compressed: 7.1.3.)
pub fn is_unlike(known: Known) -> bool {
    matches!(known, Known::XRequestId | Known::Traceparent | Known::Tracestate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_we_know_are_those_that_parsing_gives() {
        let names = [
            "x-request-id",
            "traceparent",
            "tracestate",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "via",
            "date",
            "server",
            "cookie",
            "forwarded",
            "content-type",
            "content-length",
            "authorization",
            "accept",
            "user-agent",
            "accept-encoding",
            "accept-language",
            "cache-control",
            "x-other",
            "te",
        ];
        for name in names {
            for spelled in [name.to_owned(), name.to_uppercase()] {
                let known = Known::recognise(spelled.as_bytes());
                assert_eq!(named(known, spelled.as_bytes()).expect("a name").as_str(), name);
            }
        }
    }

    #[test]
    fn what_is_kept_is_what_was_asked_for() {
        let kept = Kept::default();
        for host in ["a.test", "a.test", "b.test:8080", "a.test"] {
            let mut block = Block::request(4, 100, &kept, false);
            block.push(Known::XForwardedHost, b"x-forwarded-host", host.as_bytes());
            block.push(Known::Via, b"via", host.as_bytes());
            assert_eq!(block.map["x-forwarded-host"], host);
            assert_eq!(block.map["via"], host);
            assert_eq!(kept.authority(host.as_bytes()).expect("an authority"), host);
        }
        assert!(kept.authority(b"no authority").is_none());
    }

    #[test]
    fn what_each_message_has_of_its_own_is_not_indexed() {
        let kept = Kept::default();
        let mut first = Block::request(4, 100, &kept, true);
        first.push(Known::XRequestId, b"x-request-id", b"a");
        first.push(Known::Authorization, b"authorization", b"b");
        assert!(!first.map["x-request-id"].is_sensitive() && first.map["authorization"].is_sensitive());
        let mut block = Block::request(4, 100, &kept, false);
        for (name, value) in [("X-Request-Id", "a"), ("traceparent", "b"), ("via", "c"), ("x-forwarded-proto", "http")]
        {
            block.push(Known::recognise(name.as_bytes()), name.as_bytes(), value.as_bytes());
        }
        let found = |name: &str| block.map.get(name).map(|value| (value.as_bytes().to_vec(), value.is_sensitive()));
        assert_eq!(found("x-request-id"), Some((b"a".to_vec(), true)));
        assert_eq!(found("traceparent"), Some((b"b".to_vec(), true)));
        assert_eq!(found("via"), Some((b"c".to_vec(), false)));
        assert_eq!(found("x-forwarded-proto"), Some((b"http".to_vec(), false)));
    }
}
