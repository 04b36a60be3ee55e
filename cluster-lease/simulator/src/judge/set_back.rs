//! A record of a lock that a writer which is no member has written again, as it was before.
//!
//! Those who have seen a later one know that it says nothing of the terms since then, and wait. Those who have not
//! cannot know it: that is what is left of A4.

use std::collections::BTreeMap;

use cluster_lease::{Event, Key, LockRecord, Record, SessionId, Version};

use super::{Judge, ProcessId};
use crate::clock::Time;

/// What is known of records that were set back.
#[derive(Clone, Debug, Default)]
pub(super) struct SetBack {
    /// By lock.
    records: BTreeMap<u32, Mark>,
    /// By lock: in which version it was last claimed.
    claimed: BTreeMap<u32, Version>,
    /// By process and lock: the largest term that a record has shown it since the lock was last absent.
    shown: BTreeMap<(ProcessId, u32), u64>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Time,
    /// What the record says since then.
    term: u64,
    /// No member has claimed the lock since.
    present: bool,
    /// One that could not know it has.
    misled: bool,
}

impl Judge {
    /// Whether the record was deleted after this version, so that it is in another object.
    pub fn is_deleted_since(&self, lock: u32, version: Version) -> bool {
        self.history.lock_deleted.get(&lock).is_some_and(|deleted| *deleted > version)
    }

    /// A lock's record was set back to this one, which was of this version. If there was no claim since, that means
    /// nothing.
    pub fn set_back(&mut self, now: Time, lock: u32, version: Version, record: LockRecord) {
        self.history.lock_written.insert(lock, now);
        self.history.lock_changed.insert(lock, now);
        if self.set_back.claimed.get(&lock).is_none_or(|claimed| *claimed <= version) {
            return;
        }
        let mark = Mark { at: now, term: record.term, present: true, misled: false };
        self.set_back.records.insert(lock, mark);
    }

    /// A claim of this session is applied to the lock, in this version. Says since when it owes a wait because the record was set back.
    pub(super) fn owes_for_set_back(
        &mut self,
        lock: u32,
        claimant: SessionId,
        version: Version,
    ) -> Option<Time> {
        self.set_back.claimed.insert(lock, version);
        let process = self.incarnations.get(&claimant.incarnation).copied();
        let shown = process.and_then(|process| self.set_back.shown.get(&(process, lock)).copied());
        let mark = self.set_back.records.get_mut(&lock).filter(|mark| mark.present)?;
        mark.present = false;
        let knows = shown.is_some_and(|shown| shown > mark.term);
        mark.misled = !knows;
        knows.then_some(mark.at)
    }

    /// Whether a member that could not know better leads, or has led, while the earlier leader may still work.
    pub(super) fn is_misled(&self, now: Time, lock: u32) -> bool {
        let rest = self.paces.values().map(|pace| pace.rest).max().unwrap_or_default();
        self.set_back.records.get(&lock).is_some_and(|mark| mark.misled && now < mark.at + rest)
    }

    /// An event reaches a process that has seen everything up to a version.
    pub(super) fn note_terms(&mut self, process: ProcessId, view: Version, event: &Event) {
        let mut note = |lock: u32, record: Option<LockRecord>| match record {
            Some(record) => {
                let shown = self.set_back.shown.entry((process, lock)).or_default();
                *shown = record.term.max(*shown);
            }
            None => drop(self.set_back.shown.remove(&(process, lock))),
        };
        match event {
            Event::Changed { version, key: Key::Lock(lock), record } if *version > view => {
                note(lock.0, of_lock(*record));
            }
            Event::Snapshot { version, entries } if *version >= view => {
                let in_list = |lock: u32| {
                    entries.iter().find_map(|entry| match entry.key {
                        Key::Lock(other) if other.0 == lock => of_lock(Some(entry.record)),
                        _ => None,
                    })
                };
                for lock in 0..2 {
                    note(lock, in_list(lock));
                }
            }
            _ => {}
        }
    }
}

fn of_lock(record: Option<Record>) -> Option<LockRecord> {
    match record {
        Some(Record::Lock(record)) => Some(record),
        _ => None,
    }
}
