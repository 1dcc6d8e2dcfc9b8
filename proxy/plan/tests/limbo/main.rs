//! The certificate chains of x509-limbo, each through a real handshake with our judgement on the verifying side: where
//! the vectors are present, and bring the peer's key. Every deviation stands beside this file with its reason.

mod deviations;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use onehop_meter::Registry;
use onehop_plan::model::{
    ClientAuth, Cluster, ClusterTls, Endpoint, EndpointTarget, KeyPair, Listener, ListenerTls, Model, Route, Target,
};
use onehop_plan::{Address, compile};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use serde_json::Value;

use deviations::{DEVIATIONS, UNUSABLE};

#[derive(Debug)]
struct At(i64);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(self.0).unwrap_or(0))))
    }
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_default()
}

fn joined(list: &Value) -> String {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

fn time_of(case: &Value) -> i64 {
    let parsed = x509_time(text(case, "validation_time"));
    parsed.unwrap_or_else(|| i64::try_from(UnixTime::now().as_secs()).expect("fits"))
}

/// Seconds since 1970 of `2024-01-01T00:00:00+00:00` (the days by the civil calendar).
fn x509_time(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

fn model(case: &Value, is_server: bool) -> Model {
    let mut model = Model::default();
    let mut file = |name: &str, content: String| {
        let path = PathBuf::from(name);
        model.files.0.insert(path.clone(), Ok(Arc::new(content.into_bytes())));
        path
    };
    let ca = file("ca.pem", joined(&case["trusted_certs"]));
    let crls = if case["crls"].as_array().is_some_and(|list| !list.is_empty()) {
        vec![file("crl.pem", joined(&case["crls"]))]
    } else {
        Vec::new()
    };
    let own = rcgen::generate_simple_self_signed(["own.test".to_owned()]).expect("a certificate");
    let certificate = file("own.pem", own.cert.pem());
    let key = file("own.key", own.signing_key.serialize_pem());
    let mut listener = Listener { name: "edge".to_owned(), ..Listener::default() };
    let mut cluster = Cluster { name: "web".to_owned(), ..Cluster::default() };
    let target = EndpointTarget::Address(Address::Tcp(([127, 0, 0, 1], 9).into()));
    cluster.endpoints = vec![Endpoint { target, weight: 1, placement: Default::default() }];
    if is_server {
        let name = text(&case["expected_peer_name"], "value").to_owned();
        let server_name = (!name.is_empty()).then_some(name);
        cluster.tls = Some(ClusterTls { ca: Some(ca), crls, server_name, ..ClusterTls::default() });
    } else {
        listener.tls = Some(ListenerTls {
            certificates: vec![KeyPair { certificate, key }],
            client: ClientAuth::Required,
            client_ca: Some(ca),
            crls,
            ..ListenerTls::default()
        });
    }
    model.listeners.push(listener);
    model.clusters.push(cluster);
    let targets = vec![Target::new("web")];
    model.routes.push(Route { name: "all".to_owned(), targets, ..Route::default() });
    model
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The peer's chain and key, for the other side of the handshake; none where they cannot be used at all.
fn peer(case: &Value) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let all = format!("{}\n{}", text(case, "peer_certificate"), joined(&case["untrusted_intermediates"]));
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(all.as_bytes()).filter_map(Result::ok).map(CertificateDer::into_owned).collect();
    let key = PrivateKeyDer::from_pem_slice(text(case, "peer_certificate_key").as_bytes()).ok()?;
    Some((chain, key))
}

/// Runs a handshake in memory; what the first side to object says.
fn shake(client: ClientConfig, server: ServerConfig, name: &str) -> Result<(), String> {
    let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let mut client = ClientConnection::new(Arc::new(client), name).map_err(|error| error.to_string())?;
    let mut server = ServerConnection::new(Arc::new(server)).map_err(|error| error.to_string())?;
    for _ in 0..20 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("to memory");
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("from memory");
            server.process_new_packets().map_err(|error| error.to_string())?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("to memory");
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("from memory");
            client.process_new_packets().map_err(|error| error.to_string())?;
        }
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
    }
    Err("it does not end".to_owned())
}

fn verdict(case: &Value) -> Option<Result<(), String>> {
    let is_server = text(case, "validation_kind") == "SERVER";
    let (chain, key) = peer(case)?;
    let now = Arc::new(At(time_of(case)));
    let model = model(case, is_server);
    let snapshot = match compile(&model, &Registry::new(1), None) {
        Ok(snapshot) => snapshot,
        // A root or a list that cannot be read is refused before any handshake.
        Err(problems) => return Some(Err(problems[0].to_string())),
    };
    let versions = rustls::DEFAULT_VERSIONS;
    if is_server {
        let resolver = rustls::sign::CertifiedKey::new(chain, provider().key_provider.load_private_key(key).ok()?);
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(resolver)));
        let mut client = (**snapshot.clusters[0].tls.as_ref()?.config.as_ref()?).clone();
        client.time_provider = now;
        let name = text(&case["expected_peer_name"], "value");
        Some(shake(client, server, if name.is_empty() { "127.0.0.1" } else { name }))
    } else {
        let certified = rustls::sign::CertifiedKey::new(chain, provider().key_provider.load_private_key(key).ok()?);
        let own =
            CertificateDer::from_pem_slice(model.files.0[Path::new("own.pem")].as_ref().expect("there")).expect("PEM");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(own).expect("a root");
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        let mut server = (**snapshot.listeners[0].tls.as_ref()?.config.as_ref()?).clone();
        server.time_provider = now;
        Some(shake(client, server, "own.test"))
    }
}

#[test]
fn every_chain_is_judged_as_expected_or_with_a_reason() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/x509-limbo.json");
    let Ok(bytes) = std::fs::read(&path) else {
        eprintln!("SKIPPED: the vectors are not at {}", path.display());
        return;
    };
    let data: Value = serde_json::from_slice(&bytes).expect("JSON");
    let (mut run, mut keyless, mut wrong, mut listed) = (0, 0, Vec::new(), 0);
    for case in data["testcases"].as_array().expect("cases") {
        let (id, expected) = (text(case, "id"), text(case, "expected_result"));
        let Some(verdict) = verdict(case) else {
            keyless += 1;
            if !text(case, "peer_certificate_key").is_empty() && (!UNUSABLE.contains(&id) || expected == "SUCCESS") {
                wrong.push(format!("{id}: expected {expected}, and its key cannot be used"));
            }
            continue;
        };
        run += 1;
        let reason = DEVIATIONS.iter().find(|(_, known)| known.contains(&id)).map(|(reason, _)| reason);
        if let Some(reason) = reason {
            listed += 1;
            println!("{id}: expected {expected}, got {verdict:?}: {reason}");
        }
        if (verdict.is_ok() == (expected == "SUCCESS")) == reason.is_some() {
            let listed = if reason.is_some() { " (listed)" } else { "" };
            wrong.push(format!("{id}: expected {expected}, got {verdict:?}{listed}"));
        }
    }
    println!("{run} handshakes, {listed} with another result and a reason; {keyless} cases without a usable key");
    assert!(run > 150, "only {run}");
    assert_eq!(listed, DEVIATIONS.iter().map(|(_, cases)| cases.len()).sum::<usize>(), "each listed case is there");
    assert!(wrong.is_empty(), "{} of {run}:\n{}", wrong.len(), wrong.join("\n"));
}
