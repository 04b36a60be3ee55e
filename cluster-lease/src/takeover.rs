//! Taking a lock: whose it is, whether its holder must be ended first (R6), what wait is owed (R7, R8).

use std::time::Duration;

use crate::action::{Action, WaitCause};
use crate::context::{Context, remaining};
use crate::hold::{Grant, Hold, Start};
use crate::lock::Lock;
use crate::record::{Death, Limits, LockId, LockRecord, Precondition, Record, SessionId};
use crate::view::{Mortality, Seen, Standing};

/// A claim that was sent. It is sent again unchanged until the view shows what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    expect: Precondition,
    record: LockRecord,
    start: Start,
}

/// How a lock stands for somebody who wants it.
enum Situation {
    /// Its holder is alive as far as anybody knows; look again after this time.
    Held(Duration),
    /// Its holder may and must be declared dead first.
    Kill(SessionId, Death),
    /// It may be claimed, to be led from then on. And why there is a wait, where there is one.
    Open(Start, WaitCause),
    /// A newer version of this program has written it: hands off.
    Newer,
    /// It names this session already.
    Own,
}

impl Lock {
    /// R9: the view confirms the pending claim, once. The nonce is consumed here, so nothing that arrives
    /// late can grant it a second time.
    pub(crate) fn grant(&mut self, context: &mut Context) {
        self.grant_again(context);
        let Some(claim) = self.pending else { return };
        let version = self.seen.map(|seen| seen.version);
        let unchanged = match claim.expect {
            Precondition::Absent => version.is_none(),
            Precondition::Version(expected) => version == Some(expected),
            #[cfg(feature = "mutants")]
            Precondition::Any => true,
        };
        let confirmed = self.seen.filter(|seen| {
            seen.record.holder == Some(context.session.id) && seen.record.claim == claim.record.claim
        });
        let lost = context.session.lost.is_some();
        if let Some(seen) = confirmed.filter(|_| self.hold == Hold::None && !lost) {
            let start = match claim.start {
                Start::WaitFromConfirmation(rest) => Start::WaitFrom(context.now, rest),
                start => start,
            };
            let term = seen.version.max(seen.record.term);
            #[cfg(feature = "mutants")]
            let term = if mutated!(context, TermFromRecord) { seen.record.term } else { term };
            let session = context.session.id;
            let (claim, version) = (seen.record.claim, seen.version);
            let limits = context.settings.limits();
            self.hold = Hold::Waiting(Grant { session, claim, version, term, start, limits });
            self.pending = None;
        } else if !unchanged || lost {
            self.pending = None;
        }
    }

    /// What R9 forbids.
    fn grant_again(&mut self, context: &Context) {
        let reusable = mutated!(context, ReusableNonce) && self.hold == Hold::None;
        let Some(ended) = self.ended.filter(|_| reusable) else { return };
        let named = self.seen.is_some_and(|seen| {
            seen.record.holder == Some(ended.session) && seen.record.claim == ended.claim
        });
        if named && ended.session == context.session.id {
            self.hold = Hold::Waiting(Grant {
                start: Start::AtOnce,
                version: self.seen.map_or(0, |seen| seen.version),
                ..ended
            });
        }
    }

    /// Moves towards holding the lock, if it is wanted. Says whether that needs the session.
    pub(crate) fn campaign(&mut self, id: LockId, context: &mut Context) -> bool {
        if !self.is_wanted(context) || self.hold != Hold::None {
            self.pending = None;
            self.open_since = None;
            return false;
        }
        if let Some(claim) = self.pending {
            if !context.session.may_claim(context) {
                return true;
            }
            covered!(context, ClaimRetried);
            self.send(id, claim.expect, claim.record, context);
            return true;
        }
        let situation = self.situation(context);
        match situation {
            Situation::Own => return false,
            Situation::Held(time) => {
                self.open_since = None;
                context.wake_lock_in(time);
                return false;
            }
            Situation::Newer => {
                covered!(context, LeftToNewer);
                self.open_since = None;
                return false;
            }
            Situation::Kill(..) | Situation::Open(..) => {}
        }
        let open_since = *self.open_since.get_or_insert(context.now);
        if let Some(time) = context.turn(self.name, open_since) {
            context.wake_lock_in(time);
            return false;
        }
        match situation {
            Situation::Kill(session, death) => context.kill(session, death),
            Situation::Open(start, why) => self.claim(id, start, why, context),
            Situation::Held(_) | Situation::Own | Situation::Newer => {}
        }
        true
    }

