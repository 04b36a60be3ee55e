//! [`WarnLimiter`]: warns of a failure that repeats at once, and then once a minute. A log that has it with every try hides
//! what else happens; one that falls silent hides this.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use router_core::cluster::backend::time_of_day;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::action::Target;
use crate::record::LockId;

/// How long the same warning is not repeated.
const QUIET: Duration = Duration::from_secs(60);

/// A failure that was not repeated for this long is over: what is still needed is tried every few seconds.
const RECENT: Duration = Duration::from_secs(30);

/// What a member does with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operation {
    Heartbeat,
    List,
    Watch,
    Kill,
    Lock(LockId),
}

impl From<Target> for Operation {
    fn from(target: Target) -> Self {
        match target {
            Target::Heartbeat => Self::Heartbeat,
            Target::Lock(lock) => Self::Lock(lock),
            Target::Kill(_) => Self::Kill,
            Target::List => Self::List,
        }
    }
}

impl Operation {
    /// When heartbeats go on missing, leadership ends; when something else does, a lock may have no leader.
    fn failure(self) -> &'static str {
        match self {
            Self::Heartbeat => "the heartbeats of this member cannot be written",
            Self::List => "the election's records cannot be listed",
            Self::Watch => "the election's records cannot be watched",
            Self::Kill => "the session of a member that is silent or has ended cannot be declared dead",
            Self::Lock(_) => "a lock's record cannot be written",
        }
    }
}

/// Limits the warnings of one member.
#[derive(Default)]
pub(crate) struct WarnLimiter {
    said: Mutex<HashMap<Warning, Warned>>,
    failing: Mutex<BTreeMap<Operation, Failing>>,
}

/// About what, and the error.
type Warning = (&'static str, String);

struct Warned {
    last: Instant,
    /// How often it was swallowed since.
    suppressed: u32,
}

/// Something that has not worked since.
struct Failing {
    since: Instant,
    last: Instant,
    error: String,
}

impl WarnLimiter {
    /// Notes that something failed, and warns of it, unless the same was said less than a minute ago.
    pub(crate) fn say(&self, doing: Operation, error: &dyn Display) {
        let (what, error) = (doing.failure(), error.to_string());
        self.fails(doing, &error);
        match self.repeated(what, &error) {
            None => debug!("{what}: {error}"),
            Some(0) => warn!("{what}: {error}"),
            Some(suppressed) => warn!("{what}, as {suppressed} times since this was last said: {error}"),
        }
    }

    fn fails(&self, doing: Operation, error: &str) {
        let now = Instant::now();
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let since = failing.get(&doing).filter(|failing| now - failing.last < RECENT);
        let since = since.map_or(now, |failing| failing.since);
        failing.insert(doing, Failing { since, last: now, error: error.to_owned() });
    }

    /// Notes that something works.
    pub(crate) fn works(&self, doing: Operation) {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).remove(&doing);
    }

    /// What keeps this member from knowing or changing who leads `lock`: `the election's records cannot be listed
    /// since TIME: ERROR`.
    pub(crate) fn trouble(&self, lock: LockId) -> Option<String> {
        let now = Instant::now();
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let of_this = |doing: Operation| !matches!(doing, Operation::Lock(other) if other != lock);
        let recent =
            failing.iter().filter(|(doing, failing)| of_this(**doing) && now - failing.last < RECENT);
        let (doing, Failing { since, error, .. }) = recent.min_by_key(|(_, failing)| failing.since)?;
        Some(format!("{} since {}: {error}", doing.failure(), time_of_day(*since)))
    }

    /// How often it was swallowed since it was last said; `None`: swallow it too.
    fn repeated(&self, what: &'static str, error: &str) -> Option<u32> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, key) = (Instant::now(), (what, error.to_owned()));
        match said.get_mut(&key) {
            Some(before) if now - before.last < QUIET => {
                before.suppressed += 1;
                None
            }
            Some(before) => {
                before.last = now;
                Some(std::mem::take(&mut before.suppressed))
            }
            None => {
                said.retain(|_, before| now - before.last < 2 * QUIET);
                said.insert(key, Warned { last: now, suppressed: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_warning_is_repeated_once_a_minute_and_another_is_said_at_once() {
        let warnings = WarnLimiter::default();
        let mut said = Vec::new();
        for second in 0..=120 {
            if let Some(suppressed) = warnings.repeated("a heartbeat failed", "403") {
                said.push((second, suppressed));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(said, [(0, 0), (60, 59), (120, 59)]);
        assert_eq!(warnings.repeated("a heartbeat failed", "500"), Some(0));
        assert_eq!(warnings.repeated("a list failed", "500"), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_trouble_until_it_works_or_is_no_longer_tried() {
        let warnings = WarnLimiter::default();
        let (one, other) = (LockId(1), LockId(2));
        assert_eq!(warnings.trouble(one), None);
        warnings.say(Operation::Lock(one), &"403");
        assert!(warnings.trouble(one).unwrap().starts_with("a lock's record cannot be written since 2"));
        assert!(warnings.trouble(one).unwrap().ends_with("Z: 403"));
        assert_eq!(warnings.trouble(other), None, "another lock's record is another matter");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let first = warnings.trouble(one);
        warnings.say(Operation::Lock(one), &"403");
        warnings.say(Operation::List, &"no route to host");
        assert_eq!(warnings.trouble(one), first, "the first that failed is the cause");
        warnings.works(Operation::Lock(one));
        for lock in [one, other] {
            assert!(warnings.trouble(lock).unwrap().contains("cannot be listed since"));
        }
        tokio::time::sleep(RECENT).await;
        assert_eq!(warnings.trouble(one), None);
    }
}
