//! Operation what operators ask: see [`Request`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use router_core::cluster::LockName;
use router_core::error::Chain;
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use super::election::{Done, Election};
use crate::record::{Precondition, Version};
use crate::request::Request;
use crate::store::{Attempt, StoreKey, StoreRecord, Write};

/// What this member has done for operators.
#[derive(Default)]
pub(crate) struct Answering {
    /// The answer that this member is drained is on its way.
    sent: bool,
    /// It may have failed, and is not tried again before this.
    again: Option<Instant>,
    /// Locks that were given up for an operator, and that nobody has taken since.
    handed_over: BTreeSet<LockName>,
}

impl Answering {
    pub(crate) fn again_at(&self) -> Option<Instant> {
        self.again
    }
}

impl Election<'_> {
    /// Does what is asked of this member, as far as it is not done already.
    pub(super) fn heed_requests(&mut self) {
        self.answering.again = self.answering.again.filter(|at| Instant::now() < *at);
        self.hand_over();
        let local = &self.around.local;
        let drained = self.directory.requests().any(|(_, request)| request.drains(local));
        if drained != self.desired.drained_by_operator {
            self.desired.drained_by_operator = drained;
            if drained {
                info!(member = %local.id, "drained at the request of an operator: it gives up its locks and takes none");
                self.farewell = "an operator drains this member";
                self.drain();
            } else {
                info!(member = %local.id, "no longer drained at the request of an operator");
                self.undrain();
            }
        }
        if drained {
            self.answer();
        }
    }

    fn hand_over(&mut self) {
        let asked = self.directory.requests().filter_map(|(_, request)| {
            let Request::HandOver { lock, .. } = request else { return None };
            let id = self.directory.known_id(lock)?;
            let leads = self.core.guard(id).is_some_and(|guard| !guard.draining);
            let tenure = self.core.tenure(id).filter(|_| leads)?;
            request.asks_for(lock, &tenure.record).then(|| lock.clone())
        });
        for lock in asked.collect::<Vec<_>>() {
            // Long enough for any member that reaches the store to make a session and to claim.
            let stay_out = self.around.timing.heartbeat();
            self.resign_because("an operator asked for it", &lock, stay_out);
            self.answering.handed_over.insert(lock);
        }
        // Once another member has it, there is no more reason to stay out.
        let taken = self.answering.handed_over.iter().filter(|lock| {
            let holder = self.directory.known_id(lock).and_then(|id| self.core.holder(id));
            holder.is_some_and(|holder| holder != self.core.session())
        });
        for lock in taken.cloned().collect::<Vec<_>>() {
            self.answering.handed_over.remove(&lock);
            self.resign_because("an operator asked for it", &lock, Duration::ZERO);
        }
    }

    /// Tells the operator when nothing is held any more.
    fn answer(&mut self) {
        let waits = self.answering.again.is_some();
        let idle = self.core.is_idle() && self.around.holds.is_empty();
        if waits || !idle || self.answering.sent || self.shared {
            return;
        }
        let local = self.around.local.id.clone();
        let open = self.directory.requests().find_map(|(version, request)| match request {
            // Of members on one host, one answers: each correcting the other, they would write for ever.
            Request::Drain { member, done_by: None } if request.drains(&self.around.local) => {
                Some((*version, member.clone()))
            }
            _ => None,
        });
        let Some((version, member)) = open else { return };
        self.answering.sent = true;
        let write = done(version, Request::Drain { member, done_by: Some(local) });
        let (store, patience) = (Arc::clone(&self.around.store), self.around.timing.attempt_timeout());
        self.tasks.spawn(async move {
            if let Ok(Err(error)) = timeout(patience, store.write(write, Attempt::default())).await {
                debug!("an operator could not be told that this member is drained: {}", Chain(&error));
            }
            Done::Answered
        });
    }

    /// If it was heard, the watch will show it. If not, it is told again.
    pub(super) fn on_operator_request(&mut self) {
        let pause = self.around.timing.attempt_timeout();
        (self.answering.sent, self.answering.again) = (false, Some(Instant::now() + pause));
    }
}

fn done(version: Version, request: Request) -> Write {
    let key = StoreKey::Request(request.name());
    Write::new(key, Precondition::Version(version), StoreRecord::Request(request))
}
