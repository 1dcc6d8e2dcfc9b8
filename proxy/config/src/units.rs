//! Durations and sizes as users write them, always with a unit.

use std::time::Duration;

/// A duration: `250ms`, `10s`, `1.5m`.
///
/// # Errors
/// What is wrong, and a hint.
pub fn duration(text: &str) -> Result<Duration, (String, String)> {
    let (number, unit) = split(text);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => {
            return Err((format!("\"{text}\" has no unit"), format!("did you mean \"{text}ms\" or \"{text}s\"?")));
        }
        _ => {
            return Err((format!("\"{text}\" is no duration"), "units are us, ms, s, m and h: \"250ms\"".to_owned()));
        }
    };
    let number: f64 = number
        .parse()
        .map_err(|_| (format!("\"{text}\" is no duration"), "write a number and a unit: \"250ms\"".to_owned()))?;
    Duration::try_from_secs_f64(number * seconds)
        .map_err(|_| (format!("\"{text}\" is out of range"), "durations are not negative".to_owned()))
}

/// A size in bytes: `64KiB`, `1MB`, `512B`.
///
/// # Errors
/// What is wrong, and a hint.
pub fn size(text: &str) -> Result<u64, (String, String)> {
    let (number, unit) = split(text);
    let factor: u64 = match unit {
        "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" => {
            return Err((format!("\"{text}\" has no unit"), format!("did you mean \"{text}KiB\" or \"{text}B\"?")));
        }
        _ => {
            return Err((
                format!("\"{text}\" is no size"),
                "units are B, KiB, MiB, GiB, kB, MB and GB: \"64KiB\"".to_owned(),
            ));
        }
    };
    let number: u64 = number
        .parse()
        .map_err(|_| (format!("\"{text}\" is no size"), "write a whole number and a unit: \"64KiB\"".to_owned()))?;
    number.checked_mul(factor).ok_or_else(|| (format!("\"{text}\" is out of range"), "sizes fit 64 bits".to_owned()))
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.' && letter != '-').unwrap_or(text.len());
    (&text[..at], text[at..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_their_lack_is_explained() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("50us"), Ok(Duration::from_micros(50)));
        assert_eq!(duration("250").expect_err("no unit").1, "did you mean \"250ms\" or \"250s\"?");
        assert!(duration("-1s").is_err() && duration("1 fortnight").is_err() && duration("s").is_err());
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("1MB"), Ok(1_000_000));
        assert!(size("64").is_err() && size("1.5MiB").is_err() && size("99999999999GiB").is_err());
    }
}
