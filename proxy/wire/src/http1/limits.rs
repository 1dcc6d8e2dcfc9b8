//! The bounds of a message head.

/// What a head may measure (in few bytes, since whoever reads a body keeps it). Beyond it: 431, or 414 for the request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head; 64 KiB, a little above Envoy's 60.
    pub head_bytes: u32,
    /// Fields; 100 as in Envoy and HAProxy, never above 128.
    pub fields: u32,
    /// Bytes of the request line; 8 KiB as in nginx.
    pub request_line: u32,
}

/// Fields are marked in a 128-bit set.
pub const MAX_FIELDS: usize = 128;

impl Default for Limits {
    fn default() -> Limits {
        Limits { head_bytes: 64 * 1024, fields: 100, request_line: 8 * 1024 }
    }
}

impl Limits {
    /// Fields that a head may have, also where they are marked in a set.
    pub fn max_fields(&self) -> usize {
        (self.fields as usize).min(MAX_FIELDS)
    }
}
