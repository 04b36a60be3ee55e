//! What is in the store: one small record per process that holds something, and one per lock.

use std::fmt;
use std::time::Duration;

/// The store's revision of one change. Comparable across all records of a group.
pub type Version = u64;

/// A lock, as a small number that the driver hands out for its name within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockId(pub u32);

/// One session of one process. A process that loses its session goes on under the next generation, and
/// a process that restarts under the same name has another incarnation: nobody can mistake one for the
/// other, so no holder is ever "re-entrant".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// A random number drawn once per process (the bits of a version 4 UUID).
    pub incarnation: u128,
    /// Counts the sessions of this process.
    pub generation: u32,
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}-{}", self.incarnation, self.generation)
    }
}

/// Why a session was declared dead, which decides how long its locks must rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Death {
    /// Somebody has reason to think so: its pod is gone or not ready, or an operator said it.
    Weak,
    /// Somebody watched it unchanged for the whole takeover wait.
    Expired,
    /// Its very process is known to have ended.
    Proof,
}

/// What the work of a member lives by: it has ended within `deadline + stop` after the sending of the last
/// heartbeat that was applied, by a clock whose rate errs by at most `rate_error_ppm`. Members may differ, so
/// each says it in its records, and those who take its locks wait for that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// y: how long after sending a heartbeat its sender may lead.
    pub deadline: Duration,
    /// How long after the deadline guarded work may take to end.
    pub stop: Duration,
    /// rho: the bound on the error of the clock rate, in parts per million.
    pub rate_error_ppm: u32,
}

impl Limits {
    /// The true time after which the work has ended, however slow its clock is.
    #[must_use]
    pub fn rest(&self) -> Duration {
        let span = self.deadline.saturating_add(self.stop);
        scaled_up(span, MILLION, MILLION.saturating_sub(u128::from(self.rate_error_ppm)))
    }
}

/// The record of a session. The driver adds who it is for humans; the election reads only this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionRecord {
    /// The heartbeat counter: 1 on creation, then larger with every heartbeat.
    pub seq: u64,
    /// Set once by whoever ends the session. A dead session never lives again.
    pub dead: Option<Death>,
    /// What its member lives by; `None` in a record of a format that does not say it.
    pub limits: Option<Limits>,
}

/// The record of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockRecord {
    /// The session that holds the lock, or nobody.
    pub holder: Option<SessionId>,
    /// A floor for the fencing token: the token of a term is the larger of this and the version of the
    /// write that claimed the lock, so tokens rise even after a store was restored to an older revision.
    pub term: u64,
    /// The nonce of the claim. It is good for one grant only.
    pub claim: u64,
    /// False while a wait that some claimant owed is not known to have been served.
    pub settled: bool,
    /// What the holder lives by. It is said here too, because the record of its session may be deleted.
    pub limits: Option<Limits>,
    /// While the record is not settled: the longest true time that any claimant so far owed. `None`: it is
    /// not known.
    pub owed: Option<Duration>,
}

impl LockRecord {
    /// A lock that its last holder has given up: all work under it has ended.
    pub const RELEASED: Self =
        Self { holder: None, term: 0, claim: 0, settled: true, limits: None, owed: None };

    /// What is known of a lock whose record was not written by a member: made by a manifest, made anew after a
    /// deletion, or edited. It says nothing about who leads, so it is as good as an absent one.
    pub const UNKNOWN: Self = Self { settled: false, ..Self::RELEASED };

    /// Whether no member has written this.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::UNKNOWN
    }
}

pub(crate) const MILLION: u128 = 1_000_000;

/// `span * numerator / denominator`, rounded up to a nanosecond.
pub(crate) fn scaled_up(span: Duration, numerator: u128, denominator: u128) -> Duration {
    let nanos = span.as_nanos().saturating_mul(numerator).div_ceil(denominator.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Names a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The record of a session.
    Session(SessionId),
    /// The record of a lock.
    Lock(LockId),
}

/// The content of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// The content of a session's record.
    Session(SessionRecord),
    /// The content of a lock's record.
    Lock(LockRecord),
    /// What a newer version of this program has written, in a format that this one cannot read. It may say
    /// anything, so its writer is alive and leads.
    Newer,
}

/// What must be true of a record for a write to be applied. There is no write without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precondition {
    /// The record must not exist.
    Absent,
    /// The record must be exactly as of this version.
    Version(Version),
    /// Overwrites whatever is there. Only broken protocols do that.
    #[cfg(feature = "mutants")]
    Any,
}

/// One record of a consistent list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The version of the record's last change.
    pub version: Version,
    /// Which record.
    pub key: Key,
    /// What is in it.
    pub record: Record,
}
