//! The process's identity while it runs: when it expires, and, where it comes from the SPIFFE Workload API, its renewal.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onehop_meter::Registry;
use onehop_plan::Own;
use onehop_plan::model::Identity;
use spiffe::{WorkloadApiClient, X509Context};
use tokio::sync::mpsc::Sender;

/// An identity that is about to expire is spoken of from then on; issuers renew at half of an SVID's life.
const SOON: Duration = Duration::from_secs(600);
/// Between two attempts to reach the Workload API, doubled up to a minute.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

fn remaining(own: &Own) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    own.not_after - i64::try_from(now).unwrap_or(i64::MAX)
}

/// What `/ready` has to say about an identity: an error where nobody would believe it any more.
pub fn trouble(wanted: bool, own: Option<&Own>) -> Option<String> {
    match own {
        None if wanted => Some("this process has no identity yet: the Workload API has sent none".to_owned()),
        Some(own) if remaining(own) <= 0 => Some(format!("the identity {} has expired", own.id)),
        _ => None,
    }
}

/// What `/ready` adds while all is well yet.
pub fn warning(own: Option<&Own>) -> Option<String> {
    let own = own.filter(|own| remaining(own) < SOON.as_secs() as i64)?;
    Some(format!("warning: the identity {} expires in {} s", own.id, remaining(own)))
}

/// Shows an identity in the metrics.
pub fn show(own: Option<&Own>, registry: &Registry) {
    if let Some(own) = own {
        registry.info("identity", own.id.as_str());
        registry.set_gauge(
            "onehop_identity_expires_timestamp_seconds",
            "When this process's own certificate ceases to be valid, in seconds since 1970.",
            own.not_after as f64,
        );
        registry.set_gauge(
            "onehop_identity_remaining_seconds",
            "For how long this process's own certificate is still valid.",
            remaining(own) as f64,
        );
    }
}

/// What the Workload API has sent, as PEM under the names that stand for it.
pub struct Sent {
    /// The chain, the key and the bundle.
    pub files: [(std::path::PathBuf, Arc<Vec<u8>>); 3],
}

/// Receives identities from the Workload API for as long as the process runs.
pub async fn receive(identity: Identity, sent: Sender<Sent>) {
    let Some(endpoint) = identity.workload_api.clone() else { return };
    let mut wait = RETRY;
    loop {
        match stream(&endpoint, &identity, &sent).await {
            Ok(()) => wait = RETRY,
            Err(error) => eprintln!("onehop: the Workload API at {endpoint}: {error}; what was sent last stays"),
        }
        if sent.is_closed() {
            return;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(MAX_RETRY);
    }
}

async fn stream(endpoint: &str, identity: &Identity, sent: &Sender<Sent>) -> Result<(), String> {
    use tokio_stream::StreamExt;
    let client = WorkloadApiClient::connect_to(endpoint).await.map_err(|error| error.to_string())?;
    let mut contexts = std::pin::pin!(client.stream_x509_contexts().await.map_err(|error| error.to_string())?);
    while let Some(context) = contexts.next().await {
        let context = context.map_err(|error| error.to_string())?;
        if let Some(files) = files(&context, identity)
            && sent.send(Sent { files }).await.is_err()
        {
            return Ok(());
        }
    }
    Err("it ended the stream".to_owned())
}

fn files(context: &X509Context, identity: &Identity) -> Option<[(std::path::PathBuf, Arc<Vec<u8>>); 3]> {
    let svid = context.default_svid()?;
    let bundle = context.bundle_set().get(svid.spiffe_id().trust_domain())?;
    let mut chain = String::new();
    svid.cert_chain().iter().for_each(|certificate| pem(&mut chain, "CERTIFICATE", certificate.as_ref()));
    let mut key = String::new();
    pem(&mut key, "PRIVATE KEY", svid.private_key().as_ref());
    let mut roots = String::new();
    bundle.authorities().iter().for_each(|root| pem(&mut roots, "CERTIFICATE", root.as_ref()));
    let file = |path: &std::path::Path, text: String| (path.to_owned(), Arc::new(text.into_bytes()));
    Some([file(&identity.svid.certificate, chain), file(&identity.svid.key, key), file(&identity.bundle, roots)])
}

/// Base64 between the lines that PEM has (RFC 7468).
fn pem(out: &mut String, label: &str, der: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for at in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63] as char;
                out.push(if at <= group.len() { digit } else { '=' });
            }
        }
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_is_base64_with_padding() {
        let mut out = String::new();
        pem(&mut out, "X", b"any carnal pleas");
        assert!(out.contains("\nYW55IGNhcm5hbCBwbGVhcw==\n"), "{out}");
        out.clear();
        pem(&mut out, "X", b"any carnal pleasu");
        assert!(out.contains("\nYW55IGNhcm5hbCBwbGVhc3U=\n"), "{out}");
    }

    #[test]
    fn what_is_about_to_expire_is_spoken_of() {
        let id = onehop_plan::identity::SpiffeId::parse("spiffe://td/a").expect("an id");
        let own = |seconds: i64| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
            Own { id: id.clone(), not_after: now + seconds }
        };
        assert!(trouble(true, Some(&own(-1))).is_some() && trouble(true, None).is_some());
        assert!(trouble(true, Some(&own(60))).is_none() && trouble(false, None).is_none());
        assert!(warning(Some(&own(60))).is_some() && warning(Some(&own(86_400))).is_none());
    }
}
