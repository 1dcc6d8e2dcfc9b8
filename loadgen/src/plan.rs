//! What one run is to do, validated.

use std::net::SocketAddr;
use std::time::Duration;

use crate::http2::grpc::Kind;
use crate::request::{Expect, Mix};
use crate::schedule::Arrivals;
use crate::tls::Tls;

/// What is spoken to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, by prior knowledge or, over TLS, by ALPN.
    Http2,
    /// Bytes that come back.
    Echo,
}

/// How HTTP/2 is spoken.
#[derive(Clone, Debug)]
pub struct Http2 {
    /// Streams at once on each connection; 1 with every other protocol.
    pub streams: usize,
    /// What the target may send on a stream before it is given more credit, in bytes.
    pub window: u32,
    /// The requests are calls of gRPC.
    pub call: Option<Call>,
}

/// The window of a stream by default: no answer that is measured waits for credit.
pub const WINDOW: u32 = 16 << 20;

impl Default for Http2 {
    fn default() -> Http2 {
        Http2 { streams: 1, window: WINDOW, call: None }
    }
}

/// A call of gRPC.
#[derive(Clone, Debug)]
pub struct Call {
    /// How many messages go which way.
    pub kind: Kind,
    /// How many, where there are several; the answers to a server's stream may be any number without it.
    pub messages: Option<u64>,
}

impl Call {
    /// Messages that are sent.
    pub fn sends(&self) -> u64 {
        match self.kind {
            Kind::Unary | Kind::Server => 1,
            Kind::Client | Kind::Bidirectional => self.messages.unwrap_or(1),
        }
    }

    /// Messages that must come back; any number without it.
    pub fn answers(&self) -> Option<u64> {
        match self.kind {
            Kind::Unary | Kind::Client => Some(1),
            Kind::Server => self.messages,
            Kind::Bidirectional => Some(self.sends()),
        }
    }
}

/// What decides when a request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loop {
    /// A schedule fixed in advance, at so many requests a second.
    Open {
        /// Requests a second, of all threads together.
        rate: f64,
        /// How they are spread.
        arrivals: Arrivals,
    },
    /// Each connection sends its next request when the last was answered: it measures what the target bears, and its
    /// latencies leave out whoever would have come meanwhile.
    Closed,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where connections go.
    pub address: SocketAddr,
    /// What is spoken there.
    pub protocol: Protocol,
    /// How HTTP/2 is spoken, where it is.
    pub http2: Http2,
    /// How connections shake hands; plain without it.
    pub tls: Option<Tls>,
    /// What is asked.
    pub mix: Mix,
    /// What a good answer is.
    pub expect: Expect,
    /// Open or closed.
    pub pacing: Loop,
    /// Connections of all threads together.
    pub connections: usize,
    /// A connection for each request.
    pub new_connections: bool,
    /// What a request may take, connecting included.
    pub timeout: Duration,
    /// Measured time, after the warm-up.
    pub duration: Duration,
    /// Time whose requests are sent and not counted.
    pub warm_up: Duration,
    /// Seed of the schedule and of the mix.
    pub seed: u64,
    /// How long before each send a core stops sleeping; [`Duration::MAX`]: it never sleeps.
    pub spin: Duration,
    /// How often figures are reported while it runs.
    pub slice: Duration,
    /// Counts latency from the moment of sending instead of the intended one, on purpose: for showing that the
    /// self-test finds coordinated omission.
    pub omit: bool,
}
