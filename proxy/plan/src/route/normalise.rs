//! The path as routes see it. Two spellings that some upstream reads as one path must take one route, or a rule could
//! be walked around: `/a/../admin`, `%2e%2e`, `//admin`, `/admin%2f`.
//!
//! The rule, in this order (RFC 3986 6.2.2, and what Envoy's and Istio's strictest setting does): escapes of unreserved
//! characters are decoded and the others written in capitals; empty segments merge; dot segments are removed, and one
//! that would leave the root is refused, as are `%00` and broken escapes. An encoded slash or a backslash counts as a
//! slash for matching, and is forwarded as it came.

/// What an encoded slash (`%2F`, `%5C`, a backslash) is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodedSlash {
    /// A slash for matching; forwarded as it came.
    #[default]
    Slash,
    /// A character like any other.
    Keep,
    /// A reason to refuse the request.
    Reject,
}

/// A listener's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// Off: paths are matched and forwarded as they came.
    pub normalise: bool,
    /// `//` is `/`.
    pub merge_slashes: bool,
    /// What an encoded slash is.
    pub encoded_slash: EncodedSlash,
}

impl Default for PathRule {
    fn default() -> PathRule {
        PathRule { normalise: true, merge_slashes: true, encoded_slash: EncodedSlash::Slash }
    }
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// A percent sign without two hexadecimal digits.
    Escape,
    /// `%00`.
    Nul,
    /// More `..` than segments before it.
    AboveRoot,
    /// An encoded slash where the listener refuses them.
    EncodedSlash,
}

/// Buffers for paths that are not in normal form, kept by whoever routes.
#[derive(Default)]
pub struct PathBuffers {
    matched: Vec<u8>,
    forwarded: Vec<u8>,
}

/// A path in normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Normal<'a> {
    /// What routes are matched against.
    pub matched: &'a [u8],
    /// What is forwarded.
    pub forwarded: &'a [u8],
}

impl PathRule {
    /// Brings a path to its normal form; one that is in it is only looked at.
    ///
    /// # Errors
    /// Why the path is refused.
    pub fn apply<'a>(&self, path: &'a [u8], buffers: &'a mut PathBuffers) -> Result<Normal<'a>, BadPath> {
        let path = if path.is_empty() { b"/" } else { path };
        if !self.normalise || is_normal(path) || path[0] != b'/' {
            return Ok(Normal { matched: path, forwarded: path });
        }
        let encoded = write(path, &mut buffers.forwarded, self.merge_slashes, false)?;
        match (encoded, self.encoded_slash) {
            (false, _) | (_, EncodedSlash::Keep) => {
                Ok(Normal { matched: &buffers.forwarded, forwarded: &buffers.forwarded })
            }
            (true, EncodedSlash::Reject) => Err(BadPath::EncodedSlash),
            (true, EncodedSlash::Slash) => {
                // Of what the upstream will read, not of what came.
                write(&buffers.forwarded, &mut buffers.matched, self.merge_slashes, true)?;
                Ok(Normal { matched: &buffers.matched, forwarded: &buffers.forwarded })
            }
        }
    }
}

/// Whether nothing in a path could be written otherwise: no escape, no backslash, no empty and no dot segment.
fn is_normal(path: &[u8]) -> bool {
    let mut before = 0;
    for byte in path {
        let suspicious = matches!(byte, b'%' | b'\\') || (before == b'/' && matches!(byte, b'/' | b'.'));
        if suspicious {
            return false;
        }
        before = *byte;
    }
    true
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

/// Writes the normal form; says whether an encoded slash was met.
fn write(path: &[u8], out: &mut Vec<u8>, merge: bool, decode_slash: bool) -> Result<bool, BadPath> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.clear();
    out.push(b'/');
    let mut segment = 1;
    let mut met = false;
    let mut at = 1;
    while at < path.len() {
        let mut byte = path[at];
        at += 1;
        let mut escaped = false;
        if byte == b'%' {
            let pair = path.get(at).zip(path.get(at + 1)).and_then(|(high, low)| Some(hex(*high)? << 4 | hex(*low)?));
            byte = pair.ok_or(BadPath::Escape)?;
            at += 2;
            escaped = !is_unreserved(byte);
            if byte == 0 {
                return Err(BadPath::Nul);
            }
        }
        let is_hidden_slash = byte == b'\\' || (byte == b'/' && escaped);
        met |= is_hidden_slash;
        if (byte == b'/' && !escaped) || (is_hidden_slash && decode_slash) {
            close(out, segment, merge)?;
            segment = out.len();
        } else if escaped {
            out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        } else {
            out.push(byte);
        }
    }
    if matches!(&out[segment..], b"." | b"..") {
        close(out, segment, merge)?;
    }
    Ok(met)
}

