//! [`Value`] and [`ValueMap`]: what headers and properties hold, and what expressions evaluate to.

mod compare;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;

pub use compare::NoOrder;

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
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Text(SmolStr),
    /// Bytes that are not known to be text.
    Bytes(Bytes),
    /// An array or object (or any other JSON value).
    Json(Arc<serde_json::Value>),
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

    /// The number that this value is, or that its text reads as.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "comparison with a float is what was asked for")]
            Self::Integer(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Text(text) => compare::number_of(text),
            Self::Json(json) => match &**json {
                serde_json::Value::Number(number) => number.as_f64(),
                serde_json::Value::String(text) => compare::number_of(text),
                _ => None,
            },
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
            Self::Json(json) => !json.is_null() && **json != serde_json::Value::Bool(false),
        }
    }
}

/// The text form: what `log` prints and `${...}` inserts. Null is the empty text.
impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Boolean(flag) => flag.fmt(formatter),
            Self::Integer(number) => number.fmt(formatter),
            Self::Float(number) => number.fmt(formatter),
            Self::Text(text) => text.fmt(formatter),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).fmt(formatter),
            Self::Json(json) => match &**json {
                serde_json::Value::String(text) => text.fmt(formatter),
                serde_json::Value::Null => Ok(()),
                other => other.fmt(formatter),
            },
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

/// Numbers above `i64::MAX` become floats.
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "documented above; no counter gets there")]
        i64::try_from(number).map_or(Self::Float(number as f64), Self::Integer)
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

/// Scalars become scalars; a whole number that is too large for an integer stays JSON, which is exact.
impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(flag) => Self::Boolean(*flag),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(integer) => Self::Integer(integer),
                None if number.is_u64() => Self::Json(Arc::new(json.clone())),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::Text(text.into()),
            array_or_object => Self::Json(Arc::new(array_or_object.clone())),
        }
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
