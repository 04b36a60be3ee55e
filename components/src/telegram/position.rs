//! [`Position`]: the last update that is done, as it is stored for the next leader.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// How long Telegram keeps updates. What is older than that is gone, so a position says nothing any more;
/// and ids start again after a week at the earliest, so a younger one is in the present count.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// What was stored for a bot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// The last update that is done, where it is known and recent.
    pub(super) last: Option<i64>,
    /// Whether the route has polled before: what is pending is not older than the route then.
    pub(super) started: bool,
}

impl Position {
    /// What an earlier poller of `bot` stored, `now`.
    pub(super) fn read(stored: &Value, bot: &str, now: SystemTime) -> Self {
        // Another bot counts for itself.
        if stored["bot"] != bot {
            return Self::default();
        }
        let at = UNIX_EPOCH + Duration::from_millis(stored["time"].as_u64().unwrap_or(0));
        let recent = now.duration_since(at).is_ok_and(|age| age < KEPT) || at > now;
        Self { last: stored["last_update_id"].as_i64().filter(|_| recent), started: true }
    }

    pub(super) fn to_json(self, bot: &str, now: SystemTime) -> Value {
        let time = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        json!({ "bot": bot, "last_update_id": self.last, "time": u64::try_from(time).unwrap_or(u64::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_good_for_a_day_and_for_its_bot() {
        let now = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let stored = Position { last: Some(7), started: true }.to_json("123", now);
        let read = |bot: &str, later: Duration| Position::read(&stored, bot, now + later);
        assert_eq!(read("123", KEPT / 2), Position { last: Some(7), started: true });
        assert_eq!(read("123", KEPT), Position { last: None, started: true });
        assert_eq!(read("124", Duration::ZERO), Position::default());
        assert_eq!(Position::read(&Value::Null, "123", now), Position::default());
        // The clock of this host is behind.
        assert_eq!(Position::read(&stored, "123", now - KEPT).last, Some(7));
    }
}
