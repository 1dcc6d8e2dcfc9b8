//! The load generator and the origin to aim at.
