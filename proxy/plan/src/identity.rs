//! SPIFFE identities (the SPIFFE-ID and X509-SVID specifications): what one may look like, which one a certificate
//! carries, and which ones a rule means.

use std::fmt;
use std::sync::Arc;

use onehop_meter::TlsReason;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

const SCHEME: &str = "spiffe://";
/// SPIFFE-ID 2.3: IDs are at most 2048 bytes, trust domains 255.
const MAX_ID: usize = 2048;
const MAX_TRUST_DOMAIN: usize = 255;

/// A valid SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId(Arc<str>);

impl SpiffeId {
    /// Checks the text (SPIFFE-ID 2): the scheme, a trust domain of lower-case letters, digits, dots, dashes and
    /// underscores, and segments of a path that are neither empty nor relative.
    pub fn parse(text: &str) -> Option<SpiffeId> {
        let rest = text.strip_prefix(SCHEME)?;
        let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
        let segment = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        };
        let legal =
            text.len() <= MAX_ID && is_trust_domain(domain) && path.is_none_or(|path| path.split('/').all(segment));
        legal.then(|| SpiffeId(Arc::from(text)))
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its trust domain.
    pub fn trust_domain(&self) -> &str {
        let rest = &self.0[SCHEME.len()..];
        rest.split_once('/').map_or(rest, |(domain, _)| domain)
    }

    /// Its path, without the first slash; empty without one.
    pub fn path(&self) -> &str {
        self.0[SCHEME.len()..].split_once('/').map_or("", |(_, path)| path)
    }

    /// The value behind a segment such as `ns` or `sa`, as Kubernetes identities have them (`/ns/NAME/sa/NAME`).
    pub fn named(&self, key: &str) -> Option<&str> {
        let mut segments = self.path().split('/');
        while let (Some(name), Some(value)) = (segments.next(), segments.next()) {
            if name == key {
                return Some(value);
            }
        }
        None
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text can name a trust domain.
pub fn is_trust_domain(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    !text.is_empty() && text.len() <= MAX_TRUST_DOMAIN && text.bytes().all(legal)
}

/// Which identities a rule means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdMatch {
    /// This one.
    Exact(SpiffeId),
    /// Every one below this path, or of this trust domain: the text ends with a slash.
    Below(String),
}

impl IdMatch {
    /// From `spiffe://td/path`, `spiffe://td/path/*` or `spiffe://td/*`.
    pub fn parse(text: &str) -> Option<IdMatch> {
        match text.strip_suffix("/*") {
            Some(prefix) => SpiffeId::parse(prefix).map(|_| IdMatch::Below(format!("{prefix}/"))),
            None => SpiffeId::parse(text).map(IdMatch::Exact),
        }
    }

    /// Whether it means this one.
    pub fn takes(&self, id: &SpiffeId) -> bool {
        match self {
            IdMatch::Exact(exact) => exact == id,
            IdMatch::Below(prefix) => id.as_str().starts_with(prefix.as_str()),
        }
    }
}

/// What the verified certificate of a peer says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its SPIFFE ID, if its certificate is an SVID.
    pub id: Option<SpiffeId>,
    /// Every URI in it.
    pub uris: Vec<String>,
    /// Every DNS name in it.
    pub dns: Vec<String>,
    /// Its subject, in the order and spelling of RFC 2253.
    pub subject: String,
    /// When it ceases to be valid, in seconds since 1970.
    pub not_after: i64,
    /// SHA-256 of the certificate, in hexadecimal.
    pub hash: String,
}

/// Reads a peer's certificate. `None` when it cannot be read.
pub fn peer(certificate: &CertificateDer<'_>) -> Option<Peer> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut peer = Peer {
        subject: subject(&parsed),
        not_after: parsed.validity().not_after.timestamp(),
        hash: hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate).as_ref()),
        ..Peer::default()
    };
    for name in names(&parsed) {
        match name {
            GeneralName::URI(uri) => peer.uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => peer.dns.push((*name).to_owned()),
            _ => {}
        }
    }
    if let [only] = peer.uris.as_slice() {
        peer.id = SpiffeId::parse(only);
    }
    Some(peer)
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    // RFC 2253 begins with the last attribute.
    let text = certificate.subject().to_string();
    let mut parts: Vec<&str> = text.split(", ").collect();
    parts.reverse();
    parts.join(",")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn names<'a>(certificate: &'a X509Certificate<'_>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
}

