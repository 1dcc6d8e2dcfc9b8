//! HTTP/2 messages as the rest of the proxy knows messages: a head of spans into one buffer. The buffer holds field
//! lines as HTTP/1 writes them, so that the same head serves routing, filters and encoding for either version.
//! RFC 9113 8 says what a message may be; what could be read differently after a translation is refused here.
//! Frames and HPACK are not here: this sees names and values. No IO.

mod field;
mod outgoing;
mod request;
mod response;
mod trailers;

pub use outgoing::{added_fields, request_fields, response_fields};
pub use request::{Parts, request};
pub use response::response;
pub use trailers::{trailer_fields, trailer_lines};

#[cfg(test)]
mod tests;
