//! HTTP/1 on a downstream connection: requests are read, answered in order, and the connection kept or closed.

pub mod forward;
mod framing;
mod identity;
pub mod reply;
mod serve;

pub use serve::{count_fault, serve};

/// The codec's limits, as the listener's policy has them.
pub fn limits(policy: &onehop_plan::HttpPolicy) -> onehop_wire::http1::Limits {
    let [head_bytes, fields, request_line] =
        [policy.head_bytes, policy.fields, policy.request_line].map(|limit| u32::try_from(limit).unwrap_or(u32::MAX));
    onehop_wire::http1::Limits { head_bytes, fields, request_line }
}
