//! HdrHistogram's own formats: V2 compressed in base64, and the interval log of its tools.

use std::fmt::Write;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use crate::outcome::Outcome;

/// A histogram as HdrHistogram's tools read it: V2, deflated, base64.
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("a vector takes all bytes");
    base64(&bytes)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// When it is none.
pub fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = unbase64(text).ok_or("no base64")?;
    let decoded = Deserializer::new().deserialize(&mut bytes.as_slice());
    decoded.map_err(|error| format!("no histogram: {error:?}"))
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let digit = |byte: &u8| DIGITS.iter().position(|digit| digit == byte);
        let word = group
            .iter()
            .enumerate()
            .try_fold(0u32, |word, (at, byte)| digit(byte).map(|digit| word | (digit as u32) << (18 - 6 * at)))?;
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648 section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().enumerate().fold(0u32, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= group.len() { digit as char } else { '=' });
        }
    }
    text
}

/// The run as an interval log (version 1.3): times in seconds, values in nanoseconds, the maximum in milliseconds.
pub fn interval_log(outcome: &Outcome, version: &str) -> String {
    let mut log = format!("#[onehop-load {version}: latency from the intended send time, in nanoseconds]\n");
    log += "#[Histogram log format version 1.3]\n";
    let _ = writeln!(log, "#[StartTime: {:.3} (seconds since epoch)]", outcome.started);
    log += "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";
    for interval in &outcome.intervals {
        let max = interval.max as f64 / 1e6;
        let _ = writeln!(log, "{:.3},{:.3},{max:.3},{}", interval.start, interval.length, interval.encoded);
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_usual_one() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(unbase64(text).as_deref(), Some(bytes.as_bytes()));
        }
    }

    #[test]
    fn compressed_histograms_begin_as_the_tools_expect() {
        let mut histogram = crate::record::histogram();
        histogram.saturating_record(12_345);
        assert!(encode(&histogram).starts_with("HISTF"));
        assert_eq!(decode(&encode(&histogram)), Ok(histogram));
        assert!(decode("HISTF!").is_err());
    }
}
