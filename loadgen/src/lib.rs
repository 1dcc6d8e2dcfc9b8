//! The load generator and the origin to aim at. The generator's loop is open unless told otherwise: what is sent when
//! is fixed in advance, and latency counts from the moment at which a request was meant to be sent.

pub mod failure;
pub mod floor;
pub mod generator;
pub mod http2;
pub mod lane;
pub mod origin;
pub mod outcome;
mod pace;
pub mod plan;
pub mod random;
pub mod record;
pub mod report;
pub mod request;
pub mod run;
pub mod saturation;
pub mod schedule;
pub mod target;
pub mod tickets;
pub mod tls;
pub mod units;
