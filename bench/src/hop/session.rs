//! How the generator shakes hands with a single hop: as one sidecar does with the other.

use std::path::Path;

use onehop_load::tls::{Tls, Wanted};
use serde::{Deserialize, Serialize};

use crate::peers::INBOUND_NAME;

/// Which handshakes a scenario is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Session {
    /// Full ones: certificates are shown and verified on both sides each time.
    Full,
    /// Resumed ones, with a ticket of an earlier one.
    Resumed,
}

impl Session {
    /// The generator's side: TLS 1.3, AES-128-GCM and X25519 alone, so that every candidate has the same choice; with a
    /// certificate of the mesh.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn tls(self, certificates: &Path) -> Result<Tls, String> {
        let wanted = Wanted {
            ca: Some(certificates.join("bundle.pem")),
            certificate: Some(certificates.join("web/cert.pem")),
            key: Some(certificates.join("web/key.pem")),
            no_resumption: self == Session::Full,
            one_choice: true,
            ..Wanted::default()
        };
        Tls::new(&wanted, INBOUND_NAME)
    }
}
