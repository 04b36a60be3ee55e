//! [`Body`]: the payload of a message.

mod region;

use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;

use crate::value::{Json, JsonError, Number, Value};

pub use region::Region;

/// The payload of a message. It can be read as often as wanted; cloning shares it.
///
/// ```
/// use router_core::exchange::Body;
///
/// let body = Body::text("hello");
/// assert_eq!((body.as_str(), body.len()), (Some("hello"), 5));
/// assert!(Body::empty().is_empty());
/// ```
#[derive(Clone, Default)]
pub struct Body {
    repr: Repr,
    /// The file that it was read from, if it was.
    file: Option<Region>,
    /// Whether text or bytes in which an object has a key twice are no JSON.
    unique_keys: bool,
}

/// What a body is made of.
#[derive(Clone, Default)]
enum Repr {
    #[default]
    Empty,
    Text(SmolStr),
    Bytes(Bytes),
    Json(Json),
    /// Text or bytes, and what they parse to: a step has asked for a field.
    Parsed(Arc<Parsed>),
    File(Region),
}

struct Parsed {
    /// Text or bytes.
    written: Repr,
    json: Result<Json, JsonError>,
}

/// Which of its kinds a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyKind {
    /// No payload.
    Empty,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Bytes,
    /// A JSON value.
    Json,
    /// The content of a file, which is not in memory.
    File,
}

/// What an expression needs of the body. It is known when the expression is compiled, so that evaluating it waits for
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Needs {
    #[default]
    Nothing,
    /// All of it, as it was written.
    Whole,
    /// What it parses to.
    Json,
}

impl Body {
    /// No payload.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// UTF-8 text.
    #[must_use]
    pub fn text(text: impl Into<SmolStr>) -> Self {
        Self::of(Repr::Text(text.into()))
    }

