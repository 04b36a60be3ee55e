//! The state machine: one event in, a few actions out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::action::{Action, Actions, RequestId, Target};
use crate::clocks::Clocks;
use crate::context::Context;
use crate::event::{Event, Outcome};
use crate::hold::Hold;
use crate::lock::Lock;
use crate::record::{Entry, Key, LockId, LockRecord, Record, SessionId, SessionRecord, Version};
use crate::rendezvous::name_hash;
use crate::settings::Settings;
use crate::tenure::Tenure;

/// Who this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    member: u64,
    incarnation: u128,
}

/// Why an identity is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// An empty holder means "nobody" in the store, so nobody may be called that.
    #[error("the member's name is empty, which in the store means that nobody holds the lock")]
    EmptyName,
    /// Zero is what a forgotten random number looks like.
    #[error("the incarnation is zero; it must be drawn at random for every process")]
    ZeroIncarnation,
}

impl Identity {
    /// The name is for the order of candidates and for humans. What tells processes apart is the
    /// incarnation: a number drawn at random once per process, never derived from the name.
    ///
    /// # Errors
    ///
    /// Refuses an empty name and an incarnation of zero.
    pub fn new(name: &str, incarnation: u128) -> Result<Self, IdentityError> {
        if name.trim().is_empty() {
            return Err(IdentityError::EmptyName);
        }
        if incarnation == 0 {
            return Err(IdentityError::ZeroIncarnation);
        }
        Ok(Self { member: name_hash(name), incarnation })
    }

    /// [`name_hash`](crate::name_hash) of the name.
    pub fn member(&self) -> u64 {
        self.member
    }

    /// The random number of this process.
    pub fn incarnation(&self) -> u128 {
        self.incarnation
    }
}

/// What a guard of running work needs to know of a hold. To be mirrored in atomics: the driver updates
/// them on [`Action::Lead`], [`Action::Renewed`] and [`Action::Fence`], so that a check costs a reading of
/// the clock and no lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The fencing token.
    pub term: u64,
    /// A step may start only while the leader's clock reads less than this, read now, never cached.
    pub deadline: Duration,
    /// Only work that has already begun may go on.
    pub draining: bool,
    /// No step may start at all.
    pub fenced: bool,
}

/// The election of one process, for any number of locks.
///
/// Call [`step`](Self::step) with everything that happens, carry out what it answers, and call it with
/// [`Event::Tick`] when the leader's clock reaches [`next_wakeup`](Self::next_wakeup).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    context: Context,
    locks: BTreeMap<LockId, Lock>,
    /// How many locks need the session to be alive.
    busy: usize,
}

/// Which locks an event may have changed something for.
enum Touched {
    None,
    One(LockId),
    All,
}

impl Touched {
    fn all_if(condition: bool) -> Self {
        if condition { Self::All } else { Self::None }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, touched) | (touched, Self::None) => touched,
            _ => Self::All,
        }
    }
}

impl Core {
    /// A process that has seen nothing yet. It does nothing before the first [`Event::Snapshot`].
    pub fn new(identity: Identity, settings: Settings, now: Clocks) -> Self {
        Self { context: Context::new(identity, settings, now), locks: BTreeMap::new(), busy: 0 }
    }

    /// For a store that has several records in one object, whose version then says nothing of when one of them was
    /// written: see [`LeaseStore::versions_are_shared`](crate::LeaseStore::versions_are_shared).
    #[must_use]
    pub fn with_shared_versions(mut self, shared: bool) -> Self {
        self.context.versions_are_shared = shared;
        self
    }

    /// Takes one event into account. `now` must have been read after the event was received.
    pub fn step(&mut self, now: Clocks, event: Event) -> Actions {
        self.context.now = now.not_before(self.context.now);
        // R5 comes first: an echo that arrives after the deadline revives the session, not the holds.
        if self.context.deadline_passed() {
            self.evaluate(&Touched::All);
        }
        let mut touched = self.absorb(event);
        if self.context.lock_wakeup.is_some_and(|at| self.context.now.leader >= at) {
            touched = Touched::All;
        }
        self.evaluate(&touched);
        if let Some(cause) = self.context.session.lost {
            let session = self.context.session.id;
            self.context.session = self.context.session.next();
            self.context.actions.push(Action::SessionLost { session, cause });
            self.evaluate(&Touched::All);
        }
        self.context.session_wakeup = None;
        self.context.heartbeat(self.busy > 0);
        self.context.catch_up();
        std::mem::take(&mut self.context.actions)
    }

