//! Values of parameters, in the text form in which `PostgreSQL` reads them.

use router_core::error::BoxError;
use router_core::value::{Json, Value};
use sqlx::TypeInfo;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgTypeInfo, PgTypeKind};

use super::affinity::is_whole;
use super::parameters::list;
use super::rows::hexadecimal;
use super::statement::{Parameter, Place};

/// What a type is called in a cast. As a word, `char` and `bit` mean a single one there, and a cast cuts
/// off what is longer; as names, they mean any length. A cast to a domain cuts off as well, where that has a
/// length: the cast is to what it is made of, and the column sees to the rest.
pub(super) fn cast_name(kind: &PgTypeInfo) -> &str {
    if let PgTypeKind::Domain(base) = kind.kind() {
        return cast_name(base);
    }
    match kind.name() {
        "CHAR" => "bpchar",
        "CHAR[]" => "bpchar[]",
        "BIT" => "pg_catalog.\"bit\"",
        "BIT[]" => "pg_catalog.\"bit\"[]",
        // Internal one-byte type: only its name in small letters is in quotes.
        "\"CHAR\"" => "\"char\"",
        "\"CHAR\"[]" => "\"char\"[]",
        name => name,
    }
}

/// What a whole number that a type does not hold, and the next one does, is compared as. It fits no column of the
/// shorter type, which the server says.
pub(super) fn wide_name(kind: &PgTypeInfo, value: &Value) -> Option<&'static str> {
    let (kind, wide) = match element(base(kind)) {
        Some(element) => (base(element), "int8[]"),
        None => (base(kind), "int8"),
    };
    let bits = match kind.name() {
        "INT2" => 16,
        "INT4" => 32,
        _ => return None,
    };
    let long = |number: i64| number >> (bits - 1) != number >> 63;
    let is_long = |text: &str| is_whole(text) && text.trim_ascii().parse().is_ok_and(long);
    let is_long_json = |item: &Json| match item {
        Json::Number(number) => number.to_whole().is_some_and(|whole| is_long(&whole)),
        Json::Text(text) => is_long(text),
        _ => false,
    };
    let found = match value {
        Value::Integer(number) => long(*number),
        Value::Text(text) => is_long(text),
        Value::Json(Json::List(list)) => list.iter().any(is_long_json),
        Value::Json(json) => is_long_json(json),
        _ => false,
    };
    found.then_some(wide)
}

/// A value beside a type for whole numbers is one, also as a text: not `1.0`, and nothing of what some versions of the
/// server read in a text, such as `0x10`.
fn check_whole(name: &str, value: &Value, kind: &PgTypeInfo) -> Result<(), BoxError> {
    let sound = match value {
        Value::Boolean(_) | Value::Json(Json::Boolean(_)) => false,
        Value::Text(text) | Value::Json(Json::Text(text)) => is_whole(text),
        Value::Json(Json::Number(number)) => number.to_whole().is_some(),
        Value::Float(number) => number.fract() == 0.0,
        Value::Json(Json::List(list)) => {
            return list.iter().try_for_each(|item| check_whole(name, &Value::from(item), kind));
        }
        _ => true,
    };
    if sound {
        return Ok(());
    }
    let kind = kind.name().to_ascii_lowercase();
    Err(format!(
        "`:{name}` is or contains {value}, and the type here is {kind}, which has whole numbers alone"
    )
    .into())
}

