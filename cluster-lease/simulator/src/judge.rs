//! The judge: knows true time and the store's whole history, and holds I1-I9 against what members do.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cluster_lease::{Death, Key, LockId, LockRecord, Precondition, Record, SessionId, Version};

use crate::clock::Time;
use crate::store::{State, Store};
use known::Pace;
pub use known::Restored;
use set_back::SetBack;

mod known;
mod set_back;

/// What was violated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// At most one member works under a lock.
    I1,
    /// Work ends before the deadline plus the stop time.
    I2,
    /// Terms rise in the order of starts.
    I3,
    /// No write without a version.
    I4,
    /// Released only when all work is joined.
    I5,
    /// The deadline counts from the sending of a heartbeat that the view has shown.
    I6,
    /// No lock is taken from a live session.
    I7,
    /// A wait that is owed is served.
    I8,
    /// A state that was stored is not lost, and not replaced by one of an earlier term.
    I9,
    /// Once everything is well again, a member leads in time.
    Liveness,
    /// A schedule comes to its end: no two members cause work for each other without limit.
    End,
}

/// One violation.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Of what.
    pub invariant: Invariant,
    /// When.
    pub at: Time,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} at {:.6} s: {}", self.invariant, self.at as f64 / 1e9, self.text)
    }
}

/// Names one process of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId {
    /// Which member.
    pub member: usize,
    /// Counts its processes.
    pub number: u32,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "m{}.{}", self.member, self.number)
    }
}

/// A wait that a claim owes: nobody may start under it before this much after this moment.
#[derive(Clone, Copy, Debug)]
struct Debt {
    since: Time,
    /// How much true time that is.
    rest: Time,
    why: &'static str,
}

/// One application of a claim: its version, and what it owes.
type Application = (Version, Option<Debt>);

#[derive(Clone, Copy, Debug, Default)]
struct SessionHistory {
    /// When the last live version was written.
    live: Time,
    /// The strongest reason for which it was declared dead.
    dead: Option<Death>,
    deleted: Option<Time>,
    /// In which version a session that had heartbeats was deleted: what is made again is not the same.
    ended: Option<Version>,
    /// Its process has seen a heartbeat of it, and so may have claimed something.
    proven: bool,
}

/// What has become of the records. It goes back with the store.
#[derive(Clone, Debug, Default)]
pub struct History {
    sessions: BTreeMap<SessionId, SessionHistory>,
    lock_written: BTreeMap<u32, Time>,
    /// By lock: when its record last changed what it says of the term, and not only what is kept with it.
    lock_changed: BTreeMap<u32, Time>,
    /// By lock: the true time that is owed while its record is unsettled.
    owed: BTreeMap<u32, Time>,
    /// By claim: what each application of it owes. A late copy can make a deleted record again.
    debts: BTreeMap<(SessionId, u64), Vec<Application>>,
    applied: BTreeMap<(SessionId, u64), Version>,
    /// By lock: the newest state whose storing its leader has heard of.
    stored: BTreeMap<u32, State>,
    /// By lock: in which version its record was last deleted, with all that was kept there.
    lock_deleted: BTreeMap<u32, Version>,
}

