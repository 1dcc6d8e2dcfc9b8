//! One active check of one endpoint: connect, with TLS where the cluster has it, and ask by HTTP/1.1, HTTP/2 or gRPC's
//! health protocol (grpc.health.v1). What comes back is hostile: bounded, and timed by the caller.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use h2::client::SendRequest;
use hyper::body::Bytes;
use onehop_plan::model::{Probe, ProbeKind};
use onehop_plan::tls::ClientTls;
use onehop_plan::{Address, Cluster, Protocol, ProxyProtocol};
use onehop_wire::proxy_protocol;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

/// Bytes of an answer that are looked at: its status line, or its message.
const ANSWER_BYTES: usize = 256;
const AGENT: &str = "onehop-health";

/// Why a check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In one word, for metrics.
    pub word: &'static str,
    text: String,
}

impl Failure {
    /// In a word and in words.
    pub fn new(word: &'static str, text: impl Into<String>) -> Failure {
        Failure { word, text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Who is asked, and how.
pub(super) struct Asked {
    address: Address,
    kind: ProbeKind,
    tls: Option<Arc<ClientTls>>,
    http2: bool,
    /// TLS says whether it is HTTP/2.
    auto: bool,
    proxy_protocol: Option<ProxyProtocol>,
}

impl Asked {
    pub(super) fn new(cluster: &Cluster, address: &Address, probe: &Probe) -> Asked {
        let address = match (address, probe.port) {
            (Address::Tcp(address), Some(port)) => Address::Tcp(SocketAddr::new(address.ip(), port)),
            (address, _) => address.clone(),
        };
        Asked {
            address,
            kind: probe.kind.clone(),
            tls: cluster.tls.clone().filter(|_| probe.tls),
            http2: matches!(probe.kind, ProbeKind::Grpc { .. }) || cluster.protocol == Protocol::Http2,
            auto: matches!(probe.kind, ProbeKind::Http { .. }) && cluster.protocol == Protocol::Auto,
            proxy_protocol: cluster.proxy_protocol.filter(|_| probe.port.is_none()),
        }
    }
}

fn connect_failed(error: std::io::Error) -> Failure {
    Failure::new("connect", format!("connect: {error}"))
}

fn broke_off(error: impl fmt::Display) -> Failure {
    Failure::new("closed", format!("it broke off: {error}"))
}

/// What went wrong on an HTTP/2 connection: it ended, or what came was no HTTP/2.
fn http2_failed(error: h2::Error) -> Failure {
    if error.is_io() || error.is_remote() {
        return broke_off(error);
    }
    Failure::new("protocol", format!("it does not speak HTTP/2: {error}"))
}

/// Makes the check.
pub(super) async fn ask(asked: &Asked) -> Result<(), Failure> {
    match &asked.address {
        Address::Tcp(to) => {
            let stream = connect(*to).await.map_err(connect_failed)?;
            // A check that waits for a delayed acknowledgement measures the wrong thing; without it it only takes longer.
            let _ = stream.set_nodelay(true);
            secure(stream, asked, &to.to_string()).await
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(&**path).await.map_err(connect_failed)?;
            secure(stream, asked, "localhost").await
        }
    }
}

/// Connects as requests do: with the mark that keeps interception from sending our own checks back to us.
async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    onehop_net::mark(&socket)?;
    socket.connect(to).await
}

async fn secure(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    asked: &Asked,
    host: &str,
) -> Result<(), Failure> {
    if let Some(version) = asked.proxy_protocol {
        let mut header = Vec::new();
        match version {
            ProxyProtocol::V1 => proxy_protocol::write_v1(&mut header, None),
            ProxyProtocol::V2 => proxy_protocol::write_v2(&mut header, None),
        }
        stream.write_all(&header).await.map_err(broke_off)?;
    }
    let Some(tls) = &asked.tls else { return talk(stream, asked, host, asked.http2).await };
    let Some(config) = &tls.config else {
        return Err(Failure::new("tls", "our own identity is not here yet"));
    };
    // Each check sees the certificate: a resumed session would only show the one of an earlier handshake.
    let mut config = rustls::ClientConfig::clone(config);
    config.resumption = rustls::client::Resumption::disabled();
    if !matches!(asked.kind, ProbeKind::Tcp) && !asked.auto {
        config.alpn_protocols = vec![if asked.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    }
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let secured = connector.connect(tls.name(&asked.address), stream).await;
    let secured = secured.map_err(|error| Failure::new("tls", format!("TLS: {error}")))?;
    let http2 = if asked.auto { secured.get_ref().1.alpn_protocol() == Some(b"h2") } else { asked.http2 };
    talk(secured, asked, host, http2).await
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    asked: &Asked,
    host: &str,
    http2: bool,
) -> Result<(), Failure> {
    match &asked.kind {
        ProbeKind::Tcp => Ok(()),
        ProbeKind::Http { path, host: named, expect } => {
            let host = named.as_deref().unwrap_or(host);
            let status = if http2 {
                let (answer, _driver) = get(stream, asked, host, path).await?;
                answer.status().as_u16()
            } else {
                http1(stream, host, path).await?
            };
            match expect.iter().any(|(from, to)| (*from..=*to).contains(&status)) {
                true => Ok(()),
                false => Err(Failure::new("status", format!("it answered {status}"))),
            }
        }
        ProbeKind::Grpc { service, host: named } => {
            grpc(stream, asked, named.as_deref().unwrap_or(host), service).await
        }
    }
}

async fn http1(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str, path: &str) -> Result<u16, Failure> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broke_off)?;
    let mut answer = Vec::new();
    let mut chunk = [0; ANSWER_BYTES];
    while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES {
        match stream.read(&mut chunk).await {
            Ok(0) => return Err(Failure::new("closed", "it closed without an answer")),
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) => return Err(broke_off(error)),
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let line = line.lines().next().unwrap_or("");
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    status.ok_or_else(|| {
        let shown: String = line.chars().take(40).collect();
        Failure::new("protocol", format!("it answered no HTTP: {shown:?}"))
    })
}

/// Moves a connection for as long as somebody holds this.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn open(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(SendRequest<Bytes>, Driver), Failure> {
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).initial_window_size(65_535).max_header_list_size(16 * 1024);
    let (client, connection) = builder.handshake(stream).await.map_err(http2_failed)?;
    // Its end is seen by the one who waits for an answer.
    let driver = Driver(tokio::spawn(async move { drop(connection.await) }));
    Ok((client.ready().await.map_err(http2_failed)?, driver))
}

