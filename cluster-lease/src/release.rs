//! Giving a lock back: after its work has ended (R10), or because nothing came of a claim (R9).

use crate::context::Context;
use crate::hold::{Grant, Hold};
use crate::lock::Lock;
use crate::record::{LockId, LockRecord, Precondition};

impl Lock {
    /// Releases the lock if its record names this session though there is no hold and no claim that could
    /// become one. That is so when all work of a hold has been joined (R10, I5), and when a claim was
    /// given up or came through too late (R9).
    pub(crate) fn release_if_done(&mut self, id: LockId, context: &mut Context) -> bool {
        let Some(seen) = self.seen.filter(|seen| seen.record.holder == Some(context.session.id)) else {
            return false;
        };
        let early = mutated!(context, ReleaseBeforeJoin) && matches!(self.hold, Hold::Draining(_));
        if self.hold != Hold::None && !early {
            return false;
        }
        invariant!(context, self.hold == Hold::None, "I5: released only when all work has been joined");
        // A record that was set back may name the last hold, but not the terms that others have had since.
        let of_record = |ended: &Grant| {
            ended.session == context.session.id && ended.claim == seen.record.claim && !self.set_back
        };
        let ended = self.ended.filter(of_record);
        covered!(context, if ended.is_some() => ReleasedAfterDrain else ReleasedWithoutHold);
        let record = LockRecord {
            holder: None,
            // The term is kept, so that the next one is above it whatever the store's versions do.
            term: ended.map_or(seen.record.term, |ended| ended.term.max(seen.record.term)),
            claim: seen.record.claim,
            // A hold that has led has served its wait. A claim that never led passes its debt on (R8).
            settled: self.is_settled(&seen.record) || ended.is_some(),
            limits: None,
            owed: if ended.is_some() { None } else { seen.record.owed },
        };
        let expect = Precondition::Version(seen.version);
        #[cfg(feature = "mutants")]
        let expect = if mutated!(context, ReleaseWithoutVersion) { Precondition::Any } else { expect };
        self.send(id, expect, record, context);
        true
    }
}
