//! `onehop certs`: a small CA for trying and testing. A trust domain in a folder: a root, an intermediate, and a
//! short-lived X.509-SVID for each service. Called again, it keeps the CA and renews the SVIDs.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// What is made.
#[derive(Args)]
pub struct Certs {
    /// The folder; made if it is not there.
    folder: PathBuf,
    /// The trust domain.
    #[arg(long, default_value = "example.org")]
    trust_domain: String,
    /// A service: a name (`web` becomes spiffe://DOMAIN/ns/default/sa/web), or a whole path. Repeat it for more.
    #[arg(long = "service", value_name = "NAME", required = true)]
    services: Vec<String>,
    /// DNS names that every certificate carries as well, so that it can serve browsers and curl.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// How long the services' certificates are valid.
    #[arg(long, default_value = "24h", value_name = "DURATION")]
    valid: String,
}

const ROOT_DAYS: i64 = 3650;
const INTERMEDIATE_DAYS: i64 = 365;
/// Clocks differ a little.
const SKEW_MINUTES: i64 = 5;

/// Runs it.
///
/// # Errors
/// What cannot be made or written.
pub fn run(wanted: &Certs) -> Result<(), String> {
    let valid =
        onehop_config::duration(&wanted.valid).map_err(|(message, hint)| format!("--valid {message}: {hint}"))?;
    if !onehop_plan::identity::is_trust_domain(&wanted.trust_domain) {
        return Err(format!(
            "\"{}\" is no trust domain: lower-case letters, digits, dots, dashes",
            wanted.trust_domain
        ));
    }
    for (id, folder) in issue(&wanted.folder, &wanted.trust_domain, &wanted.services, &wanted.dns, valid)? {
        println!("{id} {}", folder.display());
    }
    println!("bundle {}", wanted.folder.join("bundle.pem").display());
    Ok(())
}

/// Makes a trust domain with services for a day, in a folder.
///
/// # Errors
/// What cannot be made or written.
pub fn make(folder: &Path, domain: &str, services: &[String]) -> Result<(), String> {
    issue(folder, domain, services, &[], std::time::Duration::from_secs(86_400)).map(drop)
}

fn issue(
    folder: &Path,
    domain: &str,
    services: &[String],
    dns: &[String],
    valid: std::time::Duration,
) -> Result<Vec<(String, PathBuf)>, String> {
    let mut issued = Vec::new();
    let root = authority(folder, "root", domain, None)?;
    let intermediate = authority(folder, "intermediate", domain, Some(&root))?;
    write(&folder.join("bundle.pem"), root.pem.as_bytes(), 0o644)?;
    for service in services {
        let path = if service.contains('/') {
            service.trim_matches('/').to_owned()
        } else {
            format!("ns/default/sa/{service}")
        };
        let id = format!("spiffe://{domain}/{path}");
        if onehop_plan::identity::SpiffeId::parse(&id).is_none() {
            return Err(format!("\"{id}\" is no SPIFFE ID"));
        }
        let name = path.rsplit('/').next().unwrap_or(service);
        let own = folder.join(name);
        let (certificate, key) = leaf(&id, dns, valid, &intermediate)?;
        write(&own.join("key.pem"), key.as_bytes(), 0o600)?;
        write(&own.join("cert.pem"), format!("{certificate}{}", intermediate.pem).as_bytes(), 0o644)?;
        issued.push((id, own));
    }
    Ok(issued)
}

struct Authority {
    pem: String,
    key: String,
}

impl Authority {
    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, String> {
        let key = KeyPair::from_pem(&self.key).map_err(|error| format!("the CA's key cannot be read: {error}"))?;
        Issuer::from_ca_cert_pem(&self.pem, key)
            .map_err(|error| format!("the CA's certificate cannot be read: {error}"))
    }
}

fn cannot(error: rcgen::Error) -> String {
    format!("a certificate cannot be made: {error}")
}

/// The root or the intermediate: what is there, or a new one.
fn authority(folder: &Path, name: &str, domain: &str, issuer: Option<&Authority>) -> Result<Authority, String> {
    let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    if certificate.exists() && key.exists() {
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
        return Ok(Authority { pem: read(&certificate)?, key: read(&key)? });
    }
    let pair = KeyPair::generate().map_err(cannot)?;
    let mut params = params(if issuer.is_some() { INTERMEDIATE_DAYS * 24 * 60 } else { ROOT_DAYS * 24 * 60 })?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(u8::from(issuer.is_none())));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, format!("{domain} {name}"));
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
    let made = match issuer {
        None => params.self_signed(&pair),
        Some(issuer) => params.signed_by(&pair, &issuer.issuer()?),
    };
    let made = Authority { pem: made.map_err(cannot)?.pem(), key: pair.serialize_pem() };
    write(&key, made.key.as_bytes(), 0o600)?;
    write(&certificate, made.pem.as_bytes(), 0o644)?;
    Ok(made)
}

fn leaf(id: &str, dns: &[String], valid: std::time::Duration, issuer: &Authority) -> Result<(String, String), String> {
    let pair = KeyPair::generate().map_err(cannot)?;
    let mut params = params(i64::try_from(valid.as_secs().div_ceil(60)).unwrap_or(i64::MAX / 120))?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![uri(id)?];
    for name in dns {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(cannot)?));
    }
    let made = params.signed_by(&pair, &issuer.issuer()?).map_err(cannot)?;
    Ok((made.pem(), pair.serialize_pem()))
}

fn uri(text: &str) -> Result<SanType, String> {
    Ok(SanType::URI(text.try_into().map_err(cannot)?))
}

fn params(minutes: i64) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::new(Vec::new()).map_err(cannot)?;
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::minutes(SKEW_MINUTES);
    params.not_after = now + time::Duration::minutes(minutes);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Replaces a file in one step, so that who watches it never reads half of it.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let fail = |error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail)?;
    }
    let half = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&half).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    fs::rename(&half, path).map_err(fail)
}