    /// R7: what the record and the holder's session say about taking the lock.
    fn situation(&self, context: &mut Context) -> Situation {
        let Some(seen) = self.seen else {
            // An absent record cannot be told from a deleted one, whose holder may still be leading. And
            // "absent" names no version, so only the confirmation of the own claim dates the wait. Who the
            // holder was is not known, so it is given the longest time that anything here has ever said.
            if mutated!(context, AbsentLockAtOnce) {
                return Situation::Open(Start::AtOnce, WaitCause::Missing);
            }
            let forgotten = mutated!(context, AbsentLockOwnWait);
            let rest = if forgotten { Duration::ZERO } else { context.longest };
            return Situation::Open(Start::WaitFromConfirmation(rest), WaitCause::Missing);
        };
        if self.newer {
            return Situation::Newer;
        }
        let Some(holder) = seen.record.holder else {
            return self.open(Start::AtOnce, WaitCause::Unsettled, context);
        };
        if holder == context.session.id {
            return Situation::Own;
        }
        match context.standing(holder) {
            Standing::Absent => {
                let since = self.absent_holder.map_or(context.now, |(_, since)| since);
                let at_once = mutated!(context, AbsentSessionAtOnce);
                let rest = self.rest_of_holder(None, context);
                let start = if at_once { Start::AtOnce } else { Start::WaitFrom(since, rest) };
                self.open(start, WaitCause::SessionMissing, context)
            }
            Standing::Dead(Death::Expired | Death::Proof) => {
                self.open(Start::AtOnce, WaitCause::Unsettled, context)
            }
            Standing::Dead(Death::Weak) => self.weakly_dead(holder, context),
            Standing::Live => self.alive(holder, context),
        }
    }

    /// The true time that the holder's work may still take, by what its lock and its session say that it
    /// lives by. Where neither does, anything that was ever seen may be true of it.
    fn rest_of_holder(&self, session: Option<Limits>, context: &Context) -> Duration {
        if mutated!(context, HoldersTimingIgnored) {
            return Duration::ZERO;
        }
        let lock = self.seen.and_then(|seen| seen.record.limits);
        let said = lock.into_iter().chain(session).map(|limits| limits.rest()).max();
        said.unwrap_or(context.longest)
    }

    /// R6: a live session is watched until it may be declared dead.
    fn alive(&self, holder: SessionId, context: &mut Context) -> Situation {
        let Some(view) = context.sessions.get(&holder) else { return Situation::Held(Duration::ZERO) };
        match view.mortality(context) {
            Mortality::Never => Situation::Newer,
            Mortality::In(time) => Situation::Held(time),
            Mortality::Due(Death::Expired) if mutated!(context, TakeWithoutKill) => {
                self.open(Start::AtOnce, WaitCause::Unsettled, context)
            }
            Mortality::Due(death) => Situation::Kill(holder, death),
        }
    }

    /// R7: a session that died on weak evidence may still be leading. Its last sign of life was its last
    /// live version, so the wait counts from there. Proof that comes later makes the wait unnecessary.
    fn weakly_dead(&self, holder: SessionId, context: &mut Context) -> Situation {
        let Some(view) = context.sessions.get(&holder) else { return Situation::Held(Duration::ZERO) };
        if matches!(view.mortality(context), Mortality::Due(Death::Proof)) {
            return Situation::Kill(holder, Death::Proof);
        }
        let since = view.weak_since(mutated!(context, WeakWaitFromStaleVersion));
        let rest = self.rest_of_holder(view.seen.record.limits, context);
        let at_once = mutated!(context, WeakWithoutWait);
        let start = if at_once { Start::AtOnce } else { Start::WaitFrom(since, rest) };
        self.open(start, WaitCause::Reported, context)
    }

    /// A5: a record of before the history went back says nothing about what came after it.
    fn open_in_new_history(&self, start: Start, why: WaitCause, context: &Context) -> (Start, WaitCause) {
        let Some(at) = context.new_history.filter(|_| !mutated!(context, NewHistoryAtOnce)) else {
            return (start, why);
        };
        let longest = context.longest;
        match start {
            Start::WaitFrom(since, rest) if since.standby > at.standby => {
                (Start::WaitFrom(since, rest.max(longest)), why)
            }
            _ => (Start::WaitFrom(at, longest), WaitCause::OtherHistory),
        }
    }

    /// R8: whatever the evidence, an unsettled record owes a wait from when this process first saw it.
    /// Its claimant was named without having waited, so it says nothing about the one before; and one that no
    /// member has written says nothing about anybody.
    fn open(&self, start: Start, why: WaitCause, context: &mut Context) -> Situation {
        let (start, why) = self.open_in_new_history(start, why, context);
        let Some(seen) = self.seen.filter(|seen| !self.is_settled(&seen.record)) else {
            return Situation::Open(start, why);
        };
        let unknown = seen.record.is_unknown();
        let forgotten = match unknown {
            true => mutated!(context, UnsealedIsFree),
            false => mutated!(context, NoInheritedWait),
        };
        if forgotten {
            return Situation::Open(start, why);
        }
        covered!(context, if unknown => UnsealedWait else InheritedWait);
        // One that was set back may owe less than the terms since then, which are among all that was ever seen.
        let owed = seen.record.owed.filter(|_| !self.set_back).unwrap_or(context.longest);
        match start {
            Start::WaitFrom(since, rest) => {
                let since = if since.standby > seen.at.standby { since } else { seen.at };
                Situation::Open(Start::WaitFrom(since, rest.max(owed)), why)
            }
            _ if unknown => Situation::Open(Start::WaitFrom(seen.at, owed), WaitCause::Unsealed),
            _ if self.set_back => Situation::Open(Start::WaitFrom(seen.at, owed), WaitCause::SetBack),
            _ => Situation::Open(Start::WaitFrom(seen.at, owed), WaitCause::Unsettled),
        }
    }

