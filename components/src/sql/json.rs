//! JSON as a text, of which nothing may be lost.

use router_core::error::BoxError;
use serde_json::Value as Json;

/// Reads JSON.
///
/// # Errors
/// When it is none, or contains a number with more digits than a `f64` can hold.
pub(super) fn read(bytes: &[u8]) -> Result<Json, BoxError> {
    let json = serde_json::from_slice(bytes)?;
    match inexact(std::str::from_utf8(bytes)?).next() {
        Some(number) => Err(format!(
            "the number {number} in this JSON has more digits than can be kept: cast it to text, `column::text`"
        )
        .into()),
        None => Ok(json),
    }
}

/// The numbers in a JSON text that have more digits than a `f64` can hold.
pub(super) fn inexact(text: &str) -> impl Iterator<Item = &str> {
    numbers(text).filter(|number| !is_exact(number))
}

/// The numbers in a JSON text.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit())?;
            rest = &rest[start..];
            if let Some(inside) = rest.strip_prefix('"') {
                let mut escaped = false;
                let end = inside.bytes().position(|byte| {
                    let ends = byte == b'"' && !escaped;
                    escaped = byte == b'\\' && !escaped;
                    ends
                })?;
                rest = &inside[end + 1..];
            } else {
                let end = rest.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c)));
                let (number, behind) = rest.split_at(end.unwrap_or(rest.len()));
                rest = behind;
                return Some(number);
            }
        }
    })
}

/// Whether a number that is read and written again has the same digits.
fn is_exact(number: &str) -> bool {
    let whole = number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
    whole || number.parse::<f64>().is_ok_and(|float| digits(&format!("{float:e}")) == digits(number))
}

/// The digits of a number without zeros at its ends, and the power of ten of the first.
fn digits(number: &str) -> (String, i64) {
    let number = number.trim_start_matches('-');
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return (String::new(), 0);
    }
    let leading_zeros = all.len() - significant.len();
    let power = exponent.parse::<i64>().unwrap_or(i64::MAX / 2) + whole.len() as i64 - leading_zeros as i64;
    (significant.trim_end_matches('0').to_owned(), power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_more_digits_than_can_be_kept_are_an_error() {
        for text in [
            "0",
            "-0.0",
            "1.50",
            "1e2",
            "100.0E-2",
            "18446744073709551615",
            "-9223372036854775808",
            r#"{"a\"1e999": [0.1, {"b": "12345678901234567890.5"}], "c": 1e300}"#,
            "0.000001",
            "9007199254740993",
        ] {
            assert!(read(text.as_bytes()).is_ok(), "{text}");
        }
        for text in ["12345678901234567890.5", "[18446744073709551616]", r#"{"a": 0.1234567890123456789}"#] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
