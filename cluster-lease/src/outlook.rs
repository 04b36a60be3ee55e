//! [`Outlook`]: when this process may lead a lock that it does not lead, for people.

use std::time::Duration;

use crate::core::Core;
use crate::hold::Hold;
use crate::record::LockId;

/// What this process does about a lock that it does not lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It has claimed the lock and leads it after this time.
    Waits(Duration),
    /// Its claim was sent and is not confirmed.
    Claims,
    /// It leaves the lock to others for this time, or until it is told to take part again.
    StaysOut(Duration),
    /// It watches the holder, or is about to claim the lock.
    Watches,
}

impl Core {
    /// What this process does about a lock that it does not lead. No part of the election asks.
    pub fn outlook(&self, lock: LockId) -> Outlook {
        let (context, Some(lock)) = self.parts(lock) else { return Outlook::Watches };
        match (lock.hold, lock.pending, lock.stay_out) {
            (Hold::Waiting(grant), ..) => Outlook::Waits(grant.wait(context).unwrap_or_default()),
            (_, Some(_), _) => Outlook::Claims,
            (_, _, Some((since, span))) => {
                Outlook::StaysOut(span.saturating_sub(context.now.leader_since(since)))
            }
            _ => Outlook::Watches,
        }
    }
}
