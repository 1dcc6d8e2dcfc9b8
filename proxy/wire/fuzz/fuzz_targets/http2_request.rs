//! Fuzzes with the checks of the same name.
#![no_main]
#![allow(dead_code, reason = "each target uses its part of the checks")]

#[path = "../../tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    checks::http2::request(bytes);
});