    /// Bytes that are not known to be text.
    #[must_use]
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::of(Repr::Bytes(bytes.into()))
    }

    /// The content of a file, which is not read before a step needs it.
    #[must_use]
    pub fn file(region: Region) -> Self {
        Self::of(Repr::File(region))
    }

    fn of(repr: Repr) -> Self {
        Self { repr, file: None, unique_keys: false }
    }

    /// From now on, text or bytes in which an object has a key twice are an error where they are parsed; otherwise the last
    /// value of the key counts. Clones, and the content of a file that is read, have it too. Routes do this with the bodies
    /// of all their exchanges if [`SpoolSettings::unique_keys`](crate::spool::SpoolSettings::unique_keys) is set.
    pub fn refuse_duplicate_keys(&mut self) {
        // What was parsed before was parsed as it was then.
        if !self.unique_keys {
            self.unique_keys = true;
            if let Repr::Parsed(parsed) = &self.repr {
                self.repr = parsed.written.clone();
            }
        }
    }

    /// Which of its kinds this body is.
    #[must_use]
    pub fn kind(&self) -> BodyKind {
        match self.written() {
            Repr::Text(_) => BodyKind::Text,
            Repr::Bytes(_) => BodyKind::Bytes,
            Repr::Json(_) => BodyKind::Json,
            Repr::File(_) => BodyKind::File,
            Repr::Empty | Repr::Parsed(_) => BodyKind::Empty,
        }
    }

    /// Whether there is no payload at all. An empty text is one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kind() == BodyKind::Empty
    }

    /// How many bytes it has when it is written.
    #[must_use]
    pub fn len(&self) -> usize {
        /// Counts what is written.
        struct Count(usize);

        impl fmt::Write for Count {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0 += text.len();
                Ok(())
            }
        }

        match self.written() {
            Repr::Json(json) => {
                let mut count = Count(0);
                // Counting cannot fail.
                let _ = write!(count, "{json}");
                count.0
            }
            Repr::File(region) => usize::try_from(region.length()).unwrap_or(usize::MAX),
            _ => self.as_bytes().map_or(0, <[u8]>::len),
        }
    }

    /// The file that this body is the content of, where it is not in memory.
    #[must_use]
    pub fn as_file(&self) -> Option<&Region> {
        match &self.repr {
            Repr::File(region) => Some(region),
            _ => None,
        }
    }

    /// The text of this body, where it is in memory, and text or bytes that are UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        self.as_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The bytes of this body, where it is in memory, and text or bytes.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self.written() {
            Repr::Text(text) => Some(text.as_bytes()),
            Repr::Bytes(bytes) => Some(bytes),
            Repr::Empty | Repr::Json(_) | Repr::Parsed(_) | Repr::File(_) => None,
        }
    }

    /// The JSON value of this body, where it is one, or text or bytes that were parsed already.
    #[must_use]
    pub fn as_json(&self) -> Option<&Json> {
        match &self.repr {
            Repr::Json(json) => Some(json),
            Repr::Parsed(parsed) => parsed.json.as_ref().ok(),
            Repr::Empty | Repr::Text(_) | Repr::Bytes(_) | Repr::File(_) => None,
        }
    }

    /// What is written where this body goes out: a JSON value as its text. That of a file is read now, which blocks:
    /// [`load`](Self::load) does not.
    ///
    /// # Errors
    /// When a file cannot be read, was changed, or is too large for the memory.
    pub fn to_bytes(&self) -> io::Result<Bytes> {
        Ok(match self.written() {
            Repr::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Repr::Bytes(bytes) => bytes.clone(),
            Repr::Json(json) => json.to_string().into(),
            Repr::Empty | Repr::Parsed(_) => Bytes::new(),
            Repr::File(region) => region.read_all()?,
        })
    }

    /// Reads the content of a file into memory, where this body is one: text, or bytes where it is not UTF-8. It is done
    /// before each step that does not take files as they are.
    ///
    /// # Errors
    /// When it cannot be read, was changed, or is too large for the memory.
    pub async fn load(&mut self) -> io::Result<()> {
        if let Repr::File(region) = &self.repr {
            let region = region.clone();
            let read =
                tokio::task::spawn_blocking(move || region.read_all().map(|content| (content, region)));
            let (content, region) = read.await.map_err(io::Error::other)??;
            self.repr = Self::read(content).repr;
            self.file = Some(region);
        }
        Ok(())
    }

    /// The file that it has room for, also while its content is in memory: give it to
    /// [`Spool::writer`](crate::spool::Spool::writer).
    #[must_use]
    pub fn held_file(&self) -> Option<&Region> {
        self.as_file().or(self.file.as_ref())
    }

    /// This body for another exchange, which may wait for long: the content of a file without what was read of it.
    pub(crate) fn fork(&self) -> Self {
        let repr = match &self.file {
            Some(file) => Repr::File(file.clone()),
            None => self.repr.clone(),
        };
        Self { repr, file: None, unique_keys: self.unique_keys }
    }

    /// What was read from somewhere.
    fn read(content: Bytes) -> Self {
        match std::str::from_utf8(&content) {
            Ok(text) => Self::text(text),
            Err(_) => Self::bytes(content),
        }
    }

    /// The JSON value of this body: itself, or what its text or bytes parse to.
    ///
    /// # Errors
    /// When text or bytes are not JSON, or have a key twice and that [is refused](Self::refuse_duplicate_keys). An empty body
    /// is JSON `null`.
    pub fn to_json(&self) -> Result<Json, JsonError> {
        match &self.repr {
            Repr::Empty => Ok(Json::Null),
            Repr::Text(text) => self.parse(text.as_bytes()),
            Repr::Bytes(bytes) => self.parse(bytes),
            Repr::Json(json) => Ok(json.clone()),
            Repr::Parsed(parsed) => parsed.json.clone(),
            Repr::File(region) => self.parse(&region.read_all().map_err(JsonError::new)?),
        }
    }

    fn parse(&self, text: &[u8]) -> Result<Json, JsonError> {
        if self.unique_keys { Json::parse_unique(text) } else { Json::parse(text) }
    }

    /// The JSON value of this body as a type of Rust; see [`Json::deserialize`].
    ///
    /// ```
    /// use router_core::exchange::Body;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Order {
    ///     id: u64,
    /// }
    ///
    /// let order: Order = Body::from(r#"{"id": 7}"#).json().unwrap();
    /// assert_eq!(order.id, 7);
    /// ```
    ///
    /// # Errors
    /// When it is no JSON, or does not fit the type.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, JsonError> {
        self.to_json()?.deserialize()
    }

    /// This body as a value of the expression language. That of a file is read as by [`to_bytes`](Self::to_bytes).
    ///
    /// # Errors
    /// As there.
    pub fn to_value(&self) -> io::Result<Value> {
        Ok(match self.written() {
            Repr::Empty | Repr::Parsed(_) => Value::Null,
            Repr::Text(text) => Value::Text(text.clone()),
            Repr::Bytes(bytes) => Value::Bytes(bytes.clone()),
            Repr::Json(json) => Value::Json(json.clone()),
            Repr::File(region) => return Self::read(region.read_all()?).to_value(),
        })
    }

    /// Whether a step that needs this must wait until it is ready: the content of a file is in no memory, and a large text
    /// takes too long to parse for the threads on which all routes run.
    pub(crate) fn must_wait(&self, needs: Needs) -> bool {
        match &self.repr {
            Repr::File(_) => needs > Needs::Nothing,
            Repr::Text(text) => needs == Needs::Json && text.len() > Json::LARGE_TEXT,
            Repr::Bytes(bytes) => needs == Needs::Json && bytes.len() > Json::LARGE_TEXT,
            Repr::Empty | Repr::Json(_) | Repr::Parsed(_) => false,
        }
    }

    /// As [`prepare`](Self::prepare), also where it [must be waited for](Self::must_wait).
    pub(crate) async fn make_ready(&mut self, needs: Needs) -> io::Result<()> {
        if needs > Needs::Nothing {
            self.load().await?;
        }
        if self.must_wait(needs) {
            let mut body = self.clone();
            let parse = move || {
                body.prepare(needs);
                body
            };
            *self = tokio::task::spawn_blocking(parse).await.map_err(io::Error::other)?;
        }
        self.prepare(needs);
        Ok(())
    }

    /// Makes ready what expressions need, and keeps it with the body: its text is parsed once, whatever number of steps
    /// asks for its fields. That it is no JSON is an error where a field is asked for.
    pub(crate) fn prepare(&mut self, needs: Needs) {
        if needs == Needs::Json && matches!(self.repr, Repr::Text(_) | Repr::Bytes(_)) {
            let json = self.to_json();
            let written = std::mem::take(&mut self.repr);
            self.repr = Repr::Parsed(Arc::new(Parsed { written, json }));
        }
    }

    /// A field of this body, by its path; null where there is none.
    pub(crate) fn field(&self, path: &[SmolStr]) -> Result<Value, JsonError> {
        let reach = |json: &Json| {
            let field = path.iter().try_fold(json, |value, name| value.field(name));
            field.map_or(Value::Null, Value::from)
        };
        match self.as_json() {
            Some(json) => Ok(reach(json)),
            None => self.to_json().map(|json| reach(&json)),
        }
    }

    /// Without what it was parsed to.
    fn written(&self) -> &Repr {
        match &self.repr {
            Repr::Parsed(parsed) => &parsed.written,
            written => written,
        }
    }
}