    /// The reading of the leader's clock at which the next [`Event::Tick`] is due. An early tick is
    /// harmless; one that comes late by `d` makes everything but the abort late by `d`.
    pub fn next_wakeup(&self) -> Option<Duration> {
        match (self.context.lock_wakeup, self.context.session_wakeup) {
            (Some(lock), Some(session)) => Some(lock.min(session)),
            (lock, session) => lock.or(session),
        }
    }

    /// The present hold of a lock, if guarded work may still be running.
    pub fn guard(&self, lock: LockId) -> Option<Guard> {
        let hold = self.locks.get(&lock)?.hold;
        let deadline = self.context.session.deadline().unwrap_or_default();
        match hold {
            Hold::None | Hold::Waiting(_) => None,
            Hold::Leading(grant) => {
                Some(Guard { term: grant.term, deadline, draining: false, fenced: false })
            }
            Hold::Draining(grant) => {
                Some(Guard { term: grant.term, deadline, draining: true, fenced: false })
            }
            Hold::Fenced { grant, abort_at, .. } => {
                let deadline = abort_at.saturating_sub(self.context.settings.stop());
                Some(Guard { term: grant.term, deadline, draining: true, fenced: true })
            }
        }
    }

    pub(crate) fn parts(&self, lock: LockId) -> (&Context, Option<&Lock>) {
        (&self.context, self.locks.get(&lock))
    }

    /// What work under the present hold may write into the lock's record; `None` when no work can be left.
    pub fn tenure(&self, lock: LockId) -> Option<Tenure> {
        match self.locks.get(&lock)?.hold {
            Hold::Leading(grant) | Hold::Draining(grant) | Hold::Fenced { grant, .. } => Some(grant.tenure()),
            Hold::None | Hold::Waiting(_) => None,
        }
    }

    /// The session that the lock's record names, by the ordered view.
    pub fn holder(&self, lock: LockId) -> Option<SessionId> {
        self.locks.get(&lock)?.holder()
    }

    /// Whether a record of the lock that was read consistently, after the question was asked, still names
    /// the present hold. Together with a fresh check of the deadline this confirms leadership for one
    /// critical step, even after a pause that no clock counted.
    pub fn confirms(&self, lock: LockId, record: Option<&Record>) -> bool {
        self.locks.get(&lock).is_some_and(|lock| lock.confirms(record))
    }

    /// The present session. Its record is this process's own.
    pub fn session(&self) -> SessionId {
        self.context.session.id
    }

    /// Whether a list has come. Before that nothing is known of any record.
    pub fn has_view(&self) -> bool {
        self.context.synced
    }

    /// Up to which version everything has been seen.
    pub fn view_version(&self) -> Version {
        self.context.version
    }

    /// The newest version that is known, by the view or by an answer: what a list that is asked for now contains.
    pub fn known_version(&self) -> Version {
        self.context.known
    }

    /// Whether a list is to be passed on as a [snapshot](Event::Snapshot), and not as an [old one](Event::OldList):
    /// it may be the one with which a new watch begins, and `asked` is what was [known](Self::known_version) when it
    /// was asked for.
    pub fn takes(&self, version: Version, asked: Version, begins_watch: bool) -> bool {
        if self.context.is_of_another_history(version, asked) {
            return begins_watch && self.context.awaits_new_history();
        }
        version >= self.context.oldest_view() && (begins_watch || !self.context.doubts())
    }

    /// Whether there are signs that the store's history has gone back. Then changes of the watch are ignored, and
    /// only a list with which a new watch begins is a [snapshot](Event::Snapshot).
    pub fn doubts(&self) -> bool {
        self.context.doubts()
    }

    /// Whether the core has said [`Action::HistoryBack`] and no list has come since.
    pub fn awaits_new_history(&self) -> bool {
        self.context.awaits_new_history()
    }

    /// While it is suspected that the store's history has gone back: how long until that is believed.
    pub fn doubts_for(&self) -> Option<Duration> {
        self.context.doubts_for()
    }

    /// How long this process leads nothing because the store's history went back; `None`: it did not, or long ago.
    pub fn rests_for(&self) -> Option<Duration> {
        self.context.rests_for()
    }

    /// Whether a list of this version, with which a new watch begins, is the first of a new history.
    pub fn begins_new_history(&self, version: Version) -> bool {
        let stale = self.context.synced && version < self.context.oldest_view();
        stale && self.context.awaits_new_history()
    }

    /// The timing.
    pub fn settings(&self) -> &Settings {
        &self.context.settings
    }

    /// Whether anything is held, claimed, or still running. When not, a drained process may exit.
    pub fn is_idle(&self) -> bool {
        self.unreleased().next().is_none()
    }

