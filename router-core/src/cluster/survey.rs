//! [`Survey`]: how the locks of a cluster stand, for people and tools that take no part in it.

use std::time::Duration;

use async_trait::async_trait;

use super::LockName;
use crate::error::BoxError;

/// Why a lock that is wanted, at most, has no leader.
pub const NEVER_LED: &str = "no member has led it yet";

/// Sees how the locks of a cluster stand. It writes nothing and takes part in no election.
#[async_trait]
pub trait Survey: Send + Sync {
    /// Where it looks, as part of a sentence: `in the directory /run/locks`.
    fn place(&self) -> String;

    /// Looks once.
    ///
    /// # Errors
    /// When it cannot see the locks.
    async fn look(&mut self) -> Result<Sight, BoxError>;

    /// Waits until a lock may have changed since the last look.
    ///
    /// # Errors
    /// When changes cannot be seen.
    ///
    /// # Cancellation
    /// Safe.
    async fn changed(&mut self) -> Result<(), BoxError>;

    /// Why a lock that a route uses was not among those that were seen, in one clause.
    async fn why_missing(&self, lock: &LockName) -> String {
        let _ = lock;
        NEVER_LED.into()
    }
}

/// What was seen at one time.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// The locks, each once.
    pub locks: Vec<LockStatus>,
    /// The live members.
    pub members: Candidates,
    /// What members live by, as far as they have written it down: those that hold something, or did.
    pub timings: Vec<MemberTiming>,
    /// What is worth knowing beside the locks, a sentence each.
    pub notes: Vec<String>,
}

/// What a member lives by where leadership has a deadline. Others wait for it before they take a lock from this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long it leads after its last heartbeat.
    pub deadline: Duration,
    /// What its work has to end after that.
    pub stop: Duration,
    /// By how much its clock may go wrong, in millionths.
    pub clock_error_ppm: u32,
}

/// What a live member lives by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberTiming {
    /// The name by which it is among the [`Candidates`].
    pub host: String,
    /// Its id.
    pub member: String,
    /// What it has written down.
    pub timing: Timing,
}

/// The live members that could lead, by the names that people know them by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Those that would take a lock.
    pub standbys: Vec<String>,
    /// Those that were drained and take none.
    pub drained: Vec<String>,
    /// Why some may be alive that were not seen.
    pub unseen: Option<String>,
}

/// How a lock stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockState {
    /// A member leads.
    Led,
    /// A member has claimed it and may owe a wait before it leads.
    Taking,
    /// Its holder has ended, or has been silent for longer than a leader may be.
    Silent,
    /// No member holds it.
    Free,
    /// It cannot be seen at present: the server or the file does not tell.
    Unknown,
}

/// One lock, as it was seen.
#[derive(Clone, Debug)]
pub struct LockStatus {
    /// Its name; of one with a file that has no name of a lock, the name of the file.
    pub lock: String,
    /// How it stands.
    pub state: LockState,
    /// Why it is in another state than [`LockState::Led`], or what is worth knowing of its leader.
    pub reason: Option<String>,
    /// Who holds it, by the name that people know: a pod, a member.
    pub holder: Option<String>,
    /// The id of the member that holds it.
    pub member: Option<String>,
    /// The number of the term.
    pub term: Option<u64>,
    /// Since when it is held, in the format of RFC 3339.
    pub held_since: Option<String>,
    /// For how long it has been held.
    pub held: Option<Duration>,
    /// How long ago the holder sent its last heartbeat.
    pub heartbeat_age: Option<Duration>,
    /// What the holder lives by, where it has written it down.
    pub timing: Option<Timing>,
    /// The members that could lead it instead.
    pub candidates: Candidates,
    /// The routes that use it, as far as the cluster knows.
    pub routes: Vec<String>,
}

impl Candidates {
    /// Why a lock that no member holds stays like that.
    #[must_use]
    pub fn why_free(&self) -> String {
        match (self.standbys.is_empty(), self.drained.is_empty()) {
            (false, _) => "no member has taken it".into(),
            (true, false) => format!("all members are drained: {}", self.drained.join(", ")),
            (true, true) => self.unseen.clone().unwrap_or_else(|| "no member is alive".into()),
        }
    }

    /// Why a drained member still leads; `None`: `holder` is not drained.
    #[must_use]
    pub fn why_still_led(&self, holder: &str) -> Option<String> {
        let drained = self.drained.iter().any(|member| member == holder);
        drained.then(|| "its holder is drained, and finishes its work first".to_owned())
    }
}

impl LockStatus {
    /// A lock that no member holds.
    #[must_use]
    pub fn free(lock: &str, candidates: &Candidates, why: impl Into<String>) -> Self {
        Self {
            lock: lock.to_owned(),
            state: LockState::Free,
            reason: Some(why.into()),
            holder: None,
            member: None,
            term: None,
            held_since: None,
            held: None,
            heartbeat_age: None,
            timing: None,
            candidates: candidates.clone(),
            routes: Vec::new(),
        }
    }

    /// The same lock, when it is not known how it stands.
    #[must_use]
    pub fn unknown(self, why: impl Into<String>) -> Self {
        Self { state: LockState::Unknown, reason: Some(why.into()), ..self }
    }
}
