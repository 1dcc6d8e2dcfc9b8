//! Answers of our own on HTTP/2: those of HTTP/1, and to gRPC a status that its clients understand.

use bytes::Bytes;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{HeaderName, Response, StatusCode};

use super::{Channel, grpc};
use crate::fault::Fault;
use crate::http1::reply::{phrase, rfc9209};

/// Whether a request that breaks a rule of its head gets an answer instead of a stream error: one that is well-formed but
/// too large, or expects what we cannot do.
pub fn is_answered(status: u16) -> bool {
    matches!(status, 414 | 417 | 431 | 501)
}

/// Sends it. `call` is the content type that a gRPC client is answered with, `cors` what lets a browser read it.
pub fn send(
    channel: &mut Channel,
    fault: &Fault,
    status: u16,
    call: Option<&'static str>,
    head_only: bool,
    cors: &[(&'static str, Vec<u8>)],
) {
    let reason = fault.name();
    let mut response = Response::new(());
    let fields = response.headers_mut();
    let text = format!("onehop; error={}; details=\"{reason}\"", rfc9209(fault));
    if let Ok(value) = HeaderValue::from_str(&text) {
        fields.insert(HeaderName::from_static("proxy-status"), value);
    }
    if let Some(limited) = &fault.limited {
        for (name, text) in limited.fields() {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&text)) {
                fields.insert(name, value);
            }
        }
    }
    for (name, value) in cors {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            fields.insert(HeaderName::from_static(name), value);
        }
    }
    if let Some(kind) = call {
        fields.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
        fields.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(grpc::status_of(status)));
        fields.insert(HeaderName::from_static("grpc-message"), HeaderValue::from_static(reason));
        // A client that has left hears nothing; so below.
        let _ = channel.send_response(response, true);
        return;
    }
    let body = format!("{}: {reason}\n", phrase(status));
    fields.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    fields.insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    if status == 503 {
        fields.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if status == 405 {
        let methods = "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";
        fields.insert(http::header::ALLOW, HeaderValue::from_static(methods));
    }
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if channel.send_response(response, head_only).is_some() && !head_only {
        let _ = channel.send_data(Bytes::from(body), true);
    }
}
