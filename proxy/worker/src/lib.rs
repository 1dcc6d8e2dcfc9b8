//! Floor 2: one core. It accepts, parses, routes, balances and forwards, executing a snapshot.
//! No locks, no blocking calls, no file IO, no borrow held over an await.

mod accept;
mod access;
mod access_log;
mod conn;
mod connections;
mod drain;
pub mod exchange;
pub mod fault;
mod http1;
mod http2;
mod l4;
pub mod measured;
mod pressure;
mod run;
mod secure;
mod shard;
#[cfg(any(test, feature = "fuzzing"))]
pub mod translation;
mod upstream;

pub use run::{Start, run};
pub use shard::Outfit;
