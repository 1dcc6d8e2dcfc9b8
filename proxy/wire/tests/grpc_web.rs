//! Properties of gRPC-Web's base64, with a fixed seed: whatever is written is read back however it is cut, and whatever
//! comes, cutting it changes nothing.

use onehop_wire::grpc_web::{Decoder, encode};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

fn runner() -> TestRunner {
    let config = ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let (mut decoder, mut out) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.decode(piece, &mut out).ok()?;
    }
    decoder.finish().ok().map(|()| out)
}

#[test]
fn messages_come_back_whole_however_they_are_cut() {
    let messages = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..5);
    let outcome = runner().run(&(messages, 1..20usize), |(messages, cut)| {
        let mut text = Vec::new();
        // Each with padding of its own.
        messages.iter().for_each(|message| encode(message, &mut text));
        prop_assert_eq!(decode(text.chunks(cut)), Some(messages.concat()));
        Ok(())
    });
    outcome.expect("it holds");
}

#[test]
fn cuts_change_nothing_whatever_comes() {
    let text = proptest::collection::vec(proptest::sample::select(b"AZaz09+/==\n-".to_vec()), 0..40);
    let outcome = runner().run(&(text, 1..9usize), |(text, cut)| {
        prop_assert_eq!(decode(text.chunks(cut)), decode(std::iter::once(&text[..])));
        Ok(())
    });
    outcome.expect("it holds");
}
