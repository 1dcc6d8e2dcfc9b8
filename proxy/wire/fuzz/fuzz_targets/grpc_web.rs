//! Fuzzes with the checks of the same part.
#![no_main]
#![allow(dead_code, reason = "each target uses its part of the checks")]

#[path = "../../tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let step = 1 + bytes.len() % 7;
    checks::grpc_web::text(bytes, step);
    checks::grpc_web::body(bytes, step);
    checks::grpc_web::trailers(bytes);
});
