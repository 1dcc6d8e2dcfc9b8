//! Floor 0: per-core counters and histograms, the hop ledger, Prometheus text.
//! A core writes its own counters with plain stores; a scrape sums the cores elsewhere and never wakes one.

pub mod core;
pub mod histogram;
pub mod ledger;
pub mod names;
mod peers;
pub mod record;
mod registry;
mod resilience;
mod scrape;
mod series;
mod tls;

pub use crate::core::{Counter, Gauge, PerCore};
pub use histogram::{Histogram, LazyHistogram};
pub use peers::PeerMeters;
pub use registry::Registry;
pub use resilience::{LazyResilience, ResilienceMeters};
pub use series::{ClusterMeters, CoreMeters, EndpointMeters, LazyCalls, ListenerMeters, RouteMeters};
pub use tls::{TlsMeters, TlsReason};