/// The text form of a value, as the server reads it for a parameter of this type.
pub(super) fn text(
    parameter: &Parameter,
    value: &Value,
    kind: Option<&PgTypeInfo>,
) -> Result<Option<String>, BoxError> {
    /// The type `bytea`.
    const BYTES: Oid = Oid(17);
    let kind = kind.map(base);
    let element = kind.and_then(element);
    let name = &parameter.name;
    if let Some(whole) = [kind, element.map(base)].into_iter().flatten().find(|kind| is_whole_type(kind)) {
        check_whole(name, value, whole)?;
    }
    Ok(match (value, list(value)) {
        (value, _) if value.is_null() => None,
        (_, Some(list)) if parameter.place == Place::InList => Some(array(list, kind)),
        (_, Some(list)) if element.is_some() => Some(array(list, element)),
        (value, Some(_)) if is_json(kind) || parameter.place == Place::TakesJson => Some(value.to_string()),
        (_, Some(_)) => {
            return Err(format!(
                "`:{name}` is a list: write `in (:{name})` or `any(:{name})`, or `cast(:{name} as text)` to store it"
            )
            .into());
        }
        // Which an array would read as its own form.
        (Value::Json(Json::Object(_)), _) if element.is_some() => {
            return Err(format!("`:{name}` is an object, and an array takes a list").into());
        }
        (Value::Json(json), _) if is_json(kind) => Some(json.to_string()),
        // Columns of whole numbers take `1E2` in no other form.
        (Value::Json(Json::Number(number)), _) if kind.is_some_and(is_whole_type) => {
            Some(number.to_whole().unwrap_or_else(|| number.to_string()))
        }
        (Value::Bytes(bytes), _) if kind.and_then(PgTypeInfo::oid) == Some(BYTES) => Some(hexadecimal(bytes)),
        (Value::Bytes(bytes), _) => match std::str::from_utf8(bytes) {
            Ok(text) => Some(text.to_owned()),
            Err(_) => {
                return Err(
                    format!("`:{name}` is bytes that are not UTF-8, and the type is not bytea").into()
                );
            }
        },
        (Value::Text(text), _) if kind.is_some_and(|kind| kind.name() == "TIMESTAMP") && has_offset(text) => {
            return Err(format!(
                "`:{name}` has an offset, which `timestamp` would drop: write `:{name}::timestamptz`"
            )
            .into());
        }
        (value, _) => Some(value.to_string()),
    })
}

fn base(kind: &PgTypeInfo) -> &PgTypeInfo {
    match kind.kind() {
        PgTypeKind::Domain(inner) => base(inner),
        _ => kind,
    }
}

fn element(kind: &PgTypeInfo) -> Option<&PgTypeInfo> {
    match kind.kind() {
        PgTypeKind::Array(element) => Some(element),
        _ => None,
    }
}

fn is_json(kind: Option<&PgTypeInfo>) -> bool {
    kind.is_some_and(|kind| matches!(kind.name(), "JSON" | "JSONB"))
}

fn is_whole_type(kind: &PgTypeInfo) -> bool {
    matches!(kind.name(), "INT2" | "INT4" | "INT8" | "OID")
}

/// The text form of an array: `{1,"a, b",NULL}`.
fn array(list: &[Json], element: Option<&PgTypeInfo>) -> String {
    let items = list.iter().map(|item| match item {
        Json::Null => "NULL".to_owned(),
        item if is_json(element) => quoted(&item.to_string()),
        Json::List(list) => array(list, element),
        Json::Number(number) if element.is_some_and(is_whole_type) => {
            number.to_whole().unwrap_or_else(|| number.to_string())
        }
        Json::Text(text) => quoted(text),
        item => quoted(&item.to_string()),
    });
    format!("{{{}}}", items.collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Whether a time of the form of ISO 8601 is at an offset from UTC: `2026-03-01T12:00+02:00`.
fn has_offset(text: &str) -> bool {
    let time = text.get(10..).filter(|time| time.starts_with(['T', ' ']));
    let offset = time.and_then(|time| time.rsplit_once(['+', '-'])).map(|(_, offset)| offset);
    offset.is_some_and(|offset| offset.contains(|digit| matches!(digit, '1'..='9')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_written_as_the_server_reads_them() {
        let list = Json::from(serde_json::json!([1, "a\"b\\", null, true, [2.5, "{}"], ""]));
        let text = array(list.as_list().unwrap(), None);
        assert_eq!(text, r#"{"1","a\"b\\",NULL,"true",{"2.5","{}"},""}"#);
    }

    #[test]
    fn offsets_are_seen() {
        for text in ["2026-03-01T12:00:00+02:00", "2026-03-01 12:00-0330", "2026-03-01 12:00:00.5 +01"] {
            assert!(has_offset(text), "{text}");
        }
        for text in ["2026-03-01T12:00:00Z", "2026-03-01T12:00:00+00:00", "2026-03-01", "infinity"] {
            assert!(!has_offset(text), "{text}");
        }
    }
}
