//! [`Json`]: a JSON value that keeps what was written: the digits of numbers, and the order of keys.

mod parse;
mod serde;

use std::fmt::{self, Write as _};
use std::ops::Index;
use std::sync::Arc;

use indexmap::IndexMap;
use smol_str::SmolStr;

pub use parse::JsonError;

use super::number::Number;

/// A JSON value. Cloning it copies nothing.
///
/// ```
/// use router_core::value::Json;
///
/// let json = Json::parse(r#"{"amount": 123456789012345678901234567890.10}"#).unwrap();
/// assert_eq!(json["amount"].to_string(), "123456789012345678901234567890.10");
/// // A float has not so many digits.
/// assert!(serde_json::Value::try_from(&json).is_err());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Json {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Boolean(bool),
    /// A number of any length.
    Number(Number),
    /// A string.
    Text(SmolStr),
    /// An array.
    List(Arc<[Json]>),
    /// An object.
    Object(Object),
}

static NULL: Json = Json::Null;

impl Json {
    /// A longer text is parsed on a thread that may block: this one takes 0.6 ms where a release was measured, and
    /// meanwhile no route of its thread goes on.
    pub const LARGE_TEXT: usize = 64 << 10;

    /// Whether this is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, where this is one.
    #[must_use]
    pub fn as_number(&self) -> Option<&Number> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    /// A whole number that 64 bits hold.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        self.as_number()?.as_i64()
    }

    /// A whole number that 64 bits without a sign hold.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.as_number()?.as_u64()
    }

    /// The elements of an array.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Json]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The object, where this is one.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The value of this key of an object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.as_object()?.get(key)
    }

    /// The field of an object, or, if the name is a number, the element of an array.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Json> {
        match self {
            // Written as an index is: `01` and `+1` are none.
            Self::List(items) => match name.as_bytes() {
                [b'+', ..] | [b'0', _, ..] => None,
                _ => items.get(name.parse::<usize>().ok()?),
            },
            Self::Object(object) => object.get(name),
            _ => None,
        }
    }

    /// What a JSON pointer (RFC 6901) points at: the empty one at the whole value.
    #[must_use]
    pub fn pointer(&self, pointer: &str) -> Option<&Json> {
        if pointer.is_empty() {
            return Some(self);
        }
        let mut names = pointer.strip_prefix('/')?.split('/');
        names.try_fold(self, |value, name| value.field(&name.replace("~1", "/").replace("~0", "~")))
    }
}

/// The keys and values of an object, in the order in which they were written. Cloning it copies nothing.
///
/// Two objects are equal if they have the same keys and values, in any order.
#[derive(Clone, Default, PartialEq)]
pub struct Object(Arc<IndexMap<SmolStr, Json>>);

impl Object {
    /// The value of this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.0.get(key)
    }

    /// All keys and values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Json)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a key, and returns its former value. A key that is there keeps its place.
    pub fn insert(&mut self, key: impl Into<SmolStr>, value: impl Into<Json>) -> Option<Json> {
        Arc::make_mut(&mut self.0).insert(key.into(), value.into())
    }

    /// Removes a key, and returns its value. The others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<Json> {
        Arc::make_mut(&mut self.0).shift_remove(key)
    }
}

impl<K: Into<SmolStr>, V: Into<Json>> FromIterator<(K, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(Arc::new(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect()))
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

impl PartialEq<&str> for Json {
    fn eq(&self, text: &&str) -> bool {
        self.as_str() == Some(text)
    }
}

impl PartialEq<i64> for Json {
    fn eq(&self, number: &i64) -> bool {
        self.as_i64() == Some(*number)
    }
}

/// The field of an object; null where there is none, as in `serde_json`.
impl Index<&str> for Json {
    type Output = Json;

    fn index(&self, key: &str) -> &Json {
        self.get(key).unwrap_or(&NULL)
    }
}

/// The element of an array; null where there is none.
impl Index<usize> for Json {
    type Output = Json;

    fn index(&self, index: usize) -> &Json {
        self.as_list().and_then(|items| items.get(index)).unwrap_or(&NULL)
    }
}

/// The JSON text, without white space. Strings are in quotes here, other than in the text of a
/// [`Value`](super::Value).
impl fmt::Display for Json {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("null"),
            Self::Boolean(flag) => flag.fmt(formatter),
            Self::Number(number) => formatter.write_str(number.as_str()),
            Self::Text(text) => write_string(text, formatter),
            Self::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    formatter.write_char(if index == 0 { '[' } else { ',' })?;
                    item.fmt(formatter)?;
                }
                formatter.write_str(if items.is_empty() { "[]" } else { "]" })
            }
            Self::Object(object) => {
                for (index, (key, value)) in object.iter().enumerate() {
                    formatter.write_char(if index == 0 { '{' } else { ',' })?;
                    write_string(key, formatter)?;
                    formatter.write_char(':')?;
                    value.fmt(formatter)?;
                }
                formatter.write_str(if object.is_empty() { "{}" } else { "}" })
            }
        }
    }
}

