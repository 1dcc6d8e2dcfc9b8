//! `tls` at listeners and clusters, and `[identity]`.

use std::path::PathBuf;

use onehop_plan::model::{ClientAuth, ClusterTls, Identity, KeyPair, ListenerTls, MinVersion};

use crate::reader::{File, Table};

/// Names of what the Workload API sends, in place of files.
pub const WORKLOAD: [&str; 3] = ["workload-api:svid", "workload-api:key", "workload-api:bundle"];

fn path(file: &mut File<'_>, table: &Table<'_, '_>, name: &str) -> Option<PathBuf> {
    table.text(file, name).map(|text| file.path(&text))
}

fn paths(file: &mut File<'_>, table: &Table<'_, '_>, name: &str) -> Vec<PathBuf> {
    table.texts(file, name).unwrap_or_default().iter().map(|text| file.path(text)).collect()
}

/// `certificate` and `key`, which go together.
fn pair(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<KeyPair> {
    match (path(file, table, "certificate"), path(file, table, "key")) {
        (Some(certificate), Some(key)) => Some(KeyPair { certificate, key }),
        (None, None) => None,
        _ => {
            let hint = Some("certificate = \"cert.pem\", key = \"key.pem\"".to_owned());
            file.wrong(table.span.clone(), "a certificate and its key go together", hint);
            None
        }
    }
}

fn min_version(file: &mut File<'_>, table: &Table<'_, '_>) -> MinVersion {
    if table.word(file, "min_version") == Some("1.3") { MinVersion::Tls13 } else { MinVersion::Tls12 }
}

pub(super) fn listener_tls(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<ListenerTls> {
    let tls = table.table(file, "tls")?;
    let default = ListenerTls::default();
    let mut certificates: Vec<KeyPair> = pair(file, &tls).into_iter().collect();
    for part in tls.tables(file, "certificates") {
        certificates.extend(pair(file, &part));
    }
    let identity = tls.flag(file, "identity").unwrap_or(false);
    let client = match tls.word(file, "client") {
        Some("optional") => ClientAuth::Optional,
        Some("required") => ClientAuth::Required,
        None if identity => ClientAuth::Required,
        _ => ClientAuth::Off,
    };
    Some(ListenerTls {
        certificates,
        identity,
        client,
        client_ca: path(file, &tls, "client_ca"),
        crls: paths(file, &tls, "crl"),
        min_version: min_version(file, &tls),
        alpn: tls.texts(file, "alpn").unwrap_or(default.alpn),
        resumption: tls.flag(file, "resumption").unwrap_or(default.resumption),
        post_quantum: tls.flag(file, "post_quantum").unwrap_or(default.post_quantum),
        handshake_timeout: tls.duration(file, "handshake_timeout").unwrap_or(default.handshake_timeout),
        permissive: tls.flag(file, "permissive").unwrap_or(default.permissive),
        max_age: tls.duration(file, "max_age"),
    })
}

pub(super) fn cluster_tls(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<ClusterTls> {
    let tls = table.table(file, "tls")?;
    let default = ClusterTls::default();
    Some(ClusterTls {
        ca: path(file, &tls, "ca"),
        crls: paths(file, &tls, "crl"),
        insecure: tls.flag(file, "verify") == Some(false),
        server_name: tls.text(file, "server_name"),
        expect: tls.texts(file, "expect").unwrap_or_default(),
        identity: tls.flag(file, "identity").unwrap_or(false),
        certificate: pair(file, &tls),
        min_version: min_version(file, &tls),
        alpn: tls.texts(file, "alpn").unwrap_or(default.alpn),
        resumption: tls.flag(file, "resumption").unwrap_or(default.resumption),
        post_quantum: tls.flag(file, "post_quantum").unwrap_or(default.post_quantum),
    })
}

pub(super) fn identity(file: &mut File<'_>, table: &Table<'_, '_>) -> Option<Identity> {
    let workload_api = table.text(file, "workload_api");
    let written = pair(file, table);
    let bundle = path(file, table, "bundle");
    let mut federated = Vec::new();
    for part in table.tables(file, "federated") {
        match (part.text(file, "trust_domain"), path(file, &part, "bundle")) {
            (Some(domain), Some(bundle)) if onehop_plan::identity::is_trust_domain(&domain) => {
                federated.push((domain, bundle));
            }
            _ => file.wrong(
                part.span.clone(),
                "a federated trust domain needs its name and its bundle",
                Some("{ trust_domain = \"other.example\", bundle = \"other.pem\" }".to_owned()),
            ),
        }
    }
    let crls = paths(file, table, "crl");
    let (svid, bundle) = match (&workload_api, written, bundle) {
        (None, Some(svid), Some(bundle)) => (svid, bundle),
        (Some(_), None, None) => {
            let [certificate, key, bundle] = WORKLOAD.map(PathBuf::from);
            (KeyPair { certificate, key }, bundle)
        }
        _ => {
            let hint = "certificate, key and bundle, all three; or workload_api alone".to_owned();
            file.wrong(table.span.clone(), "an identity comes from files or from the Workload API", Some(hint));
            return None;
        }
    };
    Some(Identity { svid, bundle, federated, crls, workload_api })
}
