//! Host names as routes see them.

/// Longest host name that can match (RFC 1035: 255 bytes).
pub const MAX_HOST: usize = 255;

/// The host without its port, in lower case, without a final dot.
pub fn normalise<'a>(host: &[u8], out: &'a mut [u8; MAX_HOST]) -> Option<&'a [u8]> {
    let bare = match host.iter().rposition(|byte| *byte == b':') {
        // An IPv6 address keeps its brackets, which tell its colons from the port's.
        Some(at) if !host[at..].contains(&b']') => &host[..at],
        _ => host,
    };
    let bare = bare.strip_suffix(b".").unwrap_or(bare);
    let out = out.get_mut(..bare.len())?;
    out.copy_from_slice(bare);
    out.make_ascii_lowercase();
    Some(out)
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
