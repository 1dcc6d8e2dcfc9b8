//! Header blocks that are sent over and over. A field that returns is put into the peer's dynamic table once and named by
//! its number from then on, as browsers and gRPC clients do; nothing is ever evicted, so numbers stay right.

use super::table::{OVERHEAD, STATIC, write_integer};

/// A field, encoded in all ways in which it may be needed.
#[derive(Clone, Debug)]
pub struct Field {
    /// As it stands without the dynamic table.
    plain: Vec<u8>,
    /// As it enters the dynamic table; empty for what never does.
    entering: Vec<u8>,
    /// Its weight there.
    weight: usize,
    /// Which field that returns it is.
    number: Option<usize>,
}

impl Field {
    /// A field. `number`: it returns, and is this one of those that do, counted from zero.
    pub fn new(name: &str, value: &str, number: Option<usize>) -> Field {
        let same = |entry: &&(&str, &str)| **entry == (name, value);
        if let Some(index) = STATIC.iter().position(|entry| same(&entry)) {
            let mut plain = Vec::new();
            write_integer(&mut plain, 0x80, 7, index + 1);
            return Field { plain, entering: Vec::new(), weight: 0, number: None };
        }
        let named = STATIC.iter().position(|(known, _)| *known == name).map_or(0, |index| index + 1);
        let literal = |tag: u8, bits: u32| {
            let mut out = Vec::new();
            write_integer(&mut out, tag, bits, named);
            if named == 0 {
                write_integer(&mut out, 0, 7, name.len());
                out.extend_from_slice(name.as_bytes());
            }
            write_integer(&mut out, 0, 7, value.len());
            out.extend_from_slice(value.as_bytes());
            out
        };
        let (plain, entering) = (literal(0, 4), literal(0x40, 6));
        Field { plain, entering, weight: name.len() + value.len() + OVERHEAD, number }
    }
}

/// Numbers of fields that return, across all that one side sends: equal fields get equal numbers.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    known: Vec<(String, String)>,
}

impl Numbers {
    /// The number of a field that returns.
    pub fn of(&mut self, name: &str, value: &str) -> usize {
        let known = self.known.iter().position(|(n, v)| n == name && v == value);
        known.unwrap_or_else(|| {
            self.known.push((name.to_owned(), value.to_owned()));
            self.known.len() - 1
        })
    }
}

/// The table that a peer may have at most if it says nothing.
pub const DEFAULT_TABLE: usize = 4096;

/// One direction of a connection.
#[derive(Debug)]
pub struct Encoder {
    /// By number: as which insertion a field has entered; zero: it has not.
    entered: Vec<usize>,
    count: usize,
    size: usize,
    limit: usize,
    /// The peer has bounded the table below what it was, and must be told that we know.
    changed: bool,
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder { entered: Vec::new(), count: 0, size: 0, limit: DEFAULT_TABLE, changed: false }
    }
}

impl Encoder {
    /// The peer allows a table of so many bytes. More than the default is not made use of.
    pub fn allow(&mut self, size: usize) {
        if size < self.limit {
            // All is forgotten, which is always right, and hardly ever happens.
            *self = Encoder { limit: size, changed: true, ..Encoder::default() };
        }
    }

    /// Appends a block.
    pub fn encode(&mut self, fields: &[Field], out: &mut Vec<u8>) {
        if std::mem::take(&mut self.changed) {
            write_integer(out, 0x20, 5, 0);
            write_integer(out, 0x20, 5, self.limit);
        }
        for field in fields {
            let Some(number) = field.number else {
                out.extend_from_slice(&field.plain);
                continue;
            };
            match self.entered.get(number) {
                Some(entered @ 1..) => write_integer(out, 0x80, 7, STATIC.len() + 1 + self.count - entered),
                _ if self.size + field.weight > self.limit => out.extend_from_slice(&field.plain),
                _ => {
                    if self.entered.len() <= number {
                        self.entered.resize(number + 1, 0);
                    }
                    self.count += 1;
                    self.size += field.weight;
                    self.entered[number] = self.count;
                    out.extend_from_slice(&field.entering);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::Decoder;
    use super::*;

    fn fields(numbers: &mut Numbers, list: &[(&str, &str)]) -> Vec<Field> {
        list.iter().map(|(name, value)| Field::new(name, value, Some(numbers.of(name, value)))).collect()
    }

    fn read(decoder: &mut Decoder, block: &[u8]) -> Vec<(String, String)> {
        let mut read = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        decoder.decode(block, &mut |name, value| read.push((text(name), text(value)))).expect("good");
        read
    }

    #[test]
    fn what_returns_shrinks_and_means_the_same() {
        let mut numbers = Numbers::default();
        let long = "x".repeat(4000);
        let heads = [
            vec![(":method", "GET"), (":path", "/"), (":authority", "a.test:80"), ("user-agent", "me")],
            vec![(":method", "PUT"), (":path", "/b"), (":authority", "a.test:80"), ("x-large", &long)],
            vec![("grpc-status", "0"), ("x-large", &long), ("user-agent", "me")],
        ];
        let blocks: Vec<Vec<Field>> = heads.iter().map(|head| fields(&mut numbers, head)).collect();
        for limit in [4096, 100, 0] {
            let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
            encoder.allow(limit);
            for turn in 0..3 {
                for (head, block) in heads.iter().zip(&blocks) {
                    let mut out = Vec::new();
                    encoder.encode(block, &mut out);
                    let read = read(&mut decoder, &out);
                    assert!(read.iter().zip(head).all(|((a, b), (c, d))| a == c && b == d), "{limit} {turn} {read:?}");
                    if limit == 4096 && turn > 0 && head[0].1 == "GET" {
                        assert_eq!(out.len(), 4);
                    }
                }
            }
        }
    }

    #[test]
    fn a_table_that_shrinks_later_is_acknowledged() {
        let mut numbers = Numbers::default();
        let block = fields(&mut numbers, &[("a", "b"), ("c", "d")]);
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for allowed in [4096, 8192, 40, 40, 0, 4096] {
            encoder.allow(allowed);
            for _ in 0..2 {
                let mut out = Vec::new();
                encoder.encode(&block, &mut out);
                assert_eq!(read(&mut decoder, &out).len(), 2);
            }
        }
    }
}
