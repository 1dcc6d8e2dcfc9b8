//! A TLS connection after its handshake: records become plaintext, slices become records, and what else a peer may
//! send (alerts, tickets, key updates, attempts to renegotiate) is answered or refused.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{Error, ExtractedSecrets, ProtocolVersion};

use super::Info;
use super::record::{ALERT, Alert, DATA, HANDSHAKE, HEADER, Keys, MAX_PLAIN, MAX_RECORD, record_length};
use crate::sys::buf::{Buf, Size};
use crate::sys::socket;

/// Records sealed before they are sent, so that they are sent while they are in the cache.
const RECORDS_A_SEND: usize = 4;
/// What one call takes at most, so that one connection does not hold the core.
const BYTES_A_CALL: usize = 512 * 1024;
/// Records without data in a row: more are an attack on our patience.
const MAX_IDLE_RECORDS: u32 = 64;
/// Messages of our own (answers to key updates, alerts) that wait for a full socket.
const MAX_QUEUED: u32 = 8;
/// Bytes of a handshake message after the handshake: tickets are small.
const MAX_MESSAGE: usize = 64 * 1024;

thread_local! {
    /// Where a core seals; what was not sent at once is copied out of it.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(Vec::new().into_boxed_slice());
}

/// rustls' side of the finished handshake: it knows how keys are updated and where tickets are kept.
pub enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Kernel {
    fn version(&self) -> ProtocolVersion {
        match self {
            Kernel::Client(kernel) => kernel.protocol_version(),
            Kernel::Server(kernel) => kernel.protocol_version(),
        }
    }

    pub fn update(&mut self, sending: bool) -> Result<Keys, Error> {
        let secrets = match (self, sending) {
            (Kernel::Client(kernel), true) => kernel.update_tx_secret(),
            (Kernel::Client(kernel), false) => kernel.update_rx_secret(),
            (Kernel::Server(kernel), true) => kernel.update_tx_secret(),
            (Kernel::Server(kernel), false) => kernel.update_rx_secret(),
        };
        Keys::new(secrets?, ProtocolVersion::TLSv1_3)
    }
}

/// The sending side.
struct Sender {
    keys: Keys,
    /// Sealed and not sent yet, from `sent` on.
    pending: Vec<u8>,
    sent: usize,
    /// Plaintext bytes that the pending records carry and that the caller has not been told of.
    owed: usize,
    /// Messages of our own among what is pending.
    queued: u32,
    closed: bool,
}

/// A TLS connection after its handshake.
pub struct Session {
    receiving: Keys,
    plain: Option<Buf>,
    /// A handshake message of which a part has come.
    message: Vec<u8>,
    heard_close: bool,
    idle_records: u32,
    kernel: RefCell<Kernel>,
    sender: RefCell<Sender>,
    /// The write side is to be ended once what is pending has been sent.
    ending: Cell<bool>,
    /// What was negotiated.
    pub info: Rc<Info>,
}

fn broken(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

fn would_block() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}

impl Session {
    pub fn new(secrets: ExtractedSecrets, kernel: Kernel, info: Rc<Info>) -> Result<Session, Error> {
        let version = kernel.version();
        Ok(Session {
            receiving: Keys::new(secrets.rx, version)?,
            plain: None,
            message: Vec::new(),
            heard_close: false,
            idle_records: 0,
            kernel: RefCell::new(kernel),
            sender: RefCell::new(Sender {
                keys: Keys::new(secrets.tx, version)?,
                pending: Vec::new(),
                sent: 0,
                owed: 0,
                queued: 0,
                closed: false,
            }),
            ending: Cell::new(false),
            info,
        })
    }

    /// The plaintext that was not consumed yet.
    #[inline]
    pub fn buffered(&self) -> &[u8] {
        self.plain.as_ref().map_or(&[], Buf::data)
    }

    #[inline]
    pub fn consume(&mut self, count: usize) {
        if let Some(plain) = &mut self.plain {
            plain.consume(count);
        }
    }

