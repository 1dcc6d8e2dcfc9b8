//! Judging a peer's certificate: the chain by webpki, revocation by the lists given, and who it is by SPIFFE ID or DNS
//! name. One judge for both sides of a handshake.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use onehop_meter::TlsReason;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder, VerifiedPath,
};

use crate::identity::{IdMatch, Usage, is_in_time, lifetime, svid};

/// Why a certificate was refused, beyond what rustls has words for.
#[derive(Debug)]
pub struct Refusal {
    /// For metrics.
    pub reason: TlsReason,
    text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refusal {}

fn refuse(reason: TlsReason, text: impl Into<String>) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refusal { reason, text: text.into() }))))
}

/// Roots that are trusted for one purpose.
pub(super) struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    /// When each begins and ceases to be valid, in seconds since 1970. (webpki's anchors have no dates, as those of
    /// RFC 5280 6.1.1; but an operator who lets a root expire, or whose next one is not valid yet, means it, and OpenSSL
    /// and BoringSSL heed it.)
    times: Vec<(i64, i64)>,
    subjects: Vec<DistinguishedName>,
}

impl Roots {
    /// # Errors
    /// When one cannot be a root.
    pub fn new(certificates: &[CertificateDer<'static>]) -> Result<Roots, String> {
        let mut roots = Roots { anchors: Vec::new(), times: Vec::new(), subjects: Vec::new() };
        for certificate in certificates {
            roots.times.push(lifetime(certificate).unwrap_or((i64::MIN, i64::MAX)));
            let anchor = webpki::anchor_from_trusted_cert(certificate)
                .map_err(|error| format!("a trusted certificate cannot be read: {error}"))?
                .to_owned();
            roots.subjects.push(DistinguishedName::in_sequence(anchor.subject.as_ref()));
            roots.anchors.push(anchor);
        }
        Ok(roots)
    }

    /// Whether the root that a chain ends at is valid now; if not, webpki looks for another way.
    fn in_time(&self, anchor: &TrustAnchor<'_>, now: UnixTime) -> Result<(), webpki::Error> {
        // The anchor is one of ours: what tells them apart is where they lie.
        let at = self.anchors.iter().position(|own| std::ptr::eq(own, anchor));
        let Some((from, until)) = at.map(|at| self.times[at]) else { return Ok(()) };
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let time = |at: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at).unwrap_or(0)));
        if seconds < from {
            Err(webpki::Error::CertNotValidYet { time: now, not_before: time(from) })
        } else if seconds > until {
            Err(webpki::Error::CertExpired { time: now, not_after: time(until) })
        } else {
            Ok(())
        }
    }
}

/// Who is believed.
pub(super) enum Believed {
    /// Whoever one of these roots vouches for.
    Roots(Roots),
    /// SVIDs of these trust domains, by the roots of their own domain.
    Domains(Vec<(String, Roots)>),
    /// Everybody.
    Everybody,
}

/// A judge of peers' certificates.
pub(super) struct Judge {
    pub believed: Believed,
    pub crls: Vec<CertRevocationList<'static>>,
    /// The peer must be one of these.
    pub ids: Vec<IdMatch>,
    /// Or its certificate must name one of these; none: the name that the connection is made to.
    pub names: Vec<ServerName<'static>>,
    pub provider: Arc<CryptoProvider>,
    pub mandatory: bool,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge")
    }
}

/// Parses revocation lists.
///
/// # Errors
/// When one cannot be read.
pub(super) fn crls(
    lists: &[CertificateRevocationListDer<'static>],
) -> Result<Vec<CertRevocationList<'static>>, String> {
    let parse = |list: &CertificateRevocationListDer<'static>| {
        OwnedCertRevocationList::from_der(list)
            .map(CertRevocationList::from)
            .map_err(|error| format!("a revocation list cannot be read: {error}"))
    };
    lists.iter().map(parse).collect()
}

