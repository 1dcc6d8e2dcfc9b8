//! Heads and trailers of the origin's answers, encoded once.

use crate::http2::encode::{Field, Numbers};
use crate::http2::grpc;

/// The answers of one core's origin.
pub struct Answers {
    /// A good answer with a body of the one length that there is.
    pub fixed: Vec<Field>,
    /// A good answer whose length is not said.
    pub open: Vec<Field>,
    /// A failure on purpose.
    pub error: Vec<Field>,
    /// The head of a good call, and its trailers.
    pub call: Vec<Field>,
    /// See `call`.
    pub call_end: Vec<Field>,
    /// A call that fails on purpose: its head is all of it.
    pub call_error: Vec<Field>,
    /// One message of a call, framed.
    pub message: Vec<u8>,
}

impl Answers {
    /// For bodies and messages of these bytes at most.
    pub fn new(filler: &[u8]) -> Answers {
        let mut numbers = Numbers::default();
        let mut fields = |list: &[(&str, &str)]| -> Vec<Field> {
            list.iter().map(|(name, value)| Field::new(name, value, Some(numbers.of(name, value)))).collect()
        };
        let server = ("server", "onehop-load");
        let text = ("content-type", "text/plain");
        let call = ("content-type", "application/grpc");
        let length = filler.len().to_string();
        Answers {
            fixed: fields(&[(":status", "200"), server, text, ("content-length", &length)]),
            open: fields(&[(":status", "200"), server, text]),
            error: fields(&[(":status", "503"), server, ("content-length", "0")]),
            call: fields(&[(":status", "200"), server, call]),
            call_end: fields(&[("grpc-status", "0")]),
            call_error: fields(&[
                (":status", "200"),
                server,
                call,
                ("grpc-status", "14"),
                ("grpc-message", "on purpose"),
            ]),
            message: grpc::frame(filler),
        }
    }

    /// A good answer with a body of so many bytes.
    pub fn with_length(&self, length: usize) -> Vec<Field> {
        let mut fields = self.open.clone();
        // Lengths that vary have no place in the compression table.
        fields.push(Field::new("content-length", &length.to_string(), None));
        fields
    }
}
