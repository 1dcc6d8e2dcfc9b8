//! Fuzzes with the check of the same part.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    onehop_worker::translation::answer(bytes);
});
