//! The store: linearizable compare-and-swap, one counter of versions, and the log that watches read.

use std::collections::BTreeMap;

use cluster_lease::{Entry, Event, Key, Outcome, Precondition, Record, SessionId, Version};

/// Versions that are given after the store was set back are between those of before, so none is given twice.
pub(crate) const STEP: Version = 2;

/// One change, as a watch delivers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// The version of the change.
    pub version: Version,
    /// Which record.
    pub key: Key,
    /// Its new content.
    pub record: Option<Record>,
    /// The record whose object it took.
    pub former: Option<Key>,
}

impl Change {
    /// As a watch tells it.
    pub fn event(&self) -> Event {
        let Self { version, key, record, former } = *self;
        match former {
            Some(former) => Event::Replaced { version, former, key, record },
            None => Event::Changed { version, key, record },
        }
    }
}

/// All records of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    /// The version of the last change.
    pub version: Version,
    records: BTreeMap<Key, (Version, Record)>,
    /// What is kept with locks.
    states: BTreeMap<Key, State>,
    log: Vec<Change>,
}

/// A state that a leader keeps with a lock: its term, and a counter within it.
pub type State = (u64, u64);

impl Store {
    /// What is in a record now.
    pub fn get(&self, key: Key) -> Option<(Version, Record)> {
        self.records.get(&key).copied()
    }

    /// Applies a write if its precondition holds.
    pub fn write(&mut self, key: Key, expect: Precondition, record: Record) -> Outcome {
        let present = self.records.get(&key).map(|(version, _)| *version);
        let met = match expect {
            Precondition::Absent => present.is_none(),
            Precondition::Version(version) => present == Some(version),
            Precondition::Any => true,
        };
        if !met {
            return Outcome::Conflict;
        }
        self.version += STEP;
        self.records.insert(key, (self.version, record));
        self.log.push(Change { version: self.version, key, record: Some(record), former: None });
        Outcome::Written { version: self.version }
    }

    /// Writes a record into the object of another.
    pub fn replace(&mut self, former: Key, key: Key, record: Record) -> Outcome {
        self.version += STEP;
        self.records.remove(&former);
        self.records.insert(key, (self.version, record));
        self.log.push(Change { version: self.version, key, record: Some(record), former: Some(former) });
        Outcome::Written { version: self.version }
    }

    /// The sessions that have a record.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.records.keys().filter_map(|key| match key {
            Key::Session(session) => Some(*session),
            Key::Lock(_) => None,
        })
    }

    /// The state that is kept with a lock.
    pub fn state(&self, key: Key) -> State {
        self.states.get(&key).copied().unwrap_or_default()
    }

    /// Replaces it, in the same moment as the write that was just applied.
    pub fn keep(&mut self, key: Key, state: State) {
        self.states.insert(key, state);
    }

    /// Deletes a record, as an operator may do at any time.
    pub fn delete(&mut self, key: Key) -> bool {
        self.states.remove(&key);
        if self.records.remove(&key).is_none() {
            return false;
        }
        self.version += STEP;
        self.log.push(Change { version: self.version, key, record: None, former: None });
        true
    }

    /// A consistent list.
    pub fn list(&self) -> Vec<Entry> {
        let entry = |(key, (version, record)): (&Key, &(Version, Record))| Entry {
            version: *version,
            key: *key,
            record: *record,
        };
        self.records.iter().map(entry).collect()
    }

    /// Forgets the changes up to a version, which every watch has seen.
    pub fn forget(&mut self, version: Version) {
        self.log.retain(|change| change.version > version);
    }

    /// The changes after a version.
    pub fn since(&self, version: Version) -> &[Change] {
        let first = self.log.partition_point(|change| change.version <= version);
        &self.log[first..]
    }
}