fn write_string(text: &str, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    formatter.write_char('"')?;
    let mut rest = text;
    while let Some(at) = rest.find(|letter| matches!(letter, '"' | '\\' | '\0'..='\u{1f}')) {
        formatter.write_str(&rest[..at])?;
        match rest.as_bytes()[at] {
            b'"' => formatter.write_str("\\\"")?,
            b'\\' => formatter.write_str("\\\\")?,
            b'\n' => formatter.write_str("\\n")?,
            b'\r' => formatter.write_str("\\r")?,
            b'\t' => formatter.write_str("\\t")?,
            control => write!(formatter, "\\u{control:04x}")?,
        }
        rest = &rest[at + 1..];
    }
    formatter.write_str(rest)?;
    formatter.write_char('"')
}

impl From<()> for Json {
    fn from((): ()) -> Self {
        Self::Null
    }
}

impl From<bool> for Json {
    fn from(flag: bool) -> Self {
        Self::Boolean(flag)
    }
}

impl From<Number> for Json {
    fn from(number: Number) -> Self {
        Self::Number(number)
    }
}

macro_rules! from_whole {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Json {
            fn from(number: $kind) -> Self {
                Self::Number(number.into())
            }
        }
    )*};
}

from_whole!(i32, u32, i64, u64, i128, u128, usize);

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<SmolStr> for Json {
    fn from(text: SmolStr) -> Self {
        Self::Text(text)
    }
}

impl From<Object> for Json {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(items: Vec<T>) -> Self {
        items.into_iter().collect()
    }
}

impl<T: Into<Json>> FromIterator<T> for Json {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_is_read_is_written_again_digit_by_digit_and_in_its_order() {
        for text in [
            r#"{"z":123456789012345678901234567890.10,"a":[0.1000000000000000055511151231257827,1E2,-0]}"#,
            r#"{"b":{},"a":[],"\"\\\n\u0001":"ä\t\r"}"#,
            "[true,false,null]",
        ] {
            assert_eq!(json(text).to_string(), text);
        }
    }

    #[test]
    fn pointers_and_fields_reach_into_a_value() {
        let json = json(r#"{"a/b": [10, {"~": 7}], "": 1, "0": "zero"}"#);
        assert_eq!(json.pointer("/a~1b/1/~0"), Some(&7.into()));
        assert_eq!(json.pointer(""), Some(&json));
        assert_eq!(json.pointer("/"), Some(&1.into()));
        assert_eq!(json.pointer("/0"), Some(&"zero".into()));
        for pointer in ["a", "/a~1b/2", "/a~1b/01", "/a~1b/+1", "/a~1b/-", "/a~1b/0/x"] {
            assert_eq!(json.pointer(pointer), None, "{pointer}");
        }
        assert_eq!(json["a/b"][0], 10);
        assert!(json["none"]["at"][7].is_null());
    }

    #[test]
    fn an_object_that_is_changed_is_not_changed_in_its_clones() {
        let before = json(r#"{"b":1,"a":2}"#);
        let mut after = before.as_object().unwrap().clone();
        after.insert("b", 3);
        after.insert("c", Json::Null);
        assert_eq!(Json::from(after).to_string(), r#"{"b":3,"a":2,"c":null}"#);
        assert_eq!(before.to_string(), r#"{"b":1,"a":2}"#);
        assert_eq!(before, json(r#"{"a":2.0,"b":1}"#));
    }
}
