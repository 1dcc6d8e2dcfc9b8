//! Properties of gRPC-Web's base64 and of its trailers, with a fixed seed: whatever is written is read back however it
//! is cut, and whatever comes, cutting it changes nothing.

mod checks;
#[path = "checks/runner.rs"]
mod runner;

use proptest::prelude::*;
use runner::check;

/// Cases of each.
const CASES: u32 = 5000;

#[test]
fn messages_come_back_whole_however_they_are_cut() {
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    check(CASES, &(bytes, 1..20usize), |(bytes, step)| checks::grpc_web::body(&bytes, step));
}

#[test]
fn cuts_change_nothing_whatever_comes() {
    let digit = proptest::sample::select(b"AZaz09+/==\n-".to_vec());
    let group = prop::sample::select(vec!["AAAA", "AQ==", "AQI=", "////", "A===", "="])
        .prop_map(|text| text.as_bytes().to_vec());
    let text = prop_oneof![
        proptest::collection::vec(digit, 0..40),
        proptest::collection::vec(group, 0..10).prop_map(|groups| groups.concat()),
    ];
    check(CASES, &(text, 1..9usize), |(text, step)| checks::grpc_web::text(&text, step));
}

#[test]
fn trailers_are_one_frame() {
    let name = prop::sample::select(vec!["grpc-status", "grpc-message", "a-bin", "content-length", "te"]);
    let value = "[ -~]{0,12}";
    let fields = proptest::collection::vec((name, value), 0..6);
    check(CASES, &fields, |fields| {
        let lines = fields.iter().map(|(name, value)| [name.as_bytes(), value.as_bytes()].join(&0xff));
        checks::grpc_web::trailers(&lines.collect::<Vec<_>>().join(&0xff));
    });
}
