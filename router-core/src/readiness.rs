//! [`Readiness`]: whether a consumer has said that it is ready.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Whether a consumer has said that it is ready. Clones share what was said.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Since when it is not ready; `None`: it is.
    unready_since: Arc<watch::Sender<Option<Instant>>>,
}

impl Default for Readiness {
    /// Of a consumer that has said nothing yet.
    fn default() -> Self {
        Self { unready_since: Arc::new(watch::Sender::new(Some(Instant::now()))) }
    }
}

impl Readiness {
    /// Whether it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unready_since.borrow().is_none()
    }

    /// For how long it has not been ready; `None`: it is.
    #[must_use]
    pub fn unready_for(&self) -> Option<Duration> {
        self.unready_since.borrow().map(|since| since.elapsed())
    }

    /// Completes when it is ready.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn ready(&self) {
        // The sender lives as long as this: the wait cannot fail.
        let _ = self.unready_since.subscribe().wait_for(Option::is_none).await;
    }

    /// The same without keeping it alive: waiting ends with an error when the consumer and who runs it have gone.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Instant>> {
        self.unready_since.subscribe()
    }

    pub(crate) fn set(&self) {
        self.unready_since.send_if_modified(|since| since.take().is_some());
    }

    /// Its consumer has ended, and another one comes.
    pub(crate) fn unset(&self) {
        self.unready_since.send_if_modified(|since| {
            let was_ready = since.is_none();
            since.get_or_insert_with(Instant::now);
            was_ready
        });
    }
}
