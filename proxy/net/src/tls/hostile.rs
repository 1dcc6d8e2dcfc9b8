//! A peer that, after the handshake, says whatever it is told to, and a script that tells it: for tests and for fuzzing
//! (`proxy/net/fuzz`). Everything happens in memory, but for our answers, which go to a socket that nobody reads.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{Error, ProtocolVersion};

use super::handshake::{Next, Side};
use super::record::{ALERT, DATA, HANDSHAKE, Keys, MAX_RECORD, record_length};
use super::session::Kernel;
use super::{Accept, Connect, Info, Session};
use crate::sys::buf::{Buf, Size};

/// Both ends after a handshake: ours, and what the peer seals with.
pub struct Hostile {
    session: Session,
    cipher: Buf,
    keys: Keys,
    kernel: Kernel,
    ours: UnixStream,
    _theirs: UnixStream,
}

/// Feeds one side until it wants more; true when it is done.
fn advance(side: &mut impl Side, inbox: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<bool, Error> {
    loop {
        // A record at a time, so that what follows the handshake stays.
        let length = record_length(inbox).ok().flatten().unwrap_or(0).min(inbox.len());
        let step = side.step(&mut inbox[..length], out);
        inbox.drain(..step.discard);
        match step.next? {
            Next::Again => {}
            Next::More if inbox.is_empty() => return Ok(false),
            Next::More => {}
            Next::Done => return Ok(true),
        }
    }
}

impl Hostile {
    /// Shakes hands; the peer is the client.
    ///
    /// # Errors
    /// When the handshake fails.
    pub fn new(accept: &Accept, connect: &Connect) -> Result<Hostile, Error> {
        let mut server = UnbufferedServerConnection::new(accept.config.clone())?;
        let mut client = UnbufferedClientConnection::new(connect.config.clone(), connect.name.clone())?;
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let (mut served, mut connected) = (false, false);
        for _ in 0..10 {
            connected = connected || advance(&mut client, &mut to_client, &mut to_server)?;
            served = served || advance(&mut server, &mut to_server, &mut to_client)?;
            if served && connected {
                break;
            }
        }
        let version = server.protocol_version().ok_or(Error::HandshakeNotComplete)?;
        let info = Info {
            version,
            suite: server.negotiated_cipher_suite().ok_or(Error::HandshakeNotComplete)?.suite(),
            alpn: None,
            server_name: None,
            resumed: false,
            peer: Box::new([]),
        };
        let (secrets, kernel) = server.finish()?;
        let session = Session::new(secrets, kernel, Rc::new(info))?;
        let (secrets, kernel) = client.finish()?;
        let keys = Keys::new(secrets.tx, version)?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| Error::General(error.to_string()))?;
        Ok(Hostile { session, cipher: Buf::take(Size::Large), keys, kernel, ours, _theirs: theirs })
    }

    /// Seals a record.
    pub fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![0; MAX_RECORD];
        let length = self.keys.seal(kind, content, &[], &mut out).unwrap_or(0);
        out.truncate(length);
        out
    }

    /// Changes the peer's keys, as its KeyUpdate has announced.
    ///
    /// # Errors
    /// In TLS 1.2, which has no such message.
    pub fn change_keys(&mut self) -> Result<(), Error> {
        self.keys = self.kernel.update(true)?;
        Ok(())
    }

    /// Hands bytes to our side and opens what there is; the plaintext so far is in [`Hostile::heard`].
    ///
    /// # Errors
    /// What our side ends the connection with.
    pub fn take(&mut self, bytes: &[u8], size: Size) -> io::Result<usize> {
        let mut gained = 0;
        for part in bytes.chunks(64 * 1024) {
            self.cipher.compact();
            let spare = self.cipher.spare();
            if spare.len() < part.len() {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            spare[..part.len()].copy_from_slice(part);
            self.cipher.filled(part.len());
            gained += self.session.absorb(&mut self.cipher, size, self.ours.as_raw_fd())?;
        }
        Ok(gained)
    }

    /// Seals a record and hands it over.
    ///
    /// # Errors
    /// As [`Hostile::take`].
    pub fn say(&mut self, kind: u8, content: &[u8]) -> io::Result<usize> {
        let record = self.seal(kind, content);
        self.take(&record, Size::Large)
    }

    /// Plaintext that has come and was not consumed.
    pub fn heard(&self) -> &[u8] {
        self.session.buffered()
    }

    /// Forgets the plaintext.
    pub fn forget(&mut self) {
        let count = self.session.buffered().len();
        self.session.consume(count);
        self.session.release();
    }

    /// The peer has ended in order.
    pub fn has_ended(&self) -> bool {
        self.session.heard_close()
    }

    /// TLS 1.3 or 1.2.
    pub fn version(&self) -> ProtocolVersion {
        self.session.info.version
    }
}