/// What the judge keeps.
#[derive(Clone, Debug)]
pub struct Judge {
    history: History,
    paces: BTreeMap<ProcessId, Pace>,
    /// The processes, by the incarnations of their sessions.
    incarnations: BTreeMap<u128, ProcessId>,
    /// By claim: the longest time that any record said which its claimant had seen.
    claimed: BTreeMap<(SessionId, u64), Time>,
    restored: Option<Restored>,
    /// Who has noticed that and goes on in the new history, since when, and its last session in the former one.
    accepted: BTreeMap<ProcessId, (Time, u32)>,
    /// By process and lock: the greatest term that a record has shown it.
    remembered: BTreeMap<(ProcessId, u32), u64>,
    /// The locks whose record was set back, and what processes have seen of them.
    set_back: SetBack,
    /// How often two worked at once because the later one could not know how long the earlier one may work: all
    /// records that said so were gone before it started. That is what is left of the assumption A6.
    pub unknowable: u64,
    active: BTreeMap<u32, Vec<(ProcessId, u64)>>,
    last_epoch: BTreeMap<u32, u64>,
    /// By process and reading of its clock: what was sent then. A process that wakes may send several.
    heartbeats: BTreeMap<(ProcessId, Duration), Vec<(SessionId, u64)>>,
    /// How many states were stored, as their leaders have heard.
    pub stores: u64,
    /// How many terms started.
    pub terms: u64,
    /// The first violation of each invariant, in order.
    pub violations: Vec<Violation>,
}

impl Judge {
    /// A judge who has seen nothing yet.
    #[expect(clippy::new_without_default, reason = "there is nothing else that it could begin with")]
    pub fn new() -> Self {
        Self {
            history: History::default(),
            paces: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            claimed: BTreeMap::new(),
            restored: None,
            accepted: BTreeMap::new(),
            remembered: BTreeMap::new(),
            set_back: SetBack::default(),
            unknowable: 0,
            active: BTreeMap::new(),
            last_epoch: BTreeMap::new(),
            heartbeats: BTreeMap::new(),
            stores: 0,
            terms: 0,
            violations: Vec::new(),
        }
    }

    /// Notes a violation.
    pub fn report(&mut self, invariant: Invariant, at: Time, text: String) {
        if self.violations.iter().all(|violation| violation.invariant != invariant) {
            self.violations.push(Violation { invariant, at, text });
        }
    }

    /// Work starts or resumes (I1).
    pub fn work_runs(&mut self, now: Time, process: ProcessId, lock: u32, term: u64) {
        let active = self.active.entry(lock).or_default();
        let other =
            active.iter().find(|(other, _)| other.member != process.member || other != &process).copied();
        active.push((process, term));
        if let Some((other, theirs)) = other {
            if self.is_unavoidable(now, process, other) || self.is_misled(now, lock) {
                return;
            }
            if self.is_unknowable((process, term), (other, theirs)) {
                self.unknowable += 1;
                return;
            }
            let text = format!("{process} (term {term}) and {other} (term {theirs}) work under lock {lock}");
            self.report(Invariant::I1, now, text);
        }
    }

    /// Work ends or stands still.
    pub fn work_rests(&mut self, process: ProcessId, lock: u32) {
        self.active.entry(lock).or_default().retain(|(other, _)| *other != process);
    }

    /// Whether anybody works under the lock.
    pub fn is_led(&self, lock: u32) -> bool {
        self.active.get(&lock).is_some_and(|active| !active.is_empty())
    }

    /// A term starts under a claim of a session, as far as the starter's view goes (I3, I8).
    pub fn started(
        &mut self,
        now: Time,
        process: ProcessId,
        lock: u32,
        term: u64,
        claim: Option<(SessionId, u64)>,
        view: Version,
    ) {
        self.terms += 1;
        if self.is_unaware(process) {
            return;
        }
        self.started_in_new_history(now, process, lock, term);
        let last = self.last_epoch.entry(lock).or_default();
        // Where the record was deleted too, neither it nor the store's versions say what terms there were.
        let unknown = self.restored.as_ref().is_some_and(|restored| restored.deleted.contains(&lock));
        if term <= *last && !unknown {
            let text = format!("{process} starts lock {lock} with term {term} after term {last}");
            self.report(Invariant::I3, now, text);
        } else {
            *last = term;
        }
        let applied = claim.and_then(|claim| self.history.debts.get(&claim));
        let seen = applied.and_then(|applied| applied.iter().rev().find(|(version, _)| *version <= view));
        let Some((_, Some(debt))) = seen.copied() else { return };
        if now < debt.since + debt.rest {
            let waited = (now - debt.since) as f64 / 1e9;
            let text = format!("{process} starts lock {lock} {waited:.3} s after {}", debt.why);
            self.report(Invariant::I8, now, text);
        }
    }

