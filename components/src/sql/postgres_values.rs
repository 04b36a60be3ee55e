//! Values of `PostgreSQL`, in the binary form in which they arrive, as JSON.

use std::fmt::Write as _;

use jiff::civil::{Time, date, datetime};
use jiff::{SignedDuration, Span, Timestamp};
use router_core::error::BoxError;
use router_core::value::{Json, Number};

use sqlx::postgres::{PgTypeInfo, PgTypeKind, PgValueRef};
use sqlx::{TypeInfo, ValueRef};

use super::rows::hexadecimal;

/// Microseconds from 1970 to 2000, from which the server counts.
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// The bytes of a value, `None` if it is null.
pub(super) fn bytes<'a>(value: &PgValueRef<'a>) -> Result<Option<&'a [u8]>, BoxError> {
    if value.is_null() { Ok(None) } else { value.as_bytes().map(Some) }
}

/// The value as JSON. What has no exact form in JSON becomes the text that the server would print.
pub(super) fn read(bytes: Option<&[u8]>, kind: &PgTypeInfo, unique_keys: bool) -> Result<Json, BoxError> {
    let Some(bytes) = bytes else { return Ok(Json::Null) };
    match kind.kind() {
        PgTypeKind::Enum(_) => return Ok(Json::from(std::str::from_utf8(bytes)?)),
        PgTypeKind::Domain(base) => return read(Some(bytes), base, unique_keys),
        PgTypeKind::Array(element) => return array(bytes, element, unique_keys),
        _ => {}
    }
    Ok(match kind.name() {
        "BOOL" => Json::Boolean(bytes != [0]),
        "INT2" => i32::from(i16::from_be_bytes(bytes.try_into()?)).into(),
        "INT4" => i32::from_be_bytes(bytes.try_into()?).into(),
        "INT8" => i64::from_be_bytes(bytes.try_into()?).into(),
        "OID" => u32::from_be_bytes(bytes.try_into()?).into(),
        // By way of its text: 0.1 stays 0.1.
        "FLOAT4" => float(f32::from_be_bytes(bytes.try_into()?).to_string().parse()?),
        "FLOAT8" => float(f64::from_be_bytes(bytes.try_into()?)),
        "NUMERIC" => numeric(bytes)?.into(),
        "JSON" if unique_keys => Json::parse_unique(bytes)?,
        "JSON" => Json::parse(bytes)?,
        // Behind the number of the version. The server keeps no key twice.
        "JSONB" => Json::parse(bytes.get(1..).unwrap_or_default())?,
        "BYTEA" => hexadecimal(bytes).into(),
        "UUID" => uuid(bytes).into(),
        "DATE" => date_of(i32::from_be_bytes(bytes.try_into()?))?.into(),
        "TIME" => time_of(i64::from_be_bytes(bytes.try_into()?))?.into(),
        "TIMESTAMP" => timestamp_of(i64::from_be_bytes(bytes.try_into()?))?.into(),
        "TIMESTAMPTZ" => instant_of(i64::from_be_bytes(bytes.try_into()?))?.into(),
        // Nothing, or one byte.
        "\"CHAR\"" => std::str::from_utf8(bytes)?.trim_end_matches('\0').into(),
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "UNKNOWN" | "citext" | "CITEXT" | "xml" => {
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

/// JSON has no numbers for some, which would become null.
fn float(number: f64) -> Json {
    match number {
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        number => Number::from_f64(number).map_or("NaN".into(), Json::Number),
    }
}

/// An array: how many dimensions, whether there are nulls, the type of the elements, length and first index
/// of each dimension, and the elements with their lengths.
fn array(bytes: &[u8], element: &PgTypeInfo, unique_keys: bool) -> Result<Json, BoxError> {
    const CUT_OFF: &str = "an array was cut off";
    let word = |index: usize| -> Result<i32, BoxError> {
        let bytes = bytes.get(index * 4..index * 4 + 4).ok_or(CUT_OFF)?;
        Ok(i32::from_be_bytes(bytes.try_into()?))
    };
    let dimensions = usize::try_from(word(0)?)?;
    let mut lengths = Vec::new();
    for dimension in 0..dimensions {
        lengths.push(usize::try_from(word(3 + 2 * dimension)?)?);
        if word(4 + 2 * dimension)? != 1 {
            return Err("the indexes of this array do not begin at 1: cast it to text, `column::text`".into());
        }
    }
    let mut rest = bytes.get(4 * (3 + 2 * dimensions)..).ok_or(CUT_OFF)?;
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (length, behind) = rest.split_at_checked(4).ok_or(CUT_OFF)?;
        let length = i32::from_be_bytes(length.try_into()?);
        let (item, behind) = match usize::try_from(length) {
            Ok(length) => {
                let (item, behind) = behind.split_at_checked(length).ok_or(CUT_OFF)?;
                (Some(item), behind)
            }
            Err(_) => (None, behind),
        };
        items.push(read(item, element, unique_keys)?);
        rest = behind;
    }
    for length in lengths.into_iter().skip(1).rev() {
        let mut outer = Vec::new();
        let mut items_left = items.into_iter().peekable();
        while items_left.peek().is_some() {
            outer.push(items_left.by_ref().take(length).collect());
        }
        items = outer;
    }
    Ok(items.into())
}

fn date_of(days: i32) -> Result<String, BoxError> {
    Ok(match days {
        i32::MAX => "infinity".into(),
        i32::MIN => "-infinity".into(),
        days => date(2000, 1, 1).checked_add(Span::new().try_days(days)?)?.to_string(),
    })
}

fn time_of(microseconds: i64) -> Result<String, jiff::Error> {
    // The end of a day is a time of its own.
    if microseconds == 86_400_000_000 {
        return Ok("24:00:00".into());
    }
    Ok(Time::midnight().checked_add(SignedDuration::from_micros(microseconds))?.to_string())
}

fn without_end(microseconds: i64) -> Option<String> {
    match microseconds {
        i64::MAX => Some("infinity".into()),
        i64::MIN => Some("-infinity".into()),
        _ => None,
    }
}

fn timestamp_of(microseconds: i64) -> Result<String, jiff::Error> {
    if let Some(text) = without_end(microseconds) {
        return Ok(text);
    }
    let start = datetime(2000, 1, 1, 0, 0, 0, 0);
    Ok(start.checked_add(SignedDuration::from_micros(microseconds))?.to_string())
}

fn instant_of(microseconds: i64) -> Result<String, BoxError> {
    if let Some(text) = without_end(microseconds) {
        return Ok(text);
    }
    let microseconds = microseconds.checked_add(EPOCH_MICROSECONDS).ok_or("a time that is too late")?;
    Ok(Timestamp::from_microsecond(microseconds)?.to_string())
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
fn numeric(bytes: &[u8]) -> Result<String, BoxError> {
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
