//! [`ClusterView`]: what a user sees of one lock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::info;

use super::vacancy::{Vacancy, warn_of};
use super::{ClusterError, Leader, LeaderScope, Leadership, LockName, Member, Term, TermEnd};
use crate::metrics::{Counter, LEADER_TRANSITIONS};

/// One lock, as this member sees it. Clones share the participation in its election.
#[derive(Clone)]
pub struct ClusterView {
    lock: LockName,
    local: Member,
    leadership: watch::Receiver<Leadership>,
    /// There as soon as someone has waited for a change.
    members: Option<watch::Receiver<Vec<Member>>>,
    participation: Arc<dyn Participation>,
}

impl fmt::Debug for ClusterView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterView").finish_non_exhaustive()
    }
}

/// The backend's side of a participation in an election. The member leaves it when the last `Arc` is
/// dropped.
pub trait Participation: Send + Sync {
    /// All live members of the cluster, this one included, and all later changes. While no one holds a receiver, the
    /// backend need not look for changes.
    fn members(&self) -> watch::Receiver<Vec<Member>>;
    /// Gives up the leadership, if there is one, and does not stand for election for `stay_out`.
    fn resign(&self, stay_out: Duration);
}

impl ClusterView {
    /// A view for users, made by a backend.
    #[must_use]
    pub fn new(
        lock: LockName,
        local: Member,
        mut leadership: watch::Receiver<Leadership>,
        participation: Arc<dyn Participation>,
    ) -> Self {
        // The first `changed` answers at once: who subscribes late gets the present state.
        leadership.mark_changed();
        Self { lock, local, leadership, members: None, participation }
    }

    /// The lock.
    #[must_use]
    pub fn lock(&self) -> &LockName {
        &self.lock
    }

    /// This member.
    #[must_use]
    pub fn local(&self) -> &Member {
        &self.local
    }

    /// All live members of the cluster, this one included, whichever locks they want, as far as this member
    /// knows. Who stands by leaves few traces in some clusters; each says what it knows.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.participation.members().borrow().clone()
    }

    /// Waits until a member comes or goes and returns all of them, as [`members`](Self::members) does; the first call
    /// returns those that there are at once. Changes that follow each other quickly may be seen as one.
    ///
    /// # Errors
    /// [`ClusterError::Closed`] after the service was closed.
    ///
    /// # Cancellation
    /// Safe: the change is returned by the next call.
    pub async fn members_changed(&mut self) -> Result<Vec<Member>, ClusterError> {
        let members = self.members.get_or_insert_with(|| {
            let mut members = self.participation.members();
            members.mark_changed();
            members
        });
        tokio::select! {
            biased;
            () = closed(self.leadership.clone()) => Err(ClusterError::Closed),
            changed = members.changed() => {
                changed.map_err(|_| ClusterError::Closed)?;
                Ok(members.borrow_and_update().clone())
            }
        }
    }

    /// Who leads now.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.leadership.borrow().clone()
    }

    /// Waits for the next change of leadership and returns the state after it; the first call returns
    /// the present state at once. Changes that follow each other quickly may be seen as one.
    ///
    /// To run something that must have stopped before the next leader starts, use
    /// [`lead`](Self::lead) or [`while_leading`](Self::while_leading): only they hold the lock until
    /// the work has ended.
    ///
    /// # Errors
    /// [`ClusterError::Closed`] after the service was closed.
    ///
    /// # Cancellation
    /// Safe: the change is returned by the next call.
    pub async fn changed(&mut self) -> Result<Leadership, ClusterError> {
        self.leadership.changed().await.map_err(|_| ClusterError::Closed)?;
        Ok(self.leadership.borrow_and_update().clone())
    }

    /// Waits until this member leads. While the returned scope exists, the lock is not given away
    /// freely; stop the work when [`Term::lost`] completes, then drop the scope.
    ///
    /// # Errors
    /// [`ClusterError::Closed`] after the service was closed.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn lead(&self) -> Result<LeaderScope, ClusterError> {
        let mut leadership = self.leadership.clone();
        loop {
            let term = match &*leadership.borrow_and_update() {
                Leadership::Leader(term) => Some(term.clone()),
                Leadership::Follower { .. } | Leadership::Vacant(_) => None,
            };
            if let Some(scope) = term.and_then(|term| LeaderScope::new(&term, &self.participation)) {
                return Ok(scope);
            }
            leadership.changed().await.map_err(|_| ClusterError::Closed)?;
        }
    }

    /// Runs `work` whenever this member leads, and drops it, at the await it has reached, when the term
    /// ends. Returns what `work` returns when it ends by itself, and leads on until the view is dropped.
    ///
    /// # Errors
    /// [`ClusterError::Closed`] after the service was closed.
    ///
    /// # Cancellation
    /// Drops `work` too.
    pub async fn while_leading<T>(&self, mut work: impl AsyncFnMut(Term) -> T) -> Result<T, ClusterError> {
        loop {
            let scope = self.lead().await?;
            tokio::select! {
                biased;
                () = scope.term().lost() => {}
                result = work(scope.term().clone()) => return Ok(result),
            }
        }
    }

    /// Gives up the leadership, if this member has it, as soon as the work under it has ended, and
    /// does not stand for election for `stay_out`.
    pub fn resign(&self, stay_out: Duration) {
        self.participation.resign(stay_out);
    }
}

