//! How values compare: `==`, `<`, `contains` and `in` of predicates.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use super::number::Decimal;
use super::{Json, Value};

/// Two values of which neither is less than the other, because they are of kinds that have no common order.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{left} and {right} have no order")]
pub struct NoOrder {
    left: String,
    right: String,
}

/// What a value is, for a comparison.
enum Operand<'a> {
    Null,
    Boolean(bool),
    Number(Number<'a>),
    Text(Cow<'a, str>),
    /// No UTF-8.
    Bytes(&'a [u8]),
    /// An array or object.
    Json(&'a Json),
}

/// A number, exact at any size.
#[derive(Clone, Copy)]
enum Number<'a> {
    Whole(i64),
    Float(f64),
    /// Digits as they were written.
    Written(&'a str),
}

impl Value {
    /// Whether two values are equal. Texts are equal if their characters are. A text and a number are equal
    /// if the text is that number. Null equals only null.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            // What most predicates compare.
            (Self::Text(left), Self::Text(right)) => left == right,
            _ => Operand::of(self).equals(&Operand::of(other)),
        }
    }

    /// How two values are ordered. Two texts of digits, with a sign or without, are compared as whole
    /// numbers, other texts by their characters, and a text with a number as numbers. `None`: one of them
    /// is null, which has no order with anything but null, or a number that is none.
    ///
    /// # Errors
    /// When they have no order, as a text that is no number with a number.
    pub fn order(&self, other: &Self) -> Result<Option<Ordering>, NoOrder> {
        let (left, right) = (Operand::of(self), Operand::of(other));
        let no_order = || NoOrder { left: left.to_string(), right: right.to_string() };
        match (&left, &right) {
            (Operand::Null, Operand::Null) => Ok(Some(Ordering::Equal)),
            (Operand::Null, _) | (_, Operand::Null) => Ok(None),
            (Operand::Number(left), Operand::Number(right)) => Ok(left.order(*right)),
            (Operand::Text(left), Operand::Text(right)) => Ok(match (whole(left), whole(right)) {
                (Some(left), Some(right)) => left.order(right),
                _ => Some(left.cmp(right)),
            }),
            (Operand::Text(text), Operand::Number(right)) => {
                number(text).map(|left| left.order(*right)).ok_or_else(no_order)
            }
            (Operand::Number(left), Operand::Text(text)) => {
                number(text).map(|right| left.order(right)).ok_or_else(no_order)
            }
            _ => Err(no_order()),
        }
    }

    /// Whether a list has an element that equals `other`, or a text has the text of `other` in it. Nothing
    /// contains null.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let (left, right) = (Operand::of(self), Operand::of(other));
        match (&left, &right) {
            (Operand::Json(Json::List(items)), right) => {
                items.iter().any(|item| Operand::of_json(item).equals(right))
            }
            (Operand::Null, _) | (_, Operand::Null) => false,
            (Operand::Text(left), Operand::Text(right)) => left.contains(&**right),
            _ => self.to_string().contains(&other.to_string()),
        }
    }

    /// Whether a list has an element that equals this value, or, in a text, one of the words between its
    /// commas does.
    #[must_use]
    pub fn is_in(&self, list: &Self) -> bool {
        let value = Operand::of(self);
        match Operand::of(list) {
            Operand::Json(Json::List(items)) => {
                items.iter().any(|item| Operand::of_json(item).equals(&value))
            }
            Operand::Text(words) => {
                words.split(',').any(|word| Operand::Text(word.trim().into()).equals(&value))
            }
            single => single.equals(&value),
        }
    }
}

impl<'a> Operand<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(flag) => Self::Boolean(*flag),
            Value::Integer(number) => Self::Number(Number::Whole(*number)),
            Value::Float(number) => Self::Number(Number::Float(*number)),
            Value::Text(text) => Self::Text(text.as_str().into()),
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Self::Text(text.into()),
                Err(_) => Self::Bytes(bytes),
            },
            Value::Json(json) => Self::of_json(json),
        }
    }

    fn of_json(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Boolean(flag) => Self::Boolean(*flag),
            Json::Text(text) => Self::Text(text.as_str().into()),
            Json::Number(number) => Self::Number(Number::Written(number.as_str())),
            list_or_object => Self::Json(list_or_object),
        }
    }

    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Boolean(left), Self::Boolean(right)) => left == right,
            (Self::Number(left), Self::Number(right)) => left.order(*right) == Some(Ordering::Equal),
            (Self::Text(left), Self::Text(right)) => left == right,
            (Self::Bytes(left), Self::Bytes(right)) => left == right,
            (Self::Json(left), Self::Json(right)) => left == right,
            (Self::Text(text), Self::Number(value)) | (Self::Number(value), Self::Text(text)) => {
                number(text).is_some_and(|text| text.order(*value) == Some(Ordering::Equal))
            }
            // A flag in a header of HTTP is a text.
            (Self::Text(text), Self::Boolean(flag)) | (Self::Boolean(flag), Self::Text(text)) => {
                *text == if *flag { "true" } else { "false" }
            }
            (Self::Text(text), Self::Json(json)) | (Self::Json(json), Self::Text(text)) => {
                *text == json.to_string()
            }
            _ => false,
        }
    }
}

