//! What goes on failing is said at once, and then once a minute: a log that repeats it with every try hides
//! what else happens, and one that falls silent hides this.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

/// How long the same complaint is not repeated.
const QUIET: Duration = Duration::from_secs(60);

/// The complaints of one member.
#[derive(Default)]
pub(crate) struct Complaints(Mutex<HashMap<Complaint, Said>>);

/// About what, and the error.
type Complaint = (&'static str, String);

struct Said {
    last: Instant,
    /// How often it was swallowed since.
    unsaid: u32,
}

impl Complaints {
    /// Warns of an error, unless the same was said less than a minute ago.
    pub(crate) fn say(&self, what: &'static str, error: &dyn Display) {
        let error = error.to_string();
        match self.repeated(what, &error) {
            None => debug!("{what}: {error}"),
            Some(0) => warn!("{what}: {error}"),
            Some(unsaid) => warn!("{what}, as {unsaid} times since this was last said: {error}"),
        }
    }

    /// How often it was swallowed since it was last said; `None`: swallow it too.
    fn repeated(&self, what: &'static str, error: &str) -> Option<u32> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, key) = (Instant::now(), (what, error.to_owned()));
        match said.get_mut(&key) {
            Some(before) if now - before.last < QUIET => {
                before.unsaid += 1;
                None
            }
            Some(before) => {
                before.last = now;
                Some(std::mem::take(&mut before.unsaid))
            }
            None => {
                said.retain(|_, before| now - before.last < 2 * QUIET);
                said.insert(key, Said { last: now, unsaid: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_complaint_is_repeated_once_a_minute_and_another_is_said_at_once() {
        let complaints = Complaints::default();
        let mut said = Vec::new();
        for second in 0..=120 {
            if let Some(unsaid) = complaints.repeated("a heartbeat failed", "403") {
                said.push((second, unsaid));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(said, [(0, 0), (60, 59), (120, 59)]);
        assert_eq!(complaints.repeated("a heartbeat failed", "500"), Some(0));
        assert_eq!(complaints.repeated("a list failed", "500"), Some(0));
    }
}
