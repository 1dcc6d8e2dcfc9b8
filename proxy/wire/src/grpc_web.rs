//! What gRPC-Web adds to gRPC's messages, so that browsers can speak it: base64 in pieces, and trailers as the last frame
//! of the body (the gRPC-Web protocol, `PROTOCOL-WEB.md` of grpc). No IO.

use crate::http1::Reject;

/// The flag of a frame that holds trailers.
const TRAILERS: u8 = 0x80;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Decodes base64 that comes in any pieces. Padding may stand wherever a group of four ends: clients encode each message
/// by itself and send the texts one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// Digits of a group that is not whole yet, as a number.
    bits: u32,
    digits: u8,
    padding: u8,
}

fn value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

impl Decoder {
    /// Decodes a piece behind what is in `out`.
    ///
    /// # Errors
    /// When it is no base64.
    pub fn decode(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Reject> {
        out.reserve(piece.len() / 4 * 3 + 3);
        for &byte in piece {
            if byte == b'=' {
                // A group of four holds two digits at least.
                if self.digits < 2 {
                    return Err(Reject::BadBase64);
                }
                self.padding += 1;
            } else {
                let value = value(byte).filter(|_| self.padding == 0).ok_or(Reject::BadBase64)?;
                self.bits = self.bits << 6 | value;
                self.digits += 1;
            }
            if self.digits + self.padding == 4 {
                let bytes = (self.bits << (6 * u32::from(self.padding))).to_be_bytes();
                out.extend_from_slice(&bytes[1..4 - usize::from(self.padding)]);
                *self = Decoder::default();
            }
        }
        Ok(())
    }

    /// The text has ended.
    ///
    /// # Errors
    /// When a group is not whole.
    pub fn finish(&self) -> Result<(), Reject> {
        if self.digits == 0 { Ok(()) } else { Err(Reject::BadBase64) }
    }
}

/// Encodes bytes behind what is in `out`, with padding: what they say can be read at once, whatever follows.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = u32::from_be_bytes([
            0,
            group[0],
            group.get(1).copied().unwrap_or_default(),
            group.get(2).copied().unwrap_or_default(),
        ]);
        let digit = |at: u32| DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
        let digits = [digit(0), digit(1), digit(2), digit(3)];
        let kept = group.len() + 1;
        out.extend_from_slice(&digits[..kept]);
        out.extend_from_slice(&b"=="[..4 - kept]);
    }
}

/// Writes trailers as the frame that ends a body: field lines as HTTP/1 writes them, without the blank line behind them.
pub fn trailer_frame(lines: &[u8], out: &mut Vec<u8>) {
    let lines = lines.strip_suffix(b"\r\n").unwrap_or(lines);
    out.push(TRAILERS);
    // The limit of a head's size is far below.
    out.extend_from_slice(&u32::try_from(lines.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(lines);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<Vec<u8>, Reject> {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.decode(piece, &mut out)?;
        }
        decoder.finish().map(|()| out)
    }

    #[test]
    fn the_vectors_of_rfc_4648() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(decode(&[text.as_bytes()]), Ok(bytes.as_bytes().to_vec()), "{text}");
            let mut out = Vec::new();
            encode(bytes.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn however_it_is_cut_and_wherever_it_is_padded() {
        let text = b"AAAAAAU=aGVsbG8=AAECAw==/+8=";
        let whole = decode(&[text]).expect("well-formed");
        assert_eq!(whole, b"\0\0\0\0\x05hello\0\x01\x02\x03\xff\xef");
        for cut in 1..text.len() {
            let pieces: Vec<&[u8]> = text.chunks(cut).collect();
            assert_eq!(decode(&pieces).as_ref(), Ok(&whole), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for wrong in ["A", "AB", "ABC", "=", "A===", "AB=C", "AB\n=", "A-B_", "AAAA=", "====", "AB==="] {
            assert_eq!(decode(&[wrong.as_bytes()]), Err(Reject::BadBase64), "{wrong}");
        }
    }

    #[test]
    fn all_bytes_come_back() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1021).collect();
        for length in [0, 1, 2, 3, 4, 255, 1021] {
            let mut text = Vec::new();
            encode(&bytes[..length], &mut text);
            assert_eq!(decode(&[&text]).expect("its own"), &bytes[..length]);
        }
    }

    #[test]
    fn trailers_are_a_frame() {
        let mut out = Vec::new();
        trailer_frame(b"grpc-status: 0\r\n\r\n", &mut out);
        assert_eq!(out, b"\x80\0\0\0\x10grpc-status: 0\r\n");
    }
}