/// The text of a body in memory. A file is not read for it: its length is shown.
impl fmt::Display for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.written() {
            Repr::Empty | Repr::Parsed(_) => Ok(()),
            Repr::Text(text) => text.fmt(formatter),
            Repr::Bytes(bytes) => String::from_utf8_lossy(bytes).fmt(formatter),
            Repr::Json(json) => Value::Json(json.clone()).fmt(formatter),
            Repr::File(region) => write!(formatter, "[a file of {} bytes]", region.length()),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.written() {
            Repr::Empty | Repr::Parsed(_) => formatter.write_str("Empty"),
            Repr::Text(text) => formatter.debug_tuple("Text").field(text).finish(),
            Repr::Bytes(bytes) => formatter.debug_tuple("Bytes").field(bytes).finish(),
            Repr::Json(json) => formatter.debug_tuple("Json").field(json).finish(),
            Repr::File(region) => formatter.debug_tuple("File").field(&region.length()).finish(),
        }
    }
}

/// Two bodies are equal if they are of one kind and were written in the same way; of JSON, if the values are. Files are
/// not read for it: none equals another body.
impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        match (self.written(), other.written()) {
            (Repr::Empty, Repr::Empty) => true,
            (Repr::Text(left), Repr::Text(right)) => left == right,
            (Repr::Bytes(left), Repr::Bytes(right)) => left == right,
            (Repr::Json(left), Repr::Json(right)) => left == right,
            _ => false,
        }
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::bytes(bytes)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::bytes(bytes)
    }
}

impl From<Json> for Body {
    fn from(json: Json) -> Self {
        Self::of(Repr::Json(json))
    }
}

