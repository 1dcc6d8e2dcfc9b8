//! TLS towards a cluster.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;

use super::material::{self, Own};
use super::verify::{self, Believed, Judge, Roots};
use crate::identity::IdMatch;
use crate::model::{Address, ClusterTls, Files, system_roots};

/// Sessions kept for resumption, per cluster.
const SESSIONS: usize = 1024;

/// TLS towards a cluster, compiled.
pub struct ClientTls {
    /// rustls' part; `None` while our identity is not here yet: then no connection is made.
    pub config: Option<Arc<ClientConfig>>,
    /// The same for connections that carry bytes: without HTTP/2 among the protocols that are offered.
    pub bytes: Option<Arc<ClientConfig>>,
    name: Option<ServerName<'static>>,
    judge: Arc<Judge>,
    /// What it was made of: unchanged, it is kept, with its sessions.
    pub(crate) made_of: u64,
}

impl ClientTls {
    /// What an endpoint is asked for: the configured name, or its address.
    pub fn name(&self, address: &Address) -> ServerName<'static> {
        match (&self.name, address) {
            (Some(name), _) => name.clone(),
            (None, Address::Tcp(address)) => ServerName::IpAddress(address.ip().into()),
            (None, Address::Unix(_)) => ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into()),
        }
    }

    /// Judges the peer of a resumed session anew.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn again(&self, peer: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        match self.judge.believed {
            Believed::Everybody => Ok(()),
            _ => self.judge.again(peer, UnixTime::now()),
        }
    }
}

/// Compiles the TLS of a cluster. `host` is the name that its endpoints were given by, if they share one.
///
/// # Errors
/// What is wrong, naming the file.
pub(crate) fn client(
    wanted: &ClusterTls,
    own: Option<&Own>,
    files: &Files,
    host: Option<&str>,
    made_of: u64,
) -> Result<ClientTls, String> {
    let provider = super::provider(wanted.post_quantum);
    let name = wanted.server_name.as_deref().or(host).map(|name| {
        ServerName::try_from(name.to_owned()).map_err(|_| format!("\"{name}\" is no name that a server can have"))
    });
    let name = name.transpose()?;
    let (mut ids, mut names) = (Vec::new(), Vec::new());
    for expected in &wanted.expect {
        if expected.starts_with("spiffe:") {
            ids.push(IdMatch::parse(expected).ok_or_else(|| {
                format!("\"{expected}\" is no SPIFFE ID: write spiffe://td/path, spiffe://td/path/* or spiffe://td/*")
            })?);
        } else {
            let parsed = ServerName::try_from(expected.clone());
            names.push(parsed.map_err(|_| format!("\"{expected}\" is neither a SPIFFE ID nor a DNS name"))?);
        }
    }
    let mut lists = material::crls(files, &wanted.crls)?;
    let believed = if wanted.insecure {
        Believed::Everybody
    } else if let Some(path) = &wanted.ca {
        Believed::Roots(Roots::new(&material::certificates(files, path)?)?)
    } else if wanted.identity {
        lists.extend(own.map(|own| own.crls.clone()).unwrap_or_default());
        let trust = own.map(|own| own.trust.as_slice()).unwrap_or_default();
        let domains = trust.iter().map(|(domain, roots)| Ok((domain.clone(), Roots::new(roots)?)));
        Believed::Domains(domains.collect::<Result<_, String>>()?)
    } else {
        Believed::Roots(Roots::new(&material::certificates(files, &system_roots())?)?)
    };
    let judge = Arc::new(Judge {
        believed,
        crls: verify::crls(&lists)?,
        ids,
        names,
        provider: provider.clone(),
        mandatory: true,
    });
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(super::versions(wanted.min_version))
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(judge.clone());
    let shown = match &wanted.certificate {
        Some(pair) => Some(material::certified(files, pair, &provider)?),
        None => own.filter(|_| wanted.identity).map(|own| own.certified.clone()),
    };
    let mut config = match shown {
        Some(shown) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown))),
        None => builder.with_no_client_auth(),
    };
    config.enable_secret_extraction = true;
    config.alpn_protocols = wanted.alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect();
    config.resumption = if wanted.resumption {
        Resumption::store(Arc::new(ClientSessionMemoryCache::new(SESSIONS)))
    } else {
        Resumption::disabled()
    };
    let ready = !wanted.identity || own.is_some();
    let config = ready.then(|| Arc::new(config));
    let bytes = config.as_ref().map(without_http2);
    Ok(ClientTls { config, bytes, name, judge, made_of })
}

/// The peer would take what follows for HTTP/2. Sessions are shared.
fn without_http2(config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    if !config.alpn_protocols.iter().any(|protocol| protocol == b"h2") {
        return config.clone();
    }
    let mut bytes = ClientConfig::clone(config);
    bytes.alpn_protocols.retain(|protocol| protocol != b"h2");
    Arc::new(bytes)
}
