//! What is in the store: one small record per process that holds something, and one per lock.

use std::fmt;

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

/// The record of a session. The driver adds who it is for humans; the election reads only this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionRecord {
    /// The heartbeat counter: 1 on creation, then larger with every heartbeat.
    pub seq: u64,
    /// Set once by whoever ends the session. A dead session never lives again.
    pub dead: Option<Death>,
}

/// The record of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockRecord {
    /// The session that holds the lock, or nobody.
    pub holder: Option<SessionId>,
    /// A floor for the fencing token: the token of a term is the larger of this and the version of the
    /// write that claimed the lock, so tokens rise even after a store was restored to an older revision.
    pub epoch: u64,
    /// The nonce of the claim. It is good for one grant only.
    pub claim: u64,
    /// False while a wait that some claimant owed is not known to have been served.
    pub settled: bool,
}

impl LockRecord {
    /// A lock that nobody holds and nobody waits for: what a manifest creates in advance.
    pub const FREE: Self = Self { holder: None, epoch: 0, claim: 0, settled: true };
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
