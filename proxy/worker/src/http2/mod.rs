//! HTTP/2 on either side of an exchange: what the `h2` crate offers, in the terms of the exchange.

mod block;
mod channel;
pub mod grpc;
mod lanes;
pub mod message;
mod reply;
pub mod serve;
mod stream;
pub mod tunnel;
pub mod web;

pub use block::Kept;
pub use channel::{Channel, Heard, Incoming, Remains};
pub use lanes::Lanes;
pub use serve::serve;
