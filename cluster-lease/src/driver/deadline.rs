//! The deadline of a hold, where a check can read it without asking the loop that moves it.
//!
//! One writer, the election's loop, and any number of readers. The one order that matters: a hold is
//! frozen *before* its session's deadline moves on. Whoever sees the later deadline must also see that
//! the hold is frozen, or a hold that was fenced would come to life again. Hence the release store of the
//! deadline after that of the freeze, and in [`HoldDeadline::get`] the acquire load of the deadline
//! before that of the freeze. `tests/loom.rs` runs all interleavings of this very file.

use std::time::Duration;

use crate::sync::{Arc, AtomicU64, Ordering};

/// The deadline of a session, in nanoseconds of the leader's clock. Shared by all its holds, so that one
/// heartbeat moves them all at the cost of one store.
#[derive(Clone)]
pub(crate) struct SessionDeadline(Arc<AtomicU64>);

/// The deadline of one hold: that of its session, until it is frozen.
pub(crate) struct HoldDeadline {
    session: SessionDeadline,
    frozen: AtomicU64,
}

impl SessionDeadline {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(0)))
    }

    pub(crate) fn set(&self, deadline: Duration) {
        self.0.store(nanos(deadline), Ordering::Release);
    }

    /// For its writer; zero until it is known.
    pub(crate) fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Acquire))
    }
}

impl HoldDeadline {
    pub(crate) fn new(session: SessionDeadline) -> Self {
        Self { session, frozen: AtomicU64::new(u64::MAX) }
    }

    /// From now on the deadline is this one, whatever the session's does.
    pub(crate) fn freeze(&self, deadline: Duration) {
        self.frozen.store(nanos(deadline), Ordering::Release);
    }

    /// No side effect may start while the leader's clock reads this or more.
    pub(crate) fn get(&self) -> Duration {
        let session = self.session.0.load(Ordering::Acquire);
        let frozen = self.frozen.load(Ordering::Acquire);
        Duration::from_nanos(session.min(frozen))
    }
}

/// Five hundred years fit.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
