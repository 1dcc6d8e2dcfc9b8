//! What the extra hop costs: interleaved runs of direct, a relay that parses nothing, Onehop, and other proxies.

pub mod hop;
pub mod lateness;
pub mod peers;
pub mod process;
pub mod relays;
pub mod report;
pub mod selftest;
