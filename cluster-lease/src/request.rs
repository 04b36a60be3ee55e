//! [`Request`]: what an operator asks of a member, as a record beside those of the election.
//!
//! The core never sees these records, and nobody needs them to decide who leads: they are read by the driver
//! of the member that they name, which does what a program may do at any time, resign or drain.

use router_core::cluster::{LockName, Member};
use smol_str::{SmolStr, format_smolstr};

use crate::record::{LockRecord, SessionId};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// To give up one lock, so that another member leads it. It names one claim, and so one term: when that
    /// has ended, it means nothing any more.
    HandOver {
        /// Which lock.
        lock: LockName,
        /// The session that holds it.
        holder: SessionId,
        /// The nonce of the claim under which it does.
        claim: u64,
    },
    /// To give up all locks and to take none, for as long as this record exists.
    Drain {
        /// The member, by its id, or by the host or pod that it runs on.
        member: SmolStr,
        /// The id of the member that has done so: written by itself when it holds nothing any more.
        done_by: Option<SmolStr>,
    },
}

impl Request {
    /// The name of its record: there is one for each lock and one for each member.
    #[must_use]
    pub fn name(&self) -> SmolStr {
        match self {
            Self::HandOver { lock, .. } => format_smolstr!("handover {lock}"),
            Self::Drain { member, .. } => format_smolstr!("drain {member}"),
        }
    }

    /// Whether it asks for the end of the term that this record of the lock is of.
    pub(crate) fn asks_for(&self, name: &LockName, record: &LockRecord) -> bool {
        matches!(self, Self::HandOver { lock, holder, claim }
            if lock == name && record.holder == Some(*holder) && record.claim == *claim)
    }

    /// Whether it asks this member to be drained.
    pub(crate) fn drains(&self, local: &Member) -> bool {
        matches!(self, Self::Drain { member, .. } if is_called(local, member))
    }
}

/// Whether a member is meant by a name.
pub(crate) fn is_called(member: &Member, name: &str) -> bool {
    member.id == name || member.host.as_deref() == Some(name)
}
