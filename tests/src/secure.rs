//! A TLS client of its own making: rustls over a blocking socket, so that a test sees exactly what the handshake says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme, StreamOwned,
};

use crate::client::field;

/// Believes every server: what it shows is the test's business.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// How a client shakes hands. Clones share their sessions.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// With a certificate, if one is given.
    pub fn new(shown: Option<(&Path, &Path)>) -> Tls {
        Tls::with(shown, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    /// Of these versions.
    pub fn with(shown: Option<(&Path, &Path)>, versions: &[&'static rustls::SupportedProtocolVersion]) -> Tls {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous));
        let config = match shown {
            Some((certificate, key)) => {
                let chain: Vec<_> =
                    CertificateDer::pem_file_iter(certificate).expect("a file").map(|one| one.expect("PEM")).collect();
                let key = PrivateKeyDer::from_pem_file(key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("they fit")
            }
            None => builder.with_no_client_auth(),
        };
        Tls(Arc::new(config))
    }

    /// Connects and shakes hands to the end: in TLS 1.3 a server's refusal shows only when something is read, so one
    /// request is sent as well, and its answer is returned.
    pub fn get(&self, address: SocketAddr, name: &str, path: &str) -> Result<(TlsClient, u16, String), String> {
        let mut client = self.connect(address, name)?;
        let (status, body) = client.get(name, path)?;
        Ok((client, status, body))
    }

    /// The ClientHello that a connection to that name begins with.
    pub fn hello(&self, name: &str) -> Vec<u8> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(self.0.clone(), name).expect("a client");
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).expect("to memory");
        hello
    }

    /// Connects and shakes hands, with the hello sent in the pieces that are made of it, a packet each.
    pub fn connect_in_pieces(
        &self,
        address: SocketAddr,
        name: &str,
        pieces: impl FnOnce(&[u8]) -> Vec<Vec<u8>>,
    ) -> Result<TlsClient, String> {
        let mut socket = TcpStream::connect(address).map_err(|error| error.to_string())?;
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket option");
        socket.set_nodelay(true).expect("a socket option");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(self.0.clone(), name).map_err(|error| error.to_string())?;
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).expect("to memory");
        for piece in pieces(&hello) {
            socket.write_all(&piece).map_err(|error| error.to_string())?;
        }
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| error.to_string())?;
        }
        Ok(TlsClient { stream })
    }

    /// Connects and shakes hands.
    pub fn connect(&self, address: SocketAddr, name: &str) -> Result<TlsClient, String> {
        let socket = TcpStream::connect(address).map_err(|error| error.to_string())?;
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket option");
        socket.set_nodelay(true).expect("a socket option");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connection = ClientConnection::new(self.0.clone(), name).map_err(|error| error.to_string())?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| error.to_string())?;
        }
        Ok(TlsClient { stream })
    }
}

/// A TLS connection.
pub struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl TlsClient {
    /// A GET and its answer, which has a length.
    pub fn get(&mut self, host: &str, path: &str) -> Result<(u16, String), String> {
        let sent = self.stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        sent.map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more(&mut bytes)?;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length: usize = field(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while bytes.len() < end + length {
            self.more(&mut bytes)?;
        }
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok((status, String::from_utf8_lossy(&bytes[end..]).into_owned()))
    }

    /// Sends text.
    pub fn send(&mut self, text: &str) -> Result<(), String> {
        self.stream.write_all(text.as_bytes()).map_err(|error| error.to_string())
    }

    /// Reads a line with its end.
    pub fn line(&mut self) -> Result<String, String> {
        let mut bytes = Vec::new();
        while bytes.last() != Some(&b'\n') {
            self.more(&mut bytes)?;
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn more(&mut self, bytes: &mut Vec<u8>) -> Result<(), String> {
        let mut chunk = [0; 65_536];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err("it ended".to_owned()),
            Ok(count) => {
                bytes.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether the session was resumed.
    pub fn resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The server's certificate.
    pub fn certificate(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().and_then(<[_]>::first).map(|leaf| leaf.to_vec()).unwrap_or_default()
    }

    /// The protocol that ALPN chose.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.conn.alpn_protocol()
    }

    /// The socket beneath.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.stream.sock
    }
}
