//! Certificates for the tests: good ones, and each kind of bad one.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What a certificate is to say.
#[derive(Clone)]
pub struct Leaf {
    /// URIs, SPIFFE IDs usually.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Minutes from now from which it is valid.
    pub from: i64,
    /// Minutes from now until which it is valid.
    pub until: i64,
    /// Extended key usages.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// Its serial number.
    pub serial: u64,
    /// An RSA key instead of one on P-256.
    pub rsa: bool,
}

impl Leaf {
    /// A good SVID.
    pub fn svid(id: &str) -> Leaf {
        Leaf {
            uris: vec![id.to_owned()],
            dns: Vec::new(),
            from: -5,
            until: 60,
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
            serial: 7,
            rsa: false,
        }
    }

    /// A good certificate of a server.
    pub fn server(names: &[&str]) -> Leaf {
        Leaf { uris: Vec::new(), dns: names.iter().map(|name| (*name).to_owned()).collect(), ..Leaf::svid("") }
    }
}

fn window(params: &mut CertificateParams, from: i64, until: i64) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now + Duration::minutes(from);
    params.not_after = now + Duration::minutes(until);
}

impl Authority {
    /// A root of that name.
    pub fn new(name: &str) -> Authority {
        Authority::lasting(name, -60, 600)
    }

    /// A root that is valid between these minutes from now.
    pub fn lasting(name: &str, from: i64, until: i64) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        window(&mut params, from, until);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("a root").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues one: certificate and key in PEM.
    pub fn issue(&self, leaf: &Leaf) -> (String, String) {
        let key = if leaf.rsa {
            KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key")
        } else {
            KeyPair::generate().expect("a key")
        };
        let mut params = CertificateParams::new(leaf.dns.clone()).expect("parameters");
        window(&mut params, leaf.from, leaf.until);
        params.is_ca = IsCa::ExplicitNoCa;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages.clone_from(&leaf.usages);
        params.serial_number = Some(SerialNumber::from(leaf.serial));
        for uri in leaf.uris.iter().filter(|uri| !uri.is_empty()) {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().expect("ASCII")));
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// A list that revokes these serial numbers.
    pub fn revoke(&self, serials: &[u64]) -> String {
        self.revoke_until(serials, 60)
    }

    /// A list that is to be renewed so many minutes from now.
    pub fn revoke_until(&self, serials: &[u64], minutes: i64) -> String {
        let now = OffsetDateTime::now_utc();
        let params = CertificateRevocationListParams {
            this_update: now - Duration::minutes(5),
            next_update: now + Duration::minutes(minutes),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: now - Duration::minutes(1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }
}

/// Writes a file in one step, as a rotation should.
pub fn put(path: &Path, text: &str) {
    let half = path.with_extension("half");
    std::fs::write(&half, text).expect("writes");
    std::fs::rename(&half, path).expect("renames");
}

/// Issues and writes `NAME.pem` and `NAME.key`; returns their paths.
pub fn files(folder: &Path, name: &str, authority: &Authority, leaf: &Leaf) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let issued = authority.issue(leaf);
    put(&key, &issued.1);
    put(&certificate, &issued.0);
    (certificate, key)
}
