//! The Huffman code of HPACK (RFC 7541, Appendix B). It is canonical: within a length codes go up with the symbol, so
//! the lengths say everything.

/// Symbols by the length of their code.
const LENGTHS: [(u32, &[u8]); 21] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, &[92, 195, 208]),
    (20, &[128, 130, 131, 162, 184, 194, 224, 226]),
    (21, &[153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230]),
    (
        22,
        &[
            129, 132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190,
            196, 198, 228, 232, 233,
        ],
    ),
    (
        23,
        &[
            1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180,
            182, 183, 188, 191, 197, 231, 239,
        ],
    ),
    (24, &[9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237]),
    (25, &[199, 207, 234, 235]),
    (26, &[192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255]),
    (27, &[203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252, 253, 254]),
    (
        28,
        &[
            2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 127, 220,
            249,
        ],
    ),
    // The fourth code of thirty bits is the end of a string, which must not be sent.
    (30, &[10, 13, 22]),
];

/// Decodes a string; `None` where it is none.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (mut bits, mut have, mut at) = (0u64, 0u32, 0);
    loop {
        while have <= 56 && at < bytes.len() {
            bits = bits << 8 | u64::from(bytes[at]);
            have += 8;
            at += 1;
        }
        if have == 0 {
            return Some(());
        }
        let (mut first, mut before) = (0u64, 0);
        let mut found = None;
        for (length, symbols) in LENGTHS {
            first <<= length - before;
            before = length;
            if have < length {
                break;
            }
            let code = bits >> (have - length) & ((1 << length) - 1);
            if code < first + symbols.len() as u64 {
                found = Some((length, symbols[(code - first) as usize]));
                break;
            }
            first += symbols.len() as u64;
        }
        match found {
            Some((length, symbol)) => {
                out.push(symbol);
                have -= length;
            }
            // What is left is padding: the beginning of the end's code, and less than a byte of it.
            None if have < 8 && bits & ((1 << have) - 1) == (1 << have) - 1 => return Some(()),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_the_rfc_shows() {
        let read = |bytes: &[u8]| {
            let mut out = Vec::new();
            decode(bytes, &mut out).map(|()| String::from_utf8(out).expect("text"))
        };
        let host = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(read(&host).as_deref(), Some("www.example.com"));
        assert_eq!(read(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).as_deref(), Some("no-cache"));
        assert_eq!(read(&[0x64, 0x02]).as_deref(), Some("302"));
        // Padding with a zero in it, a whole byte of padding, and the end's own code.
        assert_eq!(read(&[0x64, 0x00, 0x00]), None);
        assert_eq!(read(&[0x06]), None);
        assert_eq!(read(&[0xff]), None);
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn the_code_is_complete() {
        let total: f64 = LENGTHS.iter().map(|(length, symbols)| symbols.len() as f64 / f64::from(1u32 << length)).sum();
        assert!((total + 1.0 / f64::from(1u32 << 30) - 1.0).abs() < 1e-12);
        let mut symbols: Vec<u8> = LENGTHS.iter().flat_map(|(_, symbols)| symbols.iter().copied()).collect();
        symbols.sort_unstable();
        assert_eq!(symbols, (0..=255).collect::<Vec<u8>>());
    }
}
