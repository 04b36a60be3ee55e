//! What all locks of a process share: time, settings, the ordered view, the session, the outbox.

use std::time::Duration;

use crate::action::{Action, Actions, Operation, RequestId, SessionLoss, Target};
use crate::clocks::Clocks;
use crate::core::Identity;
use crate::record::{Key, Precondition, Record, Version};
use crate::rendezvous::{self, Candidate};
use crate::session::Session;
use crate::settings::Settings;
use crate::view::Sessions;

/// A request that is on its way, or whose effect the view does not show yet. While it lasts, nothing else
/// is written to the same record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flight {
    pub(crate) number: u64,
    since: Clocks,
    span: Duration,
}

impl Flight {
    /// The time after which the request counts as lost. Counted by the leader's clock, because a late
    /// retry costs leadership and an early one costs nothing.
    pub(crate) fn remaining(&self, now: Clocks) -> Option<Duration> {
        remaining(self.span, now.leader_since(self.since))
    }

    /// Holds the record for `span` from now on.
    pub(crate) fn hold_for(&mut self, now: Clocks, span: Duration) {
        self.since = now;
        self.span = span;
    }
}

/// What is left of `span`, if anything.
pub(crate) fn remaining(span: Duration, elapsed: Duration) -> Option<Duration> {
    span.checked_sub(elapsed).filter(|left| !left.is_zero())
}

/// A change that the store has and the view has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Behind {
    since: Clocks,
    until: Until,
}

/// When the view is good again. The greater is the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Until {
    /// When it moves at all: a conflict is usually with the very next change.
    AnyChange,
    /// When it reaches this version.
    Version(Version),
    /// When it shows a newer version of the own session, or a list that does not.
    OwnChange,
}

/// Lists that are older than the view though they were asked for after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Back {
    /// Since when there was no other.
    since: Clocks,
    /// The pause before the next one. It grows.
    pause: Duration,
    /// For longer than the takeover wait.
    certain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    /// Whether the version of a record also changes with other records.
    pub(crate) versions_are_shared: bool,
    pub(crate) identity: Identity,
    pub(crate) now: Clocks,
    /// Up to which version the view is complete.
    pub(crate) version: Version,
    /// The newest version that the store is known to have given, by the view or by an answer. A list that is asked
    /// for from now on contains it.
    pub(crate) known: Version,
    /// Whether there is a view at all. Before the first list nothing can be judged absent.
    pub(crate) synced: bool,
    pub(crate) watching: bool,
    pub(crate) sessions: Sessions,
    /// The longest true time that the work of any holder may take, by any record that was ever seen.
    pub(crate) longest: Duration,
    pub(crate) session: Session,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) draining: bool,
    pub(crate) claims: u64,
    pub(crate) actions: Actions,
    requests: u64,
    behind: Option<Behind>,
    list: Option<Flight>,
    /// Signs that the store's history has gone back.
    pub(crate) back: Option<Back>,
    /// Since when this process goes on in a history that had gone back.
    pub(crate) new_history: Option<Clocks>,
    /// The reading of the leader's clock at which a lock must be looked at again.
    pub(crate) lock_wakeup: Option<Duration>,
    /// The same for the session and for lists.
    pub(crate) session_wakeup: Option<Duration>,
    #[cfg(feature = "mutants")]
    pub(crate) proof: crate::mutant::Proof,
}

impl Context {
    pub(crate) fn new(identity: Identity, settings: Settings, now: Clocks) -> Self {
        Self {
            settings,
            versions_are_shared: false,
            identity,
            now,
            version: 0,
            known: 0,
            synced: false,
            watching: true,
            sessions: Sessions::default(),
            longest: Duration::ZERO,
            session: Session::new(identity.incarnation(), 0),
            candidates: Vec::new(),
            draining: false,
            claims: 0,
            actions: Actions::new(),
            requests: 0,
            behind: None,
            list: None,
            back: None,
            new_history: None,
            lock_wakeup: None,
            session_wakeup: None,
            #[cfg(feature = "mutants")]
            proof: crate::mutant::Proof::default(),
        }
    }

    pub(crate) fn note_rest(&mut self, rest: Option<Duration>) {
        self.longest = self.longest.max(rest.unwrap_or_default());
    }

    pub(crate) fn wake_lock_in(&mut self, time: Duration) {
        let at = self.now.leader.saturating_add(time);
        self.lock_wakeup = Some(self.lock_wakeup.map_or(at, |other| other.min(at)));
    }

    pub(crate) fn wake_session_in(&mut self, time: Duration) {
        let at = self.now.leader.saturating_add(time);
        self.session_wakeup = Some(self.session_wakeup.map_or(at, |other| other.min(at)));
    }

    /// I4: there is no other way to write, and this one asks for a precondition.
    pub(crate) fn write(&mut self, target: Target, key: Key, expect: Precondition, record: Record) -> Flight {
        self.send(target, Operation::Write { key, expect, record })
    }

    fn send(&mut self, target: Target, operation: Operation) -> Flight {
        self.requests += 1;
        let request = RequestId { number: self.requests, target };
        self.actions.push(Action::Send { request, operation });
        Flight { number: request.number, since: self.now, span: self.settings.attempt_timeout() }
    }

    /// The turn of this member at a lock that is open: the time that its rank still has to wait.
    pub(crate) fn turn(&self, lock: u64, open_since: Clocks) -> Option<Duration> {
        let rank = rendezvous::rank(lock, self.identity.member(), &self.candidates);
        remaining(rendezvous::TURN.saturating_mul(rank), self.now.standby_since(open_since))
    }

