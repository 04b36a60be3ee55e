//! One lock: what the view shows of it, what this process does about it.

use std::time::Duration;

use crate::action::{Action, Target};
use crate::clocks::Clocks;
use crate::context::{Context, Flight, remaining};
use crate::hold::{Grant, Hold};
use crate::record::{Key, LockId, LockRecord, Precondition, Record, SessionId, Version};
use crate::takeover::Claim;
use crate::view::Seen;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Lock {
    /// The hash of the lock's name, for the order of candidates.
    pub(crate) name: u64,
    pub(crate) wanted: bool,
    /// Not campaigned for until this much time after this reading, which moves on until the lock is free.
    pub(crate) stay_out: Option<(Clocks, Duration)>,
    pub(crate) seen: Option<Seen<LockRecord>>,
    /// The largest term that its records have said since it was last absent.
    highest: u64,
    /// The record says a smaller term than one before it, so a writer that is no member has set it back.
    pub(crate) set_back: bool,
    /// The record is of a newer format: what `seen` says of its content is nothing.
    pub(crate) newer: bool,
    /// The holder whose session is absent, and since when this process has seen it so.
    pub(crate) absent_holder: Option<(SessionId, Clocks)>,
    /// Since when there has been something to do for a candidate.
    pub(crate) open_since: Option<Clocks>,
    pub(crate) hold: Hold,
    /// The claim that was sent and that the view has not yet confirmed or refuted.
    pub(crate) pending: Option<Claim>,
    /// The last hold whose work has ended, to be released with its term.
    pub(crate) ended: Option<Grant>,
    /// The largest term or version that was ever seen of this lock: the next term must be above it.
    pub(crate) remembered: u64,
    pub(crate) flight: Option<Flight>,
    /// Whether this lock needs the session to be alive.
    pub(crate) busy: bool,
}

impl Lock {
    pub(crate) fn holder(&self) -> Option<SessionId> {
        self.seen.and_then(|seen| seen.record.holder)
    }

    /// Takes the lock's record into the view.
    pub(crate) fn observe(
        &mut self,
        id: LockId,
        state: Option<(Version, LockRecord)>,
        context: &mut Context,
    ) {
        if self.seen.map(|seen| seen.version) == state.map(|(version, _)| version) {
            return;
        }
        let before = self.holder();
        self.note_whether_set_back(state.map(|(_, record)| record), context);
        self.seen = state.map(|(version, record)| Seen { version, record, at: context.now });
        // Whatever is on its way to an older version of this record is in vain, or was this change.
        self.flight = None;
        if let Some((version, record)) = state {
            self.remembered = self.remembered.max(version).max(record.term);
            context.note_rest(record.limits.map(|limits| limits.rest()));
            context.note_rest(record.owed);
        }
        let session = self.holder();
        if session != before {
            context.actions.push(Action::Holder { lock: id, session });
        }
    }

    /// Each member writes a term that is not below that of the record before. So a record that says less was
    /// written once, saved, and written again into the same object by another writer. It says nothing of the terms
    /// since then.
    fn note_whether_set_back(&mut self, record: Option<LockRecord>, context: &mut Context) {
        self.highest = record.map_or(0, |record| record.term.max(self.highest));
        let is_below = |record: LockRecord| record.term < self.highest && !record.is_unknown();
        self.set_back = record.is_some_and(is_below) && !mutated!(context, SetBackIsSettled);
        if self.set_back {
            covered!(context, RecordSetBack);
        }
    }

    /// Whether all waits that were owed up to this record are known to have been served.
    pub(crate) fn is_settled(&self, record: &LockRecord) -> bool {
        record.settled && !self.set_back
    }

    /// The record belongs to a history that is no more.
    pub(crate) fn forget(&mut self) {
        self.seen = None;
        (self.highest, self.set_back) = (0, false);
        self.newer = false;
        self.absent_holder = None;
        self.open_since = None;
        self.flight = None;
    }

