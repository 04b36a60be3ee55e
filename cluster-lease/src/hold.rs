//! Holding a lock: when leadership starts (R4), when it is over (R5), and how long work may go on.

use std::time::Duration;

use crate::action::{Action, FenceCause};
use crate::clocks::Clocks;
use crate::context::{Context, remaining};
use crate::lock::Lock;
use crate::record::{Limits, LockId, LockRecord, SessionId, Version};
use crate::tenure::Tenure;
use crate::view::Seen;

/// From when on a hold may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Start {
    AtOnce,
    /// When this much true time has passed since this reading.
    WaitFrom(Clocks, Duration),
    /// The same since the view has confirmed the claim.
    WaitFromConfirmation(Duration),
}

/// A claim that the ordered view has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Grant {
    pub(crate) session: SessionId,
    pub(crate) claim: u64,
    /// The version of the record that was granted.
    pub(crate) version: Version,
    pub(crate) term: u64,
    pub(crate) start: Start,
    pub(crate) limits: Limits,
}

impl Grant {
    /// What whoever works under the hold knows of its record.
    pub(crate) fn tenure(&self) -> Tenure {
        let record = LockRecord {
            holder: Some(self.session),
            term: self.term,
            claim: self.claim,
            settled: true,
            limits: Some(self.limits),
            owed: None,
        };
        Tenure { granted: self.version, record }
    }

    /// Whether the record is still that of this hold.
    fn is_named_by(&self, seen: &Seen<LockRecord>) -> bool {
        self.tenure().is_named_by(seen.version, &seen.record)
    }

    fn is_like(&self, record: &LockRecord) -> bool {
        self.tenure().is_like(record)
    }

    /// What is left of the wait before this hold may lead.
    pub(crate) fn wait(&self, context: &Context) -> Option<Duration> {
        match self.start {
            Start::AtOnce => None,
            Start::WaitFrom(since, rest) => {
                remaining(context.settings.wait_for(rest), context.now.standby_since(since))
            }
            Start::WaitFromConfirmation(rest) => Some(context.settings.wait_for(rest)),
        }
    }
}

/// What this process has of a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Hold {
    #[default]
    None,
    /// Named as the holder, not yet allowed to lead.
    Waiting(Grant),
    Leading(Grant),
    /// Leading, but only to finish what runs.
    Draining(Grant),
    /// No longer leading; guarded work is being ended.
    Fenced {
        grant: Grant,
        abort_at: Duration,
        aborted: bool,
    },
}

impl Lock {
    /// R5: leadership ends when the deadline passes, when the lock's record is no longer the one that was
    /// granted, or when the session is lost.
    pub(crate) fn fence_if_lost(&mut self, id: LockId, context: &mut Context) {
        let (Hold::Waiting(grant) | Hold::Leading(grant) | Hold::Draining(grant)) = self.hold else { return };
        let named = self.seen.is_some_and(|seen| {
            grant.is_named_by(&seen) || (mutated!(context, RecreatedLock) && grant.is_like(&seen.record))
        });
        let live = context.session.is_live(context.now) || mutated!(context, DeadlineIgnored);
        let lost = context.session.lost.is_some() || grant.session != context.session.id;
        let cause = if lost {
            FenceCause::SessionLost
        } else if !named {
            FenceCause::Deposed
        } else if !live && !matches!(self.hold, Hold::Waiting(_)) {
            FenceCause::Deadline
        } else {
            return;
        };
        if matches!(self.hold, Hold::Waiting(_)) {
            // No work has started, so there is none to end.
            self.hold = Hold::None;
            return;
        }
        match cause {
            FenceCause::SessionLost => {
                covered!(context, FencedBySessionLoss);
            }
            FenceCause::Deposed => {
                covered!(context, FencedByDeposition);
            }
            FenceCause::Deadline => {
                covered!(context, FencedByDeadline);
            }
        }
        // The end is an absolute time. Whoever wakes up late has that much less time, because the
        // successor has been counting all the while.
        let deadline = context.session.deadline().unwrap_or_default();
        let counted_from = if mutated!(context, RelativeStop) { context.now.leader } else { deadline };
        let abort_at = counted_from + context.settings.stop();
        self.hold = Hold::Fenced { grant, abort_at, aborted: false };
        context.actions.push(Action::Fence { lock: id, term: grant.term, cause, abort_at });
    }

    /// R5: what has not ended by D + stop is ended by force.
    pub(crate) fn abort_if_overdue(&mut self, id: LockId, context: &mut Context) {
        let Hold::Fenced { grant, abort_at, aborted: false } = self.hold else { return };
        if let Some(time) = remaining(abort_at, context.now.leader) {
            return context.wake_lock_in(time);
        }
        covered!(context, Aborted);
        self.hold = Hold::Fenced { grant, abort_at, aborted: true };
        context.actions.push(Action::Abort { lock: id, term: grant.term });
    }

    /// R4: leads from the moment at which the view names this session, the wait is over, and the deadline
    /// is ahead.
    pub(crate) fn start_or_give_up(&mut self, id: LockId, context: &mut Context) {
        let wanted = self.is_wanted(context);
        match self.hold {
            Hold::Waiting(_) if !wanted => {
                covered!(context, WaitGivenUp);
                self.hold = Hold::None;
            }
            Hold::Waiting(grant) => self.start(id, grant, context),
            Hold::Leading(grant) if !wanted => {
                covered!(context, Drained);
                self.hold = Hold::Draining(grant);
                context.actions.push(Action::Drain { lock: id, term: grant.term });
            }
            _ => {}
        }
    }

    fn start(&mut self, id: LockId, grant: Grant, context: &mut Context) {
        if let Some(time) = grant.wait(context) {
            return context.wake_lock_in(time);
        }
        // The claim may be of a history that is no more. A list ends the doubt, and all locks are looked at.
        if context.doubts() {
            return;
        }
        let Some(deadline) = context.session.deadline().filter(|_| context.session.is_live(context.now))
        else {
            covered!(context, StartWithoutDeadline);
            return;
        };
        covered!(context, if grant.start == Start::AtOnce => StartedAtOnce else StartedAfterWait);
        invariant!(
            context,
            self.ended.is_none_or(|ended| ended.term < grant.term),
            "I3: terms rise with every term"
        );
        self.hold = Hold::Leading(grant);
        context.actions.push(Action::Lead { lock: id, term: grant.term, deadline });
    }

    /// All work of a hold has ended: the lock may be released (R10) or campaigned for again.
    /// Of this very hold: word of an earlier one may come late, or twice.
    pub(crate) fn joined(&mut self, term: u64, context: &Context) {
        if let Hold::Draining(grant) | Hold::Fenced { grant, .. } = self.hold
            && (grant.term == term || mutated!(context, JoinedOfAnyTerm))
        {
            self.hold = Hold::None;
            self.ended = Some(grant);
        }
    }
}
