//! HTTP/2 on either side of an exchange: what the `h2` crate offers, in the terms of the exchange.

mod channel;
pub mod message;

pub use channel::{Channel, Heard, Incoming};