    /// A member that starts after the history has gone back remembers nothing, and would begin with a term that
    /// is not above those that there were. So those who remember write it down before they campaign.
    fn raise_term(&mut self, id: LockId, context: &mut Context) -> bool {
        if context.new_history.is_none() || !self.wanted || self.newer || self.hold != Hold::None {
            return false;
        }
        let Some(Seen { version, record, .. }) = self.seen else { return false };
        // One that waits would take another version for another claim. Its successor's term is above.
        let waits = record.holder.is_some() && !record.settled;
        if record.term.max(version) >= self.remembered || waits || mutated!(context, TermNotRaised) {
            return false;
        }
        covered!(context, TermRaised);
        let settled = self.is_settled(&record);
        let record = LockRecord { term: self.remembered, settled, ..record };
        self.send(id, Precondition::Version(version), record, context);
        true
    }

    /// Brings this lock up to date with the view, the session and the time. The order matters: what ends
    /// comes before what begins, and both before anything is written.
    pub(crate) fn evaluate(&mut self, id: LockId, context: &mut Context) {
        self.note_absent_holder(context);
        self.fence_if_lost(id, context);
        self.abort_if_overdue(id, context);
        self.grant(context);
        self.start_or_give_up(id, context);
        let campaigning = self.write(id, context);
        let held = matches!(self.hold, Hold::Waiting(_) | Hold::Leading(_) | Hold::Draining(_));
        self.busy = held || self.pending.is_some() || campaigning;
        self.check_invariants(context);
    }

    /// Whether this process wants to lead the lock now.
    pub(crate) fn is_wanted(&mut self, context: &mut Context) -> bool {
        // Staying out lets others be first, so it counts from when the lock is theirs to take.
        if self.hold != Hold::None || self.holder() == Some(context.session.id) {
            self.stay_out = self.stay_out.map(|(_, span)| (context.now, span));
        }
        if let Some((since, span)) = self.stay_out {
            match remaining(span, context.now.leader_since(since)) {
                Some(time) => context.wake_lock_in(time),
                None => self.stay_out = None,
            }
        }
        self.wanted && !context.draining && self.stay_out.is_none()
    }

    /// Sends at most one write about the lock. Says whether this process is campaigning for it.
    fn write(&mut self, id: LockId, context: &mut Context) -> bool {
        if !context.synced || context.session.lost.is_some() {
            return false;
        }
        let in_flight = match self.flight.and_then(|flight| flight.remaining(context.now)) {
            Some(time) => {
                context.wake_lock_in(time);
                true
            }
            None => {
                self.flight = None;
                false
            }
        };
        if in_flight {
            return false;
        }
        if self.release_if_done(id, context)
            || self.settle_if_started(id, context)
            || self.raise_term(id, context)
        {
            return false;
        }
        self.campaign(id, context)
    }

    pub(crate) fn send(
        &mut self,
        id: LockId,
        expect: Precondition,
        record: LockRecord,
        context: &mut Context,
    ) {
        let flight = context.write(Target::Lock(id), Key::Lock(id), expect, Record::Lock(record));
        self.flight = Some(flight);
        context.wake_lock_in(context.settings.attempt_timeout());
    }

    /// R2: the fate of a write is what the view shows. Until it does, or until that takes too long, the
    /// same record is left alone. Says whether the answer was still awaited.
    pub(crate) fn answered(&mut self, number: u64, known: bool, context: &mut Context) -> bool {
        let span = if known { context.settings.attempt_timeout() } else { context.settings.retry_pause() };
        let Some(flight) = self.flight.as_mut().filter(|flight| flight.number == number) else {
            return false;
        };
        flight.hold_for(context.now, span);
        context.wake_lock_in(span);
        true
    }

    /// R7: the wait for an absent session counts from when this process first saw it absent while it was
    /// named as the holder.
    fn note_absent_holder(&mut self, context: &Context) {
        let holder = self.holder().filter(|holder| !context.sessions.contains_key(holder));
        if self.absent_holder.map(|(session, _)| session) != holder {
            self.absent_holder = holder.map(|session| (session, context.now));
        }
    }

    fn check_invariants(&self, context: &Context) {
        // Only debug builds read it.
        let _ = context;
        if let Hold::Leading(grant) | Hold::Draining(grant) = &self.hold {
            invariant!(context, context.session.is_live(context.now), "I2: active only before the deadline");
            invariant!(
                context,
                grant.session == context.session.id,
                "I1: active only by the own live session"
            );
            invariant!(
                context,
                self.holder() == Some(grant.session),
                "I1: active only while the ordered view names this session"
            );
            invariant!(
                context,
                grant.wait(context).is_none(),
                "I8: active only after the wait that was owed"
            );
        }
    }
}
