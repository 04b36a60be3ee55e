//! Durations, as they are written in options and settings alike.

use std::time::Duration;

use crate::error::{ConfigError, Severity};

/// Reads `1s`, `1m 30s`, `500ms`, or bare milliseconds, as Camel does.
///
/// # Errors
/// What would have been a duration.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    /// A hundred years: adding it to the present is still a time.
    const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // Months: those who write other units in upper case mean minutes.
    if text.contains('M') {
        return Err("a duration like `5m` for minutes: `M` would be months".into());
    }
    let read = match is_number {
        true => Ok(text.parse().map_or(Duration::MAX, Duration::from_millis)),
        false => humantime::parse_duration(text),
    };
    match read {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) | Err(humantime::DurationError::NumberOverflow) => {
            Err("a duration of at most 100 years".into())
        }
        Err(_) => Err("a duration like `1s`, `500ms`, `1m 30s` or bare milliseconds".into()),
    }
}

/// A warning about a number without a unit that is so small that seconds were meant, most likely.
pub fn without_unit(text: &str, error: impl FnOnce(String) -> ConfigError) -> Option<ConfigError> {
    /// Shorter durations are written with their unit.
    const SMALL: Duration = Duration::from_millis(10);
    let number = text.trim().parse().ok().filter(|number| *number > 0)?;
    (Duration::from_millis(number) < SMALL).then(|| {
        let plural = if number == 1 { "" } else { "s" };
        error(format!("`{number}` means {number} millisecond{plural}"))
            .help(format!("write `{number}ms` or `{number}s`"))
            .severity(Severity::Warning)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_or_is_milliseconds_and_has_an_end() {
        for text in ["1s", "1000", " 1000 ", "1000ms", "500ms 500ms"] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(1)), "{text}");
        }
        for text in
            ["99999999999999999999s", "99999999999999999999", "18446744073709551615", "300y", "300years"]
        {
            assert!(parse_duration(text).unwrap_err().contains("at most 100 years"), "{text}");
        }
        for text in ["5M", "1h 5M"] {
            assert!(parse_duration(text).unwrap_err().contains("like `5m`"), "{text}");
        }
        for text in ["", "-1", "1.5", "1e3", "s", "1 fortnight"] {
            assert!(parse_duration(text).unwrap_err().contains("like `1s`"), "{text}");
        }
    }
}
