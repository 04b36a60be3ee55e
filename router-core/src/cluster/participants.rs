//! [`Participants`]: the elections that a member takes part in.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;

use super::backend::Participation;
use super::{ClusterView, Leadership, LockName, Member};

/// The participations of one member, one for each lock that it has views of. The views and scopes own a participation:
/// this table is only how the next view finds it.
pub struct Participants<P> {
    by_lock: Mutex<HashMap<LockName, Participant<P>>>,
}

impl<P> fmt::Debug for Participants<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Participants").finish_non_exhaustive()
    }
}

struct Participant<P> {
    leadership: watch::Receiver<Leadership>,
    participation: Weak<P>,
}

impl<P> Default for Participants<P> {
    fn default() -> Self {
        Self { by_lock: Mutex::default() }
    }
}

impl<P: Participation + 'static> Participants<P> {
    /// A view of `lock` for the member `local`, with the participation that there is, or with one that `join` begins.
    /// No other view is made meanwhile.
    pub fn view(
        &self,
        lock: &LockName,
        local: &Member,
        join: impl FnOnce() -> (watch::Receiver<Leadership>, P),
    ) -> ClusterView {
        let mut by_lock = self.by_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let known = by_lock.get(lock).and_then(|participant| {
            Some((participant.leadership.clone(), participant.participation.upgrade()?))
        });
        let (leadership, participation) = known.unwrap_or_else(|| {
            // Now and then is enough: with many locks, each look at all of them would be too much.
            if by_lock.len() == by_lock.capacity() {
                by_lock.retain(|_, participant| participant.participation.strong_count() > 0);
            }
            let (leadership, participation) = join();
            let participation = Arc::new(participation);
            let participant =
                Participant { leadership: leadership.clone(), participation: Arc::downgrade(&participation) };
            by_lock.insert(lock.clone(), participant);
            (leadership, participation)
        });
        ClusterView::new(lock.clone(), local.clone(), leadership, participation)
    }

    /// The locks in whose elections the member takes part, and what it knows of each.
    pub fn leaderships(&self) -> Vec<(LockName, Leadership)> {
        self.present(|lock, leadership| (lock.clone(), leadership.borrow().clone()))
    }

    /// The locks whose elections the member takes part in, and that nothing carries on any more.
    pub(super) fn abandoned(&self) -> Option<LockName> {
        let abandoned = |lock: &LockName, leadership: &watch::Receiver<_>| {
            leadership.has_changed().is_err().then(|| lock.clone())
        };
        self.present(abandoned).into_iter().flatten().next()
    }

    fn present<T>(&self, each: impl Fn(&LockName, &watch::Receiver<Leadership>) -> T) -> Vec<T> {
        let by_lock = self.by_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let present = by_lock.iter().filter(|(_, participant)| participant.participation.strong_count() > 0);
        present.map(|(lock, participant)| each(lock, &participant.leadership)).collect()
    }
}
