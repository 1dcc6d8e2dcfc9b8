//! HTTP/1.1 as RFC 9112 has it, in its strict reading: what two parsers could read differently is refused.

mod body;
mod encode;
mod head;
mod limits;
mod rules;

pub use body::{ChunkedDecoder, Part, Scan, forbidden_trailer, trailers};
pub use encode::{Edits, hop_by_hop, request, response};
pub use head::{BodyLength, Field, HeadScanner, Known, Method, RequestHead, ResponseHead, Span, Version};
pub use limits::Limits;
pub use rules::Reject;

#[cfg(test)]
mod tests;
