//! TLS: rustls shakes hands and chooses keys, this folder moves the bytes. It alone calls rustls' IO.
//! Above it a TLS stream and a plain one are used alike.

mod budget;
mod handshake;
#[cfg(any(test, feature = "fuzzing"))]
pub mod hostile;
mod record;
mod session;

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CipherSuite, ClientConfig, ProtocolVersion, ServerConfig};

pub use budget::waiting as handshakes_waiting;
pub(crate) use handshake::{accept, connect};
pub(crate) use session::Session;

/// What a handshake gave.
#[derive(Debug)]
pub struct Info {
    /// TLS 1.2 or 1.3.
    pub version: ProtocolVersion,
    /// The cipher suite.
    pub suite: CipherSuite,
    /// The application protocol that both agreed on.
    pub alpn: Option<Box<[u8]>>,
    /// The server name that the client asked for, in lower case; only on the accepting side.
    pub server_name: Option<Box<str>>,
    /// The session was resumed: nobody has verified the peer's certificates anew.
    pub resumed: bool,
    /// The peer's certificates, its own first; empty without any.
    pub peer: Box<[CertificateDer<'static>]>,
}

/// The server's side of a handshake.
pub struct Accept {
    /// How. Its `enable_secret_extraction` must be set.
    pub config: Arc<ServerConfig>,
}

/// The client's side of a handshake.
pub struct Connect {
    /// How. Its `enable_secret_extraction` must be set.
    pub config: Arc<ClientConfig>,
    /// Whom the certificate must name, and what the server is asked for.
    pub name: ServerName<'static>,
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// rustls refused something; the peer was sent an alert.
    Refused(rustls::Error),
    /// The peer sent something that is no TLS.
    NotTls,
    /// It took too long.
    TimedOut,
    /// The peer left before the end.
    Left,
    /// The socket failed.
    Io(std::io::Error),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Refused(error) => error.fmt(f),
            HandshakeError::NotTls => f.write_str("the peer does not speak TLS"),
            HandshakeError::TimedOut => f.write_str("the handshake took too long"),
            HandshakeError::Left => f.write_str("the peer left during the handshake"),
            HandshakeError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HandshakeError {}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> HandshakeError {
        HandshakeError::Refused(error)
    }
}

#[cfg(test)]
mod tests;
