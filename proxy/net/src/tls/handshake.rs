//! The handshake: records are fed to rustls one by one, so that it never sees application data, and once it has
//! finished its keys are taken over.

use std::io;
use std::rc::Rc;

use onehop_wire::client_hello;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedConnectionCommon, UnbufferedStatus};
use rustls::{CommonState, Error, ExtractedSecrets, HandshakeKind};

use super::record::record_length;
use super::session::Kernel;
use super::{Accept, Connect, HandshakeError, Info, Session, budget};
use crate::stream::Stream;
use crate::sys::buf::Size;

/// What a peer may send in one handshake: chains of many certificates are some 10 KiB.
const MAX_RECEIVED: usize = 256 * 1024;

/// rustls' two sides, which share no trait.
pub(super) trait Side {
    fn step(&mut self, incoming: &mut [u8], out: &mut Vec<u8>) -> Step;
    fn state(&self) -> &CommonState;
    fn finish(self) -> Result<(ExtractedSecrets, Kernel), Error>;
}

/// What one call of rustls came to.
pub(super) struct Step {
    /// Bytes of the input that are done with.
    pub discard: usize,
    pub next: Result<Next, Error>,
}

pub(super) enum Next {
    /// Call again with what is left.
    Again,
    /// More bytes are needed.
    More,
    /// The handshake is done.
    Done,
}

macro_rules! side {
    ($connection:ty, $data:ty, $kernel:path) => {
        impl Side for $connection {
            fn step(&mut self, incoming: &mut [u8], out: &mut Vec<u8>) -> Step {
                let common: &mut UnbufferedConnectionCommon<$data> = self;
                let UnbufferedStatus { discard, state } = common.process_tls_records(incoming);
                let next = state.and_then(|state| match state {
                    ConnectionState::EncodeTlsData(mut encode) => {
                        let from = out.len();
                        if let Err(EncodeError::InsufficientSize(size)) = encode.encode(&mut []) {
                            out.resize(from + size.required_size, 0);
                            let encoded = encode.encode(&mut out[from..]);
                            encoded.map_err(|error| Error::General(format!("{error:?}")))?;
                        }
                        Ok(Next::Again)
                    }
                    ConnectionState::TransmitTlsData(transmit) => {
                        transmit.done();
                        Ok(Next::Again)
                    }
                    ConnectionState::BlockedHandshake => Ok(Next::More),
                    ConnectionState::WriteTraffic(_) => Ok(Next::Done),
                    ConnectionState::PeerClosed | ConnectionState::Closed => Err(Error::HandshakeNotComplete),
                    // One record at a time is fed, and early data is off.
                    _ => Err(Error::General("application data within the handshake".to_owned())),
                });
                Step { discard, next }
            }

            fn state(&self) -> &CommonState {
                self
            }

            fn finish(self) -> Result<(ExtractedSecrets, Kernel), Error> {
                let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
                Ok((secrets, $kernel(kernel)))
            }
        }
    };
}

side!(UnbufferedServerConnection, ServerConnectionData, Kernel::Server);
side!(UnbufferedClientConnection, ClientConnectionData, Kernel::Client);

/// Accepts a handshake on a stream that is plain yet. The caller has armed the stream's deadline.
pub async fn accept(stream: &mut Stream, accept: &Accept) -> Result<Session, HandshakeError> {
    let name = read_name(stream).await?;
    let connection = UnbufferedServerConnection::new(accept.config.clone())?;
    run(stream, connection, name).await
}

/// Begins a handshake on a stream that is plain yet. The caller has armed the stream's deadline.
pub async fn connect(stream: &mut Stream, connect: &Connect) -> Result<Session, HandshakeError> {
    let connection = {
        let _step = budget::admit().await;
        UnbufferedClientConnection::new(connect.config.clone(), connect.name.clone())?
    };
    run(stream, connection, None).await
}

