//! How a request can fail, each way counted apart. A failed request has no latency.

use std::io;

use onehop_net::tls::HandshakeError;

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a request was not answered as it should be.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Failure { $($(#[$doc])* $name,)* }

        impl Failure {
            /// Every way.
            pub const ALL: &[Failure] = &[$(Failure::$name,)*];

            /// Its name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Failure::$name => $text,)* }
            }
        }
    };
}

failures! {
    /// Nobody listens there.
    Refused = "connect-refused",
    /// The connection was not made in time.
    ConnectTimeout = "connect-timeout",
    /// The connection failed otherwise.
    Connect = "connect-failed",
    /// The TLS handshake failed.
    Handshake = "tls-handshake",
    /// The connection was reset.
    Reset = "reset",
    /// It was closed before an answer began.
    Closed = "closed",
    /// The answer was not complete in time.
    Timeout = "timeout",
    /// The connection ended within the body.
    ShortBody = "short-body",
    /// The answer is no HTTP that can be read.
    Malformed = "malformed",
    /// The status is not what was expected.
    Status = "status",
    /// The body's length is not what was expected.
    Length = "length",
    /// The body's bytes are not what was expected.
    Content = "content",
    /// The target does not speak HTTP/2: another protocol was negotiated, or no settings came.
    NotHttp2 = "not-http2",
    /// The target broke a rule of HTTP/2, and with it the connection.
    Http2 = "http2-broken",
    /// The stream was reset, for another reason than being refused.
    StreamReset = "stream-reset",
    /// The stream was refused: nothing was done.
    StreamRefused = "stream-refused",
    /// The connection was ended (GOAWAY) before the target took the request.
    GoAway = "goaway",
    /// The content type is not gRPC's.
    ContentType = "content-type",
    /// The call's status is not 0, or is missing.
    GrpcStatus = "grpc-status",
    /// There are fewer or more messages than there should be.
    Messages = "messages",
}

/// What the target said of a request beside its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Code {
    /// Nothing.
    #[default]
    None,
    /// It reset the stream with this error code.
    Reset(u32),
    /// The call's status; `None`: there was none.
    Grpc(Option<u32>),
}

/// How many ways there are.
pub const FAILURES: usize = Failure::ALL.len();

impl Failure {
    /// What an error while connecting means.
    pub fn of_connect(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            io::ErrorKind::TimedOut => Failure::ConnectTimeout,
            _ => Failure::Connect,
        }
    }

    /// What a failed handshake means.
    pub fn of_handshake(error: &HandshakeError) -> Failure {
        match error {
            HandshakeError::TimedOut => Failure::ConnectTimeout,
            _ => Failure::Handshake,
        }
    }

    /// Whether the target could not be reached at all.
    pub fn is_connect(self) -> bool {
        matches!(
            self,
            Failure::Refused | Failure::ConnectTimeout | Failure::Connect | Failure::Handshake | Failure::NotHttp2
        )
    }
}