fn request(asked: &Asked, method: &str, host: &str, path: &str) -> Result<http::request::Builder, Failure> {
    let scheme = if asked.tls.is_some() { "https" } else { "http" };
    let uri = http::Uri::builder().scheme(scheme).authority(host).path_and_query(path).build();
    let uri = uri.map_err(|error| Failure::new("protocol", format!("the request cannot be made: {error}")))?;
    Ok(http::Request::builder().method(method).uri(uri).header("user-agent", AGENT))
}

fn unusable(error: http::Error) -> Failure {
    Failure::new("protocol", format!("the request cannot be made: {error}"))
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    asked: &Asked,
    host: &str,
    path: &str,
) -> Result<(http::Response<h2::RecvStream>, Driver), Failure> {
    let (mut client, driver) = open(stream).await?;
    let request = request(asked, "GET", host, path)?.body(()).map_err(unusable)?;
    let (answer, _) = client.send_request(request, true).map_err(http2_failed)?;
    Ok((answer.await.map_err(http2_failed)?, driver))
}

/// `grpc.health.v1.Health/Check`: the request holds the service's name as field 1, the response its state as field 1.
async fn grpc(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    asked: &Asked,
    host: &str,
    service: &str,
) -> Result<(), Failure> {
    let (mut client, _driver) = open(stream).await?;
    let request = request(asked, "POST", host, "/grpc.health.v1.Health/Check")?
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(unusable)?;
    let (answer, mut body) = client.send_request(request, false).map_err(http2_failed)?;
    body.send_data(Bytes::from(message(service)), true).map_err(http2_failed)?;
    let answer = answer.await.map_err(http2_failed)?;
    if answer.status() != 200 {
        return Err(Failure::new("status", format!("it answered {}", answer.status().as_u16())));
    }
    let in_head = grpc_status(answer.headers());
    let mut incoming = answer.into_body();
    let mut received = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data.map_err(http2_failed)?;
        // What was read makes room for more; if the connection is gone the next read says so.
        let _ = incoming.flow_control().release_capacity(data.len());
        received.extend_from_slice(&data);
        if received.len() > ANSWER_BYTES {
            return Err(Failure::new("protocol", "its answer is too long for a state"));
        }
    }
    let trailers = incoming.trailers().await.map_err(http2_failed)?;
    let status = in_head.or_else(|| grpc_status(trailers.as_ref()?));
    match (status, state(&received)) {
        (Some(0), Some(1)) => Ok(()),
        (Some(0), Some(2)) => Err(Failure::new("not-serving", "it is NOT_SERVING")),
        (Some(0), Some(3)) => Err(Failure::new("not-serving", format!("it does not know the service \"{service}\""))),
        (Some(0), _) => Err(Failure::new("not-serving", "its state is UNKNOWN")),
        (Some(5), _) => Err(Failure::new("not-serving", format!("it does not know the service \"{service}\""))),
        (Some(12), _) => Err(Failure::new("protocol", "it has no health service (UNIMPLEMENTED)")),
        (Some(status), _) => Err(Failure::new("status", format!("it answered with gRPC status {status}"))),
        (None, _) => Err(Failure::new("protocol", "its answer has no gRPC status")),
    }
}

fn grpc_status(fields: &http::HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A HealthCheckRequest behind the five bytes of a gRPC message: not compressed, and its length.
fn message(service: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    if !service.is_empty() {
        fields.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            fields.push(length as u8 | 0x80);
            length >>= 7;
        }
        fields.push(length as u8);
        fields.extend_from_slice(service.as_bytes());
    }
    let mut message = vec![0];
    message.extend_from_slice(&(fields.len() as u32).to_be_bytes());
    message.extend_from_slice(&fields);
    message
}

/// The state in a HealthCheckResponse; proto3 leaves a zero out.
fn state(received: &[u8]) -> Option<u8> {
    let (head, fields) = received.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 || fields.len() != length {
        return None;
    }
    match fields {
        [] => Some(0),
        [0x08, state, ..] if *state < 0x80 => Some(*state),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_and_read() {
        assert_eq!(message(""), [0, 0, 0, 0, 0]);
        assert_eq!(message("abc"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'b', b'c']);
        let long = "x".repeat(200);
        assert_eq!(message(&long)[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        assert_eq!(state(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(state(&[0, 0, 0, 0, 0]), Some(0));
        for wrong in [&[][..], &[0, 0, 0], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 9, 8, 1], &[0, 0, 0, 0, 2, 8, 0x81]] {
            assert_eq!(state(wrong), None, "{wrong:?}");
        }
    }
}