/// Plays a script: what comes out is, byte for byte, a beginning of what the peer has sealed as data.
///
/// # Panics
/// When it is not.
pub fn play(accept: &Accept, connect: &Connect, script: &[u8]) {
    let Ok(mut hostile) = Hostile::new(accept, connect) else { return };
    let (mut meant, mut came) = (Vec::new(), 0);
    let mut rest = script;
    let mut byte = move || {
        let (first, after) = rest.split_first()?;
        rest = after;
        Some(*first)
    };
    let mut wire = Vec::new();
    while let Some(what) = byte() {
        let count = byte().unwrap_or(0);
        let mut some = |count: usize| (0..count).map(|_| byte().unwrap_or(7)).collect::<Vec<u8>>();
        match what % 10 {
            0 | 1 => {
                let content = vec![count; usize::from(count) * if what & 16 == 0 { 1 } else { 64 }];
                wire.extend(hostile.seal(DATA, &content));
                meant.extend(content);
            }
            2 => wire.extend(hostile.seal(ALERT, &some(usize::from(count % 5)))),
            3 => wire.extend(hostile.seal(HANDSHAKE, &some(usize::from(count)))),
            4 => {
                let (kind, content) = (some(1)[0], some(usize::from(count % 8)));
                wire.extend(hostile.seal(kind, &content));
                if kind == DATA {
                    meant.extend(content);
                }
            }
            5 => wire.extend(some(usize::from(count % 32))),
            6 => {
                let mut record = hostile.seal(DATA, &some(usize::from(count)));
                // All but the minor version, which nobody looks at (RFC 8446 5.1).
                let at = usize::from(some(1)[0]) % record.len().max(1);
                let at = if at == 2 { 3 } else { at };
                if let Some(changed) = record.get_mut(at) {
                    *changed ^= 1;
                }
                wire.extend(record);
            }
            7 if hostile.version() == ProtocolVersion::TLSv1_3 => {
                wire.extend(hostile.seal(HANDSHAKE, &[24, 0, 0, 1, count % 2]));
                let _ = hostile.change_keys();
            }
            // Only a part arrives yet.
            8 => {
                let part: Vec<u8> = wire.drain(..wire.len().min(usize::from(count))).collect();
                if !hears(&mut hostile, &part, Size::Small, &meant, &mut came) {
                    return;
                }
            }
            _ => {
                let all = std::mem::take(&mut wire);
                let size = if count % 2 == 0 { Size::Large } else { Size::Medium };
                if !hears(&mut hostile, &all, size, &meant, &mut came) {
                    return;
                }
            }
        }
    }
    hears(&mut hostile, &wire, Size::Large, &meant, &mut came);
}

/// Hands bytes over and checks what comes out; false at the end of the connection.
fn hears(hostile: &mut Hostile, bytes: &[u8], size: Size, meant: &[u8], came: &mut usize) -> bool {
    let taken = hostile.take(bytes, size);
    let heard = hostile.heard();
    assert!(meant[*came..].starts_with(heard), "what was not said was heard");
    *came += heard.len();
    hostile.forget();
    taken.is_ok() && !hostile.has_ended()
}
