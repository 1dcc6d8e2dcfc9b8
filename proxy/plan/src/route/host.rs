//! Host names as routes see them.

/// Longest host name that can match (RFC 1035: 255 bytes).
pub const MAX_HOST: usize = 255;

/// The host without its port and without a final dot. (What comes here was found to be a host with at most a port: no colon
/// but the port's stands before nothing but digits, since an IPv6 address is in brackets.)
#[inline]
pub fn bare(host: &[u8]) -> &[u8] {
    let digits = host.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let bare = host[..host.len() - digits].strip_suffix(b":").unwrap_or(host);
    bare.strip_suffix(b".").unwrap_or(bare)
}

/// In lower case.
#[inline]
pub fn lower<'a>(bare: &[u8], out: &'a mut [u8; MAX_HOST]) -> Option<&'a [u8]> {
    let out = out.get_mut(..bare.len())?;
    out.copy_from_slice(bare);
    out.make_ascii_lowercase();
    Some(out)
}

/// What of a name a wildcard may stand before, the longest first: it stands for at least one label.
#[inline]
pub fn suffixes(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = name.get(1..).unwrap_or_default();
    std::iter::from_fn(move || {
        let at = rest.iter().position(|byte| *byte == b'.')?;
        let suffix = &rest[at..];
        rest = &suffix[1..];
        Some(suffix)
    })
}

/// The lengths that names have. Most hosts that no entry names have a length that none has, and are not hashed then.
#[derive(Clone, Copy, Default)]
pub struct Lengths([u64; 4]);

impl Lengths {
    /// Notes a name's length; none is longer than [`MAX_HOST`].
    pub fn note(&mut self, name: &[u8]) {
        self.0[name.len() / 64 % 4] |= 1 << (name.len() % 64);
    }

    /// Whether a name is as long as one that was noted.
    #[inline]
    pub fn has(&self, name: &[u8]) -> bool {
        self.0[name.len() / 64 % 4] >> (name.len() % 64) & 1 == 1
    }

    /// Whether none was noted.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }
}

/// Whether a pattern in lower case, exact or `*.example.com`, names a host. A wildcard stands for at least one label.
pub fn names_host(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    match pattern.strip_prefix('*') {
        Some(suffix) => {
            host.len() > suffix.len()
                && host.is_char_boundary(host.len() - suffix.len())
                && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
        }
        None => host.eq_ignore_ascii_case(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_final_dots_are_no_part_of_a_name() {
        let cases = [
            ("a.example", "a.example"),
            ("a.example:80", "a.example"),
            ("a.example.:80", "a.example"),
            ("a.example:", "a.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1:8080", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[2001:db8::1]:443", "[2001:db8::1]"),
            ("host9", "host9"),
            ("", ""),
            (":80", ""),
        ];
        for (host, name) in cases {
            assert_eq!(String::from_utf8_lossy(bare(host.as_bytes())), name, "{host}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_a_label_or_more() {
        let all = |name: &'static str| {
            suffixes(name.as_bytes()).map(|part| std::str::from_utf8(part).expect("ASCII")).collect::<Vec<_>>()
        };
        assert_eq!(all("a.b.example"), [".b.example", ".example"]);
        assert_eq!(all(".b.example"), [".example"]);
        assert_eq!(all("a..b"), ["..b", ".b"]);
        assert!(all("localhost").is_empty() && all("").is_empty());
    }
}
