//! Values of `PostgreSQL`, in the binary form in which they arrive, as JSON.

use std::fmt::Write as _;

use jiff::civil::{Date, DateTime, Time, date, datetime};
use jiff::{SignedDuration, Span, Timestamp};
use serde_json::Value as Json;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgTypeKind, PgValueRef};
use sqlx::{TypeInfo, ValueRef};

use super::database::hexadecimal;

/// Microseconds from 1970 to 2000, from which the server counts.
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// The value as JSON. What has no exact form in JSON becomes the text that the server would print.
pub(super) fn read(value: &PgValueRef<'_>, kind: &PgTypeInfo) -> Result<Json, BoxDynError> {
    if value.is_null() {
        return Ok(Json::Null);
    }
    let bytes = value.as_bytes()?;
    if matches!(kind.kind(), PgTypeKind::Enum(_)) {
        return Ok(Json::from(std::str::from_utf8(bytes)?));
    }
    Ok(match kind.name() {
        "BOOL" => Json::Bool(bytes != [0]),
        "INT2" => i16::from_be_bytes(bytes.try_into()?).into(),
        "INT4" => i32::from_be_bytes(bytes.try_into()?).into(),
        "INT8" => i64::from_be_bytes(bytes.try_into()?).into(),
        "OID" => u32::from_be_bytes(bytes.try_into()?).into(),
        // By way of its text: 0.1 stays 0.1.
        "FLOAT4" => f32::from_be_bytes(bytes.try_into()?).to_string().parse::<f64>()?.into(),
        "FLOAT8" => f64::from_be_bytes(bytes.try_into()?).into(),
        "NUMERIC" => numeric(bytes)?.into(),
        "JSON" => serde_json::from_slice(bytes)?,
        // Behind the number of the version.
        "JSONB" => serde_json::from_slice(bytes.get(1..).unwrap_or_default())?,
        "BYTEA" => hexadecimal(bytes).into(),
        "UUID" => uuid(bytes).into(),
        "DATE" => date_of(i32::from_be_bytes(bytes.try_into()?))?.to_string().into(),
        "TIME" => time_of(i64::from_be_bytes(bytes.try_into()?))?.to_string().into(),
        "TIMESTAMP" => timestamp_of(i64::from_be_bytes(bytes.try_into()?))?.to_string().into(),
        "TIMESTAMPTZ" => instant_of(i64::from_be_bytes(bytes.try_into()?))?.to_string().into(),
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "UNKNOWN" | "CITEXT" | "\"CHAR\"" | "XML" => {
            Json::from(std::str::from_utf8(bytes)?)
        }
        "VOID" => Json::Null,
        other => {
            return Err(
                format!("the type {other} has no form in JSON: cast it to text, `column::text`").into()
            );
        }
    })
}

fn date_of(days: i32) -> Result<Date, jiff::Error> {
    date(2000, 1, 1).checked_add(Span::new().try_days(days)?)
}

fn time_of(microseconds: i64) -> Result<Time, jiff::Error> {
    Time::midnight().checked_add(SignedDuration::from_micros(microseconds))
}

fn timestamp_of(microseconds: i64) -> Result<DateTime, jiff::Error> {
    datetime(2000, 1, 1, 0, 0, 0, 0).checked_add(SignedDuration::from_micros(microseconds))
}

fn instant_of(microseconds: i64) -> Result<Timestamp, BoxDynError> {
    let microseconds = microseconds.checked_add(EPOCH_MICROSECONDS).ok_or("a time without end")?;
    Ok(Timestamp::from_microsecond(microseconds)?)
}

fn uuid(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A number of any length: digits to the base of 10,000, of which the first `weight + 1` stand before the
/// point, and how many decimal places are shown.
fn numeric(bytes: &[u8]) -> Result<String, BoxDynError> {
    let words = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect::<Vec<_>>();
    let [_, weight, sign, places, digits @ ..] = &*words else { return Err("a number was cut off".into()) };
    match sign {
        0xC000 => return Ok("NaN".into()),
        0xD000 => return Ok("Infinity".into()),
        0xF000 => return Ok("-Infinity".into()),
        _ => {}
    }
    let weight = i32::from(weight.cast_signed());
    let digit = |position: i32| {
        usize::try_from(position).ok().and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let mut text = String::new();
    for position in 0..=weight {
        let _ = write!(text, "{:04}", digit(position));
    }
    let whole = text.trim_start_matches('0');
    let sign = if *sign == 0x4000 { "-" } else { "" };
    let mut number = format!("{sign}{}", if whole.is_empty() { "0" } else { whole });
    if *places > 0 {
        let mut fraction = String::new();
        let mut position = weight + 1;
        // Zeros that are not sent, right behind the point.
        for _ in position..0 {
            fraction.push_str("0000");
        }
        position = position.max(0);
        while fraction.len() < usize::from(*places) {
            let _ = write!(fraction, "{:04}", digit(position));
            position += 1;
        }
        fraction.truncate(usize::from(*places));
        number.push('.');
        number.push_str(&fraction);
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length_are_written_out() {
        let number = |words: &[u16]| {
            let bytes = words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
            numeric(&bytes).unwrap()
        };
        assert_eq!(number(&[0, 0, 0, 2]), "0.00");
        assert_eq!(number(&[2, 0, 0x4000, 2, 12, 3400]), "-12.34");
        assert_eq!(number(&[1, 1, 0, 0, 1]), "10000");
        assert_eq!(number(&[1, 0xFFFF, 0, 4, 5]), "0.0005");
        assert_eq!(number(&[1, 0xFFFE, 0, 6, 500]), "0.000005");
        assert_eq!(number(&[0, 0, 0xC000, 0]), "NaN");
        assert!(numeric(&[0, 0]).is_err());
    }
}
