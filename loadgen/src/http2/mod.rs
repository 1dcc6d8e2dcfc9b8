//! HTTP/2 as generator and origin speak it: frames, header compression and flow control, pulled from and written to
//! plain buffers. It is our own and small because generator and origin share a core with each other: what they cost is
//! taken from what they can show. It knows heads only as far as a measurement needs them. No IO, no clock.

pub mod decode;
pub mod encode;
pub mod grpc;
pub mod head;
mod huffman;
pub mod link;
mod table;

/// What a client's connection begins with (RFC 9113 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Error codes (RFC 9113 7).
pub mod code {
    /// All is well.
    pub const NO_ERROR: u32 = 0;
    /// A rule was broken.
    pub const PROTOCOL_ERROR: u32 = 1;
    /// It is the sender's own fault.
    pub const INTERNAL_ERROR: u32 = 2;
    /// More was sent than there was credit for.
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    /// A frame's length is not what its type allows.
    pub const FRAME_SIZE_ERROR: u32 = 6;
    /// Nothing was done: it may be sent again.
    pub const REFUSED_STREAM: u32 = 7;
    /// It is not wanted any more.
    pub const CANCEL: u32 = 8;
    /// A header block cannot be decoded.
    pub const COMPRESSION_ERROR: u32 = 9;
    /// The peer does too much.
    pub const ENHANCE_YOUR_CALM: u32 = 11;

    /// Their names in reports, by number; what is beyond them is unknown.
    pub const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
}

/// `count` bytes of a unit that is repeated without end, from a byte of it on.
pub fn pieces(unit: &[u8], mut from: usize, mut count: usize) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let here = count.min(unit.len() - from);
        let piece = &unit[from..from + here];
        count -= here;
        from = (from + here) % unit.len();
        (here > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn pieces_go_round() {
        let all = |from, count| super::pieces(b"abc", from, count).collect::<Vec<_>>().concat();
        assert_eq!(all(0, 7), b"abcabca");
        assert_eq!(all(2, 2), b"ca");
        assert_eq!(all(1, 0), b"");
    }
}
