//! The PROXY protocol, versions 1 and 2, as HAProxy's `doc/proxy-protocol.txt` defines it: read and written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Whom a proxied connection is between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What it connected to.
    pub destination: SocketAddr,
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The sender speaks for itself (a health check), or does not know.
    Local,
    /// It speaks for a client.
    Proxied(Addresses),
}

/// The bytes are no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHeader;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its CRLF.
const MAX_LINE: usize = 107;
/// What version 2 may carry beside the addresses (TLVs).
const MAX_EXTRA: usize = 4096;

/// Reads a header and how many bytes it takes; `None` needs more.
///
/// # Errors
/// When it is neither version.
pub fn parse(buf: &[u8]) -> Result<Option<(Header, usize)>, BadHeader> {
    let signed = buf.len().min(SIGNATURE.len());
    if buf[..signed] == SIGNATURE[..signed] {
        return if buf.len() < 16 { Ok(None) } else { version2(buf) };
    }
    let prefix = buf.len().min(6);
    if buf[..prefix] != b"PROXY "[..prefix] {
        return Err(BadHeader);
    }
    match buf.iter().position(|byte| *byte == b'\n') {
        Some(lf) if lf < MAX_LINE && lf > 0 && buf[lf - 1] == b'\r' => {
            let line = std::str::from_utf8(&buf[6..lf - 1]).map_err(|_| BadHeader)?;
            Ok(Some((version1(line)?, lf + 1)))
        }
        None if buf.len() < MAX_LINE => Ok(None),
        _ => Err(BadHeader),
    }
}

fn version1(line: &str) -> Result<Header, BadHeader> {
    let mut words = line.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Header::Local);
    }
    let (Some(source), Some(destination), Some(source_port), Some(destination_port), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BadHeader);
    };
    let address = |ip: &str, port: &str| -> Result<SocketAddr, BadHeader> {
        let ip: IpAddr = ip.parse().map_err(|_| BadHeader)?;
        if !(matches!((family, ip), (Some("TCP4"), IpAddr::V4(_)) | (Some("TCP6"), IpAddr::V6(_))))
            || port.starts_with('+')
        {
            return Err(BadHeader);
        }
        Ok(SocketAddr::new(ip, port.parse().map_err(|_| BadHeader)?))
    };
    Ok(Header::Proxied(Addresses {
        source: address(source, source_port)?,
        destination: address(destination, destination_port)?,
    }))
}

fn version2(buf: &[u8]) -> Result<Option<(Header, usize)>, BadHeader> {
    let length = usize::from(u16::from_be_bytes([buf[14], buf[15]]));
    if buf[12] >> 4 != 2 || length > MAX_EXTRA {
        return Err(BadHeader);
    }
    let Some(body) = buf.get(16..16 + length) else {
        return Ok(None);
    };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let header = match (buf[12] & 0x0f, buf[13]) {
        (0, _) => Header::Local,
        (1, 0x11) if length >= 12 => {
            let ip = |at: usize| IpAddr::V4(Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]));
            Header::Proxied(Addresses {
                source: SocketAddr::new(ip(0), port(8)),
                destination: SocketAddr::new(ip(4), port(10)),
            })
        }
        (1, 0x21) if length >= 36 => {
            let ip =
                |at: usize| IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&body[at..at + 16]).unwrap_or_default()));
            Header::Proxied(Addresses {
                source: SocketAddr::new(ip(0), port(32)),
                destination: SocketAddr::new(ip(16), port(34)),
            })
        }
        // Unix sockets, datagrams and unknown families say nothing about an IP peer.
        (1, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => Header::Local,
        _ => return Err(BadHeader),
    };
    Ok(Some((header, 16 + length)))
}

/// Writes version 1.
pub fn write_v1(out: &mut Vec<u8>, addresses: Option<&Addresses>) {
    let line = match addresses {
        Some(Addresses { source, destination }) if source.is_ipv4() == destination.is_ipv4() => format!(
            "PROXY {} {} {} {} {}\r\n",
            if source.is_ipv4() { "TCP4" } else { "TCP6" },
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        ),
        _ => "PROXY UNKNOWN\r\n".to_owned(),
    };
    out.extend_from_slice(line.as_bytes());
}

/// Writes version 2.
pub fn write_v2(out: &mut Vec<u8>, addresses: Option<&Addresses>) {
    out.extend_from_slice(&SIGNATURE);
    match addresses.map(|addresses| (addresses.source, addresses.destination)) {
        Some((SocketAddr::V4(source), SocketAddr::V4(destination))) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
            out.extend_from_slice(&source.ip().octets());
            out.extend_from_slice(&destination.ip().octets());
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
        }
        Some((SocketAddr::V6(source), SocketAddr::V6(destination))) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
            out.extend_from_slice(&source.ip().octets());
            out.extend_from_slice(&destination.ip().octets());
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
        }
        _ => out.extend_from_slice(&[0x20, 0x00, 0, 0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_from_any_split() {
        for (source, destination) in [("10.1.2.3:4567", "10.9.8.7:80"), ("[2001:db8::1]:4567", "[2001:db8::2]:443")] {
            let addresses = Addresses {
                source: source.parse().expect("address"),
                destination: destination.parse().expect("address"),
            };
            for write in [write_v1, write_v2] {
                let mut bytes = Vec::new();
                write(&mut bytes, Some(&addresses));
                for length in 0..bytes.len() {
                    assert_eq!(parse(&bytes[..length]), Ok(None), "at {length}");
                }
                bytes.extend_from_slice(b"GET /");
                assert_eq!(parse(&bytes), Ok(Some((Header::Proxied(addresses), bytes.len() - 5))));
            }
        }
    }

    #[test]
    fn garbage_is_refused() {
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n",
            b"PROXY TCP4 1.2.3.4\n",
        ] {
            assert_eq!(parse(bad), Err(BadHeader), "{bad:?}");
        }
        assert_eq!(parse(&[b'P'; 200]), Err(BadHeader));
    }
}
