//! The bounds of a message head.

/// What a head may measure. Beyond it: 431, or 414 for the request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head; 64 KiB, a little above Envoy's 60.
    pub head_bytes: usize,
    /// Fields; 100 as in Envoy and HAProxy, never above 128.
    pub fields: usize,
    /// Bytes of the request line; 8 KiB as in nginx.
    pub request_line: usize,
}

/// Fields are marked in a 128-bit set.
pub const MAX_FIELDS: usize = 128;

impl Default for Limits {
    fn default() -> Limits {
        Limits { head_bytes: 64 * 1024, fields: 100, request_line: 8 * 1024 }
    }
}
