//! How a response's body is framed towards its client.

use onehop_wire::http1::{BodyLength, Known, RequestHead, ResponseHead, Version};

use crate::exchange::body::Framing;

/// How the response is framed towards the client, and whether its connection can go on after it.
pub struct Framed {
    /// The client's connection is closed after this response.
    pub close: bool,
    /// How the body goes on.
    pub framing: Framing,
}

/// Decides the framing of a response body for this client.
pub fn frame(request: &RequestHead, response: &ResponseHead, close: bool) -> Framed {
    let http2 = response.version == Version::Http2;
    let framing = match (response.body, request.version) {
        (BodyLength::UntilClose, Version::Http11) => Framing::Chunked,
        (BodyLength::Chunked, Version::Http11) if http2 => Framing::Chunked,
        // No trailers fit behind a body of known length, and these were announced.
        (BodyLength::Length(_), Version::Http11) if http2 && response.find(Known::Trailer).is_some() => {
            Framing::Chunked
        }
        (BodyLength::Chunked, Version::Http10) => Framing::Unchunked,
        _ => Framing::Verbatim,
    };
    let unsaid = matches!(response.body, BodyLength::Chunked | BodyLength::UntilClose);
    Framed { close: close || (unsaid && request.version == Version::Http10), framing }
}