/// Completes when the election of a lock has ended, which is when the service is closed.
async fn closed(mut leadership: watch::Receiver<Leadership>) {
    while leadership.changed().await.is_ok() {}
}

/// Publishes changes of leadership to the views of one lock, the metrics and the log. One line per change on every member,
/// with the leader, the term and the reason: operators read these lines on every backend, so they are written here. So are
/// the warnings about a lock that stays without a leader.
pub struct LeadershipPublisher {
    lock: LockName,
    /// Where the lock is kept, as a part of a sentence that begins with a space; or nothing.
    place: String,
    leadership: watch::Sender<Leadership>,
    transitions: Transitions,
}

impl fmt::Debug for LeadershipPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeadershipPublisher").finish_non_exhaustive()
    }
}

/// How often terms of this member began, and ended.
struct Transitions {
    elected: Counter,
    released: Counter,
    lost: Counter,
    expired: Counter,
}

impl LeadershipPublisher {
    /// How long a lock may be without a leader before that is worth a warning, where the backend names no takeover
    /// wait.
    pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(15);

    /// A publisher, and the receiver for [`ClusterView::new`].
    #[must_use]
    pub fn new(lock: LockName) -> (Self, watch::Receiver<Leadership>) {
        Self::with_patience(lock, None, Self::DEFAULT_PATIENCE)
    }

    /// As [`new`](Self::new), for a backend whose takeover can take as long as `patience` when all is well, and that
    /// says where its locks are kept, as [`Arbiter::place`](super::backend::Arbiter::place) does.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn with_patience(
        lock: LockName,
        place: Option<&str>,
        patience: Duration,
    ) -> (Self, watch::Receiver<Leadership>) {
        let vacancy = Vacancy::new("this member has heard of none yet");
        let (leadership, receiver) = watch::channel(Leadership::Vacant(vacancy));
        let count = |reason| LEADER_TRANSITIONS.counter(&[lock.as_str(), reason]);
        let ends = |end: TermEnd| count(end.name());
        let transitions = Transitions {
            elected: count("elected"),
            released: ends(TermEnd::Released),
            lost: ends(TermEnd::Lost),
            expired: ends(TermEnd::Expired),
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "it only reads, and ends when the publisher is dropped"
        )]
        tokio::spawn(warn_of(lock.clone(), receiver.clone(), patience));
        let place = place.map(|place| format!(" {place}")).unwrap_or_default();
        (Self { lock, place, leadership, transitions }, receiver)
    }

    /// This member leads from now on.
    pub fn lead(&self, term: Term, why: &str) {
        let (lock, place, member, number) = (&self.lock, &self.place, term.holder(), term.number());
        info!(%lock, %member, term = number, why, "leading `{lock}`{place}, term {number}: {why}");
        term.set_why(why);
        self.transitions.elected.increment(1);
        self.leadership.send_replace(Leadership::Leader(term));
    }

    /// This member does not lead from now on. Says nothing when that is what it said before. `why` tells
    /// why there is no leader, until [`explain`](Self::explain) knows better; a leader tells itself why it leads.
    pub fn follow(&self, leader: Option<Leader>, why: &str) {
        let (lock, place) = (&self.lock, &self.place);
        let before = self.leadership.borrow().clone();
        if let Leadership::Leader(term) = &before {
            self.transitions.count(term.ended());
        }
        let Some(leader) = leader else {
            match &before {
                Leadership::Vacant(_) => return,
                Leadership::Leader(term) => {
                    let number = term.number();
                    info!(%lock, term = number, why, "no longer leading `{lock}`, term {number}: {why}");
                }
                Leadership::Follower { leader: Leader { member, term, .. } } => {
                    info!(%lock, leader = %member, term, why, "`{lock}` has no leader, {member} led in term {term}: {why}");
                }
            }
            self.leadership.send_replace(Leadership::Vacant(Vacancy::new(why)));
            return;
        };
        if matches!(&before, Leadership::Follower { leader: before } if *before == leader) {
            return;
        }
        let Leader { member, term, why } = &leader;
        let colon = if why.is_empty() { "" } else { ": " };
        info!(%lock, leader = %member, term, why = %why, "standing by for `{lock}`{place}, led by {member}, term {term}{colon}{why}");
        self.leadership.send_replace(Leadership::Follower { leader });
    }

    /// Says why there is no leader now, in one clause that may change as often as the backend learns more: `the
    /// record has no label`, `it waits until 14:03:12`. Does nothing while there is a leader.
    pub fn explain(&self, why: &str) {
        if let Leadership::Vacant(vacancy) = &*self.leadership.borrow() {
            vacancy.explain(why);
        }
    }
}

impl Transitions {
    fn count(&self, end: Option<TermEnd>) {
        let counter = match end {
            Some(TermEnd::Released) => &self.released,
            Some(TermEnd::Lost) | None => &self.lost,
            Some(TermEnd::Expired) => &self.expired,
        };
        counter.increment(1);
    }
}
