//! [`LeaseStore`]: what the election needs of a store, and no more.

use std::time::Duration;

use async_trait::async_trait;
use router_core::cluster::{LockName, Member};
use router_core::error::BoxError;
use smol_str::SmolStr;

use crate::record::{LockRecord, Precondition, SessionId, SessionRecord, Version};
use crate::request::Request;

/// The records of one group of members, in some store. One value is one member's access to them.
///
/// # Guarantees that a store must give
///
/// The election is as safe as these. Whoever implements this trait shows for each why it holds.
///
/// 1. *Compare and swap.* A write is applied only if its precondition holds at that moment, atomically,
///    and then makes a version that is greater than every version of the group before. There is no write
///    without a precondition.
/// 2. *Consistent reads.* [`list`](Self::list) and [`read`](Self::read) contain every write that was
///    applied before they were called. An answer from a cache or a lagging replica is not consistent.
/// 3. *One ordered watch.* The changes of the whole group, sessions and locks together, arrive in the
///    order of their versions, each once, without gaps, from just after the version that was asked for.
///    Where changes were missed, the watch fails instead.
/// 4. *Versions order everything.* They are compared as numbers, and survive the deletion of records.
/// 5. *Deletion is a change* with a version of its own.
/// 6. *States stay with their lock.* A write that says nothing of them leaves them as they are at the version
///    that it names; one that does replaces them together with the record. They go with the record when it is
///    deleted.
///
/// What a store need not give: answers. Requests may be lost, answers too, and a request whose caller has
/// long given up may still be applied.
///
/// # Cancellation
///
/// Every future may be dropped at any time, which says nothing about whether the request is applied.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// All records of the group.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    async fn list(&self) -> Result<Listing, StoreError>;

    /// The record of a lock and the states that are kept with it, read consistently.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    async fn read(&self, lock: &LockName) -> Result<Option<LockEntry>, StoreError>;

    /// Writes a record if its precondition holds, and returns the version that this made.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the precondition did not hold, [`StoreError::Unknown`] for all else.
    async fn write(&self, write: Write, attempt: Attempt) -> Result<Version, StoreError>;

    /// Removes a record if it is still as of `version`. Members remove only sessions that ended long ago, so
    /// that they do not pile up; an operator removes the requests that it made. A store that cannot remove anything leaves this as it is: it does nothing,
    /// and the records stay.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    async fn delete(&self, key: StoreKey, version: Version) -> Result<(), StoreError> {
        let _ = (key, version);
        Ok(())
    }

    /// Whether the version of a lock's record may be shown greater to a member that comes later, because other records
    /// are in the same object. Then a leader writes the number of its term down in each case.
    fn versions_are_shared(&self) -> bool {
        false
    }

    /// `None`: the group is followed by its watch. A store that has none is listed this often instead, and
    /// after each heartbeat; its [`watch`](Self::watch) is never called.
    fn poll_period(&self) -> Option<Duration> {
        None
    }

    /// How long a list may take where any other request may take `patience`. More is for a store whose lists end
    /// by themselves when nothing more of them arrives: a large group over a slow line takes its time.
    fn list_patience(&self, patience: Duration) -> Duration {
        patience
    }

    /// Why a lock that has no record is led after a wait only, for the log.
    fn why_missing(&self, lock: &LockName) -> String {
        format!(
            "there is no record of `{lock}`, and a missing record cannot be told from a deleted one: this happens \
             at its first start, and when it was deleted"
        )
    }

    /// What the store knows of the holder of a lock beside its record, for people: a remark on it as the leader, or
    /// the reason why none is known.
    fn remark(&self, lock: &LockName) -> Option<String> {
        let _ = lock;
        None
    }

    /// Why no request is sent now, if the store asked for a pause, for people.
    fn why_unsent(&self) -> Option<String> {
        None
    }

    /// Forgets what is remembered of the records: the history of the store has gone back, and what it says from
    /// now on is older than what was seen.
    fn forget(&self) {}

    /// Watches the group from just after `version`.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], also when the changes after `version` are no longer kept.
    async fn watch(&self, version: Version) -> Result<Box<dyn LeaseWatch>, StoreError>;
}

/// The changes of a group, in order.
#[async_trait]
pub trait LeaseWatch: Send {
    /// The next change; `None` when the watch has ended and can go on from the last version it gave.
    ///
    /// # Errors
    /// When changes may have been missed. The group is then listed again.
    async fn next(&mut self) -> Result<Option<Change>, StoreError>;
}