/// What it is, for an error.
impl fmt::Display for Operand<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// A longer text is not shown as a whole.
        const SHOWN: usize = 40;
        match self {
            Self::Null => formatter.write_str("null"),
            Self::Boolean(flag) => write!(formatter, "`{flag}`"),
            Self::Number(number) => write!(formatter, "the number {number}"),
            Self::Text(text) => {
                let shown = text.chars().take(SHOWN).collect::<String>();
                let rest = if shown.len() < text.len() { "..." } else { "" };
                write!(formatter, "the text `{}{rest}`", shown.escape_debug())
            }
            Self::Bytes(_) => formatter.write_str("bytes that are no text"),
            Self::Json(Json::List(_)) => formatter.write_str("a list"),
            Self::Json(_) => formatter.write_str("an object"),
        }
    }
}

impl Number<'_> {
    /// `None`: one of them is not a number.
    fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(left), Self::Whole(right)) => Some(left.cmp(&right)),
            (Self::Float(left), Self::Float(right)) => left.partial_cmp(&right),
            (Self::Float(float), _) if float.is_infinite() => float.partial_cmp(&0.0),
            (_, Self::Float(float)) if float.is_infinite() => 0.0.partial_cmp(&float),
            (left, right) => Some(left.decimal()?.cmp(&right.decimal()?)),
        }
    }

    fn decimal(self) -> Option<Decimal> {
        match self {
            Self::Whole(number) => Decimal::of_whole(number),
            Self::Float(number) => Decimal::of_float(number),
            Self::Written(digits) => Decimal::parse(digits),
        }
    }
}

impl fmt::Display for Number<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(formatter),
            Self::Float(number) => number.fmt(formatter),
            Self::Written(digits) => digits.fmt(formatter),
        }
    }
}

/// The whole number that a text is: digits, with a sign in front or without.
fn whole(text: &str) -> Option<Number<'_>> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    whole.then(|| text.parse().map_or(Number::Written(text), Number::Whole))
}

/// As a float, the number that a text is.
pub(super) fn number_of(text: &str) -> Option<f64> {
    number(text).and_then(|_| text.trim().parse().ok())
}

