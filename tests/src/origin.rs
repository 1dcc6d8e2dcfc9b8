//! An origin that plays a script on each connection, one thread each.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A running origin.
pub struct Origin {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

/// One accepted connection, in the hands of the script.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Its number, from 0.
    pub number: usize,
}

impl Origin {
    /// Plays the script on every connection.
    pub fn start(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        let accepted = Arc::new(AtomicUsize::new(0));
        let (count, script) = (accepted.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let script = script.clone();
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
                    stream.set_nodelay(true).expect("a socket option");
                    script(&mut Connection { stream, buffer: Vec::new(), number });
                });
            }
        });
        Origin { address, accepted }
    }

    /// Answers every request with its path as the body; bodies are read and counted in `X-Body`.
    pub fn echo() -> Origin {
        Origin::start(|connection| {
            while let Some(head) = connection.head() {
                let body = connection.body(&head);
                let path = head.split(' ').nth(1).unwrap_or("").to_owned();
                let content = if head.starts_with("HEAD ") { "" } else { path.as_str() };
                connection.send(format!(
                    "HTTP/1.1 200 OK\r\nX-Body: {}\r\nContent-Length: {}\r\n\r\n{content}",
                    body.len(),
                    path.len()
                ));
            }
        })
    }

    /// Answers every request with its own head as the body.
    pub fn mirror() -> Origin {
        Origin::start(|connection| {
            while let Some(head) = connection.head() {
                connection.body(&head);
                connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len()));
            }
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// A gateway's configuration that sends everything here, with further lines for each table.
    pub fn config(&self, listener: &str, route: &str, cluster: &str) -> String {
        format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n{listener}\n[[route]]\ncluster = \"origin\"\n{route}\n[[cluster]]\nname = \"origin\"\nendpoints = [\"{}\"]\n{cluster}\n",
            self.address
        )
    }
}

impl Connection {
    fn more(&mut self) -> bool {
        let mut chunk = [0; 65_536];
        match self.stream.read(&mut chunk) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                true
            }
        }
    }

    /// Reads a request head, with its blank line; none at the end of the connection.
    pub fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..at + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Reads a line with its end; none when the peer has ended.
    pub fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            match self.read(1).pop() {
                Some(byte) => line.push(byte),
                None => return None,
            }
        }
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    /// Reads so many bytes, or fewer at the end.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count && self.more() {}
        let count = count.min(self.buffer.len());
        self.buffer.drain(..count).collect()
    }

    /// Reads the body that a head announces, with its framing if it is chunked.
    pub fn body(&mut self, head: &str) -> Vec<u8> {
        if let Some(length) = crate::client::field(head, "content-length") {
            return self.read(length.parse().expect("a length"));
        }
        if crate::client::field(head, "transfer-encoding").is_none() {
            return Vec::new();
        }
        loop {
            if let Some(at) = self.buffer.windows(5).position(|window| window == b"0\r\n\r\n") {
                return self.buffer.drain(..at + 5).collect();
            }
            if let Some(at) = self.buffer.windows(3).position(|window| window == b"0\r\n")
                && self.buffer[at..].windows(4).any(|window| window == b"\r\n\r\n")
            {
                return std::mem::take(&mut self.buffer);
            }
            if !self.more() {
                return std::mem::take(&mut self.buffer);
            }
        }
    }

    /// Sends bytes; a proxy that has left is no error here.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The test sees what the client got.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Ends the write side.
    pub fn finish(&mut self) {
        // The proxy may have left.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection by a reset: unread bytes at a close do that.
    pub fn reset(&mut self) {
        // A byte is peeked for, so that there is something unread when the socket is closed.
        let _ = self.stream.peek(&mut [0]);
        // Dropping the stream with unread bytes resets it.
    }

    /// Waits until the proxy has closed.
    pub fn wait_for_end(&mut self) {
        while self.more() {}
    }
}
