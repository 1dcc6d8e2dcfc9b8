//! Which certificate a listener shows: by the server name that the client asks for (exact, then wildcard, then the
//! first one), and among several for one name by what the client can verify (ECDSA before RSA).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureAlgorithm;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

/// A listener's certificates.
#[derive(Debug)]
pub struct Certificates {
    /// Each with its number, which tells names of one certificate from those of another.
    exact: HashMap<String, Vec<usize>>,
    /// By what follows the first label, with its dot.
    wildcard: HashMap<String, Vec<usize>>,
    all: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    /// From the certificates in their order, by the names in them.
    pub fn new(all: Vec<Arc<CertifiedKey>>) -> Certificates {
        let mut certificates = Certificates { exact: HashMap::new(), wildcard: HashMap::new(), all };
        for (at, certified) in certificates.all.iter().enumerate() {
            for name in certified.cert.first().map(names).unwrap_or_default() {
                match name.strip_prefix('*') {
                    Some(rest) => certificates.wildcard.entry(rest.to_owned()).or_default().push(at),
                    None => certificates.exact.entry(name).or_default().push(at),
                }
            }
        }
        certificates
    }

    fn candidates(&self, name: Option<&str>) -> &[usize] {
        let by_name = name.and_then(|name| {
            let rest = name.find('.').map(|at| &name[at..]);
            self.exact.get(name).or_else(|| self.wildcard.get(rest?))
        });
        by_name.map_or(&[], Vec::as_slice)
    }

    /// Whether a connection that asked for `asked` may carry requests for `host`: the certificates that serve both are
    /// the same (RFC 9110 15.5.20 and 7.4). Both in lower case.
    pub fn serves(&self, asked: Option<&str>, host: &str) -> bool {
        self.all.len() < 2 || self.candidates(asked) == self.candidates(Some(host))
    }
}

fn names(certificate: &CertificateDer<'static>) -> Vec<String> {
    let parsed = EndEntityCert::try_from(certificate);
    parsed.map(|parsed| parsed.valid_dns_names().map(str::to_ascii_lowercase).collect()).unwrap_or_default()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let candidates = self.candidates(name.as_deref());
        let fits = |at: &&usize| self.all[**at].key.choose_scheme(hello.signature_schemes()).is_some();
        let of_kind = |ecdsa: bool| {
            let kind = move |at: &&usize| (self.all[**at].key.algorithm() == SignatureAlgorithm::ECDSA) == ecdsa;
            candidates.iter().filter(kind).find(fits)
        };
        let chosen = of_kind(true).or_else(|| of_kind(false));
        let chosen = chosen.or_else(|| candidates.first()).copied().unwrap_or(0);
        self.all.get(chosen).cloned()
    }
}
