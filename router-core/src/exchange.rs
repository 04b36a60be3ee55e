//! [`Exchange`]: what travels through a route.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use smol_str::SmolStr;

use crate::cluster::Term;
use crate::value::{Json, JsonError, Number, Value, ValueMap};

/// One message on its way through a route, with what the route notes about it.
///
/// The pipeline owns it while it travels; steps see `&mut Exchange`. Fields are public where every
/// value is valid.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Which exchange this is, unique among all replicas.
    pub id: ExchangeId,
    /// Headers and body.
    pub message: Message,
    /// Notes of the route about this exchange; they never leave the process.
    pub properties: ValueMap,
    /// Under whose authority this exchange runs: set by `master:` routes, asked before each side
    /// effect. `None` outside of them.
    pub term: Option<Term>,
    /// The terms of `master:` routes that called the one which set `term`, outermost first.
    pub(crate) outer_terms: Vec<Term>,
    /// How many routes this exchange is in, one calling the other.
    pub(crate) depth: u16,
}

impl Exchange {
    /// An exchange with the given body, no headers and no term.
    #[must_use]
    pub fn new(body: impl Into<Body>) -> Self {
        Self {
            id: ExchangeId::next(),
            message: Message { headers: ValueMap::default(), body: body.into() },
            properties: ValueMap::default(),
            term: None,
            outer_terms: Vec::new(),
            depth: 0,
        }
    }

    /// Every term under which this exchange runs. A side effect needs all of them.
    pub(crate) fn terms(&self) -> impl Iterator<Item = &Term> {
        self.outer_terms.iter().chain(&self.term)
    }

    /// Sets the term until the returned value is dropped.
    pub(crate) fn stamp(&mut self, term: Term) -> Stamped<'_> {
        let before = self.term.replace(term);
        let nested = before.is_some();
        self.outer_terms.extend(before);
        Stamped { exchange: self, nested }
    }
}

/// An exchange with a term of its own. Dropping it gives the exchange back as it was.
pub(crate) struct Stamped<'a> {
    pub(crate) exchange: &'a mut Exchange,
    nested: bool,
}

impl Drop for Stamped<'_> {
    fn drop(&mut self) {
        self.exchange.term = if self.nested { self.exchange.outer_terms.pop() } else { None };
    }
}

/// Headers and body of an exchange.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Named values beside the body; components read and write them.
    pub headers: ValueMap,
    /// The payload.
    pub body: Body,
}

/// The payload of a message. Cloning shares it.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Body {
    /// No payload.
    #[default]
    Empty,
    /// UTF-8 text.
    Text(SmolStr),
    /// Bytes.
    Bytes(Bytes),
    /// A JSON value.
    Json(Json),
}

impl Body {
    /// The JSON value of this body: itself, or what its text or bytes parse to.
    ///
    /// # Errors
    /// When text or bytes are not JSON. An empty body is JSON `null`.
    pub fn to_json(&self) -> Result<Json, JsonError> {
        match self {
            Self::Empty => Ok(Json::Null),
            Self::Text(text) => Json::parse(text),
            Self::Bytes(bytes) => Json::parse(bytes),
            Self::Json(json) => Ok(json.clone()),
        }
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

    /// This body as a value of the expression language.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::Empty => Value::Null,
            Self::Text(text) => Value::Text(text.clone()),
            Self::Bytes(bytes) => Value::Bytes(bytes.clone()),
            Self::Json(json) => Value::Json(json.clone()),
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_value().fmt(formatter)
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::Empty
    }
}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Json> for Body {
    fn from(json: Json) -> Self {
        Self::Json(json)
    }
}

impl From<serde_json::Value> for Body {
    fn from(json: serde_json::Value) -> Self {
        Self::Json(json.into())
    }
}

/// Numbers and booleans become JSON, which keeps their type. A float that is no number is its text.
impl From<Value> for Body {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Empty,
            Value::Boolean(flag) => Self::Json(flag.into()),
            Value::Integer(number) => Self::Json(number.into()),
            Value::Float(number) => match Number::from_f64(number) {
                Some(number) => Self::Json(number.into()),
                None => number.to_string().into(),
            },
            Value::Text(text) => Self::Text(text),
            Value::Bytes(bytes) => Self::Bytes(bytes),
            Value::Json(json) => Self::Json(json),
        }
    }
}

/// A number that is unique in the process; its text adds a part drawn at random for each process, so
/// that replicas do not share ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeId(u64);

impl ExchangeId {
    /// The next unused id.
    #[must_use]
    pub fn next() -> Self {
        thread_local! {
            /// The unused rest of the block of numbers that this thread has drawn. One shared counter
            /// would make concurrent callers of a route wait for each other's cache line.
            static BLOCK: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
        }
        const BLOCK_SIZE: u64 = 1024;
        static NEXT_BLOCK: AtomicU64 = AtomicU64::new(1);

        BLOCK.with(|block| {
            let (mut next, mut end) = block.get();
            if next == end {
                next = NEXT_BLOCK.fetch_add(BLOCK_SIZE, Ordering::Relaxed);
                end = next + BLOCK_SIZE;
            }
            block.set((next + 1, end));
            Self(next)
        })
    }
}

impl fmt::Display for ExchangeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
        write!(formatter, "{:016x}-{:x}", *PROCESS, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_of_all_threads_are_unique() {
        let draw = || (0..5_000).map(|_| ExchangeId::next()).collect::<Vec<_>>();
        let threads = [std::thread::spawn(draw), std::thread::spawn(draw)];
        let ids = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<HashSet<_>>();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn a_body_of_bytes_parses_as_json() {
        let body = Body::from(Bytes::from_static(b"{\"a\":1}"));
        assert_eq!(body.to_json().unwrap(), serde_json::json!({"a": 1}).into());
        assert!(Body::from("{").to_json().is_err());
    }
}
