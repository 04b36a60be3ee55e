//! The state of a whole group, small enough to be hashed, and what the judge reads off it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster_lease::{
    Core, Key, LockId, LockRecord, Operation, Outcome, Record, RequestId, SessionId, Settings, Version,
};

use super::Faults;
use crate::judge::Invariant;
use crate::store::Store;

pub(super) const LOCK: LockId = LockId(0);
/// Late requests that are remembered; older ones never arrive.
const LATE: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Life {
    Up,
    Paused,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Link {
    Up,
    WatchDown,
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) id: RequestId,
    pub(super) operation: Operation,
    pub(super) sent: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Member {
    pub(super) core: Arc<Core>,
    pub(super) life: Life,
    pub(super) link: Link,
    pub(super) requests: Vec<Request>,
    pub(super) seen: Version,
    /// I6: when each heartbeat that was applied had been sent.
    pub(super) beats: BTreeMap<Version, u8>,
}

/// One state of the whole group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) tick: u8,
    pub(super) store: Store,
    pub(super) members: Vec<Member>,
    /// Requests whose sender does not wait for them any more. They may arrive at any time.
    pub(super) late: Vec<Request>,
    pub(super) faults: Faults,
    pub(super) last_epoch: u64,
    pub(super) processes: u8,
    pub(super) terms: u8,
    /// I8: from when the wait of each claim counts.
    pub(super) debts: BTreeMap<(SessionId, u64), u8>,
    pub(super) lock_written: u8,
    pub(super) violated: Option<Invariant>,
}

pub(super) fn seconds(seconds: u8) -> Duration {
    Duration::from_secs(u64::from(seconds) + 100)
}

pub(super) fn settings() -> Settings {
    let second = Duration::from_secs(1);
    Settings::unchecked(second * 3, second * 2, second, second, 0)
}

impl State {
    pub(super) fn violate(&mut self, invariant: Invariant) {
        self.violated = self.violated.or(Some(invariant));
    }

    /// Only writes matter once nobody waits for the answer.
    pub(super) fn strand(&mut self, request: Request) {
        if matches!(request.operation, Operation::Write { .. }) {
            self.late.push(request);
            if self.late.len() > LATE {
                self.late.remove(0);
            }
        }
    }

    pub(super) fn strand_all(&mut self, index: usize) {
        for request in std::mem::take(&mut self.members[index].requests) {
            self.strand(request);
        }
    }

    pub(super) fn apply(&mut self, request: Request) -> Outcome {
        let Operation::Write { key, expect, record } = request.operation else { return Outcome::Unknown };
        let before = self.store.get(key).map(|(_, record)| record);
        let outcome = self.store.write(key, expect, record);
        let Outcome::Written { version } = outcome else { return outcome };
        match (key, record) {
            (Key::Session(session), Record::Session(record)) if record.dead.is_none() => {
                let owner = self.members.iter_mut().find(|member| member.core.session() == session);
                if let Some(owner) = owner {
                    owner.beats.insert(version, request.sent);
                }
            }
            (Key::Lock(_), Record::Lock(record)) => {
                let before = before.and_then(|before| match before {
                    Record::Lock(before) => Some(before),
                    Record::Session(_) | Record::Newer => None,
                });
                self.judge_taking(before, record);
                self.lock_written = self.tick;
            }
            _ => {}
        }
        outcome
    }

    /// I7 and the debt for I8.
    pub(super) fn judge_taking(&mut self, before: Option<LockRecord>, record: LockRecord) {
        let Some(holder) = record.holder else { return };
        let mut debt = None;
        match before {
            None => debt = Some(self.tick),
            Some(before) if before.holder == Some(holder) && before.claim == record.claim => return,
            Some(before) => {
                if let Some(Some((_, Record::Session(old)))) =
                    before.holder.map(|old| self.store.get(Key::Session(old)))
                    && old.dead.is_none()
                    && old.seq >= 2
                {
                    self.violate(Invariant::I7);
                }
                if !before.settled {
                    debt = Some(self.lock_written);
                }
            }
        }
        if let Some(since) = debt {
            self.debts.insert((holder, record.claim), since);
        }
    }

    /// I6: the deadline is no later than the sending of the newest heartbeat that the view has shown, plus
    /// y. It may be earlier, because a creation that is sent again counts from its first sending.
    pub(super) fn judge_renewal(&mut self, index: usize, deadline: Duration) {
        let member = &self.members[index];
        let shown = member.beats.range(..=member.core.view_version());
        let newest = shown.map(|(_, sent)| seconds(*sent)).max();
        if newest.is_none_or(|sent| deadline > sent + settings().deadline()) {
            self.violate(Invariant::I6);
        }
    }

    /// Work that may be running now. Until it is fenced it may go on; after that, until its absolute end.
    pub(super) fn is_active(&self, member: &Member) -> bool {
        let guard = member.core.guard(LOCK).filter(|_| member.life == Life::Up);
        guard.is_some_and(|guard| {
            let over = seconds(self.tick) >= guard.deadline + settings().stop();
            !guard.fenced || !(over || member.core.is_aborted(LOCK, guard.term))
        })
    }

    pub(super) fn active(&self) -> usize {
        self.members.iter().filter(|member| self.is_active(member)).count()
    }

    pub(super) fn is_due(&self, member: &Member) -> bool {
        member.core.next_wakeup().is_some_and(|at| at <= seconds(self.tick))
    }

    /// Members that are well finish what is to be done before time passes.
    pub(super) fn is_urgent(&self, member: &Member) -> bool {
        let sees = member.link == Link::Up && member.seen < self.store.version;
        member.life == Life::Up && (!member.requests.is_empty() || sees || self.is_due(member))
    }
}