    pub fn release(&mut self) {
        if self.plain.as_ref().is_some_and(Buf::is_empty) {
            self.plain = None;
        }
    }

    /// The peer has said that nothing more will come.
    pub fn heard_close(&self) -> bool {
        self.heard_close
    }

    /// How large a buffer the next read needs to take the record that has begun.
    pub fn wants(&self, cipher: &[u8], size: Size) -> Size {
        match record_length(cipher) {
            Ok(Some(length)) if length > Size::Small.bytes() => size.max(Size::Medium),
            _ => size,
        }
    }

    /// Opens the whole records in `cipher`, as many as `size` has room for; returns how much plaintext that gave.
    ///
    /// # Errors
    /// When the peer broke the protocol, or ended it with an alert. The connection is over then.
    pub fn absorb(&mut self, cipher: &mut Buf, size: Size, fd: RawFd) -> io::Result<usize> {
        let mut gained = 0;
        while !self.heard_close {
            let length = match record_length(cipher.data()) {
                Ok(Some(length)) if length <= cipher.data().len() => length,
                Ok(_) => break,
                Err(alert) => return Err(self.fail(alert, fd)),
            };
            if !self.make_room(length, cipher.data().len(), size) {
                if gained == 0 {
                    return Err(broken("there is more plaintext than a buffer takes"));
                }
                break;
            }
            let Some(plain) = &mut self.plain else { break };
            let (header, body) = cipher.data()[..length].split_at(HEADER);
            match self.receiving.open(header, body, plain.spare()) {
                Err(alert) => return Err(self.fail(alert, fd)),
                Ok((DATA, count @ 1..)) => {
                    plain.filled(count);
                    gained += count;
                    self.idle_records = 0;
                }
                Ok((kind, count)) => {
                    self.idle_records += 1;
                    if self.idle_records > MAX_IDLE_RECORDS {
                        return Err(self.fail(Alert::UnexpectedMessage, fd));
                    }
                    if kind != DATA {
                        let content = plain.spare()[..count].to_vec();
                        self.other(kind, &content, fd)?;
                    }
                }
            }
            cipher.consume(length);
        }
        Ok(gained)
    }

    /// Makes room for the plaintext of a record of `length`, in a buffer that fits all `available` where `size` allows.
    fn make_room(&mut self, length: usize, available: usize, size: Size) -> bool {
        let class = |bytes: usize| match bytes {
            0..=512 => Size::Small,
            bytes if bytes <= Size::Medium.bytes() => Size::Medium,
            _ => Size::Large,
        };
        let plain = self.plain.get_or_insert_with(|| Buf::take(class(length.max(available.min(size.bytes())))));
        if plain.room() >= length {
            return true;
        }
        plain.compact();
        if plain.room() < length {
            plain.grow(class(plain.data().len() + length));
        }
        plain.room() >= length
    }

    /// Sends an alert where that is possible and says what went wrong.
    fn fail(&mut self, alert: Alert, fd: RawFd) -> io::Error {
        let _ = self.queue(ALERT, &[2, alert as u8], fd);
        self.sender.borrow_mut().closed = true;
        broken(match alert {
            Alert::BadRecordMac => "a TLS record does not open: it was changed, or is none",
            Alert::RecordOverflow => "a TLS record is too long",
            Alert::UnexpectedMessage => "a TLS message that may not come here",
            Alert::NoRenegotiation => "the peer asks to renegotiate again and again",
            _ => "a TLS message that cannot be read",
        })
    }

    fn other(&mut self, kind: u8, content: &[u8], fd: RawFd) -> io::Result<()> {
        match kind {
            ALERT => self.alert(content, fd),
            HANDSHAKE => self.handshake(content, fd),
            _ => Err(self.fail(Alert::UnexpectedMessage, fd)),
        }
    }

