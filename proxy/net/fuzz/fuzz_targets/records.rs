//! The TLS record layer after the handshake: a peer that seals, changes, splits and injects what the bytes tell it to.
#![no_main]

use std::sync::{Arc, LazyLock};

use onehop_net::tls::{Accept, Connect, hostile};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

static CONFIGS: LazyLock<[(Accept, Connect); 2]> = LazyLock::new(|| [configs(&TLS13), configs(&TLS12)]);

fn configs(version: &'static SupportedProtocolVersion) -> (Accept, Connect) {
    let certified = rcgen::generate_simple_self_signed(["server.test".to_owned()]).expect("a certificate");
    let der: CertificateDer<'static> = certified.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], key)
        .expect("a server");
    server.enable_secret_extraction = true;
    let mut roots = RootCertStore::empty();
    roots.add(der).expect("a root");
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    // A session resumed costs less, and what follows is the same.
    let name = ServerName::try_from("server.test").expect("a name");
    (Accept { config: Arc::new(server) }, Connect { config: Arc::new(client), name })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, script)) = bytes.split_first() else { return };
    let (accept, connect) = &CONFIGS[usize::from(first % 2)];
    hostile::play(accept, connect, script);
});
