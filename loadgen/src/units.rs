//! Durations, sizes and rates as they are written on a command line.

use std::time::Duration;

/// A duration with its unit: `250ms`, `10s`, `50us`, `2m`.
///
/// # Errors
/// What is wrong, and how it is written.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is no duration: write a number and us, ms, s or m, such as 250ms");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let scale = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * scale).map_err(|_| wrong())
}

/// A size in bytes: `128`, `16KiB`, `1MiB`.
///
/// # Errors
/// What is wrong, and how it is written.
pub fn size(text: &str) -> Result<usize, String> {
    let wrong = || format!("\"{text}\" is no size: write bytes, or a number and KiB or MiB, such as 16KiB");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: usize = number.parse().map_err(|_| wrong())?;
    let scale = match unit {
        "" | "B" => 1,
        "KiB" | "k" | "K" => 1024,
        "MiB" | "M" => 1024 * 1024,
        _ => return Err(wrong()),
    };
    number.checked_mul(scale).filter(|size| *size <= 1 << 30).ok_or_else(|| format!("\"{text}\" is above 1 GiB"))
}

/// Requests a second: `5000`, `20k`.
///
/// # Errors
/// What is wrong, and how it is written.
pub fn rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("\"{text}\" is no rate: write requests a second, such as 5000 or 20k");
    let (number, scale) = text.strip_suffix('k').map_or((text, 1.0), |number| (number, 1000.0));
    let rate = number.parse::<f64>().map_err(|_| wrong())? * scale;
    if rate > 0.0 && rate <= 1e8 { Ok(rate) } else { Err(wrong()) }
}

/// A duration for readers: three significant digits and a unit.
pub fn show(ns: f64) -> String {
    let (value, unit) = match ns.abs() {
        ns if ns < 1e3 => return format!("{ns:.0} ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let value = value.copysign(ns);
    match value.abs() {
        v if v < 10.0 => format!("{value:.2} {unit}"),
        v if v < 100.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_nonsense_is_refused() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(duration("5").is_err() && duration("fast").is_err() && duration("-1s").is_err());
        assert_eq!(size("16KiB"), Ok(16384));
        assert!(size("1GiB").is_err() && size("").is_err());
        assert_eq!(rate("20k"), Ok(20_000.0));
        assert!(rate("0").is_err() && rate("nan").is_err() && rate("-5").is_err());
    }

    #[test]
    fn times_are_shown_with_three_digits() {
        assert_eq!(show(950.0), "950 ns");
        assert_eq!(show(12_340.0), "12.3 us");
        assert_eq!(show(1_234_000.0), "1.23 ms");
    }
}
