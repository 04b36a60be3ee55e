//! [`Tenure`]: what whoever works under a hold may write into the record of its lock.

use crate::record::{LockRecord, Version};

/// The record of a lock in the hand of the one who leads it. With it, work that runs may keep something with
/// the lock in a write of its own, beside those of the core.
///
/// Such a write changes nothing for the election: it says what [settling](LockRecord::settled) says, that
/// this hold has led. Whoever sends it names the version of a record that [is of this
/// hold](Self::is_named_by), or that such a write has made. So it is refused as soon as the lock is released,
/// taken or deleted, however late it arrives, and the core takes its effect for what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// The version of the record that was granted.
    pub(crate) granted: Version,
    pub(crate) record: LockRecord,
}

impl Tenure {
    /// The record as a write under this hold leaves it, over one that says this term. That may be above the own:
    /// members write down what they remember of a history that is no more.
    #[must_use]
    pub fn record(&self, term: u64) -> LockRecord {
        LockRecord { term: self.record.term.max(term), ..self.record }
    }

    /// Whether the record is still the one that was granted, or that one settled by this hold. If it is
    /// neither, it was deleted and made again by a late copy of the claim that created it, and whoever
    /// held the lock in between is not known. A settled record cannot have come about like that, because
    /// only a claim on an absent record can be applied twice, and such a claim is never settled.
    #[must_use]
    pub fn is_named_by(&self, version: Version, record: &LockRecord) -> bool {
        self.is_like(record) && (version == self.granted || record.settled)
    }

    pub(crate) fn is_like(&self, record: &LockRecord) -> bool {
        record.holder == self.record.holder && record.claim == self.record.claim
    }
}
