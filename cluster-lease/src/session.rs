//! The own session: heartbeats (R1), unknown outcomes (R2), and the deadline (R3).

use std::time::Duration;

use smallvec::SmallVec;

use crate::action::{Action, SessionLoss, Target};
use crate::clocks::Clocks;
use crate::context::{Context, Flight, remaining};
use crate::event::Outcome;
use crate::record::{Key, Precondition, Record, SessionId, SessionRecord, Version};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// R3: when each heartbeat that may still be echoed was sent, by the leader's clock.
    sent: SmallVec<[(u64, Duration); 4]>,
    last_seq: u64,
    last_sent: Duration,
    /// The highest own counter that the ordered view has shown.
    echoed: u64,
    /// The newest version of the own record that is known, by the view or by an answer.
    base: Option<Version>,
    deadline: Option<Duration>,
    /// The deadline has passed and all holds were fenced for it.
    lapsed: bool,
    flight: Option<Flight>,
    /// The last heartbeat was not answered in time: the next one is due at once.
    retry: bool,
    pub(crate) lost: Option<SessionLoss>,
}

impl Session {
    pub(crate) fn new(incarnation: u128, generation: u32) -> Self {
        Self {
            id: SessionId { incarnation, generation },
            sent: SmallVec::new(),
            last_seq: 0,
            last_sent: Duration::ZERO,
            echoed: 0,
            base: None,
            deadline: None,
            lapsed: true,
            flight: None,
            retry: false,
            lost: None,
        }
    }

    /// The session that follows this one.
    pub(crate) fn next(&self) -> Self {
        Self::new(self.id.incarnation, self.id.generation + 1)
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// R4: before its deadline a session may lead, at it no longer.
    pub(crate) fn is_live(&self, now: Clocks) -> bool {
        self.lost.is_none() && self.deadline.is_some_and(|deadline| now.leader < deadline)
    }

    /// R11: a claim is made only by a session with a live echo, so that no lock goes to one that is about
    /// to lapse. Nor by one that has only been created: a late copy of the create could make the record
    /// again after a deletion, and only a counter above 1 tells the two apart (R2).
    pub(crate) fn may_claim(&self, context: &Context) -> bool {
        let left = self.deadline.map(|deadline| deadline.saturating_sub(context.now.leader));
        let confirmed = self.echoed >= 2 || mutated!(context, RecreatedSession);
        self.lost.is_none() && confirmed && left.is_some_and(|left| left >= context.settings.heartbeat())
    }

    /// The time of sending of the echoed heartbeat plus y, never anything that was measured on arrival
    /// (I6).
    fn note_echo(&mut self, seq: u64, allowed: Duration) -> bool {
        let sent = self.sent.iter().find(|(sent, _)| *sent == seq).map(|(_, at)| *at);
        self.sent.retain(|(sent, _)| *sent > seq);
        self.echoed = self.echoed.max(seq);
        let Some(deadline) = sent.map(|at| at + allowed) else { return false };
        let later = self.deadline.is_none_or(|old| deadline > old);
        if later {
            self.deadline = Some(deadline);
        }
        later
    }

    fn note_version(&mut self, version: Version) {
        self.base = self.base.max(Some(version));
    }
}

impl Context {
    /// R5: notices once that the deadline has passed.
    pub(crate) fn deadline_passed(&mut self) -> bool {
        let passed = self.session.deadline.is_some_and(|deadline| self.now.leader >= deadline);
        let first = passed && !self.session.lapsed;
        self.session.lapsed |= passed;
        first
    }

    /// R1: while anything is held or about to be, a heartbeat is sent every T; a standby sends nothing.
    pub(crate) fn heartbeat(&mut self, needed: bool) {
        if let Some(deadline) = self.session.deadline.filter(|_| !self.session.lapsed) {
            self.wake_session_in(deadline.saturating_sub(self.now.leader));
        }
        if !needed || !self.synced {
            return;
        }
        if let Some(flight) = self.session.flight {
            if let Some(time) = flight.remaining(self.now) {
                return self.wake_session_in(time);
            }
            self.session.flight = None;
            self.session.retry = true;
        }
        let Some(base) = self.session.base else { return self.create_session() };
        let elapsed = self.now.leader.saturating_sub(self.session.last_sent);
        // The first heartbeat follows the creation at once, because only it makes the session usable.
        let waits = !self.session.retry && self.session.last_seq > 1;
        if let Some(time) = remaining(self.settings.heartbeat(), elapsed).filter(|_| waits) {
            return self.wake_session_in(time);
        }
        if self.session.retry {
            covered!(self, HeartbeatRetried);
        }
        covered!(self, Heartbeat);
        let seq = self.session.last_seq.max(self.session.echoed) + 1;
        self.send_heartbeat(seq, Precondition::Version(base));
    }

    /// The session is created when something is first wanted. A repeated creation is the same write with
    /// the same counter, so its time of sending is the first one.
    fn create_session(&mut self) {
        covered!(self, SessionCreated);
        self.send_heartbeat(1, Precondition::Absent);
    }

