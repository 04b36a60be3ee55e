//! [`Readiness`]: whether a consumer has said that it is ready.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Whether a consumer has said that it is ready. Clones share what was said.
#[derive(Clone, Debug)]
pub struct Readiness {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    /// `None`: it is ready.
    unready_since: Option<Instant>,
    /// It has ended, and no other one comes.
    ended: bool,
}

impl State {
    pub(crate) fn is_ready(&self) -> bool {
        self.unready_since.is_none()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }
}

impl Default for Readiness {
    /// Of a consumer that has said nothing yet.
    fn default() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(State { unready_since: Some(Instant::now()), ended: false })),
        }
    }
}

impl Readiness {
    /// Whether it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state.borrow().is_ready()
    }

    /// For how long it has not been ready; `None`: it is.
    pub(crate) fn unready_for(&self) -> Option<Duration> {
        self.state.borrow().unready_since.map(|since| since.elapsed())
    }

    /// What becomes of it. Waiting ends with an error when the consumer and what runs it have gone.
    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(crate) fn set(&self) {
        self.state.send_modify(|state| state.unready_since = None);
    }

    /// Its consumer has failed, and another one comes.
    pub(crate) fn unset(&self) {
        self.state.send_modify(|state| state.unready_since = Some(Instant::now()));
    }

    /// Its consumer has ended, and no other one comes.
    pub(crate) fn end(&self) {
        self.state.send_modify(|state| state.ended = true);
    }
}
