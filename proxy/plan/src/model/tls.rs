//! TLS and identity as they are wanted: paths of files, whose contents come along in [`Files`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The contents of the files that the model names, or why they cannot be read. Whoever makes a model fills it in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Files(pub BTreeMap<PathBuf, Result<Arc<Vec<u8>>, String>>);

/// A certificate chain and its key, both PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyPair {
    /// The chain, its own certificate first.
    pub certificate: PathBuf,
    /// The key: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
}

/// Who this process is, in the mesh: its X.509-SVID and whom it trusts.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The SVID. From the Workload API, the paths stand for what it sent last.
    pub svid: KeyPair,
    /// The bundle of its own trust domain.
    pub bundle: PathBuf,
    /// Other trust domains and their bundles.
    pub federated: Vec<(String, PathBuf)>,
    /// Revocation lists of whoever.
    pub crls: Vec<PathBuf>,
    /// The Workload API's socket, when it comes from there.
    pub workload_api: Option<String>,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    Off,
    /// They may; one that is shown must be good.
    Optional,
    /// They must.
    Required,
}

/// The lowest version that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// TLS at a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTls {
    /// By the names in them; the first serves where no name fits.
    pub certificates: Vec<KeyPair>,
    /// Shows the process's SVID, and believes clients by their SPIFFE IDs.
    pub identity: bool,
    /// Whether clients show a certificate.
    pub client: ClientAuth,
    /// Whose certificates clients show, without `identity`.
    pub client_ca: Option<PathBuf>,
    /// Revocation lists for them.
    pub crls: Vec<PathBuf>,
    /// The lowest version.
    pub min_version: MinVersion,
    /// Application protocols, best first.
    pub alpn: Vec<String>,
    /// Sessions are resumed.
    pub resumption: bool,
    /// A post-quantum key exchange is preferred: it costs larger hellos and more CPU.
    pub post_quantum: bool,
    /// From accepting to the end of the handshake. Envoy's users know 15 s.
    pub handshake_timeout: Duration,
    /// Plain connections are served as well: the first bytes decide.
    pub permissive: bool,
    /// A connection older than this is ended after its next response, so that its peer shows itself anew.
    pub max_age: Option<Duration>,
}

impl Default for ListenerTls {
    fn default() -> ListenerTls {
        ListenerTls {
            certificates: Vec::new(),
            identity: false,
            client: ClientAuth::Off,
            client_ca: None,
            crls: Vec::new(),
            min_version: MinVersion::Tls12,
            alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
            resumption: true,
            post_quantum: false,
            handshake_timeout: Duration::from_secs(10),
            permissive: false,
            max_age: None,
        }
    }
}

/// TLS towards a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterTls {
    /// Whose certificates endpoints show; the system's roots without it.
    pub ca: Option<PathBuf>,
    /// Revocation lists for them.
    pub crls: Vec<PathBuf>,
    /// Endpoints are not verified at all. For trying things out.
    pub insecure: bool,
    /// What endpoints are asked for (SNI), and what their certificate must name.
    pub server_name: Option<String>,
    /// SPIFFE IDs (`spiffe://td/path`, `spiffe://td/path/*`, `spiffe://td/*`) or DNS names, one of which they must have.
    pub expect: Vec<String>,
    /// Shows the process's SVID, and believes endpoints by their SPIFFE IDs.
    pub identity: bool,
    /// The certificate that we show.
    pub certificate: Option<KeyPair>,
    /// The lowest version.
    pub min_version: MinVersion,
    /// Application protocols, best first; none: the one that the cluster's HTTP version asks for.
    pub alpn: Vec<String>,
    /// Sessions are resumed.
    pub resumption: bool,
    /// As at a listener.
    pub post_quantum: bool,
}

impl Default for ClusterTls {
    fn default() -> ClusterTls {
        ClusterTls {
            ca: None,
            crls: Vec::new(),
            insecure: false,
            server_name: None,
            expect: Vec::new(),
            identity: false,
            certificate: None,
            min_version: MinVersion::Tls12,
            alpn: Vec::new(),
            resumption: true,
            post_quantum: false,
        }
    }
}

/// Where systems keep the roots that they trust: Debian, Fedora, Alpine.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The system's roots; `SSL_CERT_FILE` names others, as OpenSSL has it.
pub fn system_roots() -> PathBuf {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        return PathBuf::from(path);
    }
    let found = SYSTEM_ROOTS.iter().find(|path| std::path::Path::new(path).exists());
    PathBuf::from(found.unwrap_or(&SYSTEM_ROOTS[0]))
}

impl super::Model {
    /// The files that this model names.
    pub fn file_names(&self) -> Vec<PathBuf> {
        let mut names = Vec::new();
        let pair =
            |names: &mut Vec<PathBuf>, pair: &KeyPair| names.extend([pair.certificate.clone(), pair.key.clone()]);
        if let Some(identity) = self.identity.as_ref().filter(|identity| identity.workload_api.is_none()) {
            pair(&mut names, &identity.svid);
            names.push(identity.bundle.clone());
            names.extend(identity.federated.iter().map(|(_, path)| path.clone()));
            names.extend(identity.crls.iter().cloned());
        }
        for tls in self.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            tls.certificates.iter().for_each(|certificate| pair(&mut names, certificate));
            names.extend(tls.client_ca.iter().chain(&tls.crls).cloned());
        }
        for tls in self.clusters.iter().filter_map(|cluster| cluster.tls.as_ref()) {
            tls.certificate.iter().for_each(|certificate| pair(&mut names, certificate));
            names.extend(tls.ca.iter().chain(&tls.crls).cloned());
            if tls.ca.is_none() && !tls.identity && !tls.insecure {
                names.push(system_roots());
            }
        }
        names.sort();
        names.dedup();
        names
    }

    /// Reads the files that this model names; what cannot be read is remembered with the reason.
    pub fn read_files(&mut self) {
        let read = |path: PathBuf| {
            let content = std::fs::read(&path).map(Arc::new).map_err(|error| error.to_string());
            (path, content)
        };
        // What came from elsewhere (the Workload API) stays.
        let names = self.file_names();
        self.files.0.extend(names.into_iter().map(read));
    }
}
