//! The comparison: scenarios, blocks in random order, and what can be said about their differences.

pub mod ledger;
mod life;
mod protocol;
pub mod runner;
pub mod scenario;
pub mod session;
pub mod statistics;

pub use runner::{Block, Candidate, Measured};
pub use scenario::Scenario;
