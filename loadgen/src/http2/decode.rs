//! Header blocks as a peer compresses them (RFC 7541).

use std::collections::VecDeque;

use super::huffman;
use super::table::{OVERHEAD, STATIC, read_integer};

/// The dynamic table that a peer may fill: the default, which we never change.
const MOST_TABLE: usize = 4096;
/// What one block may decode to: a block of references is small, and what it names is not.
const MOST_DECODED: usize = 256 * 1024;

struct Entry {
    name: Vec<u8>,
    value: Vec<u8>,
}

/// One direction of a connection.
#[derive(Default)]
pub struct Decoder {
    entries: VecDeque<Entry>,
    size: usize,
    /// What the peer has bounded its table to, less [`MOST_TABLE`] where it has not.
    below: usize,
    changes: u64,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// A block that means nothing: COMPRESSION_ERROR, for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Decoder {
    /// How often the table has changed: the same bytes mean the same until it does.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Decodes a block, field by field.
    ///
    /// # Errors
    /// When it is malformed, or decodes to more than anybody needs.
    pub fn decode(&mut self, block: &[u8], each: &mut impl FnMut(&[u8], &[u8])) -> Result<(), Broken> {
        let (mut name, mut value) = (std::mem::take(&mut self.name), std::mem::take(&mut self.value));
        let result = self.fields(block, &mut name, &mut value, each);
        (self.name, self.value) = (name, value);
        result.ok_or(Broken)
    }

    fn fields(
        &mut self,
        block: &[u8],
        name: &mut Vec<u8>,
        value: &mut Vec<u8>,
        each: &mut impl FnMut(&[u8], &[u8]),
    ) -> Option<()> {
        let (mut at, mut decoded, mut begun) = (0, 0, false);
        while let Some(first) = block.get(at) {
            let (index_bits, inserts) = match first {
                0x80.. => (7, false),
                0x40.. => (6, true),
                0x20.. => {
                    let size = read_integer(block, &mut at, 5)?;
                    if begun || size > MOST_TABLE {
                        return None;
                    }
                    self.bound(size);
                    continue;
                }
                _ => (4, false),
            };
            begun = true;
            let index = read_integer(block, &mut at, index_bits)?;
            if index_bits == 7 {
                let (name, value) = self.at(index)?;
                decoded += name.len() + value.len();
                each(name, value);
            } else {
                name.clear();
                value.clear();
                match index {
                    0 => string(block, &mut at, name)?,
                    _ => name.extend_from_slice(self.at(index)?.0),
                }
                string(block, &mut at, value)?;
                decoded += name.len() + value.len();
                each(name, value);
                if inserts {
                    self.insert(name, value);
                }
            }
            if decoded > MOST_DECODED {
                return None;
            }
        }
        Some(())
    }

    fn at(&self, index: usize) -> Option<(&[u8], &[u8])> {
        if let Some((name, value)) = STATIC.get(index.checked_sub(1)?) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(index - 1 - STATIC.len())?;
        Some((&entry.name, &entry.value))
    }

    fn insert(&mut self, name: &[u8], value: &[u8]) {
        self.changes += 1;
        self.size += name.len() + value.len() + OVERHEAD;
        // What is larger than the whole table empties it (4.4).
        self.entries.push_front(Entry { name: name.to_vec(), value: value.to_vec() });
        self.evict();
    }

    fn bound(&mut self, size: usize) {
        self.changes += 1;
        self.below = MOST_TABLE - size;
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > MOST_TABLE - self.below {
            let Some(entry) = self.entries.pop_back() else { return };
            self.size -= entry.name.len() + entry.value.len() + OVERHEAD;
        }
    }
}

fn string(block: &[u8], at: &mut usize, out: &mut Vec<u8>) -> Option<()> {
    let packed = block.get(*at)? & 0x80 != 0;
    let length = read_integer(block, at, 7)?;
    let bytes = block.get(*at..*at + length)?;
    *at += length;
    if packed {
        return huffman::decode(bytes, out);
    }
    out.extend_from_slice(bytes);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(decoder: &mut Decoder, hex: &str) -> Result<Vec<String>, Broken> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
        let block: Vec<u8> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("hexadecimal"))
            .collect();
        let mut fields = Vec::new();
        decoder.decode(&block, &mut |name, value| {
            fields.push(format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
        })?;
        Ok(fields)
    }

    /// RFC 7541 C.4 and C.6: Huffman-coded requests and responses on one connection each.
    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let mut decoder = Decoder::default();
        let first = decoded(&mut decoder, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff").expect("good");
        assert_eq!(first, [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"]);
        let second = decoded(&mut decoder, "8286 84be 5886 a8eb 1064 9cbf").expect("good");
        assert_eq!(second[3..], [":authority: www.example.com", "cache-control: no-cache"]);
        let third = decoded(&mut decoder, "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf").expect("good");
        assert_eq!(third[3..], [":authority: www.example.com", "custom-key: custom-value"]);
        assert_eq!((decoder.entries.len(), decoder.size, decoder.changes()), (3, 164, 3));
    }

    #[test]
    fn a_smaller_table_forgets_and_a_larger_entry_empties() {
        let mut decoder = Decoder::default();
        decoded(&mut decoder, "4001 6101 62").expect("good");
        assert_eq!(decoded(&mut decoder, "be"), Ok(vec!["a: b".to_owned()]));
        // The bound 34 holds it, 33 does not.
        assert_eq!(decoded(&mut decoder, "3f03 be"), Ok(vec!["a: b".to_owned()]));
        assert_eq!(decoded(&mut decoder, "3f02 be"), Err(Broken));
        assert_eq!(decoded(&mut decoder, "4001 6101 62"), Ok(vec!["a: b".to_owned()]));
        assert_eq!((decoder.entries.len(), decoder.size), (0, 0));
    }

    #[test]
    fn malformed_blocks_are_refused() {
        for hex in ["80", "be", "ff ff ff ff ff ff", "40", "4001", "4001 61 05 62", "82 20", "3f e2 1f", "00 81 ff 00"]
        {
            assert_eq!(decoded(&mut Decoder::default(), hex), Err(Broken), "{hex}");
        }
        // A bomb: one large entry, named over and over.
        let mut block = vec![0x40, 1, b'a', 0x7f, 0xa1, 0x1e];
        block.resize(6 + 4000, b'x');
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&block, &mut |_, _| {}), Ok(()));
        assert_eq!(decoder.decode(&[0xbe; 60], &mut |_, _| {}), Ok(()));
        assert_eq!(decoder.decode(&[0xbe; 80], &mut |_, _| {}), Err(Broken));
    }
}