    /// The locks that are held, or may be: claimed, or named as held by the present session.
    pub fn unreleased(&self) -> impl Iterator<Item = LockId> {
        let own = Some(self.context.session.id);
        let is_released =
            move |lock: &Lock| lock.hold == Hold::None && lock.pending.is_none() && lock.holder() != own;
        self.locks.iter().filter(move |(_, lock)| !is_released(lock)).map(|(id, _)| *id)
    }

    /// Whether the core has asked for the end by force of this work.
    #[cfg(feature = "mutants")]
    pub fn is_aborted(&self, lock: LockId, term: u64) -> bool {
        self.locks.get(&lock).is_some_and(
            |lock| matches!(lock.hold, Hold::Fenced { grant, aborted: true, .. } if grant.term == term),
        )
    }

    /// The session and the nonce of the present hold.
    #[cfg(feature = "mutants")]
    pub fn claim(&self, lock: LockId) -> Option<(SessionId, u64)> {
        match self.locks.get(&lock)?.hold {
            Hold::None => None,
            Hold::Waiting(grant)
            | Hold::Leading(grant)
            | Hold::Draining(grant)
            | Hold::Fenced { grant, .. } => Some((grant.session, grant.claim)),
        }
    }

    /// Breaks one rule from now on.
    #[cfg(feature = "mutants")]
    pub fn break_rule(&mut self, mutant: Option<crate::Mutant>) {
        self.context.proof.mutant = mutant;
    }

    /// How often each branch ran, in the order of [`Branch::ALL`](crate::Branch::ALL).
    #[cfg(feature = "mutants")]
    pub fn coverage(&self) -> &[u32] {
        &self.context.proof.coverage
    }

    fn absorb(&mut self, event: Event) -> Touched {
        match event {
            Event::Tick => Touched::None,
            Event::View { lock, name } => self.change(lock, |lock, _| {
                lock.wanted = true;
                lock.name = name;
            }),
            Event::Unview { lock } => self.change(lock, |lock, _| lock.wanted = false),
            Event::Resign { lock, stay_out } => self.change(lock, |lock, context| {
                lock.stay_out = Some((context.now, stay_out));
            }),
            Event::Drain => self.set_draining(true),
            Event::Undrain => self.set_draining(false),
            Event::Joined { lock, term } => self.change(lock, |lock, context| lock.joined(term, context)),
            Event::Changed { version, key, record } => self.changed(version, [(key, record)]),
            Event::Replaced { version, former, key, record } => {
                self.changed(version, [(former, None), (key, record)])
            }
            Event::Progress { version } => {
                if !self.context.doubts() {
                    self.context.advance(version);
                }
                Touched::None
            }
            Event::Snapshot { version, entries } => self.snapshot(version, &entries),
            Event::OldList { version, asked } => {
                self.context.old_list(version, asked);
                Touched::None
            }
            Event::WatchLost => self.set_watching(false),
            Event::WatchRestored => self.set_watching(true),
            Event::Answer { request, outcome } => self.answered(request, outcome),
            Event::Evidence { session, death } => {
                self.context.observe_evidence(session, death);
                Touched::All
            }
            Event::Candidates(candidates) => {
                self.context.candidates = candidates;
                Touched::All
            }
        }
    }

    fn change(&mut self, id: LockId, change: impl FnOnce(&mut Lock, &Context)) -> Touched {
        change(self.locks.entry(id).or_default(), &self.context);
        Touched::One(id)
    }

    fn set_draining(&mut self, draining: bool) -> Touched {
        self.context.draining = draining;
        Touched::All
    }

    fn set_watching(&mut self, watching: bool) -> Touched {
        self.context.watching = watching;
        Touched::None
    }

    /// A1: the watch delivers each change once and in order. What is not newer than the view has been
    /// seen, in this form or in a list.
    fn changed<const N: usize>(&mut self, version: Version, changes: [(Key, Option<Record>); N]) -> Touched {
        if version <= self.context.version || !self.context.synced {
            return Touched::None;
        }
        // Changes of one history on top of a view of another would be neither.
        if self.context.doubts() && !mutated!(self.context, ChangesInDoubt) {
            return Touched::None;
        }
        let mut touched = Touched::None;
        for (key, record) in changes {
            touched = touched.and(self.observe(key, record.map(|record| (version, record)), false));
        }
        self.context.advance(version);
        touched
    }