/// From when until when a certificate is valid, in seconds since 1970. `None` when it cannot be read.
pub fn lifetime(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// Whether a certificate is valid at this time, in seconds since 1970.
///
/// # Errors
/// Which end of its time is to blame.
pub fn is_in_time(certificate: &CertificateDer<'_>, now: i64) -> Result<(), TlsReason> {
    let (from, until) = lifetime(certificate).ok_or(TlsReason::BadCertificate)?;
    if now < from {
        Err(TlsReason::NotYetValid)
    } else if now > until {
        Err(TlsReason::Expired)
    } else {
        Ok(())
    }
}

/// For which side of a handshake a certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A client shows it.
    Client,
    /// A server shows it.
    Server,
}

/// The SPIFFE ID of a leaf certificate, if it keeps to the rules for one (X509-SVID 2 to 4): exactly one URI, which is
/// a SPIFFE ID with a path; no CA; digital signatures and neither certificates nor lists signed; the extended usage named.
///
/// # Errors
/// Which rule it breaks.
pub fn svid(certificate: &CertificateDer<'_>, usage: Usage) -> Result<SpiffeId, TlsReason> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| TlsReason::BadCertificate)?;
    let mut uris = names(&parsed).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let id = match (uris.next(), uris.next()) {
        (Some(only), None) => SpiffeId::parse(only).filter(|id| !id.path().is_empty()),
        _ => None,
    };
    let id = id.ok_or(TlsReason::UriNames)?;
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => return Err(TlsReason::WrongUsage),
            ParsedExtension::KeyUsage(usage)
                if usage.key_cert_sign() || usage.crl_sign() || !usage.digital_signature() =>
            {
                return Err(TlsReason::WrongUsage);
            }
            _ => {}
        }
    }
    let has_key_usage = parsed.key_usage().ok().flatten().is_some();
    let extended = parsed.extended_key_usage().ok().flatten();
    let named = extended.is_some_and(|extended| match usage {
        Usage::Client => extended.value.client_auth,
        Usage::Server => extended.value.server_auth,
    });
    if has_key_usage && named { Ok(id) } else { Err(TlsReason::WrongUsage) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_to_the_letter() {
        for good in ["spiffe://td/a", "spiffe://td.example-1_x/ns/default/sa/web", "spiffe://td", "spiffe://td/a.b..c"]
        {
            assert!(SpiffeId::parse(good).is_some(), "{good}");
        }
        for bad in [
            "spiffe://",
            "spiffe:///a",
            "spiffe://TD/a",
            "spiffe://td/",
            "spiffe://td//a",
            "spiffe://td/a/",
            "spiffe://td/../a",
            "spiffe://td/./a",
            "spiffe://td:1/a",
            "spiffe://u@td/a",
            "spiffe://td/a?b",
            "spiffe://td/a#b",
            "spiffe://td/%61",
            "https://td/a",
            "SPIFFE://td/a",
        ] {
            assert!(SpiffeId::parse(bad).is_none(), "{bad}");
        }
        assert!(SpiffeId::parse(&format!("spiffe://td/{}", "a".repeat(2048))).is_none());
        let id = SpiffeId::parse("spiffe://td/ns/shop/sa/web").expect("an id");
        assert_eq!(
            (id.trust_domain(), id.named("ns"), id.named("sa"), id.named("td")),
            ("td", Some("shop"), Some("web"), None)
        );
    }

    #[test]
    fn a_prefix_ends_on_a_segment() {
        let id = |text: &str| SpiffeId::parse(text).expect("an id");
        let below = IdMatch::parse("spiffe://td/ns/shop/*").expect("a match");
        assert!(below.takes(&id("spiffe://td/ns/shop/sa/web")));
        assert!(!below.takes(&id("spiffe://td/ns/shopper/sa/web")));
        let domain = IdMatch::parse("spiffe://td/*").expect("a match");
        assert!(domain.takes(&id("spiffe://td/x")) && !domain.takes(&id("spiffe://td2/x")));
        assert!(IdMatch::parse("spiffe://td/a*").is_none());
    }
}
