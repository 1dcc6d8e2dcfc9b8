//! What identifies one request beyond this hop: a request id and a trace context.

/// What identifies one request beyond this hop.
#[derive(Clone)]
pub struct Identity {
    request_id: [u8; 36],
    traceparent: [u8; 55],
}

/// The last digits of a number, as many as there is room for. Every request asks for ninety of them, so eight are made at
/// a time.
#[inline]
fn hex(out: &mut [u8], value: u64) {
    let mut all = [0; 16];
    all[..8].copy_from_slice(&eight_digits((value >> 32) as u32));
    all[8..].copy_from_slice(&eight_digits(value as u32));
    out.copy_from_slice(&all[16 - out.len()..]);
}

#[inline]
fn eight_digits(value: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // One digit in each byte.
    let mut digits = u64::from(value);
    digits = (digits << 16 | digits) & 0x0000_ffff_0000_ffff;
    digits = (digits << 8 | digits) & 0x00ff_00ff_00ff_00ff;
    digits = (digits << 4 | digits) & 0x0f0f_0f0f_0f0f_0f0f;
    // One where it is a letter.
    let letters = (digits + 6 * ONES) >> 4 & ONES;
    (digits + u64::from(b'0') * ONES + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

impl Identity {
    /// New ones, from random numbers: a UUID of version 4 and a W3C trace context that is not sampled.
    pub fn new(mut random: impl FnMut() -> u64) -> Identity {
        let (high, low) = (random(), random());
        let mut request_id = [b'-'; 36];
        hex(&mut request_id[0..8], high >> 32);
        hex(&mut request_id[9..13], high >> 16);
        hex(&mut request_id[14..18], (high & 0x0fff) | 0x4000);
        hex(&mut request_id[19..23], ((low >> 48) & 0x3fff) | 0x8000);
        hex(&mut request_id[24..36], low);
        let mut traceparent = [b'-'; 55];
        traceparent[..3].copy_from_slice(b"00-");
        hex(&mut traceparent[3..19], high ^ low.rotate_left(17));
        hex(&mut traceparent[19..35], low ^ high.rotate_left(31));
        hex(&mut traceparent[36..52], random() | 1);
        traceparent[53..].copy_from_slice(b"00");
        Identity { request_id, traceparent }
    }

    /// The request's id, as sent upstream when the client brought none.
    pub fn request_id(&self) -> &[u8] {
        &self.request_id
    }

    /// The trace context, as sent upstream when the client brought none.
    pub fn traceparent(&self) -> &[u8] {
        &self.traceparent
    }
}

/// Whether a `traceparent` is one (W3C Trace Context, version 00 or later): else it is replaced.
pub fn is_traceparent(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let not_zero = |part: &[u8]| part.iter().any(|byte| *byte != b'0');
    value.len() >= 55
        && (value.len() == 55 || (&value[..2] != b"00" && value[55] == b'-'))
        && (value[2], value[35], value[52]) == (b'-', b'-', b'-')
        && hex(&value[..2])
        && &value[..2] != b"ff"
        && hex(&value[3..35])
        && hex(&value[36..52])
        && hex(&value[53..55])
        && not_zero(&value[3..35])
        && not_zero(&value[36..52])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_number() {
        for value in [0, 1, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, u64::MAX, 0x9f9f_a0a0_0a0a_f9f9] {
            for length in 1..=16 {
                let mut out = vec![0; length];
                hex(&mut out, value);
                assert_eq!(String::from_utf8(out).expect("ASCII"), format!("{value:016x}")[16 - length..]);
            }
        }
    }

    #[test]
    fn an_identity_is_a_uuid_and_a_trace_context() {
        let mut seed = 7u64;
        let identity = Identity::new(|| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            seed
        });
        let id = std::str::from_utf8(identity.request_id()).expect("ASCII");
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{id}");
        assert!(is_traceparent(&identity.traceparent));
    }

    #[test]
    fn only_well_formed_trace_contexts_are_kept() {
        let good = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(good));
        assert!(!is_traceparent(&good[..54]));
        assert!(!is_traceparent(b"00-00000000000000000000000000000000-b7ad6b7169203331-01"));
        assert!(!is_traceparent(b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(!is_traceparent(b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"));
        assert!(is_traceparent(b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra"));
    }
}
