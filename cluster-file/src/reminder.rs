//! [`Reminder`]: when to say again what goes on being wrong.

use std::time::Duration;

use tokio::time::Instant;

/// The longest pause between two warnings of the same.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// When to say again what goes on being wrong: at once, then after pauses that double.
pub(crate) struct Reminder {
    next: Option<Instant>,
    pause: Duration,
}

impl Reminder {
    pub(crate) fn new(pause: Duration) -> Self {
        Self { next: None, pause }
    }

    pub(crate) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            return false;
        }
        self.next = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}
