//! TLS at a listener.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{NoClientAuth, NoServerSessionStorage, ProducesTickets};

use super::certificates::Certificates;
use super::material::{self, Own};
use super::verify::{self, Believed, Judge, Roots};
use crate::model::{ClientAuth, Files, ListenerTls};

/// What a handshake fails with while the Workload API has sent no identity.
pub(super) const NO_IDENTITY: &str = "this process has no identity yet";

/// TLS at a listener, compiled.
pub struct ServerTls {
    /// rustls' part; `None` while our identity is not here yet: then every handshake is refused.
    pub config: Option<Arc<ServerConfig>>,
    /// From accepting to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Plain connections are served as well.
    pub permissive: bool,
    /// A connection older than this ends after its next response.
    pub max_age: Option<Duration>,
    wanted: ListenerTls,
    judge: Option<Arc<Judge>>,
    certificates: Arc<Certificates>,
    tickets: Option<Arc<dyn ProducesTickets>>,
    /// What decides whom we believe: tickets are void as soon as it changes.
    trust: u64,
    /// What it was made of: unchanged, it is kept.
    pub(crate) made_of: u64,
}

impl ServerTls {
    /// Judges the peer of a resumed session anew.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn again(&self, peer: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        self.judge.as_ref().map_or(Ok(()), |judge| judge.again(peer, UnixTime::now()))
    }

    /// Whether a connection that asked for `asked` may carry requests for `host`.
    pub fn serves(&self, asked: Option<&str>, host: &str) -> bool {
        self.certificates.serves(asked, host)
    }

    /// As it was wanted.
    pub fn wanted(&self) -> &ListenerTls {
        &self.wanted
    }
}

fn hash(parts: impl std::hash::Hash) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one(parts)
}

/// Compiles the TLS of a listener; what the previous one's tickets are made with goes on where trust is unchanged.
///
/// # Errors
/// What is wrong, naming the file.
pub(crate) fn server(
    wanted: &ListenerTls,
    own: Option<&Own>,
    files: &Files,
    previous: Option<&ServerTls>,
    made_of: u64,
) -> Result<ServerTls, String> {
    let provider = super::provider(wanted.post_quantum);
    let mut certified = Vec::new();
    for pair in &wanted.certificates {
        certified.push(material::certified(files, pair, &provider)?);
    }
    if wanted.identity {
        certified.extend(own.map(|own| own.certified.clone()));
    }
    let certificates = Arc::new(Certificates::new(certified));
    let mut trust = Vec::new();
    let judge = judge(wanted, own, files, &provider, &mut trust)?.map(Arc::new);
    let trust = hash(&trust);
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(super::versions(wanted.min_version))
        .map_err(|error| error.to_string())?;
    let mut config = match &judge {
        Some(judge) => builder.with_client_cert_verifier(judge.clone()),
        None => builder.with_client_cert_verifier(Arc::new(NoClientAuth)),
    }
    .with_cert_resolver(certificates.clone());
    config.enable_secret_extraction = true;
    config.alpn_protocols = wanted.alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Two for browsers, which open several connections; one where connections are pooled.
    config.send_tls13_tickets = if !wanted.resumption {
        0
    } else if wanted.identity {
        1
    } else {
        2
    };
    let tickets = wanted.resumption.then(|| tickets(previous, trust)).transpose()?;
    if let Some(tickets) = &tickets {
        config.ticketer = tickets.clone();
    }
    let ready = !wanted.identity || own.is_some();
    Ok(ServerTls {
        config: ready.then(|| Arc::new(config)),
        handshake_timeout: wanted.handshake_timeout,
        permissive: wanted.permissive,
        max_age: wanted.max_age,
        wanted: wanted.clone(),
        judge,
        certificates,
        tickets,
        trust,
        made_of,
    })
}

/// The same keys for all cores, rotated by rustls, for as long as trust does not change.
fn tickets(previous: Option<&ServerTls>, trust: u64) -> Result<Arc<dyn ProducesTickets>, String> {
    let kept = previous.filter(|previous| previous.trust == trust).and_then(|previous| previous.tickets.clone());
    match kept {
        Some(tickets) => Ok(tickets),
        None => {
            rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| format!("no ticket keys can be made: {error}"))
        }
    }
}

fn judge(
    wanted: &ListenerTls,
    own: Option<&Own>,
    files: &Files,
    provider: &Arc<rustls::crypto::CryptoProvider>,
    trust: &mut Vec<Vec<u8>>,
) -> Result<Option<Judge>, String> {
    if wanted.client == ClientAuth::Off {
        return Ok(None);
    }
    let mut lists = material::crls(files, &wanted.crls)?;
    let believed = match &wanted.client_ca {
        Some(path) => {
            let roots = material::certificates(files, path)?;
            trust.extend(roots.iter().map(|root| root.to_vec()));
            Believed::Roots(Roots::new(&roots)?)
        }
        None => {
            let mut domains = Vec::new();
            for (domain, roots) in own.map(|own| own.trust.as_slice()).unwrap_or_default() {
                trust.push(domain.clone().into_bytes());
                trust.extend(roots.iter().map(|root| root.to_vec()));
                domains.push((domain.clone(), Roots::new(roots)?));
            }
            lists.extend(own.map(|own| own.crls.clone()).unwrap_or_default());
            Believed::Domains(domains)
        }
    };
    trust.extend(lists.iter().map(|list| list.to_vec()));
    trust.push(vec![wanted.client as u8]);
    Ok(Some(Judge {
        believed,
        crls: verify::crls(&lists)?,
        ids: Vec::new(),
        names: Vec::new(),
        provider: provider.clone(),
        mandatory: wanted.client == ClientAuth::Required,
    }))
}
