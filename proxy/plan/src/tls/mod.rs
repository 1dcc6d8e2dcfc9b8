//! TLS in its compiled form: rustls' configurations, with our own choice of certificate and our own judgement of a
//! peer's. The cores hand these to `net`; nothing here touches a socket or a file.

mod certificates;
mod client;
mod material;
mod server;
mod verify;

use std::sync::Arc;

use onehop_meter::TlsReason;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::{AlertDescription, CertificateError, Error, SupportedProtocolVersion};

use crate::model::MinVersion;

pub use client::ClientTls;
pub(crate) use client::client;
pub(crate) use material::{Own, own};
pub use server::ServerTls;
pub(crate) use server::server;
pub use verify::Refusal;

/// Ciphers and groups, ours to order: AES-128 costs least where AES is in hardware, and X25519 less than the hybrid,
/// which comes first only where it is asked for.
fn provider(post_quantum: bool) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    provider.kx_groups.insert(if post_quantum { 0 } else { 3 }, kx_group::X25519MLKEM768);
    Arc::new(provider)
}

static VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

fn versions(min: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    match min {
        MinVersion::Tls12 => &VERSIONS,
        MinVersion::Tls13 => &VERSIONS[..1],
    }
}

/// What metrics and logs call an error of rustls'.
pub fn reason(error: &Error) -> TlsReason {
    match error {
        Error::InvalidCertificate(error) => certificate_reason(error),
        Error::NoCertificatesPresented => TlsReason::NoCertificate,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => TlsReason::NothingInCommon,
        Error::AlertReceived(AlertDescription::CertificateRequired) => TlsReason::NoCertificate,
        Error::AlertReceived(_) => TlsReason::Alert,
        Error::General(text) if text == server::NO_IDENTITY => TlsReason::NoIdentity,
        _ => TlsReason::Malformed,
    }
}

fn certificate_reason(error: &CertificateError) -> TlsReason {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsReason::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsReason::NotYetValid,
        CertificateError::UnknownIssuer => TlsReason::UnknownIssuer,
        CertificateError::Revoked
        | CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => TlsReason::Revoked,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => TlsReason::WrongName,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => TlsReason::WrongUsage,
        CertificateError::Other(other) => {
            other.0.downcast_ref::<Refusal>().map_or(TlsReason::BadCertificate, |refusal| refusal.reason)
        }
        _ => TlsReason::BadCertificate,
    }
}
