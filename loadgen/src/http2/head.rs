//! What a measurement needs of a head: never its text.

use super::grpc::Kind;

/// A request's or an answer's head, or its trailers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The status of an answer; zero in requests and trailers.
    pub status: u16,
    /// The method is HEAD.
    pub bodiless: bool,
    /// How a gRPC method of this path is answered.
    pub call: Kind,
    /// The content type is gRPC's.
    pub is_grpc: bool,
    /// The status of a call; `None`: it is not there.
    pub grpc_status: Option<u32>,
    /// The body's length as it was announced.
    pub length: Option<u64>,
}

impl Head {
    /// Takes in a field.
    pub fn take(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b":status" => self.status = number(value).and_then(|status| u16::try_from(status).ok()).unwrap_or(0),
            b":method" => self.bodiless = value == b"HEAD",
            b":path" => self.call = Kind::of_path(value),
            b"content-type" => self.is_grpc = is_grpc(value),
            b"content-length" => self.length = number(value),
            // What is no number is UNKNOWN.
            b"grpc-status" => {
                let status = number(value).and_then(|status| u32::try_from(status).ok());
                self.grpc_status = Some(status.unwrap_or(2));
            }
            _ => {}
        }
    }
}

/// `application/grpc`, with or without a suffix; gRPC-Web is another type.
fn is_grpc(value: &[u8]) -> bool {
    let Some(rest) = value.strip_prefix(b"application/grpc") else { return false };
    matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}
