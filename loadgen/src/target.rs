//! What a run aims at: a URL, taken apart.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

/// A name that is not resolved by then does not resolve.
const RESOLVE: std::time::Duration = std::time::Duration::from_secs(3);

/// How the target is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1 over TCP.
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// Bytes that come back as they were sent, over TCP.
    Echo,
}

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its scheme.
    pub scheme: Scheme,
    /// Host and port as written: what the Host field says.
    pub authority: String,
    /// The host alone.
    pub host: String,
    /// The port, or the scheme's.
    pub port: u16,
    /// Path and query, `/` if there is none.
    pub path: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Https => write!(f, "https://{}{}", self.authority, self.path),
            Scheme::Http => write!(f, "http://{}{}", self.authority, self.path),
            Scheme::Echo => write!(f, "tcp://{}", self.authority),
        }
    }
}

impl Target {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(url: &str) -> Result<Target, String> {
        let wrong = |what: &str| format!("\"{}\" cannot be aimed at: {what}", url.escape_default());
        if url.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(wrong("a URL has no white space or control characters"));
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it begins with http:// or tcp://"))?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "tcp" => Scheme::Echo,
            "https" => Scheme::Https,
            other => return Err(wrong(&format!("the scheme {other} is not known; use http://, https:// or tcp://"))),
        };
        let rest = rest.split('#').next().unwrap_or(rest);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(wrong("user names in URLs are not sent; use --header \"Authorization: ...\""));
        }
        let (host, port) = split_authority(authority).map_err(|what| wrong(&what))?;
        let port = match (port, scheme) {
            (Some(port), _) => port,
            (None, Scheme::Http) => 80,
            (None, Scheme::Https) => 443,
            (None, Scheme::Echo) => return Err(wrong("tcp:// needs a port")),
        };
        if scheme == Scheme::Echo && !matches!(path, "" | "/") {
            return Err(wrong("tcp:// has no path"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Target { scheme, authority: authority.to_owned(), host: host.to_owned(), port, path })
    }

    /// The first address behind the name. It may block, before anything runs; the system's resolver asks unreachable
    /// servers for as long as its own configuration says, so it is left behind after a while.
    ///
    /// # Errors
    /// When the name does not resolve.
    pub fn resolve(&self) -> Result<SocketAddr, String> {
        let name = (self.host.clone(), self.port);
        let (found, finding) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // Whoever asked may have stopped waiting.
            let _ = found.send(name.to_socket_addrs().map(|mut addresses| addresses.next()));
        });
        match finding.recv_timeout(RESOLVE) {
            Ok(Ok(Some(address))) => Ok(address),
            Ok(Ok(None)) => Err(format!("{} resolves to no address", self.host)),
            Ok(Err(error)) => Err(format!("{} does not resolve: {error}", self.host)),
            Err(_) => Err(format!("{} does not resolve within {} s", self.host, RESOLVE.as_secs())),
        }
    }
}

fn split_authority(authority: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("an IPv6 address ends with ]")?;
        (host, rest)
    } else {
        authority.split_at(authority.find(':').unwrap_or(authority.len()))
    };
    if host.is_empty() {
        return Err("it has no host".to_owned());
    }
    match port.strip_prefix(':') {
        Some(digits) => match digits.parse::<u16>() {
            Ok(port @ 1..) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok((host, Some(port))),
            _ => Err(format!("\"{digits}\" is no port (1 to 65535)")),
        },
        None if port.is_empty() => Ok((host, None)),
        None => Err(format!("\"{port}\" after the address is no port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("http://localhost:8080/a?b=c#d").expect("good");
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("localhost", 8080, "/a?b=c"));
        assert_eq!(target.authority, "localhost:8080");
        assert_eq!(Target::parse("http://[::1]:80?x").expect("good").path, "/?x");
        assert_eq!(Target::parse("http://example.com").expect("good").port, 80);
        assert_eq!(Target::parse("tcp://127.0.0.1:9").expect("good").scheme, Scheme::Echo);
    }

    #[test]
    fn malformed_ones_say_what_is_wrong() {
        let cases = [
            ("localhost:80", "begins with"),
            ("ftp://x/", "not known"),
            ("http://", "no host"),
            ("http://:80/", "no host"),
            ("http://x:0/", "no port"),
            ("http://x:99999/", "no port"),
            ("http://x:+80/", "no port"),
            ("http://[::1/", "ends with ]"),
            ("http://[::1]x/", "no port"),
            ("http://u:p@x/", "Authorization"),
            ("http://x/a b", "white space"),
            ("tcp://x", "needs a port"),
            ("tcp://x:1/path", "no path"),
        ];
        for (url, part) in cases {
            let error = Target::parse(url).expect_err(url);
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}
