//! A client that sends exactly the bytes it is given and reads answers one by one.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// One connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its head as it came.
    pub head: String,
    /// Its body, unframed.
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: String,
    /// Whether the body ended as its framing says.
    pub whole: bool,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A field's value; the first of several.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// A field of a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).expect("connects"))
    }

    /// Goes on with a connection that was made elsewhere.
    pub fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket option");
        stream.set_nodelay(true).expect("a socket option");
        Client { stream, buffer: Vec::new() }
    }

    /// Sends bytes; a peer that has closed already is no error here.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The answer tells.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Ends the write side.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("open");
    }

    /// A GET and its answer.
    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.response()
    }

    /// Sends and reads one answer.
    pub fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Response {
        self.send(bytes);
        self.response()
    }

    fn more(&mut self) -> bool {
        let mut chunk = [0; 65_536];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer: {error}; so far {:?}", String::from_utf8_lossy(&self.buffer)),
        }
    }

    /// Reads exactly so many bytes, or fewer at the end.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count && self.more() {}
        let count = count.min(self.buffer.len());
        self.buffer.drain(..count).collect()
    }

    /// Reads a line with its end.
    pub fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return String::from_utf8_lossy(&self.read(at + 1)).into_owned();
            }
            if !self.more() {
                return String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned();
            }
        }
    }

    /// Reads a head up to its blank line.
    pub fn head(&mut self) -> String {
        let mut head = String::new();
        loop {
            let line = self.line();
            if line.trim().is_empty() {
                return head;
            }
            head.push_str(&line);
        }
    }

    /// Whether a request head asks for another protocol.
    pub fn wants_upgrade(head: &str) -> bool {
        field(head, "upgrade").is_some()
    }

    /// Reads one answer to anything but HEAD.
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Reads one answer to a method.
    pub fn response_to(&mut self, method: &str) -> Response {
        let head = self.head();
        let status: u16 = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let mut response = Response { status, head, body: Vec::new(), trailers: String::new(), whole: true };
        let bodiless = method == "HEAD" || matches!(status, 100..=199 | 204 | 304 | 0);
        if bodiless {
        } else if response.field("transfer-encoding").is_some() {
            self.chunked(&mut response);
        } else if let Some(length) = response.field("content-length") {
            let length: usize = length.parse().expect("a length");
            response.body = self.read(length);
            response.whole = response.body.len() == length;
        } else {
            while self.more() {}
            response.body = std::mem::take(&mut self.buffer);
        }
        response
    }

    fn chunked(&mut self, response: &mut Response) {
        loop {
            let line = self.line();
            let digits = line.split(';').next().unwrap_or("").trim();
            let Ok(size) = usize::from_str_radix(digits, 16) else {
                response.whole = false;
                return;
            };
            if size == 0 {
                response.trailers = self.head();
                return;
            }
            let chunk = self.read(size);
            response.whole &= chunk.len() == size;
            response.body.extend_from_slice(&chunk);
            self.line();
        }
    }

    /// Whether the peer has ended the connection, in order or by a reset, with nothing left to read.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more()
    }

    /// Whether the connection was reset rather than ended in order.
    pub fn was_reset(&mut self) -> bool {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    /// The stream itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}
