//! What a process can know: how long others may work, and that the store was set back.

use cluster_lease::{Entry, Event, Key, LockId, LockRecord, Record, SessionId, Settings, Version};

use super::{Invariant, Judge, ProcessId};
use crate::clock::Time;
use crate::store::Store;

/// What is known of the timing of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// The true time that its work may take.
    pub(super) rest: Time,
    /// The true time that its own takeover wait is worth.
    pub(super) worth: Time,
    /// The longest time that any record says which it has seen.
    pub(super) seen: Time,
}

impl Judge {
    /// A process starts with this timing, while clocks err by up to this much.
    pub fn knows_timing(&mut self, process: ProcessId, incarnation: u128, timing: &Settings, error: f64) {
        let error = error.max(f64::from(timing.rate_error_ppm()) / 1e6);
        // Readings are rounded to nanoseconds.
        let worth = (timing.takeover_wait().as_nanos() as f64 / (1.0 + error)) as Time - 1_000;
        let rest = (timing.limits().rest().as_nanos() as Time).min(worth);
        self.incarnations.insert(incarnation, process);
        self.paces.insert(process, Pace { rest, worth, seen: 0 });
    }

    pub(super) fn pace(&self, session: SessionId) -> Pace {
        let process = self.incarnations.get(&session.incarnation);
        process.and_then(|process| self.paces.get(process)).copied().unwrap_or_default()
    }

    /// An event reaches a process that has seen everything up to a version.
    pub fn shown(&mut self, process: ProcessId, view: Version, event: &Event) {
        let mut seen = 0;
        match event {
            Event::Changed { version, key, record: Some(record) }
            | Event::Replaced { version, key, record: Some(record), .. }
                if *version > view =>
            {
                seen = self.said(*key, *record);
            }
            Event::Snapshot { version, entries } if *version >= view => {
                seen = entries.iter().map(|entry| self.said(entry.key, entry.record)).max().unwrap_or(0);
            }
            _ => {}
        }
        if let Some(pace) = self.paces.get_mut(&process) {
            pace.seen = pace.seen.max(seen);
        }
        let one;
        let entries = match event {
            Event::Changed { version, key, record: Some(record) } if *version > view => {
                one = [Entry { version: *version, key: *key, record: *record }];
                &one[..]
            }
            Event::Snapshot { version, entries } if *version >= view => entries,
            _ => &[],
        };
        for entry in entries {
            if let (Key::Lock(lock), Record::Lock(record)) = (entry.key, entry.record) {
                let remembered = self.remembered.entry((process, lock.0)).or_default();
                *remembered = record.epoch.max(*remembered);
            }
        }
    }

    /// What a record says: how long its session or its holder may work, and all that its claimant knew.
    fn said(&self, key: Key, record: Record) -> Time {
        match (key, record) {
            (Key::Session(session), _) => self.pace(session).rest,
            (Key::Lock(_), Record::Lock(LockRecord { holder: Some(holder), claim, .. })) => {
                let claimed = self.claimed.get(&(holder, claim)).copied().unwrap_or(0);
                self.pace(holder).rest.max(claimed)
            }
            (Key::Lock(lock), _) => self.owed.get(&lock.0).copied().unwrap_or(0),
        }
    }

    /// A claim leaves its process.
    pub fn claim_sent(&mut self, process: ProcessId, record: Record) {
        if let Record::Lock(LockRecord { holder: Some(holder), claim, .. }) = record {
            let pace = self.paces.get(&process).copied().unwrap_or_default();
            self.claimed.entry((holder, claim)).or_insert(pace.seen.max(pace.worth));
        }
    }

    /// Whether the later of two could not know how long the earlier one may work.
    pub(super) fn is_unknowable(&self, one: (ProcessId, u64), other: (ProcessId, u64)) -> bool {
        let (earlier, later) = if one.1 < other.1 { (one.0, other.0) } else { (other.0, one.0) };
        let pace = |process| self.paces.get(&process).copied().unwrap_or_default();
        let Pace { worth, seen, .. } = pace(later);
        pace(earlier).rest > worth.max(seen)
    }

    /// The store is set back.
    pub fn restored(&mut self, now: Time) {
        self.restored = Some(now);
        self.before = self.paces.keys().copied().collect();
        self.debts.clear();
        self.owed.clear();
    }

    /// A process has noticed it, and goes on in the new history.
    pub fn accepted(&mut self, process: ProcessId) {
        self.accepted.insert(process);
    }

    /// Whether one of two that work at once has not noticed that the store was set back.
    pub(super) fn is_forgotten(&self, one: ProcessId, other: ProcessId) -> bool {
        let unaware = |process| self.before.contains(&process) && !self.accepted.contains(&process);
        self.restored.is_some() && (unaware(one) || unaware(other))
    }

    /// After the store was set back: a process that has accepted this remembers the terms of before, and by the
    /// end they are in the records for those who do not.
    pub fn judge_records(&mut self, now: Time, alive: &[ProcessId], store: &Store) {
        let remember = |((process, lock), epoch): (&(ProcessId, u32), &u64)| {
            let told = alive.contains(process) && self.accepted.contains(process);
            told.then_some((*lock, *epoch))
        };
        let remembered: Vec<_> = self.remembered.iter().filter_map(remember).collect();
        for (lock, epoch) in remembered {
            if let Some((version, Record::Lock(record))) = store.get(Key::Lock(LockId(lock)))
                && record.holder.is_none()
                && record.epoch.max(version) < epoch
            {
                let text =
                    format!("epoch {epoch} of lock {lock} is remembered, and its record has {record:?}");
                self.report(Invariant::I3, now, text);
            }
        }
    }
}
