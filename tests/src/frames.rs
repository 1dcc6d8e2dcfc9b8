//! HTTP/2 by hand: frames as a hostile or broken peer writes them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 for the connection's own.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// A client that writes what it is told to.
pub struct Frames {
    stream: TcpStream,
}

/// What a peer did to a message that it did not like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// GOAWAY with this error code.
    Connection(u32),
    /// RST_STREAM of this stream with this error code.
    Stream(u32, u32),
    /// It answered on this stream.
    Answered(u32),
    /// It closed the connection without a word.
    Closed,
}

/// An upstream that plays a script on each connection, a thread each: every byte of it is the script's.
pub fn upstream(script: impl Fn(&mut Frames) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("bound");
    let script = std::sync::Arc::new(script);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let script = script.clone();
            std::thread::spawn(move || script(&mut Frames::accepted(stream)));
        }
    });
    address
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn integer(out: &mut Vec<u8>, value: usize) {
    if value < 127 {
        out.push(value as u8);
        return;
    }
    out.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// A header block of literals, neither indexed nor compressed (RFC 7541 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        integer(&mut out, name.len());
        out.extend(name.as_bytes());
        integer(&mut out, value.len());
        out.extend(value.as_bytes());
    }
    out
}

/// The pseudo-header fields of a GET.
pub const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/")];
/// Those of a POST.
pub const POST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/")];

impl Frames {
    /// Connects and sends the preface and empty SETTINGS.
    pub fn connect(address: SocketAddr) -> Frames {
        let mut client = Frames::bare(address);
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.send(frame(4, 0, 0, &[]));
        client
    }

    /// Connects and sends nothing.
    pub fn bare(address: SocketAddr) -> Frames {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
        stream.set_nodelay(true).expect("a socket option");
        Frames { stream }
    }

    /// What was accepted from a peer, whose bytes are read from their first on.
    pub fn accepted(stream: TcpStream) -> Frames {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
        stream.set_nodelay(true).expect("a socket option");
        Frames { stream }
    }

    /// Reads so many bytes; false when the peer has ended before.
    pub fn skip(&mut self, count: usize) -> bool {
        self.stream.read_exact(&mut vec![0; count]).is_ok()
    }

    /// Greets a proxy as an upstream does, and waits for its first request: the number of the stream.
    pub fn greet(&mut self) -> Option<u32> {
        if !self.skip(24) {
            return None;
        }
        self.send(frame(4, 0, 0, &[]));
        self.until(1).map(|head| head.stream)
    }

    /// Ends the write side.
    pub fn finish(&mut self) {
        // The peer may have closed.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Sends bytes; a peer that has closed is not an error here.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_send(bytes);
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the peer has closed, as far as that is known.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends HEADERS with the block in one frame.
    pub fn headers(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        self.send(frame(1, if end { 5 } else { 4 }, stream, &block(fields)));
    }

    /// The next frame; none at the end of the connection.
    #[allow(
        clippy::should_implement_trait,
        reason = "it waits on a socket, and what follows an end is nobody's business"
    )]
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        if let Err(error) = self.stream.read_exact(&mut head) {
            // Silence is not an end: a test that waits for one would pass by it.
            let waited = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!waited, "neither a frame nor an end");
            return None;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of a type.
    pub fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// The whole of an answer's body, in however many frames.
    pub fn body(&mut self) -> String {
        let mut body = Vec::new();
        loop {
            let frame = self.until(0).expect("more of the body");
            body.extend(frame.payload);
            if frame.flags & 1 == 1 {
                return String::from_utf8_lossy(&body).into_owned();
            }
        }
    }

    /// What becomes of what was sent.
    pub fn verdict(&mut self) -> Verdict {
        let code = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        while let Some(frame) = self.next() {
            match frame.kind {
                1 => return Verdict::Answered(frame.stream),
                3 => return Verdict::Stream(frame.stream, code(&frame.payload)),
                // The first of the two GOAWAYs of an orderly end says nothing yet.
                7 if code(&frame.payload) != 0x7fff_ffff => return Verdict::Connection(code(&frame.payload[4..])),
                _ => {}
            }
        }
        Verdict::Closed
    }
}
