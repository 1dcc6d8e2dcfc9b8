//! Why a message is refused: a status for the client and a stable name for metrics and records.

macro_rules! rejects {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $reason:literal;)*) => {
        /// One reason to refuse a message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reject { $($(#[$doc])* $name,)* }

        impl Reject {
            /// Every reason.
            pub const ALL: &[Reject] = &[$(Reject::$name,)*];

            /// The status that the client gets.
            pub fn status(self) -> u16 {
                match self { $(Reject::$name => $status,)* }
            }

            /// Its name: a metric label and a `proxy-status` detail.
            pub fn reason(self) -> &'static str {
                match self { $(Reject::$name => $reason,)* }
            }
        }
    };
}

rejects! {
    /// Not `METHOD SP target SP version` (RFC 9112 3).
    BadRequestLine = 400, "bad-request-line";
    /// Not `version SP status` (RFC 9112 4).
    BadStatusLine = 400, "bad-status-line";
    /// A version that is not HTTP/1.0 or 1.1.
    BadVersion = 505, "bad-version";
    /// The request line exceeds its limit.
    LineTooLong = 414, "request-line-too-long";
    /// The head exceeds its limit.
    HeadTooLarge = 431, "head-too-large";
    /// More fields than allowed.
    TooManyFields = 431, "too-many-fields";
    /// Not a token, or white space before the colon (RFC 9112 5.1).
    BadFieldName = 400, "bad-field-name";
    /// A control byte in a value (RFC 9110 5.5).
    BadFieldValue = 400, "bad-field-value";
    /// A continued line (RFC 9112 5.2).
    ObsFold = 400, "obs-fold";
    /// CR without LF.
    BareCr = 400, "bare-cr";
    /// LF without CR.
    BareLf = 400, "bare-lf";
    /// HTTP/1.1 without Host (RFC 9112 3.2).
    MissingHost = 400, "missing-host";
    /// More than one Host.
    DuplicateHost = 400, "duplicate-host";
    /// Not a host and port.
    BadHost = 400, "bad-host";
    /// Absolute-form that names another host than Host does.
    HostMismatch = 400, "host-mismatch";
    /// A target of no form that the method allows.
    BadTarget = 400, "bad-target";
    /// CONNECT with a body, whose end parsers disagree on (RFC 9110 9.3.6 gives it no meaning).
    ConnectWithBody = 400, "connect-with-body";
    /// Content-Length beside Transfer-Encoding: the classic smuggling vector (RFC 9112 6.1).
    LengthAndCoding = 400, "length-and-transfer-encoding";
    /// Not a decimal number, or repeated.
    BadLength = 400, "bad-content-length";
    /// A transfer coding that is not `chunked` alone.
    UnknownCoding = 501, "unknown-transfer-coding";
    /// Transfer-Encoding repeated or malformed.
    BadCoding = 400, "bad-transfer-encoding";
    /// Transfer-Encoding in HTTP/1.0.
    CodingInHttp10 = 400, "transfer-encoding-in-http-1.0";
    /// Not a hexadecimal size of at most 16 digits.
    BadChunkSize = 400, "bad-chunk-size";
    /// A control byte in an extension, or too long a one.
    BadChunkExtension = 400, "bad-chunk-extension";
    /// Chunk data not followed by CRLF.
    BadChunkEnd = 400, "bad-chunk-end";
    /// A malformed trailer section.
    BadTrailer = 400, "bad-trailer";
    /// Trailers beyond the head's limit.
    TrailersTooLarge = 431, "trailers-too-large";
    /// A field that belongs to an HTTP/1 connection, in HTTP/2 (RFC 9113 8.2.2).
    ConnectionField = 400, "connection-field-in-http-2";
    /// An expectation that is not `100-continue` (RFC 9110 10.1.1).
    BadExpectation = 417, "bad-expectation";
    /// A gRPC-Web text that is no base64.
    BadBase64 = 400, "bad-base64";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_statuses_are_errors() {
        let names: std::collections::BTreeSet<_> = Reject::ALL.iter().map(|reject| reject.reason()).collect();
        assert_eq!(names.len(), Reject::ALL.len());
        assert!(Reject::ALL.iter().all(|reject| (400..600).contains(&reject.status())));
    }
}