impl Judge {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
        wanted: Option<&ServerName<'_>>,
    ) -> Result<(), Error> {
        let parsed = EndEntityCert::try_from(leaf).map_err(translate)?;
        match &self.believed {
            Believed::Everybody => return Ok(()),
            Believed::Roots(roots) => self.chain(&parsed, chain, roots, now, usage)?,
            Believed::Domains(domains) => {
                let id = svid(leaf, usage)
                    .map_err(|reason| refuse(reason, "the certificate is no X.509-SVID for this use"))?;
                let Some((_, roots)) = domains.iter().find(|(domain, _)| domain == id.trust_domain()) else {
                    return Err(refuse(
                        TlsReason::WrongTrustDomain,
                        format!("the trust domain of {id} is not trusted here"),
                    ));
                };
                self.chain(&parsed, chain, roots, now, usage)?;
                if !self.ids.is_empty() && !self.ids.iter().any(|expected| expected.takes(&id)) {
                    return Err(refuse(TlsReason::WrongName, format!("{id} is not who is expected")));
                }
                return Ok(());
            }
        }
        if usage == Usage::Client {
            return Ok(());
        }
        self.named(leaf, &parsed, wanted)
    }

    fn named(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &EndEntityCert<'_>,
        wanted: Option<&ServerName<'_>>,
    ) -> Result<(), Error> {
        if !self.ids.is_empty() {
            let id = svid(leaf, Usage::Server).ok();
            if id.is_some_and(|id| self.ids.iter().any(|expected| expected.takes(&id))) {
                return Ok(());
            }
        }
        if self.names.iter().any(|name| parsed.verify_is_valid_for_subject_name(name).is_ok()) {
            return Ok(());
        }
        match wanted {
            Some(wanted) if self.ids.is_empty() && self.names.is_empty() => {
                parsed.verify_is_valid_for_subject_name(wanted).map_err(translate)
            }
            _ => Err(refuse(TlsReason::WrongName, "the certificate names nobody who is expected")),
        }
    }

    fn chain(
        &self,
        leaf: &EndEntityCert<'_>,
        chain: &[CertificateDer<'_>],
        roots: &Roots,
        now: UnixTime,
        usage: Usage,
    ) -> Result<(), Error> {
        let usage = match usage {
            Usage::Client => KeyUsage::client_auth(),
            Usage::Server => KeyUsage::server_auth(),
        };
        let lists: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        // A list speaks for its issuer; certificates of others are not doubted for want of one. A list that should have
        // been renewed speaks no longer: its issuer's certificates are refused, as OpenSSL's users know it.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_status_policy(webpki::UnknownStatusPolicy::Allow)
                .with_expiration_policy(webpki::ExpirationPolicy::Enforce)
                .build()
        });
        let algorithms = self.provider.signature_verification_algorithms.all;
        let ends_well = |path: &VerifiedPath<'_>| roots.in_time(path.anchor(), now);
        let path = leaf.verify_for_usage(algorithms, &roots.anchors, chain, now, usage, revocation, Some(&ends_well));
        path.map(drop).map_err(translate)
    }

    /// Judges anew what was judged when the session began: rustls restores a peer's certificates from a ticket without
    /// asking. Signatures and revocation were checked then, and a changed bundle or list makes old tickets void; what is
    /// left is time. (An expected identity or name is compiled into the same configuration as the sessions.)
    ///
    /// # Errors
    /// As at first.
    pub fn again(&self, peer: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        if peer.is_empty() && self.mandatory {
            return Err(Error::NoCertificatesPresented);
        }
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        for certificate in peer {
            is_in_time(certificate, now).map_err(|reason| refuse(reason, "a certificate of the resumed session"))?;
        }
        Ok(())
    }
}

fn translate(error: webpki::Error) -> Error {
    use webpki::Error as W;
    Error::InvalidCertificate(match error {
        W::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        W::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        W::InvalidCertValidity => CertificateError::Expired,
        W::UnknownIssuer => CertificateError::UnknownIssuer,
        W::CertNotValidForName(_) => CertificateError::NotValidForName,
        W::CertRevoked => CertificateError::Revoked,
        W::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        W::CrlExpired { time, next_update } => CertificateError::ExpiredRevocationListContext { time, next_update },
        W::InvalidSignatureForPublicKey | W::InvalidCrlSignatureForPublicKey => CertificateError::BadSignature,
        W::RequiredEkuNotFoundContext(_) | W::EmptyEkuExtension => CertificateError::InvalidPurpose,
        W::BadDer | W::BadDerTime | W::TrailingData(_) => CertificateError::BadEncoding,
        other => CertificateError::Other(OtherError(Arc::new(Refusal {
            reason: TlsReason::BadCertificate,
            text: other.to_string(),
        }))),
    })
}

macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ClientCertVerifier for Judge {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A browser chooses by them; in a mesh there is nothing to choose, and the hello stays small.
        match &self.believed {
            Believed::Roots(roots) => &roots.subjects,
            _ => &[],
        }
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, chain, now, Usage::Client, None).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, chain, now, Usage::Server, Some(name)).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}
