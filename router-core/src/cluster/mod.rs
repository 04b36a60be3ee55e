//! The service-provider interface of clustering: who leads a lock, and until when.
//!
//! A [`ClusterService`] is one member's access to a cluster. For each lock that this member wants, it
//! hands out a [`ClusterView`]; while at least one view of a lock exists, the member takes part in its
//! election. Leadership is never a flag: it is a [`Term`] with a number that only grows, which says
//! itself whether it is still valid.
//!
//! [`MemoryCluster`] is the implementation inside one process: for tests, and for single processes that
//! say so by name. What backends are made of is in [`backend`].

mod arbitrated;
pub mod backend;
mod memory;
mod operator;
mod participants;
mod survey;
mod term;
mod vacancy;
mod view;

use std::fmt;

use async_trait::async_trait;
use smol_str::SmolStr;
use tokio::sync::watch;

use crate::error::BoxError;

pub use crate::lock::{InvalidLockName, LeadershipLost, LockName};
pub use memory::{MemoryBackend, MemoryCluster};
pub use operator::{Handover, Operator, OperatorError, select_member};
pub use survey::{Candidates, LockState, LockStatus, MemberTiming, NEVER_LED, Sight, Survey, Timing};
pub use term::{LeaderScope, Term, TermEnd, Work};
pub use vacancy::Vacancy;
pub use view::ClusterView;

/// One member's access to a cluster.
///
/// Implementations document their "Guarantees" and "Assumptions".
#[async_trait]
pub trait ClusterService: Send + Sync {
    /// This member.
    fn local(&self) -> &Member;

    /// Takes part in the election for `lock`. The same lock gives the same participation; the member
    /// leaves the election when the last view and the last [`LeaderScope`] of it are dropped.
    ///
    /// # Errors
    /// When the backend cannot be used at all. Passing faults are retried and logged instead.
    async fn view(&self, lock: &LockName) -> Result<ClusterView, ClusterError>;

    /// Whether this member takes no lock, because it was drained, by this process or by an
    /// [`Operator`]; and all later changes. By default never.
    fn drained(&self) -> watch::Receiver<bool> {
        watch::channel(false).1
    }

    /// Why this member, though it stands by, could lead no lock now. By default nothing is known. For reports.
    fn unable(&self) -> Option<String> {
        None
    }

    /// The locks in whose elections this member takes part, and what it knows of each. For reports.
    fn leaderships(&self) -> Vec<(LockName, Leadership)>;

    /// Whether this member's own part of the elections still runs: its loops, tasks and threads. It is not
    /// about the backend's servers: a process that waits for one of those is well.
    ///
    /// # Errors
    /// What no longer runs, so that only a restart of this process helps.
    ///
    /// # Cancellation
    /// Safe. Not to be answered within a second or two is also an answer.
    async fn check_alive(&self) -> Result<(), String>;

    /// Leaves all elections and returns when every lock that this member held is released, which is
    /// after all work under it has ended. Views then answer [`ClusterError::Closed`].
    async fn close(&self);
}

/// A process that takes part in elections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Unique among all members, and not reused by a later process.
    pub id: SmolStr,
    /// The host or pod it runs on, where known.
    pub host: Option<SmolStr>,
    /// Its process id, where known.
    pub pid: Option<u32>,
}

impl Member {
    /// A member known by its id alone.
    #[must_use]
    pub fn new(id: impl Into<SmolStr>) -> Self {
        Self { id: id.into(), host: None, pid: None }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(formatter)
    }
}

/// The highest number that a term can have. No cluster comes near it: a higher one was not written by a member, and
/// a cluster service refuses it, because there would be none above it.
pub const HIGHEST_TERM: u64 = u64::MAX >> 1;

/// Who leads a lock, as another member sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The leading member.
    pub member: Member,
    /// The number of its term.
    pub term: u64,
    /// Why it leads, in its own words; empty where it did not say.
    pub why: SmolStr,
}

/// What a member knows about a lock.
#[derive(Clone, Debug)]
pub enum Leadership {
    /// Another member leads.
    Follower {
        /// The leader.
        leader: Leader,
    },
    /// This member leads.
    Leader(Term),
    /// No leader is known.
    Vacant(Vacancy),
}

/// Why a cluster service cannot serve.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The backend cannot be used; the text says which part and what to do.
    #[error("{0}")]
    Unusable(String, #[source] Option<BoxError>),
    /// The cluster service was closed.
    #[error("the cluster service is closed")]
    Closed,
}

/// The whole chain: this is what `fn main() -> Result<(), BoxError>` prints.
impl fmt::Debug for ClusterError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", crate::error::Chain(self))
    }
}