    /// A heartbeat leaves its process (I6).
    pub fn heartbeat_sent(&mut self, process: ProcessId, reading: Duration, session: SessionId, seq: u64) {
        self.heartbeats.entry((process, reading)).or_default().push((session, seq));
    }

    /// A process moves its deadline (I6).
    pub fn renewed(&mut self, now: Time, process: ProcessId, sent: Option<Duration>, view: Version) {
        if self.is_unaware(process) {
            return;
        }
        let Some(beats) = sent.and_then(|sent| self.heartbeats.get(&(process, sent))) else {
            let text = format!("{process} counts its deadline from no sending of a heartbeat");
            return self.report(Invariant::I6, now, text);
        };
        let shown = |beat: &&(SessionId, u64)| {
            self.history.applied.get(*beat).is_some_and(|version| *version <= view)
        };
        let Some((session, seq)) = beats.iter().rev().find(shown).copied() else {
            let text = format!("{process} counts its deadline from a heartbeat that its view has not shown");
            return self.report(Invariant::I6, now, text);
        };
        let history = self.history.sessions.entry(session).or_default();
        let ended = history.ended.is_some_and(|version| version <= view);
        if ended && history.proven {
            let text = format!("{process} goes on with a session whose deletion its view contains");
            self.report(Invariant::I6, now, text);
        } else if seq >= 2 && !history.proven {
            history.proven = true;
            // A deletion from before this first sign of life ended nothing that its process relied on.
            history.ended = history.ended.filter(|version| *version > view);
        }
    }

    /// A write leaves its process (I4, I5).
    pub fn write_sent(
        &mut self,
        now: Time,
        process: ProcessId,
        key: Key,
        expect: Precondition,
        record: Record,
        working: bool,
    ) {
        if expect == Precondition::Any {
            self.report(Invariant::I4, now, format!("{process} writes {key:?} without a version"));
        }
        if let Record::Lock(LockRecord { holder: None, .. }) = record
            && working
        {
            self.report(Invariant::I5, now, format!("{process} releases {key:?} while its work runs"));
        }
    }

    /// A write was applied (I7); `before` is what it replaced.
    pub fn applied(&mut self, now: Time, key: Key, before: Option<Record>, record: Record, store: &Store) {
        match (key, record) {
            (Key::Session(session), Record::Session(record)) => {
                let history = self.history.sessions.entry(session).or_default();
                history.dead = history.dead.max(record.dead);
                if record.dead.is_none() {
                    history.live = now;
                    self.history.applied.entry((session, record.seq)).or_insert(store.version);
                }
            }
            (Key::Lock(lock), Record::Lock(record)) => {
                let before = before.and_then(|before| match before {
                    Record::Lock(before) => Some(before),
                    Record::Session(_) | Record::Newer => None,
                });
                self.lock_applied(now, lock.0, before, record, store);
            }
            _ => {}
        }
    }