/// Which record. Locks go by name here: the numbers of the core mean nothing outside of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StoreKey {
    /// The record of a session.
    Session(SessionId),
    /// The record of a lock.
    Lock(LockName),
    /// What an operator asks, by the [name](Request::name) of the request.
    Request(SmolStr),
}

/// A record, with what the election does not read but humans do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreRecord {
    /// Of a session.
    Session {
        /// What the election reads.
        record: SessionRecord,
        /// Whose session it is.
        member: Member,
    },
    /// Of a lock.
    Lock {
        /// What the election reads.
        record: LockRecord,
        /// The name of the member whose session holds the lock.
        holder: Option<SmolStr>,
        /// The number of the holder's term, once its leader has written it down. A claim is written before its
        /// version is known, and every later write makes another version.
        term: Option<u64>,
    },
    /// What an operator asks. The core never sees it.
    Request(Request),
    /// What a newer version of this program has written, in a format that this one cannot read. Its writer
    /// counts as alive. Stores give it; members never write it.
    Newer {
        /// The version of the format, as the record says it.
        format: SmolStr,
    },
}

/// One conditional write. The variant of the record must be that of the key.
#[derive(Clone, Debug)]
pub struct Write {
    /// Which record.
    pub key: StoreKey,
    /// What must be true of it.
    pub expect: Precondition,
    /// Its new content.
    pub record: StoreRecord,
    /// What is kept with a lock from now on; `None`: what is there stays.
    pub states: Option<String>,
}

impl Write {
    /// A write that leaves what is kept with a lock as it is.
    #[must_use]
    pub fn new(key: StoreKey, expect: Precondition, record: StoreRecord) -> Self {
        Self { key, expect, record, states: None }
    }
}

/// A lock, read consistently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockEntry {
    /// The version of its last change.
    pub version: Version,
    /// What the election reads.
    pub record: LockRecord,
    /// The states of the routes under it: a text that the store does not look into.
    pub states: Option<String>,
}

/// How a write is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// It is a heartbeat: it goes over connections of its own, where nothing can be in front of it.
    pub heartbeat: bool,
    /// The one before was not answered in time, so its connection must not be used again: it may be the
    /// connection that is dead and not the store.
    pub fresh_connection: bool,
}

/// One record of a list.
#[derive(Clone, Debug)]
pub struct StoreEntry {
    /// The version of its last change.
    pub version: Version,
    /// Which record.
    pub key: StoreKey,
    /// What is in it.
    pub record: StoreRecord,
}

/// All records of a group at one moment.
#[derive(Clone, Debug)]
pub struct Listing {
    /// That moment: a watch from here misses nothing.
    pub version: Version,
    /// The records.
    pub entries: Vec<StoreEntry>,
}

/// What a watch delivers.
#[derive(Clone, Debug)]
pub enum Change {
    /// A record was written or deleted.
    Record {
        /// The version of the change; of a deletion, that of the deletion.
        version: Version,
        /// Which record.
        key: StoreKey,
        /// Its new content; `None` when it was deleted.
        record: Option<StoreRecord>,
    },
    /// The object of one record was written with another one: in the same version the former record is gone
    /// and the new one is there. Never to be told as two changes, because a watch that breaks between them
    /// goes on after both.
    Replaced {
        /// The version of the change.
        version: Version,
        /// The record that the object held before.
        former: StoreKey,
        /// The record that it holds now.
        key: StoreKey,
        /// Its content.
        record: Option<StoreRecord>,
    },
    /// Nothing of this group has changed up to this version.
    Bookmark {
        /// That version.
        version: Version,
    },
}

impl Change {
    /// The version of the change.
    #[must_use]
    pub fn version(&self) -> Version {
        match self {
            Self::Record { version, .. } | Self::Replaced { version, .. } | Self::Bookmark { version } => {
                *version
            }
        }
    }
}

/// Why a request did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The precondition did not hold: the store itself has said so. Nothing was changed by this request,
    /// though an earlier copy of it may have been applied.
    #[error("the record has changed meanwhile")]
    Conflict,
    /// Anything else. A write may have been applied, may still be, or never will be.
    #[error("{0}")]
    Unknown(String, #[source] Option<BoxError>),
}

impl StoreError {
    /// An error without a source.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::Unknown(message.into(), None)
    }
}