    fn send_heartbeat(&mut self, seq: u64, expect: Precondition) {
        let limits = Some(self.settings.limits());
        let record = Record::Session(SessionRecord { seq, dead: None, limits });
        let key = Key::Session(self.session.id);
        let flight = self.write(Target::Heartbeat, key, expect, record);
        let oldest = self.now.leader.saturating_sub(self.settings.deadline());
        let session = &mut self.session;
        // A heartbeat older than y can no longer move the deadline past the present.
        session.sent.retain(|(sent, at)| *at > oldest || *sent == 1);
        if session.sent.iter().all(|(sent, _)| *sent != seq) {
            session.sent.push((seq, self.now.leader));
        }
        session.last_seq = seq;
        session.last_sent = self.now.leader;
        session.retry = false;
        session.flight = Some(flight);
        self.wake_session_in(self.settings.attempt_timeout());
    }

    /// R2: neither a conflict nor silence is success or loss; only the view says what is true. An answer
    /// is used for one thing only, the version on which the next heartbeat builds.
    pub(crate) fn heartbeat_answered(&mut self, number: u64, outcome: Outcome) {
        let Some(mut flight) = self.session.flight.filter(|flight| flight.number == number) else { return };
        match outcome {
            Outcome::Written { version } => {
                self.session.flight = None;
                self.session.note_version(version);
                self.expect_version(version);
                #[cfg(feature = "mutants")]
                self.take_response_for_echo();
            }
            Outcome::Conflict => {
                covered!(self, HeartbeatConflict);
                flight.hold_for(self.now, self.settings.attempt_timeout());
                self.session.flight = Some(flight);
                self.expect_change(true);
            }
            Outcome::Unknown => {
                flight.hold_for(self.now, self.settings.retry_pause());
                self.session.flight = Some(flight);
            }
        }
    }

    /// What two of the mutants do, and what many elections in use do.
    #[cfg(feature = "mutants")]
    fn take_response_for_echo(&mut self) {
        let seq = self.session.last_seq;
        let moved = if mutated!(self, DeadlineFromAnswerTime) {
            Some(self.now.leader)
        } else if mutated!(self, AnswerAsEcho) {
            self.session.sent.iter().find(|(sent, _)| *sent == seq).map(|(_, at)| *at)
        } else {
            None
        };
        if let Some(from) = moved {
            self.session.deadline = self.session.deadline.max(Some(from + self.settings.deadline()));
            self.announce_deadline();
        }
    }

    /// The ordered view shows the own record. Returns whether the locks must be looked at again.
    pub(crate) fn own_session_seen(&mut self, version: Version, record: SessionRecord, listed: bool) -> bool {
        let may_claim = self.session.may_claim(self);
        let lapsed = self.session.lapsed;
        // R2: whoever sent this is not this process, whatever became of the session since.
        if record.seq > self.session.last_seq {
            return self.lose_session(SessionLoss::Shared);
        }
        if record.dead.is_some() {
            covered!(self, SessionKilled);
            return self.lose_session(SessionLoss::Killed);
        }
        if record.seq < self.session.echoed && !mutated!(self, RecreatedSession) {
            covered!(self, SessionRecreated);
            return self.lose_session(SessionLoss::Recreated);
        }
        if self.session.base.is_none_or(|base| version > base) {
            // The view is ahead of the answers: whatever is on its way was either this or in vain.
            if self.session.flight.take().is_some() {
                covered!(self, HeartbeatFoundApplied);
            }
            self.session.retry = record.seq < self.session.last_seq;
            self.own_change_seen();
        }
        self.session.note_version(version);
        #[cfg(debug_assertions)]
        let sent = self.session.sent.iter().find(|(seq, _)| *seq == record.seq).map(|(_, at)| *at);
        if self.session.note_echo(record.seq, self.settings.deadline()) {
            #[cfg(debug_assertions)]
            invariant!(
                self,
                self.session.deadline == sent.map(|at| at + self.settings.deadline()),
                "I6: a deadline is the sending of a heartbeat that the view has shown, plus y"
            );
            covered!(self, if listed => EchoByList else EchoByWatch);
            if mutated!(self, DeadlineFromEchoArrival) {
                self.session.deadline = Some(self.now.leader + self.settings.deadline());
            }
            self.announce_deadline();
        }
        (lapsed && !self.session.lapsed) || (!may_claim && self.session.may_claim(self))
    }

    fn announce_deadline(&mut self) {
        let Some(deadline) = self.session.deadline else { return };
        self.session.lapsed = self.now.leader >= deadline;
        self.actions.push(Action::Renewed { deadline });
    }

    /// The ordered view shows that the own record does not exist. That is a loss only if it once did.
    pub(crate) fn own_session_absent(&mut self) -> bool {
        let created = self.session.base.is_some_and(|base| base <= self.version);
        if self.session.echoed == 0 && !created {
            return false;
        }
        covered!(self, SessionDeleted);
        self.lose_session(SessionLoss::Deleted)
    }

    fn lose_session(&mut self, cause: SessionLoss) -> bool {
        if mutated!(self, SessionLossIgnored) {
            return false;
        }
        self.session.lost = Some(cause);
        true
    }
}
