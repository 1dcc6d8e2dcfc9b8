//! TLS towards the target: whom the generator believes, what it shows, and whether sessions are resumed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onehop_net::tls::Connect;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::tickets::Tickets;

/// Where systems keep the roots that they trust: Debian, Fedora, Alpine.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What a command line says of TLS.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Roots; the system's without them.
    pub ca: Option<PathBuf>,
    /// The chain that is shown.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The name that is asked for and must be in the certificate.
    pub server_name: Option<String>,
    /// The target is not verified.
    pub insecure: bool,
    /// Every handshake is a full one.
    pub no_resumption: bool,
    /// TLS 1.3 with AES-128-GCM and X25519 and nothing else: every server has the same choice.
    pub one_choice: bool,
    /// HTTP/2 is asked for, and nothing else.
    pub http2: bool,
}

/// How connections shake hands.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS to {:?}", self.name)
    }
}

/// Believes every server.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error| format!("{}: {error}", path.display());
    CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)
}

impl Tls {
    /// From the command line, for a target of that host.
    ///
    /// # Errors
    /// Which file is unusable, and why.
    pub fn new(wanted: &Wanted, host: &str) -> Result<Tls, String> {
        let name = wanted.server_name.as_deref().unwrap_or(host).trim_matches(['[', ']']);
        let parsed = ServerName::try_from(name.to_owned()).map_err(|_| format!("\"{name}\" is no name of a server"))?;
        let mut provider = default_provider();
        // As the proxies that are compared: the hybrid groups cost more and are not offered by all.
        provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
        if wanted.one_choice {
            provider.kx_groups = vec![kx_group::X25519];
            provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        }
        let versions: &[_] = if wanted.one_choice { &[&rustls::version::TLS13] } else { rustls::DEFAULT_VERSIONS };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(versions).map_err(|error| error.to_string())?;
        let builder = if wanted.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Credulous))
        } else {
            let system = || SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists()).unwrap_or_default();
            let path = wanted.ca.clone().unwrap_or_else(system);
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(&path)?);
            if roots.is_empty() {
                return Err(format!("{} holds no root", path.display()));
            }
            builder.with_root_certificates(roots)
        };
        let mut config = match (&wanted.certificate, &wanted.key) {
            (Some(certificate), Some(key)) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
                let shown = builder.with_client_auth_cert(certificates(certificate)?, key);
                shown.map_err(|error| format!("{}: {error}", certificate.display()))?
            }
            _ => builder.with_no_client_auth(),
        };
        config.enable_secret_extraction = true;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption =
            if wanted.no_resumption { Resumption::disabled() } else { Resumption::store(Arc::new(Tickets::default())) };
        config.alpn_protocols = vec![if wanted.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        if wanted.no_resumption {
            config.resumption = Resumption::disabled();
        }
        Ok(Tls { config: Arc::new(config), name: parsed })
    }

    /// For one handshake.
    pub fn connect(&self) -> Connect {
        Connect { config: self.config.clone(), name: self.name.clone() }
    }
}
