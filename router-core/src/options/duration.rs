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
    let parsed = text.parse().map(Duration::from_millis).ok();
    parsed
        .or_else(|| humantime::parse_duration(text).ok())
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| "a duration like `1s`, `500ms`, `1m 30s` or bare milliseconds".into())
}

/// A warning about a number without a unit that is so small that seconds were meant, most likely.
pub fn without_unit(text: &str, error: impl FnOnce(String) -> ConfigError) -> Option<ConfigError> {
    /// Whoever means less than this writes the unit.
    const SMALL: Duration = Duration::from_millis(10);
    let number = text.trim().parse().ok().filter(|number| *number > 0)?;
    (Duration::from_millis(number) < SMALL).then(|| {
        let plural = if number == 1 { "" } else { "s" };
        error(format!("`{number}` means {number} millisecond{plural}"))
            .help(format!("write `{number}ms` or `{number}s`"))
            .severity(Severity::Warning)
    })
}