    fn lock_applied(
        &mut self,
        now: Time,
        lock: u32,
        before: Option<LockRecord>,
        record: LockRecord,
        store: &Store,
    ) {
        let written = self.history.lock_written.insert(lock, now).unwrap_or(0);
        let said = |record: LockRecord| (record.holder, record.claim, record.settled);
        if before.map(said) != Some(said(record)) {
            self.history.lock_changed.insert(lock, now);
        }
        if record.settled {
            self.history.owed.remove(&lock);
        }
        let Some(holder) = record.holder else { return };
        if before.is_some_and(|before| before.holder == Some(holder) && before.claim == record.claim) {
            return;
        }
        let worth = self.pace(holder).worth;
        let mut debt = match before {
            None => Some(Debt { since: now, rest: worth, why: "it created the absent record" }),
            Some(before) => before.holder.and_then(|old| self.judge_taking(now, lock, (old, holder), store)),
        };
        if let Some(since) = self.owes_for_set_back(lock, holder, store.version) {
            debt = Some(Debt { since, rest: worth, why: "its record was set back" });
        }
        if before.is_some_and(|before| !before.settled) {
            let rest = self.history.owed.get(&lock).copied().unwrap_or(0);
            let rest = debt.map_or(rest, |debt| rest.max(debt.rest));
            let since = debt.map_or(written, |debt| written.max(debt.since));
            debt = Some(Debt { since, rest, why: "an unsettled record appeared" });
        }
        debt = debt.map(|debt| Debt { rest: debt.rest.max(worth), ..debt });
        if !record.settled {
            let rest = debt.map_or(worth, |debt| debt.rest);
            self.history.owed.insert(lock, rest);
        }
        self.history.debts.entry((holder, record.claim)).or_default().push((store.version, debt));
    }

    fn judge_taking(
        &mut self,
        now: Time,
        lock: u32,
        (old, new): (SessionId, SessionId),
        store: &Store,
    ) -> Option<Debt> {
        let history = self.history.sessions.get(&old).copied().unwrap_or_default();
        match history.dead {
            // Whoever was ended stays ended, also when the record is deleted afterwards.
            Some(Death::Expired | Death::Proof) => return None,
            Some(Death::Weak) => {
                let rest = self.pace(old).rest;
                return Some(Debt { since: history.live, rest, why: "the old holder's last sign of life" });
            }
            None => {}
        }
        let Some((_, Record::Session(session))) = store.get(Key::Session(old)) else {
            let (rest, why) = (self.pace(old).rest, "the old holder's session was deleted");
            return history.deleted.map(|since| Debt { since, rest, why });
        };
        // A record at 1 was made again by a late copy of its creation: no process goes on with it.
        if session.seq >= 2 && !self.is_of_former_history(new) {
            self.report(Invariant::I7, now, format!("lock {lock} is taken from the live session {old}"));
        }
        None
    }

    /// A write of a lock was applied (I9); `before` is the state that was kept until then.
    pub fn state_applied(&mut self, now: Time, lock: u32, before: State, store: &Store) {
        let after = store.state(Key::Lock(LockId(lock)));
        if after < before {
            let text = format!("state {after:?} of lock {lock} replaces {before:?}");
            self.report(Invariant::I9, now, text);
        }
    }

    /// A leader hears that a state is stored, in this version (I9).
    pub fn state_stored(&mut self, now: Time, lock: u32, state: State, version: Version, store: &Store) {
        self.stores += 1;
        if self.is_lost(version) {
            return;
        }
        if self.history.lock_deleted.get(&lock).is_some_and(|deleted| *deleted > version) {
            return;
        }
        let newest = self.history.stored.entry(lock).or_default();
        *newest = state.max(*newest);
        let (newest, present) = (*newest, store.state(Key::Lock(LockId(lock))));
        if present < newest {
            let text = format!("state {newest:?} of lock {lock} was stored, and there is {present:?}");
            self.report(Invariant::I9, now, text);
        }
    }

    /// A lock's record was deleted, in this version.
    pub fn lock_deleted(&mut self, lock: u32, version: Version) {
        if let Some(restored) = self.restored.as_mut() {
            restored.deleted.insert(lock);
        }
        self.history.lock_deleted.insert(lock, version);
        self.history.stored.remove(&lock);
        self.history.owed.remove(&lock);
    }

    /// A session's record was deleted, in this version; `seq` is what its counter had reached.
    pub fn session_deleted(&mut self, now: Time, session: SessionId, seq: u64, version: Version) {
        let history = self.history.sessions.entry(session).or_default();
        history.deleted = Some(now);
        if seq >= 2 {
            history.ended = Some(version);
        }
    }
}
