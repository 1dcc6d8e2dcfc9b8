//! From the bytes of files to certificates, keys and lists, with messages that say which file and what is wrong.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::identity::{SpiffeId, Usage, svid};
use crate::model::{Files, Identity, KeyPair};

fn bytes<'a>(files: &'a Files, path: &Path) -> Result<&'a [u8], String> {
    match files.0.get(path) {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(error)) => Err(format!("{} cannot be read: {error}", path.display())),
        None => Err(format!("{} is not here yet", path.display())),
    }
}

/// The certificates of a PEM file; at least one.
pub(super) fn certificates(files: &Files, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error| format!("{} is no PEM file of certificates: {error}", path.display());
    let list: Vec<_> = CertificateDer::pem_slice_iter(bytes(files, path)?).collect::<Result<_, _>>().map_err(wrong)?;
    if list.is_empty() { Err(format!("{} holds no certificate", path.display())) } else { Ok(list) }
}

/// The revocation lists of PEM files.
pub(super) fn crls(
    files: &Files,
    paths: &[std::path::PathBuf],
) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let mut lists = Vec::new();
    for path in paths {
        let wrong = |error| format!("{} is no PEM file of revocation lists: {error}", path.display());
        let found = CertificateRevocationListDer::pem_slice_iter(bytes(files, path)?).collect::<Result<Vec<_>, _>>();
        lists.extend(found.map_err(wrong)?);
    }
    Ok(lists)
}

/// A chain with its key, checked to belong together.
pub(super) fn certified(files: &Files, pair: &KeyPair, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, String> {
    let chain = certificates(files, &pair.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(bytes(files, &pair.key)?)
        .map_err(|error| format!("{} is no PEM file of a private key: {error}", pair.key.display()))?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("the key {} does not belong to the certificate {}", pair.key.display(), pair.certificate.display())
        }
        other => format!("{} and {} cannot be used: {other}", pair.certificate.display(), pair.key.display()),
    })?;
    Ok(Arc::new(certified))
}

/// Our own identity, ready to be shown.
#[derive(Clone)]
pub(crate) struct Own {
    pub certified: Arc<CertifiedKey>,
    pub id: SpiffeId,
    /// Trust domains and their roots, our own first.
    pub trust: Vec<(String, Vec<CertificateDer<'static>>)>,
    pub crls: Vec<CertificateRevocationListDer<'static>>,
}

/// The identity that the model describes; `Ok(None)` while the Workload API has not sent one.
pub(crate) fn own(identity: &Identity, files: &Files) -> Result<Option<Own>, String> {
    if identity.workload_api.is_some() && !files.0.contains_key(&identity.svid.certificate) {
        return Ok(None);
    }
    let certified = certified(files, &identity.svid, &rustls::crypto::aws_lc_rs::default_provider())?;
    let id = identity_of(&certified.cert[0])
        .ok_or_else(|| format!("{} is no X.509-SVID: it needs exactly one spiffe:// URI, and must be for digital signatures, clients and servers", identity.svid.certificate.display()))?;
    let mut trust = vec![(id.trust_domain().to_owned(), certificates(files, &identity.bundle)?)];
    for (domain, path) in &identity.federated {
        trust.push((domain.clone(), certificates(files, path)?));
    }
    Ok(Some(Own { certified, id, trust, crls: crls(files, &identity.crls)? }))
}

/// The SPIFFE ID of a certificate that can serve on both sides.
fn identity_of(certificate: &CertificateDer<'_>) -> Option<SpiffeId> {
    svid(certificate, Usage::Client).and_then(|_| svid(certificate, Usage::Server)).ok()
}