    fn alert(&mut self, content: &[u8], fd: RawFd) -> io::Result<()> {
        let [level, code] = *content else {
            return Err(self.fail(Alert::DecodeError, fd));
        };
        let is_tls13 = self.receiving.can_update();
        match code {
            0 => {
                self.heard_close = true;
                Ok(())
            }
            // user_canceled; and, before TLS 1.3, warnings (bounded as records without data).
            90 => Ok(()),
            _ if level == 1 && !is_tls13 => Ok(()),
            _ => {
                self.sender.borrow_mut().closed = true;
                let name = rustls::AlertDescription::from(code);
                Err(io::Error::new(io::ErrorKind::ConnectionReset, format!("the peer sent the TLS alert {name:?}")))
            }
        }
    }

    fn handshake(&mut self, content: &[u8], fd: RawFd) -> io::Result<()> {
        self.message.extend_from_slice(content);
        while let [kind, high, middle, low, rest @ ..] = self.message.as_slice() {
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if length > MAX_MESSAGE {
                return Err(self.fail(Alert::DecodeError, fd));
            }
            if rest.len() < length {
                return Ok(());
            }
            let kind = *kind;
            let body = rest[..length].to_vec();
            let is_last = rest.len() == length;
            self.message.drain(..4 + length);
            self.obey(kind, &body, is_last, fd)?;
        }
        if self.message.is_empty() {
            self.message = Vec::new();
        }
        Ok(())
    }

    /// A whole handshake message after the handshake.
    fn obey(&mut self, kind: u8, body: &[u8], is_last: bool, fd: RawFd) -> io::Result<()> {
        let is_tls13 = self.receiving.can_update();
        match (kind, is_tls13) {
            // KeyUpdate: nothing may follow it under the old key (RFC 8446 5.1).
            (24, true) if is_last && matches!(body, [0 | 1]) => {
                let keys = self.kernel.borrow_mut().update(false);
                self.receiving = keys.map_err(|error| broken(&error.to_string()))?;
                if body[0] == 1 { self.update_sending_keys(fd) } else { Ok(()) }
            }
            // NewSessionTicket.
            (4, true) if matches!(*self.kernel.borrow(), Kernel::Client(_)) => {
                if let Kernel::Client(kernel) = &mut *self.kernel.borrow_mut() {
                    kernel.handle_new_session_ticket(body).map_err(|error| broken(&error.to_string()))?;
                }
                Ok(())
            }
            // HelloRequest and ClientHello: TLS 1.2's renegotiation, which is refused (RFC 5746 4.5).
            (0 | 1, false) => self.queue(ALERT, &[1, Alert::NoRenegotiation as u8], fd),
            _ => Err(self.fail(Alert::UnexpectedMessage, fd)),
        }
    }

    /// Says that the keys change, and changes them.
    fn update_sending_keys(&self, fd: RawFd) -> io::Result<()> {
        self.queue(HANDSHAKE, &[24, 0, 0, 1, 0], fd)?;
        let keys = self.kernel.borrow_mut().update(true).map_err(|error| broken(&error.to_string()))?;
        self.sender.borrow_mut().keys = keys;
        Ok(())
    }

    /// Asks the peer to change its keys, as a hostile one may do again and again.
    #[cfg(test)]
    pub fn ask_for_key_update(&self, fd: RawFd) -> io::Result<()> {
        self.queue(HANDSHAKE, &[24, 0, 0, 1, 1], fd)?;
        let keys = self.kernel.borrow_mut().update(true).map_err(|error| broken(&error.to_string()))?;
        self.sender.borrow_mut().keys = keys;
        Ok(())
    }

