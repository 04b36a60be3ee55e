//! [`Value`] and [`ValueMap`]: what headers and properties hold, and what expressions evaluate to.

mod compare;
mod json;
mod number;

use std::fmt;

use bytes::Bytes;
use smol_str::SmolStr;

pub use compare::NoOrder;
pub use json::{Json, JsonError, Object};
pub use number::{Number, NumberError};

/// A header, a property, or the result of an expression.
///
/// Cloning never copies text or JSON: short text lives inline, the rest is shared.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Nothing: a missing header, an empty body.
    #[default]
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number that was calculated. One that was read is [`Json`](Self::Json), with the digits it was written with.
    Float(f64),
    /// Text.
    Text(SmolStr),
    /// Bytes that are not known to be text.
    Bytes(Bytes),
    /// An array, an object, or a number that is not an integer of 64 bits.
    Json(Json),
}

impl Value {
    /// Whether there is nothing here.
    #[must_use]
    pub fn is_null(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Json(json) => json.is_null(),
            _ => false,
        }
    }

    /// The float next to the number that this value is, or that its text reads as.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "comparison with a float is what was asked for")]
            Self::Integer(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Text(text) => compare::number_of(text),
            Self::Json(Json::Number(number)) => Some(number.to_f64_lossy()),
            Self::Json(Json::Text(text)) => compare::number_of(text),
            Self::Json(_) => None,
            Self::Null | Self::Boolean(_) | Self::Bytes(_) => None,
        }
    }

    /// Whether a predicate that consists of this value alone holds: `true`, or anything that is not
    /// null, `false`, empty text or the text `false` (the rules of Camel's Simple language).
    #[must_use]
    pub fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Boolean(flag) => *flag,
            Self::Integer(_) | Self::Float(_) => true,
            Self::Text(text) => !text.is_empty() && !text.eq_ignore_ascii_case("false"),
            Self::Bytes(bytes) => !bytes.is_empty(),
            Self::Json(json) => !json.is_null() && *json != Json::Boolean(false),
        }
    }

    /// Whether the text form holds the whole value: bytes that are not UTF-8 have none that does.
    #[must_use]
    pub fn has_exact_text(&self) -> bool {
        !matches!(self, Self::Bytes(bytes) if std::str::from_utf8(bytes).is_err())
    }
}

/// The text form: what `log` prints and `${...}` inserts. Null is the empty text. In bytes, what is not UTF-8 is replaced:
/// good enough to be looked at, not to be sent on, see [`Value::has_exact_text`].
impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Boolean(flag) => flag.fmt(formatter),
            Self::Integer(number) => number.fmt(formatter),
            Self::Float(number) => number.fmt(formatter),
            Self::Text(text) => text.fmt(formatter),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).fmt(formatter),
            Self::Json(Json::Text(text)) => text.fmt(formatter),
            Self::Json(Json::Null) => Ok(()),
            Self::Json(json) => json.fmt(formatter),
        }
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Boolean(flag)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or_else(|_| Self::Json(number.into()), Self::Integer)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<SmolStr> for Value {
    fn from(text: SmolStr) -> Self {
        Self::Text(text)
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// An integer of 64 bits becomes one; every other number keeps the digits that it was written with.
impl From<Number> for Value {
    fn from(number: Number) -> Self {
        // `-0` is one that would be written in another way.
        match number.as_i64().filter(|_| number.as_str() != "-0") {
            Some(integer) => Self::Integer(integer),
            None => Self::Json(Json::Number(number)),
        }
    }
}

/// Scalars become scalars.
impl From<Json> for Value {
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Boolean(flag) => Self::Boolean(flag),
            Json::Number(number) => number.into(),
            Json::Text(text) => Self::Text(text),
            list_or_object => Self::Json(list_or_object),
        }
    }
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Self {
        json.clone().into()
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        Json::from(json).into()
    }
}

/// Names and values in the order in which they were first set.
///
/// Names are compared without regard to ASCII case, as Camel and HTTP do for headers. A message has a
/// handful of headers: a linear search over a vector is more than twice as fast as a hash map there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValueMap {
    entries: Vec<(SmolStr, Value)>,
}

impl ValueMap {
    /// The value of `name`, if it is set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entries.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Sets `name`, replacing an earlier value.
    pub fn set(&mut self, name: impl Into<SmolStr>, value: impl Into<Value>) {
        let name = name.into();
        match self.entries.iter_mut().find(|(key, _)| key.eq_ignore_ascii_case(&name)) {
            Some((_, present)) => *present = value.into(),
            None => self.entries.push((name, value.into())),
        }
    }

    /// Removes `name` and returns its value, if it was set.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let index = self.entries.iter().position(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(self.entries.remove(index).1)
    }

    /// Keeps what has such a name.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.entries.retain(|(name, _)| keep(name));
    }

    /// All names and values, in the order in which they were first set.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_ignore_case_and_keep_the_first_spelling() {
        let mut headers = ValueMap::default();
        headers.set("Content-Type", "text/plain");
        headers.set("content-type", "text/html");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("Content-Type", &Value::from("text/html"))]);
        assert_eq!(headers.remove("CONTENT-TYPE"), Some(Value::from("text/html")));
        assert!(headers.is_empty());
    }
}
