//! The comparison: scenarios, blocks in random order, and what can be said about their differences.

pub mod ledger;
pub mod runner;
pub mod scenario;
pub mod statistics;

pub use runner::{Block, Candidate, Measured};
pub use scenario::Scenario;
