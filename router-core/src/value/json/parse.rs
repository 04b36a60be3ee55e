//! The parser: the lexer is that of `hifijson`, which does not touch the digits of numbers.

use hifijson::SliceLexer;
use hifijson::str::LexAlloc as _;
use hifijson::token::{Expect, Lex as _};
use indexmap::IndexMap;
use indexmap::map::Entry;
use smol_str::SmolStr;

use super::{Json, Object};
use crate::value::number::Number;

/// Why a text is no JSON, or a value is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", place.map(|(line, column)| format!(" at line {line} column {column}")).unwrap_or_default())]
pub struct JsonError {
    message: String,
    /// Line and column, from 1, in characters.
    place: Option<(usize, usize)>,
    is_refused: bool,
}

impl JsonError {
    pub(crate) fn new(message: impl ToString) -> Self {
        Self { message: message.to_string(), place: None, is_refused: false }
    }

    /// Whether the text may well be JSON, but not one that is taken: a key stands twice in it where that is an error, or it is
    /// nested too deep. So it must not count as a text that is no JSON.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }
}

impl Json {
    /// Reads JSON text. Of keys that stand twice in an object, the last one counts. A byte order mark before the
    /// JSON is no part of it.
    ///
    /// # Errors
    /// When it is no JSON, or nested more than 128 deep.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, JsonError> {
        Parser { unique_keys: false }.whole(text.as_ref())
    }

    /// As [`parse`](Self::parse), but a key that stands twice in an object is an error.
    ///
    /// # Errors
    /// As above, and then.
    pub fn parse_unique(text: impl AsRef<[u8]>) -> Result<Self, JsonError> {
        Parser { unique_keys: true }.whole(text.as_ref())
    }
}

struct Parser {
    unique_keys: bool,
}

/// An error whose place is where the lexer stands.
struct Found {
    message: String,
    is_refused: bool,
}

impl Found {
    fn refused(message: String) -> Self {
        Self { message, is_refused: true }
    }
}

impl From<String> for Found {
    fn from(message: String) -> Self {
        Self { message, is_refused: false }
    }
}

impl From<Expect> for Found {
    fn from(expected: Expect) -> Self {
        let message = match expected {
            Expect::Value => "expected a value",
            Expect::ValueOrEnd => "expected a value, or the end of the list or object",
            Expect::CommaOrEnd => "expected a comma, or the end of the list or object",
            Expect::String => "expected a key in quotes",
            Expect::Colon => "expected a colon",
            Expect::Eof => "expected the end of the text",
        };
        message.to_owned().into()
    }
}

impl Parser {
    fn whole(&self, text: &[u8]) -> Result<Json, JsonError> {
        const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let mut lexer = SliceLexer::new(text);
        let parsed = lexer.exactly_one(SliceLexer::ws_peek, |next, lexer| self.value(next, lexer, 0));
        parsed.map_err(|Found { message, is_refused }| {
            let before = String::from_utf8_lossy(&text[..text.len() - lexer.as_slice().len()]);
            let line = before.rsplit('\n').next().unwrap_or_default();
            let place = Some((before.matches('\n').count() + 1, line.chars().count() + 1));
            JsonError { message, place, is_refused }
        })
    }

    fn value(&self, next: u8, lexer: &mut SliceLexer<'_>, depth: u32) -> Result<Json, Found> {
        /// Each level uses the stack, here and when the value is written or dropped.
        const MAX_DEPTH: u32 = 128;
        if depth == MAX_DEPTH {
            return Err(Found::refused("this JSON is nested too deep".into()));
        }
        match next {
            b'n' | b't' | b'f' => {
                let literal = lexer.null_or_bool().ok_or(Expect::Value)?;
                Ok(literal.map_or(Json::Null, Json::Boolean))
            }
            b'0'..=b'9' | b'-' => Ok(Json::Number(Number::lex(lexer).map_err(|error| error.to_string())?)),
            b'"' => Ok(Json::Text(string(lexer.discarded())?.into())),
            b'[' => {
                let mut items = Vec::new();
                lexer.discarded().seq(b']', SliceLexer::ws_peek, |next, lexer| {
                    items.push(self.value(next, lexer, depth + 1)?);
                    Ok::<_, Found>(())
                })?;
                Ok(Json::List(items.into()))
            }
            b'{' => self.object(lexer.discarded(), depth),
            _ => Err(Expect::Value.into()),
        }
    }

    fn object(&self, lexer: &mut SliceLexer<'_>, depth: u32) -> Result<Json, Found> {
        let mut object = IndexMap::<SmolStr, Json>::new();
        lexer.seq(b'}', SliceLexer::ws_peek, |next, lexer| {
            lexer.expect(|_| Some(next), b'"').ok_or(Expect::String)?;
            let key = string(lexer)?;
            lexer.expect(SliceLexer::ws_peek, b':').ok_or(Expect::Colon)?;
            let next = lexer.ws_peek().ok_or(Expect::Value)?;
            let value = self.value(next, lexer, depth + 1)?;
            match object.entry(key.into()) {
                Entry::Occupied(first) if self.unique_keys => {
                    return Err(Found::refused(format!(
                        "the key `{}` stands twice in an object",
                        first.key().escape_debug()
                    )));
                }
                Entry::Occupied(mut first) => drop(first.insert(value)),
                Entry::Vacant(entry) => drop(entry.insert(value)),
            }
            Ok::<_, Found>(())
        })?;
        Ok(Json::Object(Object(object.into())))
    }
}

fn string<'a>(lexer: &mut SliceLexer<'a>) -> Result<std::borrow::Cow<'a, str>, Found> {
    lexer.str_string().map_err(|error| error.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_is_an_error_at_its_place() {
        for (text, message) in [
            ("", "expected a value at line 1 column 1"),
            ("[1 2]", "expected a comma, or the end of the list or object at line 1 column 4"),
            ("{\n  \"ä\": 1,\n  a}", "expected a key in quotes at line 3 column 3"),
            ("{\"a\" 1}", "expected a colon at line 1 column 6"),
            ("007", "expected the end of the text at line 1 column 2"),
            ("true false", "expected the end of the text at line 1 column 6"),
            ("1e9999999999999999999", "the exponent of this number is too large at line 1 column 22"),
        ] {
            assert_eq!(Json::parse(text).unwrap_err().to_string(), message, "{text}");
        }
        for text in
            ["[", "[1,]", "nan", "'a'", "\"\\ud800\"", "\"a\nb\"", "+1", "1.", "tru", "\"open", "[1]]"]
        {
            assert!(Json::parse(text).is_err(), "{text}");
        }
        assert!(Json::parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn of_keys_that_stand_twice_the_last_one_counts_or_they_are_an_error() {
        let text = r#"{"a": 1, "b": 2, "a": 3}"#;
        assert_eq!(Json::parse(text).unwrap().to_string(), r#"{"a":3,"b":2}"#);
        let error = Json::parse_unique(text).unwrap_err().to_string();
        assert!(error.contains("the key `a` stands twice"), "{error}");
        assert!(Json::parse_unique(r#"[{"a": 1}, {"a": 1}]"#).is_ok());
    }

    #[test]
    fn json_is_not_nested_without_end() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::parse(nested(128)).is_ok());
        for text in [nested(129), "[".repeat(1_000_000), "{\"a\":".repeat(1_000_000)] {
            let error = Json::parse(text).unwrap_err().to_string();
            assert!(error.contains("nested too deep"), "{error}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_json() {
        assert_eq!(Json::parse("\u{feff}[1]").unwrap().to_string(), "[1]");
        assert!(Json::parse("[1]\u{feff}").is_err());
    }
}