/// The number that a text is, white space around it aside. `nan` and `inf` are words.
fn number(text: &str) -> Option<Number<'_>> {
    let text = text.trim();
    whole(text).or_else(|| Decimal::parse(text).map(|_| Number::Written(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Ordering::{Equal, Greater, Less};

    fn json(value: serde_json::Value) -> Value {
        Value::Json(value.into())
    }

    fn written(number: &str) -> Value {
        Value::from(number.parse::<super::super::Number>().unwrap())
    }

    #[test]
    fn texts_are_equal_if_their_characters_are() {
        for (left, right) in [
            ("1.10", "1.1"),
            ("007", "7"),
            ("9007199254740993", "9007199254740992"),
            ("1e3", "1000"),
            (" 1", "1"),
            ("+1", "1"),
        ] {
            assert!(!Value::from(left).equals(&right.into()), "{left} {right}");
        }
        for text in ["Nan", "inf", "", "1.10"] {
            assert!(Value::from(text).equals(&text.into()), "{text}");
        }
    }

    #[test]
    fn a_text_equals_the_number_that_it_is() {
        for (text, value, equal) in [
            ("10", Value::from(10), true),
            (" 10 ", Value::from(10), true),
            ("1.10", Value::from(1.1), true),
            ("9007199254740993", Value::from(9_007_199_254_740_993_i64), true),
            ("9007199254740993", Value::from(9_007_199_254_740_992_i64), false),
            ("9007199254740993", Value::from(9_007_199_254_740_992.0), false),
            ("nan", Value::from(f64::NAN), false),
            ("inf", Value::from(f64::INFINITY), false),
            ("abc", Value::from(0), false),
            ("", Value::from(0), false),
            ("true", Value::from(true), true),
            ("1", Value::from(true), false),
        ] {
            assert_eq!(Value::from(text).equals(&value), equal, "{text} {value:?}");
            assert_eq!(value.equals(&text.into()), equal, "{value:?} {text}");
        }
    }

    #[test]
    fn whole_numbers_are_exact_at_any_size() {
        let large = "123456789012345678901234567890123456789012345678901234567890";
        let larger = "123456789012345678901234567890123456789012345678901234567891";
        let float = |text: &str| Value::from(text.parse::<f64>().unwrap());
        for (left, right, order) in [
            (Value::from("9"), Value::from("10"), Less),
            (Value::from("-10"), Value::from("-9"), Less),
            (Value::from("+5"), Value::from("5"), Equal),
            (Value::from("9007199254740993"), Value::from("9007199254740992"), Greater),
            (Value::from(large), Value::from(larger), Less),
            (Value::from(format!("-{large}")), Value::from(format!("-{larger}")), Greater),
            (Value::from(large), Value::from(i64::MAX), Greater),
            (Value::from(i64::MIN), Value::from(format!("-{large}")), Greater),
            (
                Value::from(large),
                float(large),
                if format!("{:.0}", large.parse::<f64>().unwrap()).as_str() < large { Greater } else { Less },
            ),
            (json(u64::MAX.into()), json((u64::MAX - 1).into()), Greater),
            (Value::from(9_007_199_254_740_993_i64), Value::from(9_007_199_254_740_992.0), Greater),
            (Value::from(-1), Value::from(-1.5), Greater),
            (Value::from(1), Value::from(1.5), Less),
            (Value::from(2), Value::from(2.0), Equal),
            (Value::from(large), Value::from(f64::INFINITY), Less),
            (written(large), Value::from(f64::NEG_INFINITY), Greater),
            (written(large), Value::from(large), Equal),
            (written(large), written(larger), Less),
            (written("18446744073709551617"), written("18446744073709551616"), Greater),
            (written("1e400"), Value::from(f64::MAX), Greater),
            (written("1e400"), Value::from("1e401"), Less),
            (written("1e-400"), Value::from(0), Greater),
            (written("1E2"), Value::from(100), Equal),
            (written("1.10"), Value::from(1.1), Equal),
            (written("0.1000000000000000055511151231257827"), Value::from(0.1), Greater),
            (written("0.1000000000000000055511151231257827"), written("0.1"), Greater),
            (Value::from(1_152_921_504_606_846_976_i64), Value::from(1_152_921_504_606_846_976.0), Equal),
            (Value::from(0), Value::from(f64::NEG_INFINITY), Greater),
        ] {
            assert_eq!(left.order(&right), Ok(Some(order)), "{left:?} {right:?}");
            assert_eq!(right.order(&left), Ok(Some(order.reverse())), "{right:?} {left:?}");
        }
    }

    #[test]
    fn other_texts_are_ordered_by_their_characters() {
        for (left, right) in [("10a", "9a"), ("1.10", "1.9"), ("", "0"), ("a", "b"), ("10", "9.5")] {
            assert_eq!(Value::from(left).order(&right.into()), Ok(Some(Less)), "{left} {right}");
        }
        assert_eq!(Value::from("9.5").order(&10.into()), Ok(Some(Less)));
    }

    #[test]
    fn what_has_no_order_is_an_error() {
        let list = json(serde_json::json!([1]));
        for (left, right) in
            [("abc".into(), 5.into()), ("".into(), 1.into()), (true.into(), false.into()), (list, 1.into())]
        {
            let (left, right): (Value, Value) = (left, right);
            assert!(left.order(&right).is_err() && right.order(&left).is_err(), "{left:?} {right:?}");
        }
        let error = Value::from("a\nb").order(&5.into()).unwrap_err();
        assert_eq!(error.to_string(), "the text `a\\nb` and the number 5 have no order");
        assert_eq!(Value::Null.order(&5.into()), Ok(None));
        assert_eq!(Value::from(f64::NAN).order(&5.into()), Ok(None));
    }

    #[test]
    fn null_equals_only_null() {
        assert!(Value::Null.equals(&Value::Null) && Value::Null.equals(&json(serde_json::Value::Null)));
        assert!(!Value::Null.equals(&"".into()) && !Value::Null.equals(&false.into()));
    }

    #[test]
    fn a_list_contains_its_elements_and_a_text_its_parts() {
        let list = json(serde_json::json!([10, 21, "a", "1.10", null, [1]]));
        for (value, contained) in [
            (Value::from(10), true),
            ("21".into(), true),
            ("a".into(), true),
            (1.into(), false),
            ("1.1".into(), false),
            (",".into(), false),
            (Value::Null, true),
            (json(serde_json::json!([1])), true),
        ] {
            assert_eq!(list.contains(&value), contained, "{value:?}");
            assert_eq!(value.is_in(&list), contained, "{value:?}");
        }
        assert!(Value::from("abc").contains(&"bc".into()) && Value::from("a1").contains(&1.into()));
        assert!(!Value::from("abc").contains(&Value::Null) && !Value::Null.contains(&"".into()));
        assert!(Value::from("silver").is_in(&"gold, silver".into()));
        assert!(!Value::from("gold, silver").is_in(&"gold, silver".into()));
        assert!(!Value::from("sil").is_in(&"gold,silver".into()) && Value::from(5).is_in(&"4,5".into()));
    }

    #[test]
    fn bytes_that_are_text_compare_as_text() {
        let bytes = |bytes: &'static [u8]| Value::Bytes(bytes::Bytes::from_static(bytes));
        assert!(bytes(b"abc").equals(&"abc".into()) && bytes(b"10").equals(&10.into()));
        assert!(!bytes(b"\xff").equals(&"\u{fffd}".into()) && bytes(b"\xff").equals(&bytes(b"\xff")));
    }
}
