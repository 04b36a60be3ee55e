//! [`Transition`]: what observers are told of this member's own leadership.

use router_core::cluster::LockName;
use smol_str::SmolStr;

/// A change of this member's own leadership of one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which lock.
    pub lock: LockName,
    /// The number of the term that begins or ends.
    pub term: u64,
    /// What happens to it.
    pub kind: TransitionKind,
    /// Why, as the log has it.
    pub why: SmolStr,
}

/// What happens to a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransitionKind {
    /// It begins.
    Elected,
    /// It is given up: running work ends, then the lock is free.
    Released,
    /// It was lost.
    Lost,
}

/// Who is told of transitions. It is called in the election's loop, so it must not wait for anything.
pub(crate) type Observer = dyn Fn(Transition) + Send + Sync;
