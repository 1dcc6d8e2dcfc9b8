//! What a core counts of TLS handshakes, at a listener or towards a cluster.

use crate::core::Counter;
use crate::peers::PeerMeters;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a handshake failed, or an identity was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum TlsReason { $($(#[$doc])* $name,)* }

        impl TlsReason {
            /// Every reason.
            pub const ALL: &[TlsReason] = &[$(TlsReason::$name,)*];

            /// Its name.
            pub fn as_str(self) -> &'static str {
                match self { $(TlsReason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// The peer's certificate has expired.
    Expired = "expired",
    /// It is not valid yet.
    NotYetValid = "not-yet-valid",
    /// It was issued by nobody who is trusted here.
    UnknownIssuer = "unknown-issuer",
    /// It has been revoked, or its state cannot be told.
    Revoked = "revoked",
    /// It does not name who was wanted.
    WrongName = "wrong-name",
    /// Its trust domain is not trusted here.
    WrongTrustDomain = "wrong-trust-domain",
    /// It has not exactly one URI, which must be a SPIFFE ID.
    UriNames = "uri-names",
    /// It is not for this use.
    WrongUsage = "wrong-usage",
    /// It cannot be read, or its signature does not hold.
    BadCertificate = "bad-certificate",
    /// None was sent and one is demanded.
    NoCertificate = "no-certificate",
    /// No version, cipher, group or protocol is common to both.
    NothingInCommon = "nothing-in-common",
    /// The peer refused us with an alert.
    Alert = "alert",
    /// It does not speak TLS.
    NotTls = "not-tls",
    /// It broke the protocol.
    Malformed = "malformed",
    /// It took too long.
    Timeout = "timeout",
    /// It left in the middle.
    Left = "left",
    /// Our own identity is not there (yet).
    NoIdentity = "no-identity",
}

/// How many there are.
pub const TLS_REASONS: usize = TlsReason::ALL.len();

/// Handshakes of one listener or cluster, on one core.
#[derive(Debug)]
pub struct TlsMeters {
    /// Full handshakes.
    pub full: Counter,
    /// Resumed ones.
    pub resumed: Counter,
    /// From their first byte to their last, summed, in nanoseconds.
    pub time_ns: Counter,
    /// Failures by reason.
    pub failures: [Counter; TLS_REASONS],
    /// Connections by the peer's identity.
    pub peers: PeerMeters,
}

impl Default for TlsMeters {
    fn default() -> TlsMeters {
        TlsMeters {
            full: Counter::default(),
            resumed: Counter::default(),
            time_ns: Counter::default(),
            failures: std::array::from_fn(|_| Counter::default()),
            peers: PeerMeters::default(),
        }
    }
}
