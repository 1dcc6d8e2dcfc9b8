//! The load generator and the origin to aim at. (The generator itself comes later; the origin is here.)

pub mod origin;
