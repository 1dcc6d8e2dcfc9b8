//! Messages of gRPC in a body: a flag, a length of four bytes, and so many bytes each.

/// How many messages go which way in a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// One each.
    #[default]
    Unary,
    /// Many are answered with one.
    Client,
    /// One is answered with many.
    Server,
    /// Each is answered with one, and the next follows the answer.
    Bidirectional,
}

impl Kind {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Unary => "unary",
            Kind::Client => "client",
            Kind::Server => "server",
            Kind::Bidirectional => "bidi",
        }
    }

    /// The one of that name.
    ///
    /// # Errors
    /// The names that there are.
    pub fn named(name: &str) -> Result<Kind, String> {
        [Kind::Unary, Kind::Client, Kind::Server, Kind::Bidirectional]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| format!("\"{name}\" is no kind of call: they are unary, client, server or bidi"))
    }

    /// The method that our own origin answers so.
    pub fn method(self) -> &'static str {
        match self {
            Kind::Unary => "/onehop.Load/Unary",
            Kind::Client => "/onehop.Load/ClientStream",
            Kind::Server => "/onehop.Load/ServerStream",
            Kind::Bidirectional => "/onehop.Load/BidiStream",
        }
    }

    /// How our own origin answers a method: by the end of its name.
    pub fn of_path(path: &[u8]) -> Kind {
        [Kind::Client, Kind::Server, Kind::Bidirectional]
            .into_iter()
            .find(|kind| kind.method().rsplit('/').next().is_some_and(|name| path.ends_with(name.as_bytes())))
            .unwrap_or_default()
    }
}

/// Bytes before each message.
pub const PREFIX: usize = 5;

/// A message as it travels.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut out = prefix(message.len()).to_vec();
    out.extend_from_slice(message);
    out
}

/// What stands before a message of so many bytes, which is not compressed.
pub fn prefix(length: usize) -> [u8; PREFIX] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [0, length[0], length[1], length[2], length[3]]
}

/// Takes messages apart, however they are cut.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    prefix: [u8; PREFIX],
    have: usize,
    left: u32,
    /// Whole messages so far.
    pub count: u64,
    /// One was not as long as it should be, or its flag is none.
    pub wrong: bool,
}

impl Messages {
    /// Takes bytes of a body. `length`: what each message should have.
    pub fn take(&mut self, mut bytes: &[u8], length: Option<u64>) {
        while !bytes.is_empty() {
            if self.have < PREFIX {
                let count = bytes.len().min(PREFIX - self.have);
                self.prefix[self.have..self.have + count].copy_from_slice(&bytes[..count]);
                self.have += count;
                bytes = &bytes[count..];
                if self.have < PREFIX {
                    return;
                }
                let [flag, a, b, c, d] = self.prefix;
                self.left = u32::from_be_bytes([a, b, c, d]);
                self.wrong |= flag > 1 || length.is_some_and(|length| length != u64::from(self.left));
            }
            let count = bytes.len().min(self.left as usize);
            self.left -= count as u32;
            bytes = &bytes[count..];
            if self.left == 0 {
                self.count += 1;
                self.have = 0;
            }
        }
    }

    /// Whether nothing is half taken.
    pub fn is_whole(&self) -> bool {
        self.have == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let bytes = [frame(b"hello"), frame(b""), frame(b"world")].concat();
        for cut in 1..=bytes.len() {
            let mut messages = Messages::default();
            bytes.chunks(cut).for_each(|part| messages.take(part, None));
            assert_eq!((messages.count, messages.is_whole(), messages.wrong), (3, true, false));
            let mut messages = Messages::default();
            bytes[..bytes.len() - 1].chunks(cut).for_each(|part| messages.take(part, Some(5)));
            assert_eq!((messages.count, messages.is_whole(), messages.wrong), (2, false, true));
        }
    }

    #[test]
    fn methods_say_how_they_are_answered() {
        for kind in [Kind::Unary, Kind::Client, Kind::Server, Kind::Bidirectional] {
            assert_eq!(Kind::of_path(kind.method().as_bytes()), kind);
            assert_eq!(Kind::named(kind.name()), Ok(kind));
        }
        assert_eq!(Kind::of_path(b"/any.Other/Method"), Kind::Unary);
    }
}
