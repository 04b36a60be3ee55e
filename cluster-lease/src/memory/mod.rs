//! [`MemoryStore`]: a store inside one process, which can be as bad as a network.

mod faults;
mod handle;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use router_core::cluster::LockName;
use tokio::sync::watch as channel;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::record::{LockRecord, Precondition, Version};
use crate::store::{Listing, LockEntry, StoreEntry, StoreError, StoreKey, StoreRecord, Write};

pub use faults::{Faults, Link, Requests, Span};
pub use handle::MemoryHandle;

/// A linearizable store for tests and measurements. Each member gets a [`handle`](Self::handle), whose
/// [`Link`] can lose, delay, repeat and reorder what goes through it.
///
/// # Guarantees
/// All of [`LeaseStore`](crate::LeaseStore): one mutex orders everything, whatever the links do.
///
/// # Assumptions
/// Time is that of tokio, so it can be paused.
#[derive(Clone, Default)]
pub struct MemoryStore {
    hub: Arc<Hub>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Hub {
    state: Mutex<State>,
    /// The newest version, for watches that wait.
    version: channel::Sender<Version>,
    /// Requests that are under way, also those whose callers have given up.
    under_way: TaskTracker,
}

#[derive(Default)]
struct State {
    version: Version,
    records: BTreeMap<StoreKey, (Version, StoreRecord)>,
    /// The states that are kept with locks.
    states: BTreeMap<StoreKey, String>,
    /// Every change, for the watches.
    log: Vec<Logged>,
    /// Changes up to this version are no longer kept.
    compacted: Version,
    /// How often the store was restored.
    restored: u64,
}

/// What a [`MemoryStore`] contained at one moment.
#[derive(Clone, Debug)]
pub struct Backup {
    version: Version,
    records: BTreeMap<StoreKey, (Version, StoreRecord)>,
    states: BTreeMap<StoreKey, String>,
}

#[derive(Clone)]
struct Logged {
    version: Version,
    at: Instant,
    /// `None`: something outside of the group changed.
    change: Option<(StoreKey, Option<StoreRecord>)>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A member's access, over a link of its own without faults. The seed is for the faults to come.
    #[must_use]
    pub fn handle(&self, seed: u64) -> MemoryHandle {
        MemoryHandle::new(Arc::clone(&self.hub), Link::new(seed))
    }

    /// Creates the record of a lock as its last holder would have left it: the next member that wants it leads
    /// at once.
    pub fn create_free(&self, lock: &LockName) {
        let record = StoreRecord::Lock { record: LockRecord::RELEASED, holder: None, term: None };
        let write = Write::new(StoreKey::Lock(lock.clone()), Precondition::Absent, record);
        // If there is one already, that is as good.
        let _ = self.hub.apply(write);
    }

    /// Deletes a record behind everybody's back. Says whether there was one.
    pub fn delete(&self, key: &StoreKey) -> bool {
        let mut state = self.hub.state();
        let existed = state.records.remove(key).is_some();
        if existed {
            state.states.remove(key);
            state.log(Some((key.clone(), None)));
            self.hub.version.send_replace(state.version);
        }
        existed
    }

    /// A change outside of the group: the version moves on, and watches get a bookmark.
    pub fn touch(&self) {
        let mut state = self.hub.state();
        state.log(None);
        self.hub.version.send_replace(state.version);
    }

    /// Forgets all changes up to now: watches that have not seen them fail.
    pub fn compact(&self) {
        let mut state = self.hub.state();
        state.compacted = state.version;
        state.log.clear();
    }

    /// What the store contains now.
    #[must_use]
    pub fn backup(&self) -> Backup {
        let state = self.hub.state();
        Backup { version: state.version, records: state.records.clone(), states: state.states.clone() }
    }

    /// Sets the store back to what it was: its versions count on from there, and all watches break.
    pub fn restore(&self, backup: &Backup) {
        let Backup { version, records, states } = backup.clone();
        let mut state = self.hub.state();
        let restored = state.restored + 1;
        *state = State { version, records, states, log: Vec::new(), compacted: version, restored };
        self.hub.version.send_replace(version);
    }

    /// All records as they are now.
    #[must_use]
    pub fn listing(&self) -> Listing {
        self.hub.list()
    }
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self) -> Listing {
        let state = self.state();
        let entry = |(key, (version, record)): (&StoreKey, &(Version, StoreRecord))| StoreEntry {
            version: *version,
            key: key.clone(),
            record: record.clone(),
        };
        Listing { version: state.version, entries: state.records.iter().map(entry).collect() }
    }

    fn read(&self, lock: &LockName) -> Option<LockEntry> {
        let (state, key) = (self.state(), StoreKey::Lock(lock.clone()));
        match state.records.get(&key)? {
            (version, StoreRecord::Lock { record, .. }) => Some(LockEntry {
                version: *version,
                record: *record,
                states: state.states.get(&key).cloned(),
            }),
            _ => None,
        }
    }

    fn apply(&self, write: Write) -> Result<Version, StoreError> {
        let mut state = self.state();
        let present = state.records.get(&write.key).map(|(version, _)| *version);
        let holds = match write.expect {
            Precondition::Absent => present.is_none(),
            Precondition::Version(version) => present == Some(version),
            #[cfg(feature = "mutants")]
            Precondition::Any => true,
        };
        if !holds {
            return Err(StoreError::Conflict);
        }
        state.log(Some((write.key.clone(), Some(write.record.clone()))));
        let version = state.version;
        if let Some(states) = write.states {
            state.states.insert(write.key.clone(), states);
        }
        state.records.insert(write.key, (version, write.record));
        self.version.send_replace(version);
        Ok(version)
    }

    fn delete(&self, key: &StoreKey, version: Version) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.records.get(key).is_none_or(|(present, _)| *present != version) {
            return Err(StoreError::Conflict);
        }
        state.records.remove(key);
        state.states.remove(key);
        state.log(Some((key.clone(), None)));
        self.version.send_replace(state.version);
        Ok(())
    }
}

impl State {
    fn log(&mut self, change: Option<(StoreKey, Option<StoreRecord>)>) {
        self.version += 1;
        self.log.push(Logged { version: self.version, at: Instant::now(), change });
    }
}