impl From<serde_json::Value> for Body {
    fn from(json: serde_json::Value) -> Self {
        Json::from(json).into()
    }
}

/// Numbers and booleans become JSON, which keeps their type. A float that is no number is its text.
impl From<Value> for Body {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::empty(),
            Value::Boolean(flag) => Json::from(flag).into(),
            Value::Integer(number) => Json::from(number).into(),
            Value::Float(number) => match Number::from_f64(number) {
                Some(number) => Json::from(number).into(),
                None => number.to_string().into(),
            },
            Value::Text(text) => Self::text(text),
            Value::Bytes(bytes) => Self::bytes(bytes),
            Value::Json(json) => json.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_bytes_parses_as_json() {
        let body = Body::from(Bytes::from_static(b"{\"a\":1}"));
        assert_eq!(body.to_json().unwrap()["a"], 1);
        assert!(Body::from("{").to_json().is_err());
    }

    #[test]
    fn a_body_that_was_parsed_is_still_what_was_written() {
        for text in [r#"{"b": 1.10, "a": [7]}"#, "no json"] {
            for body in [Body::text(text), Body::bytes(text.as_bytes())] {
                let mut parsed = body.clone();
                parsed.prepare(Needs::Whole);
                assert!(parsed.as_json().is_none());
                parsed.prepare(Needs::Json);
                assert_eq!((&parsed, parsed.kind(), parsed.len()), (&body, body.kind(), text.len()));
                assert_eq!((parsed.as_str(), parsed.to_string()), (Some(text), text.to_owned()));
                assert_eq!(parsed.to_value().unwrap(), body.to_value().unwrap());
                assert_eq!(parsed.as_json().is_some(), text != "no json");
            }
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_null_and_a_body_that_is_no_json_an_error() {
        let field = |body: &Body| body.field(&["a".into(), "0".into()]);
        let mut body = Body::text(r#"{"a": [7]}"#);
        assert_eq!(field(&body), Ok(Value::from(7)));
        body.prepare(Needs::Json);
        assert_eq!(field(&body), Ok(Value::from(7)));
        assert_eq!(field(&Body::text("[]")), Ok(Value::Null));
        assert_eq!(field(&Body::empty()), Ok(Value::Null));
        let mut body = Body::text("a < b");
        let error = field(&body).unwrap_err();
        body.prepare(Needs::Json);
        assert_eq!(field(&body), Err(error));
    }

    #[test]
    fn a_body_that_refuses_duplicate_keys_does_so_also_where_it_was_parsed_before() {
        for body in [Body::text(r#"{"a": 1, "a": 2}"#), Body::bytes(&br#"{"a": 1, "a": 2}"#[..])] {
            for is_parsed in [false, true] {
                let mut body = body.clone();
                if is_parsed {
                    body.prepare(Needs::Json);
                }
                assert_eq!(body.field(&["a".into()]), Ok(Value::from(2)));
                body.refuse_duplicate_keys();
                let clone = body.clone();
                assert!(clone.field(&["a".into()]).unwrap_err().is_refused());
                body.prepare(Needs::Json);
                assert!(body.field(&["a".into()]).unwrap_err().is_refused() && body.to_json().is_err());
            }
        }
    }

    #[tokio::test]
    async fn a_fork_has_the_file_and_not_what_was_read_of_it() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, br#"{"a": 1, "a": 2}"#).unwrap();
        let mut body = Body::file(Region::of(file).unwrap());
        for needs in [Needs::Nothing, Needs::Whole, Needs::Json] {
            body.make_ready(needs).await.unwrap();
            assert_eq!(body.as_json().is_some(), needs == Needs::Json);
            assert_eq!(body.fork().kind(), BodyKind::File);
            assert_eq!(body.fork().to_bytes().unwrap(), body.to_bytes().unwrap());
        }
        body.refuse_duplicate_keys();
        assert!(body.fork().to_json().unwrap_err().is_refused());
        // Another body in its place is not of the file.
        assert_eq!(Body::from(body.to_value().unwrap()).fork().kind(), BodyKind::Text);
    }

    #[test]
    fn the_length_is_that_of_what_is_written() {
        for body in [
            Body::empty(),
            Body::text("ä"),
            Body::bytes(vec![0, 1, 2]),
            Json::parse("[1, 2.50]").unwrap().into(),
        ] {
            assert_eq!(body.len(), body.to_bytes().unwrap().len());
        }
    }
}
