//! Micro-benchmarks and the hop comparison.
