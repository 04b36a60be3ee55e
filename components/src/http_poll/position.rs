//! [`Position`]: how far a poller has come, as it is stored for the next one.

use std::collections::HashSet;

use router_core::error::BoxError;
use router_core::state::RouteState;
use serde_json::{Value, json};

/// Longer ids are stored as their hash.
const MAX_ID_BYTES: usize = 24;

/// What is known of the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Position {
    /// What the next poll sends to get what comes after; nothing before the first response.
    pub(super) cursor: Option<String>,
    /// The version of the last response, for this very cursor.
    pub(super) version: Version,
    /// What the last page was, if this is the position behind it.
    pub(super) last_page: Option<String>,
    /// The ids of items that are done, oldest first.
    pub(super) done: Vec<String>,
}

/// What a server calls the version of a response.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Version {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
}

impl Position {
    /// What an earlier poller stored.
    pub(super) fn read(stored: &Value) -> Self {
        let text = |name: &str| stored[name].as_str().map(str::to_owned);
        let done = stored["done"].as_array().into_iter().flatten();
        Self {
            cursor: text("cursor"),
            version: Version { etag: text("etag"), last_modified: text("last_modified") },
            last_page: text("last_page"),
            done: done.filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let Version { etag, last_modified } = &self.version;
        json!({
            "cursor": self.cursor,
            "etag": etag,
            "last_modified": last_modified,
            "last_page": self.last_page,
            "done": self.done,
        })
    }

    /// Whether the item with this id is done.
    pub(super) fn knows(&self, id: &str) -> bool {
        let id = shorten(id);
        self.done.contains(&id)
    }

    /// Notes that an item is done.
    pub(super) fn note(&mut self, id: &str) {
        self.done.push(shorten(id));
    }

    /// Forgets the oldest ids above `max`, and what cannot be stored, but none of `present`: the server
    /// shows them still, and they would be new again.
    pub(super) fn forget(&mut self, present: &[String], max: usize) {
        let mut surplus = self.done.len().saturating_sub(max);
        let mut surplus_bytes = self.bytes().saturating_sub(RouteState::MAX_BYTES);
        if surplus == 0 && surplus_bytes == 0 {
            return;
        }
        let present = present.iter().map(|id| shorten(id)).collect::<HashSet<_>>();
        self.done.retain(|id| {
            let forgotten = (surplus > 0 || surplus_bytes > 0) && !present.contains(id);
            if forgotten {
                surplus = surplus.saturating_sub(1);
                surplus_bytes = surplus_bytes.saturating_sub(id.len() + 3);
            }
            !forgotten
        });
    }

    /// Whether this position can be stored when all items of a response with the ids `present` are done.
    /// Asked before the first of them is: it would be done again and again, if that could not be noted.
    ///
    /// # Errors
    /// When the position is too large.
    pub(super) fn check_room(&self, present: &[String]) -> Result<(), BoxError> {
        let done = present.iter().map(|id| shorten(id)).collect();
        let bytes = Self { done, ..self.clone() }.bytes();
        if bytes <= RouteState::MAX_BYTES {
            return Ok(());
        }
        Err(format!(
            "the cursor and the ids of the {} items in the response need {bytes} bytes, and a position has at most \
             {}: let the server show fewer items at a time",
            present.len(),
            RouteState::MAX_BYTES
        )
        .into())
    }

    /// How long it is when it is stored.
    fn bytes(&self) -> usize {
        self.to_json().to_string().len()
    }
}

/// The id, or its hash where it is long.
fn shorten(id: &str) -> String {
    if id.len() <= MAX_ID_BYTES { id.to_owned() } else { fingerprint(id.as_bytes()) }
}

/// A hash (FNV-1a, 64 bits, which is the same in every build).
pub(super) fn fingerprint(content: &[u8]) -> String {
    let hash = content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("#{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let mut position = Position { cursor: Some("7".into()), ..Position::default() };
        position.version.etag = Some("\"a\"".into());
        position.last_page = Some(fingerprint(b"[]"));
        position.note("1");
        position.note(&"x".repeat(100));
        assert_eq!(Position::read(&position.to_json()), position);
        assert!(position.knows(&"x".repeat(100)) && !position.knows(&"y".repeat(100)));
        assert_eq!(Position::read(&Value::Null), Position::default());
    }

    #[test]
    fn the_oldest_ids_are_forgotten_unless_the_server_still_shows_them() {
        let mut position = Position::default();
        for id in ["a", "b", "c", "d"] {
            position.note(id);
        }
        position.forget(&["a".into(), "d".into()], 2);
        assert_eq!(position.done, ["a", "d"]);
        position.forget(&["a".into(), "d".into()], 1);
        assert_eq!(position.done, ["a", "d"]);
        position.forget(&[], 1);
        assert_eq!(position.done, ["d"]);
    }

    #[test]
    fn what_cannot_be_stored_is_forgotten_or_refused() {
        let ids = |from: usize, to: usize| (from..to).map(|id| format!("{id:020}")).collect::<Vec<_>>();
        let mut position = Position::default();
        for id in ids(0, 1_000) {
            position.note(&id);
        }
        position.forget(&ids(990, 1_000), 5_000);
        assert!(position.bytes() <= RouteState::MAX_BYTES && position.done.len() > 600);
        assert!(ids(990, 1_000).iter().all(|id| position.knows(id)));
        assert!(position.check_room(&ids(0, 600)).is_ok());
        let error = position.check_room(&ids(0, 1_000)).unwrap_err().to_string();
        assert!(error.contains("1000 items") && error.contains("fewer items"), "{error}");
        position.cursor = Some("c".repeat(RouteState::MAX_BYTES));
        assert!(position.check_room(&[]).is_err());
    }
}
