//! HdrHistogram's own formats: V2 compressed in base64, and the interval log of its tools.

use std::fmt::Write;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

use crate::outcome::Outcome;

/// A histogram as HdrHistogram's tools read it: V2, deflated, base64.
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("a vector takes all bytes");
    base64(&bytes)
}

/// RFC 4648 section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
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
        }
    }

    #[test]
    fn compressed_histograms_begin_as_the_tools_expect() {
        let mut histogram = crate::record::histogram();
        histogram.saturating_record(12_345);
        assert!(encode(&histogram).starts_with("HISTF"));
    }
}
