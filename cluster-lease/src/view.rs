//! The ordered view of the sessions of the group: what was seen of each, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::action::Target;
use crate::clocks::Clocks;
use crate::context::{Context, Flight, remaining};
use crate::record::{Death, Key, Precondition, Record, SessionId, SessionRecord, Version};

/// A record together with its version and the time at which this version was first observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen<R> {
    pub(crate) version: Version,
    pub(crate) record: R,
    pub(crate) at: Clocks,
}

/// What is known of one session that exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SessionView {
    pub(crate) seen: Seen<SessionRecord>,
    /// The last live version that was observed: its heartbeat counter, and when.
    live: Option<(u64, Clocks)>,
    /// What was said against it, and when.
    evidence: Option<(Death, Clocks)>,
    kill: Option<Flight>,
    /// Its record is of a newer format.
    pub(crate) newer: bool,
}

/// The sessions that exist, by the ordered view.
pub(crate) type Sessions = BTreeMap<SessionId, SessionView>;

impl SessionView {
    fn new(version: Version, record: SessionRecord, now: Clocks) -> Self {
        let live = record.dead.is_none().then_some((record.seq, now));
        Self { seen: Seen { version, record, at: now }, live, evidence: None, kill: None, newer: false }
    }

    fn update(&mut self, version: Version, record: SessionRecord, now: Clocks) {
        if version == self.seen.version {
            return;
        }
        // An older version of this program that declares it dead leaves out what it lives by.
        let limits = record.limits.or(self.seen.record.limits);
        self.seen = Seen { version, record: SessionRecord { limits, ..record }, at: now };
        self.kill = None;
        if record.dead.is_none() {
            self.live = Some((record.seq, now));
        }
    }

    /// R7: from when on a weakly dead session's locks must rest. The last live version is the later
    /// bound on its holder's last heartbeat, but only if it was this observer who saw it: after a gap in
    /// the watch, newer heartbeats may have been missed, and the counter in the dead record tells.
    pub(crate) fn weak_since(&self, stale_allowed: bool) -> Clocks {
        match self.live {
            Some((seq, at)) if seq == self.seen.record.seq || stale_allowed => at,
            _ => self.seen.at,
        }
    }

    /// R6: why this session may be declared dead now, or how long until it may.
    ///
    /// What counts is what the session says that it lives by, if that is longer than the own takeover wait.
    ///
    /// Weak evidence is good for one such wait. By then its session has either been silent for that
    /// long, and needs no evidence, or has shown that it lives.
    pub(crate) fn mortality(&self, context: &Context) -> Mortality {
        if self.newer {
            return Mortality::Never;
        }
        let limits = self.seen.record.limits.filter(|_| !mutated!(context, HoldersTimingIgnored));
        let wait = context.settings.wait_for(limits.map(|limits| limits.rest()).unwrap_or_default());
        let proven = matches!(self.evidence, Some((Death::Proof, _)));
        if proven && self.seen.record.dead != Some(Death::Expired) {
            return Mortality::Due(Death::Proof);
        }
        let fresh = |(_, at): (Death, Clocks)| context.now.standby_since(at) < wait;
        match remaining(wait, context.now.standby_since(self.seen.at)) {
            None => Mortality::Due(Death::Expired),
            Some(_) if self.evidence.is_some_and(fresh) => Mortality::Due(Death::Weak),
            Some(time) => Mortality::In(time),
        }
    }
}

pub(crate) enum Mortality {
    /// What a newer version of this program has written is not for this one to judge.
    Never,
    Due(Death),
    In(Duration),
}

/// How a session stands. Locks need to be looked at again only when this changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Absent,
    Live,
    Dead(Death),
}

impl Context {
    pub(crate) fn standing(&self, session: SessionId) -> Standing {
        match self.sessions.get(&session).map(|view| view.seen.record.dead) {
            None => Standing::Absent,
            Some(None) => Standing::Live,
            Some(Some(death)) => Standing::Dead(death),
        }
    }

    /// Takes a session's record into the view; says whether its standing changed.
    pub(crate) fn observe_session(
        &mut self,
        session: SessionId,
        state: Option<(Version, SessionRecord)>,
    ) -> bool {
        let before = self.standing(session);
        match state {
            None => {
                self.sessions.remove(&session);
            }
            Some((version, record)) => {
                let now = self.now;
                self.note_rest(record.limits.map(|limits| limits.rest()));
                self.sessions
                    .entry(session)
                    .and_modify(|view| view.update(version, record, now))
                    .or_insert_with(|| SessionView::new(version, record, now));
            }
        }
        before != self.standing(session)
    }

    /// R6: evidence against a session that the view does not contain is of no use and not kept. Proof
    /// outweighs anything else that was said.
    pub(crate) fn observe_evidence(&mut self, session: SessionId, death: Death) {
        let death = if death == Death::Proof { Death::Proof } else { Death::Weak };
        let now = self.now;
        if let Some(view) = self.sessions.get_mut(&session)
            && (death == Death::Proof || !matches!(view.evidence, Some((Death::Proof, _))))
        {
            view.evidence = Some((death, now));
        }
    }

    /// R6: a session is ended before its locks are taken, by compare-and-swap on the very version that
    /// was watched. After that no heartbeat of it can succeed, so its holder's deadline stands still.
    pub(crate) fn kill(&mut self, session: SessionId, death: Death) {
        let now = self.now;
        let Some(view) = self.sessions.get(&session) else { return };
        if let Some(time) = view.kill.and_then(|kill| kill.remaining(now)) {
            return self.wake_lock_in(time);
        }
        let record = Record::Session(SessionRecord { dead: Some(death), ..view.seen.record });
        let expect = Precondition::Version(view.seen.version);
        #[cfg(feature = "mutants")]
        let expect = if mutated!(self, KillWithoutVersion) { Precondition::Any } else { expect };
        match death {
            Death::Expired => {
                covered!(self, KilledExpired);
            }
            Death::Proof => {
                covered!(self, KilledByProof);
            }
            Death::Weak => {
                covered!(self, KilledByWeakEvidence);
            }
        }
        let flight = self.write(Target::Kill(session), Key::Session(session), expect, record);
        self.wake_lock_in(self.settings.attempt_timeout());
        if let Some(view) = self.sessions.get_mut(&session) {
            view.kill = Some(flight);
        }
    }

    /// The fate of a kill. However it ended, the view must show it before anything follows. Says whether
    /// the answer was still awaited.
    pub(crate) fn kill_answered(&mut self, session: SessionId, number: u64, known: bool) -> bool {
        let span = if known { self.settings.attempt_timeout() } else { self.settings.retry_pause() };
        let now = self.now;
        let kill = self.sessions.get_mut(&session).and_then(|view| view.kill.as_mut());
        let Some(kill) = kill.filter(|kill| kill.number == number) else { return false };
        kill.hold_for(now, span);
        self.wake_lock_in(span);
        true
    }
}