    /// Seals a small message behind what is pending, and sends what goes out at once.
    fn queue(&self, kind: u8, content: &[u8], fd: RawFd) -> io::Result<()> {
        let mut sender = self.sender.borrow_mut();
        if sender.closed {
            return Ok(());
        }
        // A peer that asks and never reads is not answered for ever.
        if sender.queued >= MAX_QUEUED {
            sender.closed = true;
            return Err(broken("the peer asks again and again and does not read the answers"));
        }
        sender.queued += 1;
        let mut out = [0; 64];
        let length = sender.keys.seal(kind, content, &[], &mut out).map_err(|error| broken(&error.to_string()))?;
        sender.pending.extend_from_slice(&out[..length]);
        match sender.flush(fd) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends what an earlier call could not.
    pub fn flush(&self, fd: RawFd) -> io::Result<()> {
        let mut sender = self.sender.borrow_mut();
        if !sender.pending.is_empty() {
            sender.flush(fd)?;
        }
        drop(sender);
        if self.ending.take() { socket::shutdown_write(fd) } else { Ok(()) }
    }

    /// Whether something sealed waits to be sent.
    pub fn is_pending(&self) -> bool {
        !self.sender.borrow().pending.is_empty()
    }

    /// Seals and sends what fits of two slices. What was sealed but not sent is remembered, and counted only once it
    /// is sent: the caller repeats the same bytes, as with every full socket.
    pub fn write(&self, fd: RawFd, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let mut sender = self.sender.borrow_mut();
        let total = first.len() + second.len();
        if sender.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !sender.pending.is_empty() {
            sender.flush(fd)?;
        }
        let owed = std::mem::take(&mut sender.owed).min(total);
        if owed > 0 {
            return Ok(owed);
        }
        if sender.keys.is_spent() {
            drop(sender);
            self.renew(fd)?;
            sender = self.sender.borrow_mut();
        }
        let mut done = 0;
        while done < total && done < BYTES_A_CALL {
            let part = (total - done).min(RECORDS_A_SEND * MAX_PLAIN);
            match sender.send(fd, first, second, done, part) {
                Ok(true) => done += part,
                Ok(false) => break,
                Err(error) if done > 0 && error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if done == 0 && total > 0 { Err(would_block()) } else { Ok(done) }
    }

    fn renew(&self, fd: RawFd) -> io::Result<()> {
        if self.receiving.can_update() {
            self.update_sending_keys(fd)
        } else {
            Err(broken("this TLS 1.2 connection has used its key up"))
        }
    }

    /// Tells the peer that nothing more will come, and ends the socket's write side when that is sent.
    pub fn shutdown_write(&self, fd: RawFd) -> io::Result<()> {
        self.close_notify(fd)?;
        self.ending.set(true);
        match self.flush(fd) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ending.set(true);
                Ok(())
            }
            other => other,
        }
    }

    /// Sends a close_notify, once.
    pub fn close_notify(&self, fd: RawFd) -> io::Result<()> {
        let result = self.queue(ALERT, &[1, Alert::CloseNotify as u8], fd);
        self.sender.borrow_mut().closed = true;
        result
    }
}

impl Sender {
    /// Sends what is pending; `WouldBlock` when not all of it went.
    fn flush(&mut self, fd: RawFd) -> io::Result<()> {
        while self.sent < self.pending.len() {
            match socket::send(fd, &self.pending[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.pending = Vec::new();
        self.sent = 0;
        self.queued = 0;
        Ok(())
    }

    /// Seals `part` bytes of the two slices from `from` on and sends them; false when some of them now wait.
    fn send(&mut self, fd: RawFd, first: &[u8], second: &[u8], from: usize, part: usize) -> io::Result<bool> {
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.is_empty() {
                *scratch = vec![0; RECORDS_A_SEND * MAX_RECORD].into_boxed_slice();
            }
            let mut length = 0;
            let mut at = from;
            while at < from + part {
                let end = (at + MAX_PLAIN).min(from + part);
                let head = &first[at.min(first.len())..end.min(first.len())];
                let tail = &second[at.max(first.len()) - first.len()..end.max(first.len()) - first.len()];
                let (head, tail) = if head.is_empty() { (tail, head) } else { (head, tail) };
                let sealed = self.keys.seal(DATA, head, tail, &mut scratch[length..]);
                length += sealed.map_err(|error| broken(&error.to_string()))?;
                at = end;
            }
            let mut sent = 0;
            while sent < length {
                match socket::send(fd, &scratch[sent..length]) {
                    Ok(count) => sent += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.pending.extend_from_slice(&scratch[sent..length]);
                        self.owed = part;
                        return Ok(false);
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(true)
        })
    }
}
