//! Fuzzes with the checks of the same part.
#![no_main]
#![allow(dead_code, reason = "each target uses its part of the checks")]

#[path = "../../tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    checks::translated::request(bytes);
    checks::translated::response(bytes);
});
