//! The TLS record layer after the handshake (RFC 8446 5, RFC 5246 6.2.3, RFC 5288, RFC 7905), with the keys that
//! rustls negotiated: a record is opened from the bytes that the kernel wrote straight into the plaintext buffer, and
//! sealed straight from the caller's slice, so that neither costs an allocation or a copy beyond the cipher's own pass.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::{ConnectionTrafficSecrets, Error, ProtocolVersion};

/// Plaintext that one record carries at most (RFC 8446 5.1).
pub const MAX_PLAIN: usize = 16 * 1024;
/// What a sealed record may be longer than its plaintext (RFC 8446 5.2; TLS 1.2 allows more, nobody sends it).
const MAX_EXPANSION: usize = 256;
/// Type, version, length.
pub const HEADER: usize = 5;
const TAG: usize = 16;
/// The largest record: what a buffer for reading one must hold.
pub const MAX_RECORD: usize = HEADER + MAX_PLAIN + MAX_EXPANSION;

/// Content types (RFC 8446 5.1).
pub const ALERT: u8 = 21;
/// Handshake messages.
pub const HANDSHAKE: u8 = 22;
/// Application data.
pub const DATA: u8 = 23;

/// Alerts that we send (RFC 8446 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    CloseNotify = 0,
    UnexpectedMessage = 10,
    BadRecordMac = 20,
    RecordOverflow = 22,
    DecodeError = 50,
    NoRenegotiation = 100,
}

/// AES-GCM keys are changed, or the connection ended, well before 2^24.5 records (RFC 8446 5.5).
pub const MAX_SEQUENCE: u64 = 1 << 23;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Tls13,
    Tls12Gcm,
    Tls12ChaCha,
}

/// The key of one direction.
pub struct Keys {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    form: Form,
}

