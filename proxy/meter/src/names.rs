//! The stable names of what can happen to a request, as metrics, access records and `proxy-status` show them.

macro_rules! names {
    ($(#[$about:meta])* $kind:ident: $($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind { $($(#[$doc])* $name,)* }

        impl $kind {
            /// Every one.
            pub const ALL: &[$kind] = &[$($kind::$name,)*];

            /// Its name.
            pub fn as_str(self) -> &'static str {
                match self { $($kind::$name => $text,)* }
            }
        }
    };
}

names! {
    /// Why a request, or a connection, ended otherwise than well.
    Reason:
    /// The message breaks a rule; which one is counted beside it.
    Rejected = "rejected",
    /// No route matches.
    NoRoute = "no-route",
    /// The cluster has no endpoint that may be used.
    NoEndpoint = "no-endpoint",
    /// The endpoint refused the connection.
    ConnectRefused = "connect-refused",
    /// The endpoint did not answer in time.
    ConnectTimeout = "connect-timeout",
    /// The connection failed otherwise (unreachable, no descriptors).
    ConnectFailed = "connect-failed",
    /// The upstream reset the connection before it answered.
    UpstreamReset = "upstream-reset",
    /// It closed the connection before it answered.
    UpstreamClosed = "upstream-closed",
    /// It did not answer in time.
    UpstreamTimeout = "upstream-timeout",
    /// It fell silent within a body.
    UpstreamIdleTimeout = "upstream-idle-timeout",
    /// Its answer cannot be read or framed.
    UpstreamBadResponse = "upstream-bad-response",
    /// It ended within a body.
    UpstreamTruncated = "upstream-truncated",
    /// The client went away.
    ClientLeft = "client-left",
    /// The client did not send its head in time.
    HeaderTimeout = "header-timeout",
    /// The client did not send its body in time.
    BodyTimeout = "body-timeout",
    /// The client did not take the response in time.
    WriteTimeout = "write-timeout",
    /// The body exceeds the route's limit.
    BodyTooLarge = "body-too-large",
    /// A connection or request limit of the cluster.
    Overflow = "overflow",
    /// Waited in line for longer than overload leaves time for.
    QueueAge = "queue-age",
    /// The listener's or the core's connection limit.
    OverCapacity = "over-capacity",
    /// More requests than the route's rate limit lets pass.
    RateLimited = "rate-limited",
    /// The core is saturated, and the route's priority is the one that is refused.
    Shed = "shed",
    /// The request has been here before.
    Loop = "loop",
    /// The route does not allow this upgrade.
    UpgradeRefused = "upgrade-refused",
    /// The path leaves the root, or has escapes that no path has.
    BadPath = "bad-path",
    /// What a configured text made of a message cannot be sent.
    Internal = "internal",
    /// The route does not allow CONNECT.
    ConnectMethodRefused = "connect-method-refused",
    /// The PROXY header that the listener demands is missing or malformed.
    BadProxyHeader = "bad-proxy-header",
    /// The protocol of the first bytes is not served here.
    UnknownProtocol = "unknown-protocol",
    /// The TLS handshake with the endpoint failed.
    TlsFailed = "tls-failed",
    /// The request is for a host that this connection's certificate does not serve.
    Misdirected = "misdirected",
    /// A rule denies it.
    AccessDenied = "access-denied",
    /// The destination that a captured connection was meant for is not to be reached from here.
    DestinationRefused = "destination-refused",
    /// Nothing moved on a tunnel.
    IdleTimeout = "idle-timeout",
    /// The proxy is shutting down.
    ShuttingDown = "shutting-down",
    /// What an HTTP/2 client sent breaks a rule of its connection (RFC 9113 5.4.1).
    BadHttp2 = "bad-http2",
    /// More RST_STREAM frames than a client has use for.
    FloodOfResets = "flood-of-resets",
    /// More SETTINGS frames.
    FloodOfSettings = "flood-of-settings",
    /// More PING frames.
    FloodOfPings = "flood-of-pings",
    /// More PRIORITY frames.
    FloodOfPriorities = "flood-of-priorities",
    /// More WINDOW_UPDATE frames.
    FloodOfWindowUpdates = "flood-of-window-updates",
    /// More frames without content.
    FloodOfEmptyFrames = "flood-of-empty-frames",
    /// More CONTINUATION frames.
    FloodOfContinuations = "flood-of-continuations",
    /// More frames of unknown types.
    FloodOfUnknownFrames = "flood-of-unknown-frames",
    /// More frames of other kinds than make sense (small DATA, header blocks without end).
    FloodOfFrames = "flood-of-frames",
    /// It was disturbed on purpose, as the route says.
    FaultInjected = "fault-injected",
    /// A bug: the task that served the connection panicked.
    Panic = "panic",
}

/// What an HTTP/2 upstream's connection is given up for: what it floods with, or that it breaks a rule of frames.
pub const UPSTREAM_FLOODS: [Reason; 11] = [
    Reason::BadHttp2,
    Reason::HeaderTimeout,
    Reason::FloodOfResets,
    Reason::FloodOfSettings,
    Reason::FloodOfPings,
    Reason::FloodOfPriorities,
    Reason::FloodOfWindowUpdates,
    Reason::FloodOfEmptyFrames,
    Reason::FloodOfContinuations,
    Reason::FloodOfUnknownFrames,
    Reason::FloodOfFrames,
];

/// How many reasons there are.
pub const REASONS: usize = Reason::ALL.len();

names! {
    /// Why a request that failed was not sent again, although the route's policy names its failure.
    Denied:
    /// It may not be carried out twice: its method is not idempotent, and it has no `Idempotency-Key`.
    NotIdempotent = "not-idempotent",
    /// Its body was longer than what is kept.
    BodyTooLong = "body-too-long",
    /// It was sent as often as the policy allows.
    Attempts = "attempts",
    /// The cluster's budget for retries is spent.
    Budget = "budget",
    /// No time was left.
    Deadline = "deadline",
    /// The upstream asked for a longer wait than the policy allows.
    RetryAfter = "retry-after",
}

names! {
    /// What is done to a request on purpose.
    Injected:
    /// It waits.
    Delay = "delay",
    /// It is answered.
    Abort = "abort",
    /// Its connection, or stream, is reset.
    Reset = "reset",
    /// Its response's body flows slowly.
    SlowBody = "slow-body",
}