/// Waits for the whole ClientHello and takes the name from it.
async fn read_name(stream: &mut Stream) -> Result<Option<Box<str>>, HandshakeError> {
    loop {
        match client_hello::parse(stream.buffered()) {
            Ok(Some(hello)) => return Ok(hello.server_name.map(String::into_boxed_str)),
            // rustls says what is wrong with a hello that is none, to the peer too.
            Err(_) if client_hello::may_begin(stream.buffered()) => return Ok(None),
            Err(_) => return Err(HandshakeError::NotTls),
            Ok(None) => receive(stream).await?,
        }
    }
}

async fn receive(stream: &mut Stream) -> Result<(), HandshakeError> {
    match stream.fill(Size::Medium).await {
        Ok(1..) => Ok(()),
        _ if stream.timed_out() => Err(HandshakeError::TimedOut),
        Ok(_) => Err(HandshakeError::Left),
        Err(error) => Err(HandshakeError::Io(error)),
    }
}

async fn run(
    stream: &mut Stream,
    mut connection: impl Side,
    server_name: Option<Box<str>>,
) -> Result<Session, HandshakeError> {
    let mut out = Vec::new();
    // Bytes at the front of the buffer that rustls has seen and not discarded.
    let mut seen = 0;
    let mut received = 0;
    loop {
        let step = {
            let _step = budget::admit().await;
            connection.step(&mut stream.cipher_mut()[..seen], &mut out)
        };
        if step.next.is_ok() {
            stream.consume(step.discard);
            seen -= step.discard;
            received += step.discard;
        }
        match step.next {
            Ok(Next::Again) => {}
            Ok(Next::Done) if connection.state().is_handshaking() => {
                return Err(Error::General("the handshake ended half-way".to_owned()).into());
            }
            Ok(Next::Done) => {
                send(stream, &mut out).await?;
                return finish(connection, server_name);
            }
            Ok(Next::More) => {
                send(stream, &mut out).await?;
                if received + seen > MAX_RECEIVED {
                    return Err(Error::General("the handshake is too long".to_owned()).into());
                }
                seen += next_record(stream, seen, received + seen == 0).await?;
            }
            Err(error) => {
                // The alert that says why, and no further step: rustls would fail once more.
                while connection.state().wants_write() {
                    let last = connection.step(&mut stream.cipher_mut()[..seen], &mut out);
                    if last.next.is_err() {
                        break;
                    }
                }
                let _ = send(stream, &mut out).await;
                return Err(error.into());
            }
        }
    }
}

/// Waits until a whole record stands behind the first `seen` bytes; returns its length. `first`: nothing has come yet.
async fn next_record(stream: &mut Stream, seen: usize, first: bool) -> Result<usize, HandshakeError> {
    loop {
        let rest = &stream.buffered()[seen..];
        match record_length(rest) {
            Ok(Some(length)) if length <= rest.len() => return Ok(length),
            Ok(_) => receive(stream).await?,
            // An upstream that speaks something else from the start.
            Err(_) if first && !matches!(rest, [20..=24, 3, ..]) => return Err(HandshakeError::NotTls),
            // Whatever it is, rustls answers it with the right alert.
            Err(_) if rest.len() >= 5 => return Ok(rest.len()),
            Err(_) => return Err(HandshakeError::NotTls),
        }
    }
}

async fn send(stream: &Stream, out: &mut Vec<u8>) -> Result<(), HandshakeError> {
    if out.is_empty() {
        return Ok(());
    }
    let written = stream.write_all(out).await;
    out.clear();
    written.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => HandshakeError::TimedOut,
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => HandshakeError::Left,
        _ => HandshakeError::Io(error),
    })
}

fn finish(connection: impl Side, server_name: Option<Box<str>>) -> Result<Session, HandshakeError> {
    let state = connection.state();
    let unfinished = || HandshakeError::Refused(Error::HandshakeNotComplete);
    let info = Info {
        version: state.protocol_version().ok_or_else(unfinished)?,
        suite: state.negotiated_cipher_suite().ok_or_else(unfinished)?.suite(),
        alpn: state.alpn_protocol().map(Into::into),
        server_name,
        resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
        peer: state.peer_certificates().unwrap_or_default().to_vec().into_boxed_slice(),
    };
    let (secrets, kernel) = connection.finish()?;
    Ok(Session::new(secrets, kernel, Rc::new(info))?)
}