    /// A write is known to have been applied that the view may not show yet.
    pub(crate) fn expect_version(&mut self, version: Version) {
        self.known = self.known.max(version);
        if version > self.version {
            self.expect(Until::Version(version));
        }
    }

    /// R2: a conflict says that the view is behind, but not by how much.
    pub(crate) fn expect_change(&mut self, own: bool) {
        self.expect(if own { Until::OwnChange } else { Until::AnyChange });
    }

    fn expect(&mut self, until: Until) {
        let Behind { since, until: other } = self.behind.unwrap_or(Behind { since: self.now, until });
        self.behind = Some(Behind { since, until: until.max(other) });
    }

    /// The view shows the own session's newest version.
    pub(crate) fn own_change_seen(&mut self) {
        self.behind = self.behind.filter(|behind| behind.until != Until::OwnChange);
    }

    /// The view has advanced to `version`, by the watch.
    pub(crate) fn advance(&mut self, version: Version) {
        self.version = self.version.max(version);
        self.known = self.known.max(version);
        self.behind = self.behind.filter(|behind| match behind.until {
            Until::AnyChange => false,
            Until::Version(until) => until > version,
            Until::OwnChange => true,
        });
    }

    /// The view has been replaced by a list that was asked for or came by itself.
    pub(crate) fn replaced(&mut self, version: Version) {
        self.version = version;
        self.known = self.known.max(version);
        self.synced = true;
        self.list = None;
        self.behind =
            self.behind.filter(|behind| matches!(behind.until, Until::Version(until) if until > version));
    }

    pub(crate) fn list_failed(&mut self, number: u64) {
        let (now, pause) = (self.now, self.settings.retry_pause());
        if let Some(list) = self.list.as_mut().filter(|list| list.number == number) {
            list.hold_for(now, pause);
        }
    }

    /// A5: a consistent list contains all that was known when it was asked for, seen or answered.
    pub(crate) fn is_of_another_history(&self, version: Version, asked: Version) -> bool {
        self.synced && version < asked.min(self.known)
    }

    /// A5: a list of another history is a sign that the store's has gone back. It is believed when no other list
    /// has come for a takeover wait.
    pub(crate) fn old_list(&mut self, version: Version, asked: Version) {
        let (now, first) = (self.now, self.settings.retry_pause());
        let mut pause = first;
        if self.is_of_another_history(version, asked) {
            covered!(self, OldListSeen);
            let longest = self.settings.takeover_wait() / 4;
            let back = self.back.get_or_insert(Back { since: now, pause: first, certain: false });
            back.pause = (back.pause * 2).min(longest);
            pause = back.pause;
        }
        if let Some(list) = self.list.as_mut() {
            list.hold_for(now, pause);
        }
        // The doubt is over, but what the watch has told meanwhile was ignored.
        if self.doubts() && version >= self.known {
            self.actions.push(Action::Relist);
        }
    }

    /// Everything that was known is of a history that is no more, and so is what it made this process wait for.
    pub(crate) fn forget(&mut self) {
        self.new_history = Some(self.now);
        self.known = 0;
        self.behind = None;
        self.sessions.clear();
        self.session.lost = Some(SessionLoss::HistoryBack);
    }

    /// The oldest list that may replace the view. While the history is in doubt, that is one which ends the doubt.
    pub(crate) fn oldest_view(&self) -> Version {
        if self.doubts() { self.known } else { self.version }
    }

    pub(crate) fn doubts(&self) -> bool {
        self.back.is_some()
    }

    /// How long until the doubt is believed; zero: it is.
    pub(crate) fn doubts_for(&self) -> Option<Duration> {
        let waited = self.now.standby_since(self.back?.since);
        Some(self.settings.takeover_wait().saturating_sub(waited))
    }

    /// The rest of the wait that every lock owes in a new history.
    pub(crate) fn rests_for(&self) -> Option<Duration> {
        let waited = self.now.standby_since(self.new_history?);
        remaining(self.settings.wait_for(self.longest), waited)
    }

    pub(crate) fn awaits_new_history(&self) -> bool {
        self.back.is_some_and(|back| back.certain)
    }

    /// Asks for lists, with growing pauses, until one is not older than the view or it is certain that none
    /// will be.
    fn look_back(&mut self, back: Back) {
        let wait = self.settings.takeover_wait();
        match remaining(wait, self.now.standby_since(back.since)) {
            Some(time) => self.wake_session_in(time),
            None if !back.certain && !mutated!(self, HistoryNeverBack) => {
                self.back = Some(Back { certain: true, ..back });
                self.actions.push(Action::HistoryBack { view: self.version });
            }
            None => {}
        }
        self.ask_for_list();
    }

    fn ask_for_list(&mut self) {
        if let Some(time) = self.list.and_then(|list| list.remaining(self.now)) {
            return self.wake_session_in(time);
        }
        covered!(self, ListAsked);
        let flight = self.send(Target::List, Operation::List);
        self.list = Some(flight);
        self.wake_session_in(self.settings.attempt_timeout());
    }

    /// R3: a watch that lags or is down is replaced by one consistent list, asked for after the write
    /// whose echo is missing.
    pub(crate) fn catch_up(&mut self) {
        if let Some(back) = self.back {
            return self.look_back(back);
        }
        let Some(behind) = self.behind else { return };
        let patience = if self.watching { self.settings.watch_patience() } else { Duration::ZERO };
        let waited = self.now.leader_since(behind.since);
        if let Some(time) = remaining(patience, waited) {
            self.wake_session_in(time);
        } else {
            self.ask_for_list();
        }
    }
}
