//! HTTP/1.1 as RFC 9112 has it, in its strict reading: what two parsers could read differently is refused.

mod body;
mod encode;
mod fields;
mod gist;
mod head;
mod limits;
mod request;
mod response;
mod rules;

pub use body::{ChunkedDecoder, Part, Scan, forbidden_trailer, trailers};
pub use encode::{Edits, encode_request, encode_response, hop_by_hop};
pub use fields::{Fields, kind};
pub use gist::{gist, is_told};
pub use head::{BodyLength, Field, HeadScanner, Known, Method, Span, Version};
pub use limits::{Limits, MAX_FIELDS};
pub use request::{RequestHead, is_authority};
pub use response::ResponseHead;
pub use rules::Reject;

#[cfg(test)]
mod tests;
