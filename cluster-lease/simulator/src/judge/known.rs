//! What a process can know: how long others may work, and that the store was set back.

use std::collections::BTreeSet;

use cluster_lease::{Entry, Event, Key, LockId, LockRecord, Outcome, Record, SessionId, Settings, Version};

use super::{History, Invariant, Judge, ProcessId};
use crate::clock::Time;
use crate::store::{STEP, Store};

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

/// A store that was set back.
#[derive(Clone, Debug)]
pub struct Restored {
    /// When.
    pub at: Time,
    /// To which version. Those that it gives from then on are between those that it gave before.
    pub version: Version,
    /// The processes that knew something which it has lost.
    pub robbed: BTreeSet<ProcessId>,
    /// The locks whose record was deleted since.
    pub deleted: BTreeSet<u32>,
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
        self.note_late_news(process, view, event);
        self.note_terms(process, view, event);
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
                *remembered = record.term.max(*remembered);
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
            (Key::Lock(lock), _) => self.history.owed.get(&lock.0).copied().unwrap_or(0),
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

    /// What has become of the records up to now, to be kept with a backup of the store.
    pub fn history(&self) -> History {
        self.history.clone()
    }

    /// The store is set back. These processes know something that it has lost.
    pub fn restored(&mut self, restored: Restored, history: History) {
        self.restored = Some(restored);
        self.history = history;
        self.last_epoch.clear();
    }

    /// A process has noticed it, and goes on in the new history with a session after this one.
    pub fn accepted(&mut self, now: Time, process: ProcessId, session: SessionId) {
        self.accepted.insert(process, (now, session.generation));
    }

    /// What the store has lost may still be on its way to a process, and be believed when it arrives.
    fn note_late_news(&mut self, process: ProcessId, view: Version, event: &Event) {
        let version = match event {
            Event::Changed { version, .. }
            | Event::Replaced { version, .. }
            | Event::Snapshot { version, .. }
            | Event::Answer { outcome: Outcome::Written { version }, .. } => *version,
            _ => return,
        };
        let lost = version > view && self.is_lost(version);
        if let Some(restored) = self.restored.as_mut().filter(|_| lost) {
            restored.robbed.insert(process);
            self.accepted.remove(&process);
        }
    }

    /// Whether a process believes in what the store has lost.
    pub(super) fn is_unaware(&self, process: ProcessId) -> bool {
        let robbed = self.restored.as_ref().is_some_and(|restored| restored.robbed.contains(&process));
        robbed && !self.accepted.contains_key(&process)
    }

    /// Whether a session is of a process that believed in what the store has lost. What it has sent may be on its
    /// way for long.
    pub(super) fn is_of_former_history(&self, session: SessionId) -> bool {
        let Some(process) = self.incarnations.get(&session.incarnation) else { return false };
        let former = self.accepted.get(process).is_some_and(|(_, last)| session.generation <= *last);
        self.is_unaware(*process) || former
    }

    /// Whether a version was given before the store was set back, and is no more.
    pub(super) fn is_lost(&self, version: Version) -> bool {
        let kept = self.restored.as_ref().map_or(Version::MAX, |restored| restored.version);
        version > kept && (version - kept).is_multiple_of(STEP)
    }

    /// What cannot be avoided after the store was set back: one that has not noticed it leads until the deadline of
    /// the heartbeats that it sent before, and the store does not know that. Those who have noticed it wait for that.
    /// And where the new versions have come to where the former were, before it noticed, it goes on.
    pub(super) fn is_unavoidable(&self, now: Time, one: ProcessId, other: ProcessId) -> bool {
        let Some(restored) = self.restored.as_ref().map(|restored| restored.at) else { return false };
        let leads_unaware = |process, other| {
            let rest = self.paces.get(&process).map(|pace| pace.rest).unwrap_or_default();
            let by_old_heartbeats = now < restored + rest;
            self.is_unaware(process) && !(by_old_heartbeats && self.accepted.contains_key(&other))
        };
        leads_unaware(one, other) || leads_unaware(other, one)
    }

    /// A term of one that has noticed that the store was set back: above all that it remembers, and after a wait.
    pub(super) fn started_in_new_history(&mut self, now: Time, process: ProcessId, lock: u32, term: u64) {
        let Some((accepted, _)) = self.accepted.get(&process).copied() else { return };
        let remembered = self.remembered.get(&(process, lock)).copied().unwrap_or(0);
        if term < remembered {
            let text = format!("{process} starts lock {lock} with term {term} and remembers {remembered}");
            self.report(Invariant::I3, now, text);
        }
        let worth = self.paces.get(&process).map(|pace| pace.worth).unwrap_or_default();
        if now < accepted + worth {
            let waited = (now - accepted) as f64 / 1e9;
            let text =
                format!("{process} starts lock {lock} {waited:.3} s after it noticed the restored store");
            self.report(Invariant::I8, now, text);
        }
    }

    /// After the store was set back: a process that has accepted this remembers the terms of before, and by the
    /// end they are in the records for those who do not.
    pub fn judge_records(&mut self, now: Time, alive: &[ProcessId], settled: Time, store: &Store) {
        let remember = |((process, lock), term): (&(ProcessId, u32), &u64)| {
            let told = self.accepted.get(process).is_some_and(|(at, _)| *at + settled < now);
            (told && alive.contains(process)).then_some((*lock, *term))
        };
        let remembered: Vec<_> = self.remembered.iter().filter_map(remember).collect();
        for (lock, term) in remembered {
            let quiet = self.history.lock_changed.get(&lock).is_none_or(|at| at + settled < now);
            if let Some((version, Record::Lock(record))) = store.get(Key::Lock(LockId(lock)))
                && (record.holder.is_none() || record.settled)
                && quiet
                && record.term.max(version) < term
            {
                let text = format!("term {term} of lock {lock} is remembered, and its record has {record:?}");
                self.report(Invariant::I3, now, text);
            }
        }
    }
}
