//! What the core asks of the driver.

use std::time::Duration;

use smallvec::SmallVec;

use crate::record::{Key, LockId, Precondition, Record, SessionId, Version};

/// The actions of one step, to be carried out in order.
pub type Actions = SmallVec<[Action; 4]>;

/// One thing for the driver to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "requests are what there are most of")]
pub enum Action {
    /// Send a request to the store, at once and without waiting for any other, and pass its fate back as
    /// [`Event::Answer`](crate::Event::Answer) (a list that succeeded: as
    /// [`Event::Snapshot`](crate::Event::Snapshot)).
    Send {
        /// To be repeated in the answer.
        request: RequestId,
        /// What to do.
        operation: Operation,
    },
    /// The deadline of every hold that is not fenced moved to this reading of the leader's clock.
    Renewed {
        /// No step of guarded work may start at or after this reading of the leader's clock.
        deadline: Duration,
    },
    /// This process leads: guarded work may start.
    Lead {
        /// Which lock.
        lock: LockId,
        /// The fencing token of this term.
        term: u64,
        /// The deadline as of now; [`Action::Renewed`] moves it.
        deadline: Duration,
    },
    /// Stop taking new work, finish what runs, then report [`Event::Joined`](crate::Event::Joined). This
    /// process still leads, so the running work may finish its steps.
    Drain {
        /// Which lock.
        lock: LockId,
        /// Of which term.
        term: u64,
    },
    /// Leadership is over. No step may start from now on; cancel what runs, abort what is left when the
    /// leader's clock reads `abort_at`, and report [`Event::Joined`](crate::Event::Joined) when nothing
    /// runs any more.
    Fence {
        /// Which lock.
        lock: LockId,
        /// Of which term.
        term: u64,
        /// Why.
        cause: FenceCause,
        /// The reading of the leader's clock by which all guarded work must have ended.
        abort_at: Duration,
    },
    /// Guarded work outlived `abort_at`: end it by force, now.
    Abort {
        /// Which lock.
        lock: LockId,
        /// Of which term.
        term: u64,
    },
    /// Another holder is named in the lock's record, or nobody. For those who only want to know.
    Holder {
        /// Which lock.
        lock: LockId,
        /// The session that is named.
        session: Option<SessionId>,
    },
    /// The lock is being claimed, and may be led only after a wait. Worth a line in the log.
    Wait {
        /// Which lock.
        lock: LockId,
        /// What is left of the wait.
        wait: Duration,
        /// Why there is one.
        why: WaitCause,
    },
    /// Begin a new watch with a list: changes of the present one were ignored.
    Relist,
    /// Consistent lists have been older than the view for longer than the takeover wait: the store's history has
    /// gone back. Forget what is remembered of the records, and begin a new watch with a list: that list is
    /// [taken for the new history](crate::Core::takes), though it is older than the view.
    HistoryBack {
        /// The version of the view.
        view: Version,
    },
    /// This process's session ended and the next one begins. All holds have been fenced.
    SessionLost {
        /// The session that ended.
        session: SessionId,
        /// Why.
        cause: SessionLoss,
    },
}

/// Why a lock that may be claimed may not be led yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitCause {
    /// It has no record, which cannot be told from a deleted one.
    Missing,
    /// Its record was not written by a member, which cannot be told from one that was made anew.
    Unsealed,
    /// Its record says an earlier term than one before it: another writer has set it back.
    SetBack,
    /// The session of its holder is missing.
    SessionMissing,
    /// Its holder was reported gone, which may be wrong.
    Reported,
    /// An earlier claimant has not served its own wait.
    Unsettled,
    /// The store's history has gone back, so no record tells what came after it.
    OtherHistory,
}

/// Why a hold ended without having been given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FenceCause {
    /// The deadline passed without a newer echo.
    Deadline,
    /// The lock's record names somebody else, another claim, or nobody, or is gone.
    Deposed,
    /// The session was declared dead or its record is gone.
    SessionLost,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionLoss {
    /// Another member declared it dead.
    Killed,
    /// Its record was deleted.
    Deleted,
    /// Its record was deleted and made again by a late copy of its own first write.
    Recreated,
    /// The store's history has gone back to before it.
    HistoryBack,
    /// Its record shows a heartbeat that this process never sent: another process has drawn the same
    /// incarnation, or is a copy of this one. The driver must go on with a new incarnation, because the
    /// other may lose its session too, and both would meet again in the next one.
    Shared,
}

/// Names one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// Different for every request of a process.
    pub number: u64,
    /// What it is about, so that the core needs no table of requests.
    pub target: Target,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A heartbeat of the own session. To be sent over connections of its own, and after a timeout over
    /// a fresh one.
    Heartbeat,
    /// The record of a lock.
    Lock(LockId),
    /// The record of another session, which is being declared dead.
    Kill(SessionId),
    /// The whole group.
    List,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Write this record if the precondition holds.
    Write {
        /// Which record.
        key: Key,
        /// What must be true of it.
        expect: Precondition,
        /// Its new content.
        record: Record,
    },
    /// Read all records of the group consistently: the list must contain every write that was applied
    /// before the request was sent.
    List,
}