/// Ends a segment at a slash.
fn close(out: &mut Vec<u8>, segment: usize, merge: bool) -> Result<(), BadPath> {
    match &out[segment..] {
        b"." => out.truncate(segment),
        b".." => {
            if segment == 1 {
                return Err(BadPath::AboveRoot);
            }
            let parent = out[..segment - 1].iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            out.truncate(parent + 1);
        }
        b"" if merge => {}
        _ => out.push(b'/'),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(path: &str, rule: PathRule) -> Result<(String, String), BadPath> {
        let mut buffers = PathBuffers::default();
        let normal = rule.apply(path.as_bytes(), &mut buffers)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(normal.matched), text(normal.forwarded)))
    }

    #[test]
    fn every_spelling_of_a_path_is_one_path() {
        for spelling in [
            "/admin",
            "//admin",
            "/./admin",
            "/a/../admin",
            "/%61dmin",
            "/a/%2e%2e/admin",
            "/a/%2E./admin",
            "/a/b/../../admin",
            "/a//../admin",
        ] {
            let (matched, forwarded) = apply(spelling, PathRule::default()).expect("a path");
            assert_eq!((matched.as_str(), forwarded.as_str()), ("/admin", "/admin"), "{spelling}");
        }
        for (path, matched, forwarded) in [
            ("", "/", "/"),
            ("/", "/", "/"),
            ("*", "*", "*"),
            ("/admin%2fx", "/admin/x", "/admin%2Fx"),
            ("/admin%5cx", "/admin/x", "/admin%5Cx"),
            ("/admin\\x", "/admin/x", "/admin\\x"),
            ("/a%2f..%2fadmin", "/admin", "/a%2F..%2Fadmin"),
            ("/a/..", "/", "/"),
            ("/a/.", "/a/", "/a/"),
            ("/a/b/..", "/a/", "/a/"),
            ("/a%20b%c3%a9", "/a%20b%C3%A9", "/a%20b%C3%A9"),
            ("/.hidden/..x/x..", "/.hidden/..x/x..", "/.hidden/..x/x.."),
        ] {
            assert_eq!(apply(path, PathRule::default()), Ok((matched.to_owned(), forwarded.to_owned())), "{path}");
        }
    }

    #[test]
    fn what_no_upstream_should_see_is_refused() {
        for (path, reason) in [
            ("/..", BadPath::AboveRoot),
            ("/a/../../b", BadPath::AboveRoot),
            ("/%2e%2e/x", BadPath::AboveRoot),
            ("/..%2fx", BadPath::AboveRoot),
            ("/%", BadPath::Escape),
            ("/%4", BadPath::Escape),
            ("/%zz", BadPath::Escape),
            ("/%+1", BadPath::Escape),
            ("/a%00", BadPath::Nul),
        ] {
            assert_eq!(apply(path, PathRule::default()), Err(reason), "{path}");
        }
        let strict = PathRule { encoded_slash: EncodedSlash::Reject, ..PathRule::default() };
        assert_eq!(apply("/a%2fb", strict), Err(BadPath::EncodedSlash));
    }

    #[test]
    fn each_part_of_the_rule_can_be_turned_off() {
        let off = PathRule { normalise: false, ..PathRule::default() };
        assert_eq!(apply("/a/../%zz", off), Ok(("/a/../%zz".to_owned(), "/a/../%zz".to_owned())));
        let apart = PathRule { merge_slashes: false, ..PathRule::default() };
        assert_eq!(apply("//a//b/..", apart).map(|paths| paths.0), Ok("//a//".to_owned()));
        let kept = PathRule { encoded_slash: EncodedSlash::Keep, ..PathRule::default() };
        assert_eq!(apply("/a%2fb", kept).map(|paths| paths.0), Ok("/a%2Fb".to_owned()));
    }

    #[test]
    fn the_normal_form_is_a_fixed_point() {
        // Every short string over the alphabet that matters.
        let alphabet = ["/", ".", "a", "%2e", "%2F", "\\"];
        let mut words = vec![String::from("/")];
        for _ in 0..5 {
            words =
                words.iter().flat_map(|word| alphabet.iter().map(move |letter| format!("{word}{letter}"))).collect();
            for word in &words {
                let Ok((matched, forwarded)) = apply(word, PathRule::default()) else { continue };
                assert_eq!(apply(&matched, PathRule::default()).map(|paths| paths.0), Ok(matched.clone()), "{word}");
                assert_eq!(apply(&forwarded, PathRule::default()), Ok((matched.clone(), forwarded)), "{word}");
                assert!(!matched.split('/').any(|segment| segment == "." || segment == ".."), "{word} -> {matched}");
            }
        }
    }
}
