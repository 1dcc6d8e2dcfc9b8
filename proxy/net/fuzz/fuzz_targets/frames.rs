//! The walker over HTTP/2 frames: the same verdict and the same bytes however they are cut, and budgets to the frame.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    onehop_net::h2::pieces::walk(bytes);
    onehop_net::h2::pieces::count(bytes);
});
