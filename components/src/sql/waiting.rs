//! [`Waiting`]: rows that have failed and stay in their table, and for how long they are left in peace.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use router_core::backoff::Backoff;
use router_core::value::Json;
use tokio::time::Instant;

/// The longest time for which a row waits, unless polls are further apart.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Of a row that has not come again for so long, nothing is known any more.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Rows beyond these come again with each poll.
const MOST: usize = 1000;

/// Which rows of a poll wait. A row is known by all that is in it: one that was changed does not wait.
pub(super) struct Waiting {
    delay: Duration,
    hasher: RandomState,
    rows: HashMap<u64, Wait>,
}

struct Wait {
    backoff: Backoff,
    until: Instant,
}

impl Waiting {
    /// None waits yet. Polls come after `delay`.
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay, hasher: RandomState::new(), rows: HashMap::new() }
    }

    /// How many there are. So many rows of a poll may take no place from the others.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether a row is not to be worked on now.
    pub(super) fn excludes(&self, row: &Json) -> bool {
        let wait = || self.rows.get(&self.key(row));
        !self.rows.is_empty() && wait().is_some_and(|wait| Instant::now() < wait.until)
    }

    /// Has a row wait: twice the delay of polls, and twice as long each time. Says for how long.
    pub(super) fn postpone(&mut self, row: &Json) -> Duration {
        let now = Instant::now();
        self.rows.retain(|_, wait| now < wait.until + REMEMBERED);
        let key = self.key(row);
        if self.rows.len() >= MOST && !self.rows.contains_key(&key) {
            return self.delay;
        }
        let (first, longest) = (self.delay.saturating_mul(2), LONGEST_PAUSE.max(self.delay));
        let new = || Wait { backoff: Backoff::new(first, longest).steady(), until: now };
        let wait = self.rows.entry(key).or_insert_with(new);
        let pause = wait.backoff.next(None);
        wait.until = now + pause;
        pause
    }

    /// A row is done.
    pub(super) fn forgive(&mut self, row: &Json) {
        if !self.rows.is_empty() {
            self.rows.remove(&self.key(row));
        }
    }

    fn key(&self, row: &Json) -> u64 {
        self.hasher.hash_one(row.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_row_waits_longer_each_time_until_it_is_done_or_is_another_one() {
        let row = |text: &str| Json::parse(text).unwrap();
        let (bad, other) = (row(r#"{"id":1}"#), row(r#"{"id":2}"#));
        let mut waiting = Waiting::new(Duration::from_secs(5));
        let pauses = [10, 20, 40, 60, 60].map(|pause| {
            assert_eq!(waiting.postpone(&bad).as_secs(), pause);
            assert!(waiting.excludes(&bad) && !waiting.excludes(&other));
        });
        assert_eq!((waiting.len(), pauses.len()), (1, 5));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(!waiting.excludes(&bad), "its time has come");
        waiting.forgive(&bad);
        assert_eq!(waiting.postpone(&bad).as_secs(), 10);
        tokio::time::advance(REMEMBERED + Duration::from_secs(10)).await;
        assert_eq!(waiting.postpone(&other).as_secs(), 10);
        assert_eq!(waiting.len(), 1, "the first one has not come again");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_a_number_wait() {
        let mut waiting = Waiting::new(Duration::from_secs(5));
        for id in 0..MOST as u64 + 10 {
            waiting.postpone(&Json::from(id));
        }
        assert_eq!(waiting.len(), MOST);
        assert!(!waiting.excludes(&Json::from(MOST as u64)));
    }
}
