//! Keys of `tls` at listeners and clusters, and of `[identity]`.

use super::{Key, Kind::*, key};

pub const LISTENER_TLS: &[Key] = &[
    key("certificate", Text, "PEM file of the certificate chain, its own certificate first."),
    key("key", Text, "PEM file of its key: PKCS#8, SEC1 or PKCS#1."),
    key(
        "certificates",
        Tables(PAIR),
        "Several of them: the server name that a client asks for chooses among the names in them; the first serves where none fits.",
    ),
    key("identity", Flag, "Shows the SVID of [identity] and believes clients by their SPIFFE IDs."),
    key(
        "client",
        OneOf(&["off", "optional", "required"]),
        "Whether clients show a certificate; with identity \"required\" unless said otherwise.",
    ),
    key("client_ca", Text, "PEM file of the roots that clients' certificates lead to."),
    key(
        "crl",
        Texts,
        "PEM files of revocation lists; past its next update, a list refuses all that its issuer vouches for.",
    ),
    key("min_version", OneOf(&["1.2", "1.3"]), "The lowest version of TLS that is spoken."),
    key("alpn", Texts, "Application protocols, best first."),
    key("resumption", Flag, "Sessions are resumed by tickets; true without it."),
    key("post_quantum", Flag, "Prefers X25519MLKEM768, which costs more CPU; it is always understood."),
    key("handshake_timeout", Duration, "From accepting to the end of the handshake."),
    key("permissive", Flag, "Serves plain connections as well: the first bytes decide."),
    key("max_age", Duration, "A connection older than this ends after its next response."),
];

pub const PAIR: &[Key] =
    &[key("certificate", Text, "PEM file of the certificate chain."), key("key", Text, "PEM file of its key.")];

pub const CLUSTER_TLS: &[Key] = &[
    key("ca", Text, "PEM file of the roots that endpoints' certificates lead to; the system's roots without it."),
    key(
        "crl",
        Texts,
        "PEM files of revocation lists; past its next update, a list refuses all that its issuer vouches for.",
    ),
    key("verify", Flag, "false: endpoints are not verified at all. For trying things out."),
    key(
        "server_name",
        Text,
        "What endpoints are asked for (SNI) and what their certificates must name; the host of the endpoints without it.",
    ),
    key(
        "expect",
        Texts,
        "SPIFFE IDs (spiffe://td/path, spiffe://td/path/*, spiffe://td/*) or DNS names, one of which an endpoint must have.",
    ),
    key("identity", Flag, "Shows the SVID of [identity] and believes endpoints by their SPIFFE IDs."),
    key("certificate", Text, "PEM file of the certificate chain that we show."),
    key("key", Text, "PEM file of its key."),
    key("min_version", OneOf(&["1.2", "1.3"]), "The lowest version of TLS that is spoken."),
    key("alpn", Texts, "Application protocols, best first."),
    key("resumption", Flag, "Sessions are resumed; true without it."),
    key("post_quantum", Flag, "Prefers X25519MLKEM768."),
];

pub const IDENTITY: &[Key] = &[
    key("certificate", Text, "PEM file of the X.509-SVID and its intermediates; watched."),
    key("key", Text, "PEM file of its key; watched."),
    key("bundle", Text, "PEM file of the trust domain's roots; watched."),
    key("federated", Tables(FEDERATED), "Other trust domains whose SVIDs are believed."),
    key(
        "crl",
        Texts,
        "PEM files of revocation lists; watched. Past its next update, a list refuses all that its issuer vouches for.",
    ),
    key("workload_api", Text, "The SPIFFE Workload API's socket, instead of files: \"unix:/run/spire/agent.sock\"."),
];

pub const FEDERATED: &[Key] =
    &[key("trust_domain", Text, "Its name."), key("bundle", Text, "PEM file of its roots; watched.")];
