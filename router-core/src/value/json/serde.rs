//! [`Json`] and the types of other crates: `serde_json::Value`, and what implements the traits of `serde`.

use std::fmt;

use serde::de::value::{
    BorrowedStrDeserializer, MapAccessDeserializer, MapDeserializer, SeqDeserializer, StrDeserializer,
};
use serde::de::{DeserializeOwned, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, forward_to_deserialize_any};

use super::{Json, JsonError, Object};
use crate::value::number::Number;

/// By this name a field of the type [`Json`] is recognised, which gets its numbers as they are written.
const TOKEN: &str = "$bactrian::Json";

impl Json {
    /// This value as a type of Rust. A field of the type `f64` gets the nearest float, as its type says; fields of the
    /// type [`Json`] lose nothing.
    ///
    /// # Errors
    /// When it does not fit the type, also where a number would be rounded and the type does not ask for that.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, JsonError> {
        T::deserialize(self)
    }

    /// What a value of Rust is as JSON.
    ///
    /// # Errors
    /// When it has no form in JSON.
    pub fn serialize(value: &impl Serialize) -> Result<Self, JsonError> {
        Self::parse(serde_json::to_vec(value).map_err(JsonError::new)?)
    }
}

impl From<serde_json::Value> for Json {
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(flag) => Self::Boolean(flag),
            // What serde_json writes is a number.
            serde_json::Value::Number(number) => {
                number.to_string().parse::<Number>().map_or(Self::Null, Self::Number)
            }
            serde_json::Value::String(text) => Self::Text(text.into()),
            serde_json::Value::Array(items) => items.into_iter().collect(),
            serde_json::Value::Object(fields) => Self::Object(fields.into_iter().collect::<Object>()),
        }
    }
}

/// Fails where a number would be rounded.
impl TryFrom<&Json> for serde_json::Value {
    type Error = JsonError;

    fn try_from(json: &Json) -> Result<Self, JsonError> {
        serde_json::to_value(json).map_err(JsonError::new)
    }
}

fn rounded(number: &Number) -> String {
    format!("the number {number} would be rounded")
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Boolean(flag) => serializer.serialize_bool(*flag),
            Self::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), ..) => serializer.serialize_i64(number),
                (_, Some(number), _) => serializer.serialize_u64(number),
                (.., Some(number)) => serializer.serialize_f64(number),
                _ => Err(S::Error::custom(rounded(number))),
            },
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items.iter()),
            Self::Object(object) => {
                let mut map = serializer.serialize_map(Some(object.len()))?;
                for (key, value) in object.iter() {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl serde::de::Error for JsonError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message)
    }
}

impl<'de> IntoDeserializer<'de, JsonError> for &'de Json {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The entries of an object, for a visitor.
fn entries(object: &Object) -> impl Iterator<Item = (BorrowedStrDeserializer<'_, JsonError>, &Json)> {
    object.iter().map(|(key, value)| (BorrowedStrDeserializer::new(key), value))
}

impl<'de> Deserializer<'de> for &'de Json {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self {
            Json::Null => visitor.visit_unit(),
            Json::Boolean(flag) => visitor.visit_bool(*flag),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_i64(number),
                (_, Some(number), _) => visitor.visit_u64(number),
                (.., Some(number)) => visitor.visit_f64(number),
                _ => Err(JsonError::new(rounded(number))),
            },
            Json::Text(text) => visitor.visit_borrowed_str(text),
            Json::List(items) => {
                let mut items = SeqDeserializer::new(items.iter());
                let value = visitor.visit_seq(&mut items)?;
                items.end().map(|()| value)
            }
            Json::Object(object) => {
                let mut entries = MapDeserializer::new(entries(object));
                let value = visitor.visit_map(&mut entries)?;
                entries.end().map(|()| value)
            }
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self {
            Json::Number(number) => visitor.visit_f64(number.to_f64_lossy()),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.as_number().and_then(|number| number.as_str().parse().ok()) {
            Some(number) => visitor.visit_i128(number),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.as_number().and_then(|number| number.as_str().parse().ok()) {
            Some(number) => visitor.visit_u128(number),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        if name == TOKEN {
            visitor.visit_string(self.to_string())
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        match self {
            Json::Text(text) => visitor.visit_enum(StrDeserializer::new(text)),
            Json::Object(object) if object.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(MapDeserializer::new(entries(object))))
            }
            _ => Err(JsonError::new("expected a variant: a text, or an object of one key")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(TOKEN, WholeVisitor)
    }
}

/// Takes the text of a [`Json`], or what another deserializer has instead.
struct WholeVisitor;

impl<'de> Visitor<'de> for WholeVisitor {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Json, E> {
        Json::parse(text).map_err(E::custom)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(PartVisitor)
    }
}

/// Takes the parts of a value one by one.
struct PartVisitor;

impl<'de> Visitor<'de> for PartVisitor {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Json, E> {
        Number::from_f64(number).map(Json::Number).ok_or_else(|| E::custom("JSON has no such number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Json>()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Object::default();
        while let Some((key, value)) = entries.next_entry::<String, Json>()? {
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_becomes_one_of_serde_json_or_fails_where_it_would_round() {
        let json = json!({"a": [1, 2.5, u64::MAX, -7, null, true, "x"], "b": {"c": 1e300}});
        assert_eq!(serde_json::Value::try_from(&Json::from(json.clone())).unwrap(), json);
        for text in ["123456789012345678901234567890.10", "0.1000000000000000055511151231257827", "1e400"] {
            let json = Json::parse(format!("[{text}]")).unwrap();
            let error = serde_json::Value::try_from(&json).unwrap_err().to_string();
            assert_eq!(error, format!("the number {text} would be rounded"));
            assert!(json.deserialize::<serde_json::Value>().is_err());
        }
    }

    #[test]
    fn a_value_becomes_what_a_type_of_rust_asks_for() {
        #[derive(Debug, PartialEq, Deserialize)]
        enum Kind {
            Order,
            Refund { of: u64 },
        }
        #[derive(Debug, PartialEq, Deserialize)]
        struct Id(u128);
        #[derive(Debug, PartialEq, Deserialize)]
        struct Order {
            id: Id,
            amount: Json,
            rate: f64,
            kinds: Vec<Kind>,
            note: Option<String>,
        }
        let text = r#"{"id": 340282366920938463463374607431768211455, "amount": 123456789012345678901234567890.10,
            "rate": 0.1000000000000000055511151231257827, "kinds": ["Order", {"Refund": {"of": 7}}], "note": null, "x": 1}"#;
        let order: Order = Json::parse(text).unwrap().deserialize().unwrap();
        assert_eq!(order.amount.to_string(), "123456789012345678901234567890.10");
        assert_eq!(order.kinds, [Kind::Order, Kind::Refund { of: 7 }]);
        assert_eq!((order.id, order.rate, order.note), (Id(u128::MAX), 0.1, None));
        assert!(Json::parse("[1]").unwrap().deserialize::<Order>().is_err());
        assert!(Json::parse("300").unwrap().deserialize::<u8>().is_err());
    }

    #[test]
    fn values_of_rust_become_json() {
        assert_eq!(
            Json::serialize(&("a", [1.5, 2.0], None::<u8>)).unwrap().to_string(),
            r#"["a",[1.5,2.0],null]"#
        );
        let json: Json = serde_json::from_str(r#"{"b": [1, 0.5], "a": null}"#).unwrap();
        assert_eq!(json.to_string(), r#"{"b":[1,0.5],"a":null}"#);
    }
}
