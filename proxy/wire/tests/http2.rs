//! Properties of the translation from HTTP/2, for random and for nearly valid messages, with a fixed seed.

#![allow(dead_code, reason = "the checks are shared")]

mod checks;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

fn check(cases: u32, strategy: &impl Strategy<Value = Vec<u8>>) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(strategy, |bytes| {
        checks::http2_request(&bytes);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn whatever_is_accepted_is_one_http1_head() {
    check(4000, &proptest::collection::vec(any::<u8>(), 0..200));
    // Mostly well-formed, with one hostile byte somewhere.
    let names = proptest::sample::select(vec!["a", "x-y", "content-length", "cookie", "host", "te", "expect", "via"]);
    let values = proptest::sample::select(vec!["", "1", "trailers", "test", "a=b", "100-continue", "0"]);
    let fields = proptest::collection::vec((names, values), 0..8);
    let hostile = proptest::option::of((any::<u8>(), any::<prop::sample::Index>()));
    let nearly = (fields, hostile).prop_map(|(fields, hostile)| {
        let mut bytes = b"GET\xff/p?q\xfftest".to_vec();
        for (name, value) in fields {
            bytes.push(0xff);
            bytes.extend(name.as_bytes());
            bytes.push(0xff);
            bytes.extend(value.as_bytes());
        }
        if let Some((byte, at)) = hostile {
            let at = at.index(bytes.len());
            bytes.insert(at, byte);
        }
        bytes
    });
    check(20_000, &nearly);
}
