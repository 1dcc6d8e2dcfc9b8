//! HTTP/2 as it is wanted, on either side.

use std::time::Duration;

/// The version that a cluster's endpoints are spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, a connection for each request under way.
    #[default]
    Http1,
    /// HTTP/2, many requests on a connection; without TLS by prior knowledge (RFC 9113 3.3).
    Http2,
    /// HTTP/2 with the endpoints whose TLS agrees to it (ALPN), HTTP/1.1 with the others.
    Auto,
}

/// How HTTP/2 is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Whether clients may speak it.
    pub enabled: bool,
    /// Streams at once on a connection: what clients are allowed, and what upstreams get at most.
    pub max_streams: u32,
    /// Bytes that a peer may send on a stream before they are consumed.
    pub window: u32,
    /// The same for all streams of a connection together. At least streams times window, so that stalled streams
    /// cannot block the others.
    pub connection_window: Option<u32>,
    /// A connection on which nothing came for so long is asked whether it lives, and closed if it does not answer in as
    /// long again.
    pub ping_interval: Option<Duration>,
    /// How long an upstream may take over one header block, during which nothing else can come of it.
    pub header_timeout: Duration,
    /// How long a client's connection may live before it is told to make a new one (up to a tenth less, at random).
    pub max_age: Option<Duration>,
}

impl Default for Http2 {
    fn default() -> Http2 {
        Http2 {
            enabled: true,
            // Envoy's advice for the edge is 100 streams of 64 KiB.
            max_streams: 128,
            window: 64 * 1024,
            connection_window: None,
            ping_interval: None,
            // As long as clients have by default.
            header_timeout: Duration::from_secs(10),
            max_age: None,
        }
    }
}

/// The largest window (RFC 9113 6.9.1).
pub const MAX_WINDOW: u32 = (1 << 31) - 1;

impl Http2 {
    /// The window of a connection.
    pub fn whole_window(&self) -> u32 {
        let product = u64::from(self.max_streams) * u64::from(self.window);
        self.connection_window.unwrap_or(u32::try_from(product).unwrap_or(MAX_WINDOW).clamp(65_535, MAX_WINDOW))
    }

    /// What DATA frames of fewer than 256 bytes that nobody has read may cost on a connection beyond their bytes, each the
    /// rest to 256; more end it. One stream that stalls never comes to that, however short its frames, and all of
    /// them together not while they lack fewer than as many bytes as their windows hold.
    pub fn frame_budget(&self) -> usize {
        256.max(self.max_streams as usize).saturating_mul(self.window as usize)
    }
}