    /// R7: claims the lock as of the very version that was judged, so a claim that is applied late
    /// changes nothing: its precondition is the state whose history justified it.
    fn claim(&mut self, id: LockId, start: Start, why: WaitCause, context: &mut Context) {
        if !context.session.may_claim(context) {
            covered!(context, ClaimWithoutEcho);
            return;
        }
        let (rest, left) = match start {
            Start::AtOnce => (Duration::ZERO, None),
            Start::WaitFrom(since, rest) => {
                (rest, remaining(context.settings.wait_for(rest), context.now.standby_since(since)))
            }
            Start::WaitFromConfirmation(rest) => (rest, Some(context.settings.wait_for(rest))),
        };
        let start = if left.is_none() { Start::AtOnce } else { start };
        self.count_claim(start, context);
        if let Some(wait) = left {
            covered!(context, if wait > context.settings.takeover_wait() => LongerWait else OwnWait);
            context.actions.push(Action::Wait { lock: id, wait, why });
        }
        let expect = self.seen.map_or(Precondition::Absent, |seen| Precondition::Version(seen.version));
        #[cfg(feature = "mutants")]
        let expect = if mutated!(context, ClaimWithoutVersion) { Precondition::Any } else { expect };
        context.claims += 1;
        // R8: whoever comes next may know less, so the claim says the longest wait that anybody owed. What
        // the own one is worth is among it, because the operator may know more than the records.
        let known = if mutated!(context, ClaimOwesOwnWait) { Duration::ZERO } else { rest };
        let record = LockRecord {
            holder: Some(context.session.id),
            term: self.next_term(context),
            claim: context.claims,
            settled: left.is_none(),
            limits: Some(context.settings.limits()),
            owed: left.map(|_| known.max(context.settings.worth())),
        };
        self.check_claim(context);
        self.pending = Some(Claim { expect, record, start });
        self.send(id, expect, record, context);
    }

    /// A floor above every term that was ever seen. The version of the claim is normally larger still.
    fn next_term(&self, context: &Context) -> u64 {
        if mutated!(context, TermFromRecord) {
            return self.seen.map_or(0, |seen| seen.record.term) + 1;
        }
        self.remembered + 1
    }

    fn check_claim(&self, context: &Context) {
        // Only debug builds read it.
        let _ = context;
        invariant!(
            context,
            self.holder().is_none_or(|holder| context.standing(holder) != Standing::Live),
            "I7: no lock is taken from a live session"
        );
    }

    fn count_claim(&self, start: Start, context: &mut Context) {
        // Without the counters there is nothing to count.
        let _ = (start, &context);
        #[cfg(feature = "mutants")]
        {
            use crate::mutant::Branch;
            let branch = match (self.seen, self.holder().map(|holder| context.standing(holder))) {
                (None, _) => Branch::ClaimedAbsentLock,
                (_, None) => Branch::ClaimedReleased,
                (_, Some(Standing::Absent)) => Branch::ClaimedFromAbsentSession,
                (_, Some(Standing::Dead(Death::Weak))) if start == Start::AtOnce => {
                    Branch::ClaimedFromWeakAtOnce
                }
                (_, Some(Standing::Dead(Death::Weak))) => Branch::ClaimedFromWeakWithWait,
                (_, Some(_)) => Branch::ClaimedFromDead,
            };
            context.proof.count(branch);
        }
    }
}

impl Lock {
    /// R8: a hold that has started has served its wait, and says so in the record, with its term. One that owed no
    /// wait has nothing to say, unless another writer changes the record in passing: then the version of the claim, by which
    /// its term was known, is not to be seen any more. With the version of an object that has other records too, that
    /// may happen unseen.
    pub(crate) fn settle_if_started(&mut self, id: LockId, context: &mut Context) -> bool {
        let (Hold::Leading(grant) | Hold::Draining(grant)) = self.hold else { return false };
        let leads = matches!(self.hold, Hold::Leading(_));
        let shared = context.versions_are_shared;
        let hides_term = |seen: &Seen<LockRecord>| match seen.version == grant.version {
            true => shared,
            false => seen.record.term < grant.term,
        };
        let is_due = |seen: &Seen<LockRecord>| !seen.record.settled || (leads && hides_term(seen));
        let Some(seen) = self.seen.filter(is_due) else { return false };
        covered!(context, Settled);
        let term = grant.term.max(seen.record.term);
        let record = LockRecord { term, settled: true, owed: None, ..seen.record };
        self.send(id, Precondition::Version(seen.version), record, context);
        true
    }

    /// Whether a record that was read consistently just now still names the present hold. For `confirm`.
    pub(crate) fn confirms(&self, record: Option<&Record>) -> bool {
        let (Hold::Leading(grant) | Hold::Draining(grant)) = self.hold else { return false };
        matches!(record, Some(Record::Lock(record))
            if record.holder == Some(grant.session) && record.claim == grant.claim)
    }
}