    fn observe(&mut self, key: Key, state: Option<(Version, Record)>, listed: bool) -> Touched {
        match key {
            Key::Lock(id) => {
                let newer = matches!(state, Some((_, Record::Newer)));
                let state = state.and_then(|(version, record)| match record {
                    Record::Lock(record) => Some((version, record)),
                    Record::Newer => Some((version, LockRecord::UNKNOWN)),
                    Record::Session(_) => None,
                });
                let lock = self.locks.entry(id).or_default();
                lock.observe(id, state, &mut self.context);
                lock.newer = newer;
                Touched::One(id)
            }
            Key::Session(id) => {
                let newer = matches!(state, Some((_, Record::Newer)));
                let state = state.and_then(|(version, record)| match record {
                    Record::Session(record) => Some((version, record)),
                    Record::Newer => Some((version, SessionRecord { seq: 0, dead: None, limits: None })),
                    Record::Lock(_) => None,
                });
                let mut changed = self.context.observe_session(id, state);
                if let Some(view) = self.context.sessions.get_mut(&id) {
                    changed |= view.newer != newer;
                    view.newer = newer;
                }
                if id == self.context.session.id && self.context.session.lost.is_none() {
                    changed |= match state {
                        Some((version, record)) => self.context.own_session_seen(version, record, listed),
                        None => self.context.own_session_absent(),
                    };
                }
                Touched::all_if(changed)
            }
        }
    }

    /// A consistent list replaces the view. One that is older than the view would take back what has been
    /// seen, and with it the order on which R3 rests, so it is ignored, unless all lists are.
    fn snapshot(&mut self, version: Version, entries: &[Entry]) -> Touched {
        let stale = self.context.synced && version < self.context.oldest_view();
        if self.begins_new_history(version) {
            self.begin_new_history();
        } else if stale && !mutated!(self.context, StaleSnapshot) {
            return Touched::None;
        }
        self.context.back = None;
        self.context.replaced(version);
        let listed: BTreeSet<Key> = entries.iter().map(|entry| entry.key).collect();
        let own = self.context.session.id;
        let unlisted = |key: &Key| !listed.contains(key);
        let locks = self.locks.keys().map(|id| Key::Lock(*id));
        let sessions = self.context.sessions.keys().chain([&own]).map(|id| Key::Session(*id));
        let gone: Vec<Key> = locks.chain(sessions).filter(unlisted).collect();
        let states = gone.into_iter().map(|key| (key, None));
        let states =
            states.chain(entries.iter().map(|entry| (entry.key, Some((entry.version, entry.record)))));
        let (locks, sessions): (Vec<_>, Vec<_>) = states.partition(|(key, _)| matches!(key, Key::Lock(_)));
        for (key, state) in locks {
            self.observe(key, state, true);
        }
        // A hold that the list deposes ends by the deadline of before the list. The echo that the same
        // list contains may be newer than the deposition, and the successor did not count from it.
        for (id, lock) in &mut self.locks {
            lock.fence_if_lost(*id, &mut self.context);
        }
        for (key, state) in sessions {
            self.observe(key, state, true);
        }
        Touched::All
    }

    /// What was seen is no more, and what came after it is forgotten by everybody who starts now. All holds end,
    /// every wait begins anew, and only the numbers of the terms are remembered.
    fn begin_new_history(&mut self) {
        covered!(self.context, NewHistory);
        self.context.forget();
        for lock in self.locks.values_mut() {
            lock.forget();
        }
    }

    fn answered(&mut self, request: RequestId, outcome: Outcome) -> Touched {
        let known = outcome != Outcome::Unknown;
        let awaited = match request.target {
            Target::Heartbeat => {
                self.context.heartbeat_answered(request.number, outcome);
                return Touched::None;
            }
            Target::List => {
                self.context.list_failed(request.number);
                return Touched::None;
            }
            Target::Lock(id) => self
                .locks
                .get_mut(&id)
                .is_some_and(|lock| lock.answered(request.number, known, &mut self.context)),
            Target::Kill(session) => self.context.kill_answered(session, request.number, known),
        };
        match outcome {
            // An answer that is not awaited may be of a history that is no more.
            Outcome::Written { version } if awaited => self.context.expect_version(version),
            Outcome::Conflict if awaited => self.context.expect_change(false),
            Outcome::Written { .. } | Outcome::Conflict | Outcome::Unknown => {}
        }
        Touched::None
    }

    fn evaluate(&mut self, touched: &Touched) {
        match touched {
            Touched::None => {}
            Touched::One(id) => {
                if let Some(lock) = self.locks.get_mut(id) {
                    evaluate_one(*id, lock, &mut self.context, &mut self.busy);
                }
            }
            Touched::All => {
                self.context.lock_wakeup = None;
                for (id, lock) in &mut self.locks {
                    evaluate_one(*id, lock, &mut self.context, &mut self.busy);
                }
            }
        }
    }
}

fn evaluate_one(id: LockId, lock: &mut Lock, context: &mut Context, busy: &mut usize) {
    *busy -= usize::from(lock.busy);
    lock.evaluate(id, context);
    *busy += usize::from(lock.busy);
}
