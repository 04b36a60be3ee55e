//! What the driver tells the core.

use std::time::Duration;

use crate::action::RequestId;
use crate::record::{Death, Entry, Key, LockId, Record, SessionId, Version};
use crate::rendezvous::Candidate;

/// One thing that happened. The driver passes events one at a time, in the order in which it learnt them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Time passed. Due whenever [`Core::next_wakeup`](crate::Core::next_wakeup) is reached; harmless at
    /// any other time.
    Tick,
    /// This process wants to lead the lock.
    View {
        /// Which lock.
        lock: LockId,
        /// A hash of its name that is the same on every member ([`name_hash`](crate::name_hash)).
        name: u64,
    },
    /// This process no longer wants to lead the lock: drain, then release.
    Unview {
        /// Which lock.
        lock: LockId,
    },
    /// Give the lock up if held, and do not campaign for it for a while.
    Resign {
        /// Which lock.
        lock: LockId,
        /// How long to stay out, from when the lock is free, or held by somebody else.
        stay_out: Duration,
    },
    /// Give up all locks and take none (the process is about to stop).
    Drain,
    /// Campaign again after [`Event::Drain`].
    Undrain,
    /// All guarded work of a hold has ended. Nothing of it runs any more and nothing will. Expected after
    /// [`Action::Drain`](crate::Action::Drain), [`Action::Fence`](crate::Action::Fence) and
    /// [`Action::Abort`](crate::Action::Abort), once per term; a term that leads does not end by it.
    Joined {
        /// Which lock.
        lock: LockId,
        /// The term of the hold whose work ended.
        term: u64,
    },
    /// The ordered watch delivered a change. Changes of one group arrive in version order without gaps;
    /// repetitions are ignored.
    Changed {
        /// The version of the change; for a deletion, the version of the deletion.
        version: Version,
        /// Which record.
        key: Key,
        /// Its new content; `None` when it was deleted.
        record: Option<Record>,
    },
    /// The ordered watch delivered one change of two records: the object of `former` now holds `key`.
    Replaced {
        /// The version of the change.
        version: Version,
        /// The record that is gone.
        former: Key,
        /// The record that is there instead.
        key: Key,
        /// Its content; `None` when it holds nothing that can be relied on.
        record: Option<Record>,
    },
    /// The ordered watch has passed this version without a change that concerns the core (a bookmark).
    Progress {
        /// The version up to which everything has been delivered.
        version: Version,
    },
    /// A consistent list of the whole group: on start, after a gap in the watch, and as the answer to
    /// [`Operation::List`](crate::Operation::List).
    Snapshot {
        /// The version of the list as a whole.
        version: Version,
        /// Every session and lock record of the group.
        entries: Vec<Entry>,
    },
    /// A list came that the core does not [take](crate::Core::takes): it is older than the view or than what was known
    /// when it was asked for, or answers [`Operation::List`](crate::Operation::List) while the core
    /// [doubts](crate::Core::doubts). If it contains what was known when it was asked for, it is late; otherwise the
    /// store's history has gone back, as after a restore from a backup. It is not believed at once.
    OldList {
        /// The version of the list as a whole.
        version: Version,
        /// The [newest version that was known](crate::Core::known_version) when the list was asked for.
        asked: Version,
    },
    /// The watch is known to be broken. Until it is restored, lists serve as the echo.
    WatchLost,
    /// The watch delivers again, from where it stopped or after a snapshot.
    WatchRestored,
    /// What became of a request.
    Answer {
        /// Which request.
        request: RequestId,
        /// What is known of it.
        outcome: Outcome,
    },
    /// Something outside the store says that a session is gone. Ignored while the view does not contain the
    /// session, so it is to be repeated after a snapshot. Weak evidence is good for one takeover wait.
    Evidence {
        /// Whose session.
        session: SessionId,
        /// `Proof` only when that very process is known to have ended; anything else is `Weak`.
        /// `Expired` is treated as `Weak`, because only this core's own watching can establish it.
        death: Death,
    },
    /// The members that may campaign now, this one included.
    Candidates(Vec<Candidate>),
}

/// What is known of a request that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The write was applied and made this version.
    Written {
        /// The version that the write made.
        version: Version,
    },
    /// The precondition did not hold. Says nothing about who won: an earlier copy of the same request
    /// may have.
    Conflict,
    /// Lost, timed out, or failed: the request may have been applied, may still be, or never will be.
    Unknown,
}
