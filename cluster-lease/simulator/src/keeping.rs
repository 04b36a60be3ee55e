//! Leaders that keep a state with their lock: the requests of `TermStates`, of the product's driver.
//!
//! A leader stores one state after the other, each naming its term and a counter. The keeper knows the
//! version of its last write; after a conflict or without an answer it reads, and goes on only with a record
//! of its [`Tenure`]. It goes on for a while after its work has ended, as one that nobody has told.

use cluster_lease::{Key, LockId, LockRecord, Outcome, Precondition, Record, Tenure, Version};

use crate::clock::Time;
use crate::judge::ProcessId;
use crate::plan::{Breakage, SECOND};
use crate::store::State;
use crate::world::{Happening, World};

/// What the keeper of one term knows.
#[derive(Clone, Debug)]
pub(crate) struct Keeping {
    term: u64,
    tenure: Tenure,
    /// The version and the record of its last write or read.
    known: Option<(Version, LockRecord)>,
    count: u64,
    /// Counts attempts; answers to older ones are dropped.
    attempt: u32,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    process: ProcessId,
    lock: u32,
    term: u64,
    attempt: u32,
}

/// What happens to a state on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The work goes on to its next state.
    Next,
    /// A request reaches the store.
    Read,
    Write(Precondition, LockRecord, State),
    /// Its answer reaches the process.
    Found(Option<(Version, LockRecord, State)>),
    Outcome(Outcome, LockRecord),
    /// There was none.
    TimedOut,
}

impl World<'_> {
    pub(crate) fn begin_keeping(&mut self, process: ProcessId, lock: u32, term: u64) {
        let Some(running) = self.process(process) else { return };
        let Some(tenure) = running.core.tenure(LockId(lock)) else { return };
        let keeping = Keeping { term, tenure, known: None, count: 0, attempt: 0 };
        running.keeping.insert(lock, keeping);
        self.next_state(Turn { process, lock, term, attempt: 0 });
    }

    fn next_state(&mut self, turn: Turn) {
        let at = self.now + self.rng.u64(..4 * SECOND);
        self.schedule(at, Happening::Keep(turn, Step::Next));
    }

    pub(crate) fn keep(&mut self, turn: Turn, step: Step) {
        let key = Key::Lock(LockId(turn.lock));
        match step {
            Step::Read => {
                let found = self.store.get(key).and_then(|(version, record)| match record {
                    Record::Lock(record) => Some((version, record, self.store.state(key))),
                    Record::Session(_) | Record::Newer => None,
                });
                self.answer_keeper(turn, Step::Found(found));
            }
            Step::Write(expect, record, state) => {
                let outcome = self.apply(key, expect, Record::Lock(record), Some(state));
                self.note(|| {
                    format!("{} keeps {state:?} with lock {}: {outcome:?}", turn.process, turn.lock)
                });
                self.answer_keeper(turn, Step::Outcome(outcome, record));
            }
            _ => self.keeper_hears(turn, step),
        }
    }

    fn answer_keeper(&mut self, turn: Turn, step: Step) {
        if self.members[turn.process.member].cut[1] == 0 && !self.is_lost() {
            let at = self.now + self.delay();
            self.schedule(at, Happening::Keep(turn, step));
        }
    }

    /// What reaches a process that does not run, reaches it when it runs again.
    fn keeper_hears(&mut self, turn: Turn, step: Step) {
        let (now, breakage) = (self.now, self.plan.breakage);
        let reading = self.read_clock(turn.process.member).leader;
        let Some(process) = self.process(turn.process) else { return };
        if let Some(until) = process.paused_until {
            return self.schedule(until + 1, Happening::Keep(turn, step));
        }
        let works = process.work.get(&turn.lock).is_some_and(|work| work.term == turn.term);
        let in_time = reading < process.deadline || breakage == Some(Breakage::StoreWithoutTenure);
        let Some(keeping) = process.keeping.get_mut(&turn.lock) else { return };
        if keeping.term != turn.term || keeping.attempt != turn.attempt {
            return;
        }
        let state = (keeping.term, keeping.count);
        let mut stored = None;
        match step {
            Step::Next => keeping.count += 1,
            Step::Found(Some((version, record, kept))) => {
                let ours = keeping.tenure.is_named_by(version, &record);
                if !ours && breakage != Some(Breakage::StoreWithoutTenure) {
                    process.keeping.remove(&turn.lock);
                    return;
                }
                keeping.known = Some((version, record));
                stored = (kept == state).then_some(version);
            }
            Step::Found(None) => {
                process.keeping.remove(&turn.lock);
                return;
            }
            Step::Outcome(Outcome::Written { version }, record) => {
                keeping.known = Some((version, record));
                stored = Some(version);
            }
            Step::Outcome(..) | Step::TimedOut => keeping.known = None,
            Step::Read | Step::Write(..) => {}
        }
        keeping.attempt += 1;
        let turn = Turn { attempt: keeping.attempt, ..turn };
        if let Some(version) = stored {
            self.judge.state_stored(now, turn.lock, state, version, &self.store);
            // Whoever has ended may try once more, or not.
            if works || self.rng.u8(..3) == 0 {
                self.next_state(turn);
            }
        } else if in_time {
            self.send_state(turn);
        } else if works {
            // It was refused, and the work that is still there may ask again.
            self.next_state(turn);
        }
    }

    fn send_state(&mut self, turn: Turn) {
        let (now, breakage) = (self.now, self.plan.breakage);
        let patience = self.plan.timing(turn.process).attempt_timeout().as_nanos() as Time;
        let Some(process) = self.process(turn.process) else { return };
        let Some(keeping) = process.keeping.get(&turn.lock) else { return };
        let step = match keeping.known {
            None => Step::Read,
            Some((version, record)) => {
                let any = breakage == Some(Breakage::StoreWithoutVersion);
                let expect = if any { Precondition::Any } else { Precondition::Version(version) };
                let keeps = breakage == Some(Breakage::StoreWithoutTenure);
                let record = if keeps { record } else { keeping.tenure.record(record.term) };
                Step::Write(expect, record, (keeping.term, keeping.count))
            }
        };
        self.schedule(now + patience, Happening::Keep(turn, Step::TimedOut));
        if self.members[turn.process.member].cut[0] > 0 || self.is_lost() {
            return;
        }
        let twice = now < self.plan.heal && self.rng.f64() < self.plan.network.duplicate;
        for _ in 0..=u8::from(twice) {
            let at = now + self.delay();
            self.schedule(at, Happening::Keep(turn, step));
        }
    }
}
