//! Options of HTTP/2 and gRPC.

use clap::Args;
use onehop_load::http2::grpc::Kind;
use onehop_load::plan::{Call, Http2, Protocol, WINDOW};
use onehop_load::target::{Scheme, Target};
use onehop_load::units;

/// How HTTP/2 and gRPC are spoken.
#[derive(Args)]
pub struct Http2Options {
    /// Speaks HTTP/2: by prior knowledge to http://, by ALPN to https://.
    #[arg(long)]
    pub http2: bool,
    /// HTTP/2: streams at once on each connection. In the closed loop all of them are always in use, in the open loop as
    /// many as the rate needs; where the target allows fewer, requests wait, and the wait counts as latency.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub streams: usize,
    /// HTTP/2: what the target may send on a stream before it is given more credit.
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value_t = WINDOW as usize)]
    pub window: usize,
    /// Calls of gRPC over HTTP/2. KIND is unary, client (a stream of messages is answered with one), server (one is
    /// answered with a stream) or bidi (each message is answered with one, and the next follows the answer). The body is
    /// one message, --expect-length the length of each answered one. A call is good when its HTTP status, its content
    /// type, its grpc-status and the number of messages are.
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, default_missing_value = "unary",
          value_parser = Kind::named)]
    pub grpc: Option<Kind>,
    /// gRPC: the method, /package.Service/Method; without it the URL's path or, where that is /, the method that
    /// onehop-load's own origin answers in this way.
    #[arg(long, value_name = "PATH", requires = "grpc")]
    pub grpc_method: Option<String>,
    /// gRPC: messages that are sent (client, bidi), or that must come (server; any number without it).
    #[arg(long, value_name = "NUMBER", requires = "grpc", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub messages: Option<u64>,
}

impl Http2Options {
    /// Whether HTTP/2 is spoken.
    pub fn is_wanted(&self) -> bool {
        self.http2 || self.grpc.is_some()
    }

    /// What is spoken to a target.
    ///
    /// # Errors
    /// What does not go together.
    pub fn protocol(&self, scheme: Scheme) -> Result<Protocol, String> {
        match (scheme, self.is_wanted()) {
            (Scheme::Echo, true) => Err("tcp:// echoes bytes: HTTP/2 is spoken to http:// and https://".to_owned()),
            (Scheme::Echo, false) => Ok(Protocol::Echo),
            (_, true) => Ok(Protocol::Http2),
            (_, false) if self.streams != 1 => Err("--streams goes with --http2: HTTP/1.1 has none".to_owned()),
            (_, false) => Ok(Protocol::Http1),
        }
    }

    /// How HTTP/2 is spoken.
    ///
    /// # Errors
    /// What is out of range.
    pub fn plan(&self, connections: usize, new_connections: bool) -> Result<Http2, String> {
        if self.streams == 0 || self.streams.saturating_mul(connections) > 1_000_000 {
            return Err("--streams is at least 1, and at most a million on all connections together".to_owned());
        }
        if new_connections && self.streams > 1 {
            return Err("--new-connections makes one for each request: --streams is 1 then".to_owned());
        }
        let window = u32::try_from(self.window).ok().filter(|window| *window > 0);
        let window = window.ok_or("--window is at least 1 byte")?;
        let call = self.grpc.map(|kind| Call { kind, messages: self.messages });
        Ok(Http2 { streams: self.streams, window, call })
    }

    /// The method that is called, in the place of a URL's path.
    ///
    /// # Errors
    /// When it is none.
    pub fn aim(&self, mut target: Target) -> Result<Target, String> {
        let Some(kind) = self.grpc else { return Ok(target) };
        match &self.grpc_method {
            Some(path) if !path.starts_with('/') || path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) => {
                return Err(format!("\"{}\" is no method: /package.Service/Method", path.escape_default()));
            }
            Some(path) => target.path.clone_from(path),
            None if target.path == "/" => kind.method().clone_into(&mut target.path),
            None => {}
        }
        Ok(target)
    }
}
