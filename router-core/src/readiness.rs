//! [`Readiness`]: whether a consumer has said that it is ready.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Whether a consumer has said that it is ready. Clones share what was said.
#[derive(Clone, Debug)]
pub struct Readiness {
    shared: Arc<Shared>,
    /// That of the consumer that runs this one.
    outer: Option<Arc<Shared>>,
}

/// A lock and a bell: each route has one for as long as it runs, and a `watch` channel takes four times the room.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_waiters();
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    /// `None`: it is ready.
    unready_since: Option<Instant>,
    /// It is ready, and what it runs itself has begun and is not.
    delegate_starts: bool,
    /// It has ended, and no other one comes.
    ended: bool,
    /// What ran it is gone.
    abandoned: bool,
}

impl State {
    pub(crate) fn is_ready(&self) -> bool {
        self.unready_since.is_none()
    }

    /// Whether it is ready, and what it runs itself, where it runs something, too.
    pub(crate) fn is_ready_throughout(&self) -> bool {
        self.is_ready() && !self.delegate_starts
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }
}

impl Default for Readiness {
    /// Of a consumer that has said nothing yet.
    fn default() -> Self {
        let unready_since = Some(Instant::now());
        let state = State { unready_since, delegate_starts: false, ended: false, abandoned: false };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }), outer: None }
    }
}

impl Readiness {
    /// Whether it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state().is_ready()
    }

    /// For how long it has not been ready; `None`: it is.
    pub(crate) fn unready_for(&self) -> Option<Duration> {
        self.state().unready_since.map(|since| since.elapsed())
    }

    /// Waits for a state; `None`: what runs the consumer was dropped before.
    ///
    /// # Cancellation
    /// Safe.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(&State) -> bool) -> Option<State> {
        loop {
            // Listen first, then look: a change in between is not missed.
            let changed = self.shared.changed.notified();
            let state = *self.state();
            if wanted(&state) {
                return Some(state);
            }
            if state.abandoned {
                return None;
            }
            changed.await;
        }
    }

    /// Of a consumer that this one begins to run.
    pub(crate) fn of_delegate(&self) -> Self {
        self.change(|state| state.delegate_starts = true);
        Self { outer: Some(Arc::clone(&self.shared)), ..Self::default() }
    }

    /// It runs no other consumer now.
    pub(crate) fn end_delegate(&self) {
        self.change(|state| state.delegate_starts = false);
    }

    pub(crate) fn set(&self) {
        self.change(|state| state.unready_since = None);
        if let Some(outer) = &self.outer {
            outer.change(|state| state.delegate_starts = false);
        }
    }

    /// Its consumer has failed, and another one comes.
    pub(crate) fn unset(&self) {
        self.change(|state| {
            state.unready_since = Some(Instant::now());
            state.delegate_starts = false;
        });
    }

    /// Its consumer has ended, and no other one comes.
    pub(crate) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    /// What runs the consumer is dropped.
    pub(crate) fn abandon(&self) {
        self.change(|state| state.abandoned = true);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.shared.change(change);
    }
}
