//! Floor 0: per-core counters and histograms, the hop ledger, Prometheus text.
