//! The ClientHello that begins a TLS connection (RFC 8446 4.1.2): the server name and the protocols that the client
//! offers, read without decrypting anything, so that a connection can be routed before, or without, its handshake.

/// Largest ClientHello that is looked at; with post-quantum key shares real ones are about 2 KiB.
pub const MAX_HELLO: usize = 32 * 1024;
/// Records that it may come in. All of them are looked at again with each piece that arrives, and one of a few bytes each
/// would make that dear; libraries fragment by thousands of bytes, and those who hide names by a handful.
pub const MAX_RECORDS: usize = 512;
/// Longest name that can be one (RFC 1035).
const MAX_NAME: usize = 255;
/// Protocols of an ALPN list that are kept.
const MAX_PROTOCOLS: usize = 16;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// What a ClientHello says openly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The name of the server that is wanted, in lower case (RFC 6066 3).
    pub server_name: Option<String>,
    /// The application protocols, in the client's order (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
}

/// The bytes are no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHello;

/// Whether these first bytes may begin a TLS connection; an empty slice may.
pub fn may_begin(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first == HANDSHAKE) && bytes.get(1).is_none_or(|major| *major == 3)
}

/// Reads a ClientHello from the first bytes of a connection; `Ok(None)` when more of them are needed.
///
/// # Errors
/// When they cannot become one.
pub fn parse(bytes: &[u8]) -> Result<Option<ClientHello>, NoHello> {
    let mut message = Vec::new();
    let mut rest = bytes;
    for _ in 0..MAX_RECORDS {
        if !may_begin(rest) {
            return Err(NoHello);
        }
        let Some((header, after)) = rest.split_at_checked(5) else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > 16 * 1024 {
            return Err(NoHello);
        }
        let available = length.min(after.len());
        message.extend_from_slice(&after[..available]);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(NoHello);
        }
        if let [_, high, middle, low, body @ ..] = message.as_slice() {
            let wanted = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if wanted > MAX_HELLO {
                return Err(NoHello);
            }
            if let Some(body) = body.get(..wanted) {
                return read(body).map(Some).ok_or(NoHello);
            }
        }
        if available < length {
            return Ok(None);
        }
        rest = &after[length..];
    }
    Err(NoHello)
}

/// Takes slices off the front; `None` at the first that is not there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A vector behind its length.
    fn vector(&mut self, length_bytes: usize) -> Option<&'a [u8]> {
        let length = self.number(length_bytes)?;
        self.take(length)
    }
}

fn read(body: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(body);
    // Legacy version and random.
    reader.take(2 + 32)?;
    reader.vector(1)?;
    reader.vector(2)?;
    reader.vector(1)?;
    let mut hello = ClientHello::default();
    if reader.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(reader.vector(2)?);
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)? as u16;
        let content = extensions.vector(2)?;
        match kind {
            SERVER_NAME => hello.server_name = server_name(content)?,
            ALPN => hello.alpn = protocols(content)?,
            _ => {}
        }
    }
    Some(hello)
}

/// The host name of a server name list; other kinds of names do not exist.
fn server_name(content: &[u8]) -> Option<Option<String>> {
    let mut list = Reader(Reader(content).vector(2)?);
    while !list.0.is_empty() {
        let kind = list.number(1)?;
        let name = list.vector(2)?;
        if kind == 0 {
            let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            if name.is_empty() || name.len() > MAX_NAME || !name.iter().all(legal) {
                return None;
            }
            let name = String::from_utf8_lossy(name.strip_suffix(b".").unwrap_or(name)).to_ascii_lowercase();
            return Some(Some(name));
        }
    }
    Some(None)
}

fn protocols(content: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut list = Reader(Reader(content).vector(2)?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() && protocols.len() < MAX_PROTOCOLS {
        protocols.push(list.vector(1)?.to_vec());
    }
    Some(protocols)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello with these extensions, cut into records of at most `record` bytes.
    fn hello(extensions: &[(u16, Vec<u8>)], record: usize) -> Vec<u8> {
        let mut list = Vec::new();
        for (kind, content) in extensions {
            list.extend(kind.to_be_bytes());
            list.extend((content.len() as u16).to_be_bytes());
            list.extend(content);
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend([0, 2, 0x13, 1]);
        body.extend([1, 0]);
        body.extend((list.len() as u16).to_be_bytes());
        body.extend(list);
        let mut message = vec![1, 0, (body.len() >> 8) as u8, body.len() as u8];
        message.extend(body);
        let mut out = Vec::new();
        for part in message.chunks(record) {
            out.extend([22, 3, 1]);
            out.extend((part.len() as u16).to_be_bytes());
            out.extend(part);
        }
        out
    }

    fn named(name: &[u8]) -> (u16, Vec<u8>) {
        let mut content = ((name.len() + 3) as u16).to_be_bytes().to_vec();
        content.push(0);
        content.extend((name.len() as u16).to_be_bytes());
        content.extend(name);
        (SERVER_NAME, content)
    }

    #[test]
    fn name_and_protocols_are_read_however_the_hello_is_cut() {
        let alpn = (ALPN, b"\x00\x0c\x02h2\x08http/1.1".to_vec());
        for record in [1, 3, 50, 16 * 1024] {
            let bytes = hello(&[named(b"API.example.com."), alpn.clone()], record);
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut} bytes of {}", bytes.len());
            }
            let hello = parse(&bytes).expect("a hello").expect("whole");
            assert_eq!(hello.server_name.as_deref(), Some("api.example.com"));
            assert_eq!(hello.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        }
    }

    #[test]
    fn what_is_no_hello_is_refused_at_once() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Err(NoHello));
        assert_eq!(parse(&[22, 3, 1, 0, 0]), Err(NoHello));
        assert_eq!(parse(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), Err(NoHello));
        assert_eq!(parse(&[22, 3, 1, 0, 4, 1, 0xff, 0, 0]), Err(NoHello), "longer than any hello");
        assert_eq!(parse(&hello(&[named(b"a\0b")], 4096)), Err(NoHello));
        let padded = [named(b"a"), (21, vec![0; MAX_RECORDS])];
        assert_eq!(parse(&hello(&padded, 1)), Err(NoHello), "in more pieces than anybody makes");
        assert_eq!(parse(&hello(&padded, 2)).map(|hello| hello.is_some()), Ok(true));
        assert_eq!(parse(&hello(&[named(b"")], 4096)), Err(NoHello));
        assert_eq!(parse(&hello(&[(SERVER_NAME, vec![0, 9, 0])], 4096)), Err(NoHello));
        assert_eq!(parse(&hello(&[], 4096)).map(|hello| hello.is_some()), Ok(true));
    }
}