impl Keys {
    /// From what the handshake gave.
    pub fn new((sequence, secrets): (u64, ConnectionTrafficSecrets), version: ProtocolVersion) -> Result<Keys, Error> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("the negotiated cipher is not one of ours".to_owned())),
        };
        let form = match version {
            ProtocolVersion::TLSv1_3 => Form::Tls13,
            ProtocolVersion::TLSv1_2 if algorithm == &CHACHA20_POLY1305 => Form::Tls12ChaCha,
            ProtocolVersion::TLSv1_2 => Form::Tls12Gcm,
            _ => return Err(Error::General("the negotiated version is not one of ours".to_owned())),
        };
        let unbound = UnboundKey::new(algorithm, key.as_ref())
            .map_err(|_| Error::General("the negotiated key has the wrong length".to_owned()))?;
        let iv =
            iv.as_ref().try_into().map_err(|_| Error::General("the negotiated IV has the wrong length".to_owned()))?;
        Ok(Keys { key: LessSafeKey::new(unbound), iv, sequence, form })
    }

    /// Whether the key has served as many records as it may.
    pub fn is_spent(&self) -> bool {
        self.sequence >= MAX_SEQUENCE
    }

    /// The version has a message that changes the key.
    pub fn can_update(&self) -> bool {
        self.form == Form::Tls13
    }

    /// How much longer a record is than its plaintext.
    pub fn overhead(&self) -> usize {
        HEADER
            + TAG
            + match self.form {
                Form::Tls13 => 1,
                Form::Tls12Gcm => 8,
                Form::Tls12ChaCha => 0,
            }
    }

    fn next_nonce(&mut self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        self.sequence += 1;
        nonce
    }

    /// Seals `first` and `second` into one record at the start of `out`; returns its length. The caller keeps the
    /// plaintext within [`MAX_PLAIN`] and `out` large enough.
    pub fn seal(&mut self, kind: u8, first: &[u8], second: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let plain = first.len() + second.len();
        let sequence = self.sequence;
        let nonce = self.next_nonce();
        let total = plain + self.overhead();
        let (header, rest) = out[..total].split_at_mut(HEADER);
        let outer = if self.form == Form::Tls13 { DATA } else { kind };
        let length = (total - HEADER) as u16;
        header.copy_from_slice(&[outer, 3, 3, (length >> 8) as u8, length as u8]);
        let (sealed, extra): (&mut [u8], &[u8]) = match self.form {
            Form::Tls13 => (rest, &[kind]),
            Form::Tls12ChaCha => (rest, &[]),
            Form::Tls12Gcm => {
                let (explicit, rest) = rest.split_at_mut(8);
                explicit.copy_from_slice(&nonce[4..]);
                (rest, &[])
            }
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        let (body, tail) = sealed.split_at_mut(plain);
        let result = if self.form == Form::Tls13 {
            self.encrypt(nonce, &*header, first, second, body, extra, tail)
        } else {
            self.encrypt(nonce, &aad12(sequence, kind, plain), first, second, body, extra, tail)
        };
        result.map(|()| total).map_err(|_| Error::EncryptError)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one call of the cipher")]
    fn encrypt(
        &self,
        nonce: Nonce,
        aad: &[u8],
        first: &[u8],
        second: &[u8],
        body: &mut [u8],
        extra: &[u8],
        tail: &mut [u8],
    ) -> Result<(), aws_lc_rs::error::Unspecified> {
        if second.is_empty() {
            return self.key.seal_out_of_place_scatter(nonce, Aad::from(aad), first, body, extra, tail);
        }
        body[..first.len()].copy_from_slice(first);
        body[first.len()..].copy_from_slice(second);
        self.key.seal_in_place_scatter(nonce, Aad::from(aad), body, extra, tail)
    }

    /// Opens a record's body into `out`, which is at least as long; returns the true content type and the length of
    /// the plaintext.
    pub fn open(&mut self, header: &[u8], body: &[u8], out: &mut [u8]) -> Result<(u8, usize), Alert> {
        let kind = header[0];
        let sequence = self.sequence;
        let mut nonce = self.next_nonce();
        let sealed = match self.form {
            Form::Tls13 if kind != DATA => return Err(Alert::UnexpectedMessage),
            Form::Tls13 | Form::Tls12ChaCha => body,
            Form::Tls12Gcm => {
                let (explicit, sealed) = body.split_at_checked(8).ok_or(Alert::BadRecordMac)?;
                nonce[..4].copy_from_slice(&self.iv[..4]);
                nonce[4..].copy_from_slice(explicit);
                sealed
            }
        };
        let length = sealed.len().checked_sub(TAG).ok_or(Alert::BadRecordMac)?;
        let (cipher, tag) = sealed.split_at(length);
        let out = &mut out[..length];
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = if self.form == Form::Tls13 {
            self.key.open_separate_gather(nonce, Aad::from(header), cipher, tag, out)
        } else {
            self.key.open_separate_gather(nonce, Aad::from(aad12(sequence, kind, length)), cipher, tag, out)
        };
        opened.map_err(|_| Alert::BadRecordMac)?;
        let (kind, length) = if self.form == Form::Tls13 {
            // The type stands behind the content, zeros behind the type.
            let at = out.iter().rposition(|byte| *byte != 0).ok_or(Alert::UnexpectedMessage)?;
            (out[at], at)
        } else {
            (kind, length)
        };
        if length > MAX_PLAIN { Err(Alert::RecordOverflow) } else { Ok((kind, length)) }
    }
}

fn aad12(sequence: u64, kind: u8, length: usize) -> [u8; 13] {
    let mut aad = [0; 13];
    aad[..8].copy_from_slice(&sequence.to_be_bytes());
    aad[8..].copy_from_slice(&[kind, 3, 3, (length >> 8) as u8, length as u8]);
    aad
}

/// The length of the first record of these bytes, header included; `None` while its header is not complete.
pub fn record_length(bytes: &[u8]) -> Result<Option<usize>, Alert> {
    let Some(header) = bytes.get(..HEADER) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if header[1] != 3 || !(20..=24).contains(&header[0]) {
        return Err(Alert::DecodeError);
    }
    if length > MAX_PLAIN + MAX_EXPANSION { Err(Alert::RecordOverflow) } else { Ok(Some(HEADER + length)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::cipher::{AeadKey, Iv};

    fn pair(version: ProtocolVersion, chacha: bool) -> (Keys, Keys) {
        let keys = || {
            let (key, iv) = (AeadKey::from([7; 32]), Iv::copy(&[9; 12]));
            let secrets = if chacha {
                ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }
            } else {
                ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            };
            Keys::new((5, secrets), version).expect("keys")
        };
        (keys(), keys())
    }

    #[test]
    fn every_form_opens_what_it_sealed_and_nothing_else() {
        for (version, chacha) in [
            (ProtocolVersion::TLSv1_3, false),
            (ProtocolVersion::TLSv1_3, true),
            (ProtocolVersion::TLSv1_2, false),
            (ProtocolVersion::TLSv1_2, true),
        ] {
            let (mut sealer, mut opener) = pair(version, chacha);
            for size in [0, 1, 100, MAX_PLAIN] {
                let plain: Vec<u8> = (0..size).map(|at| at as u8 | 1).collect();
                let mut out = vec![0; MAX_RECORD];
                let (first, second) = plain.split_at(size / 3);
                let length = sealer.seal(DATA, first, second, &mut out).expect("seals");
                assert_eq!(record_length(&out), Ok(Some(length)));
                let mut back = vec![0; MAX_RECORD];
                let opened = opener.open(&out[..HEADER], &out[HEADER..length], &mut back);
                assert_eq!(opened, Ok((DATA, size)));
                assert_eq!(&back[..size], plain);
            }
            let mut out = vec![0; 200];
            let length = sealer.seal(ALERT, b"\x01\x00", b"", &mut out).expect("seals");
            out[length - 1] ^= 1;
            let mut back = vec![0; 200];
            assert_eq!(opener.open(&out[..HEADER], &out[HEADER..length], &mut back), Err(Alert::BadRecordMac));
        }
    }

    #[test]
    fn what_cannot_be_a_record_is_refused_by_its_header() {
        assert_eq!(record_length(b"GET / HTTP"), Err(Alert::DecodeError));
        assert_eq!(record_length(&[23, 3, 3, 0x41, 1]), Err(Alert::RecordOverflow));
        assert_eq!(record_length(&[23, 3, 3]), Ok(None));
    }
}
