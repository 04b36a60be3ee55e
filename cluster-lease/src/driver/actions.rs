//! Carrying out what the core answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use router_core::cluster::LockName;
use router_core::cluster::backend::time_of_day_after;
use tracing::{error, info, warn};

use super::deadline::SessionDeadline;
use super::election::{Done, Election};
use super::transition::{Transition, TransitionKind};
use super::{metrics, requests};
use crate::action::{Action, FenceCause, Operation, RequestId, SessionLoss, Target, WaitCause};
use crate::event::Event;
use crate::record::{LockId, SessionId, Version};
use crate::store::{Attempt, Write};

impl Election<'_> {
    /// One step of the core, with a clock that is read now.
    pub(super) fn step(&mut self, event: Event) {
        let actions = self.core.step(self.around.holds.clock.now(), event);
        let mut holders = Vec::new();
        for action in actions {
            match action {
                Action::Send { request, operation } => self.send(request, operation),
                Action::Renewed { deadline } => self.renew(deadline),
                Action::Lead { lock, term, deadline } => self.lead(lock, term, deadline),
                Action::Drain { lock, term } => self.release(lock, term),
                Action::Fence { lock, term, cause, abort_at } => self.fence(lock, term, cause, abort_at),
                // The sentinel has done it at that very time, and the futures were dropped before.
                Action::Abort { .. } => {}
                Action::Holder { lock, .. } => holders.push(lock),
                Action::Wait { lock, wait, why } => self.wait(lock, wait, why),
                Action::Relist => self.distrusted.notify_one(),
                Action::HistoryBack { view } => self.history_back(view),
                Action::SessionLost { session, cause } => self.session_lost(session, cause),
            }
        }
        self.known.store(self.core.known_version(), Ordering::Relaxed);
        // Whoever acts on the news of a successor must find the own term ended.
        for lock in holders {
            self.publish_holder(lock);
        }
    }

    fn name(&self, lock: LockId) -> Option<LockName> {
        self.directory.name(lock).cloned()
    }

    fn send(&mut self, request: RequestId, operation: Operation) {
        if self.shared {
            // The core has gone on to the next session of an incarnation that is not this process's own.
            return;
        }
        let store = Arc::clone(&self.around.store);
        let patience = self.around.timing.attempt_timeout();
        let warnings = Arc::clone(&self.around.warnings);
        let Operation::Write { key, expect, record } = operation else {
            // Over a slow line a second one would only delay the first. The core asks again.
            if std::mem::replace(&mut self.listing, true) {
                return;
            }
            let asked = self.core.known_version();
            self.tasks.spawn(async move {
                Done::Request(request, requests::list(store, asked, patience, warnings).await)
            });
            return;
        };
        let Some((key, record)) = self.directory.for_store(key, record) else { return };
        let heartbeat = request.target == Target::Heartbeat;
        let attempt = Attempt { heartbeat, fresh_connection: heartbeat && self.unanswered.is_some() };
        if heartbeat {
            self.unanswered = Some(request);
        }
        let write = Write::new(key, expect, record);
        self.tasks.spawn(async move {
            Done::Request(request, requests::write(store, request, write, attempt, patience, warnings).await)
        });
    }

    fn renew(&mut self, deadline: Duration) {
        let before = self.deadline.get();
        self.deadline.set(deadline);
        // A new session had none to lose.
        if !before.is_zero() {
            metrics::deadline_moves(before.saturating_sub(self.around.holds.clock.leader()));
        }
    }

    fn lead(&mut self, lock: LockId, term: u64, deadline: Duration) {
        let (Some(name), Some(tenure)) = (self.name(lock), self.core.tenure(lock)) else { return };
        self.deadline.set(deadline);
        let hold = self.around.holds.begin(&name, term, self.around.local.clone(), &self.deadline, tenure);
        let why = self.directory.why(lock);
        if let Some(publisher) = self.desired.publisher(&name) {
            publisher.lead(hold.control.term().clone(), &why);
        }
        self.observed(name, term, TransitionKind::Elected, &why);
    }

    fn observed(&self, lock: LockName, term: u64, kind: TransitionKind, why: &str) {
        if let Some(observer) = &self.around.observer {
            observer(Transition { lock, term, kind, why: why.into() });
        }
    }

    /// R10: no new work, and all the time in the world for what runs, while heartbeats go on.
    fn release(&mut self, lock: LockId, term: u64) {
        let Some(name) = self.name(lock) else { return };
        let Some(hold) = self.around.holds.get(&name, term) else { return };
        hold.control.release();
        if let Some(publisher) = self.desired.publisher(&name) {
            publisher.follow(None, self.farewell);
        }
        self.observed(name, term, TransitionKind::Released, self.farewell);
        self.await_work(hold);
    }

    /// R5: first the term ends, then the views hear of it.
    fn fence(&mut self, lock: LockId, term: u64, cause: FenceCause, abort_at: Duration) {
        let Some(name) = self.name(lock) else { return };
        let Some(hold) = self.around.holds.get(&name, term) else { return };
        self.around.holds.fence(&hold, abort_at);
        if let Some(publisher) = self.desired.publisher(&name) {
            publisher.follow(None, why_fenced(cause));
        }
        self.observed(name, term, TransitionKind::Lost, why_fenced(cause));
        self.await_work(hold);
    }

    fn wait(&mut self, lock: LockId, wait: Duration, why: WaitCause) {
        let Some(name) = self.name(lock) else { return };
        let why = match why {
            WaitCause::Missing => self.around.store.why_missing(&name),
            WaitCause::Unsealed => format!(
                "the record of `{name}` was not written by a member, so it does not tell whether another member \
                 leads: this happens at its first start, and when it was deleted and made again"
            ),
            WaitCause::SetBack => format!(
                "the record of `{name}` says an earlier term than this member has seen, so another writer has set it \
                 back, and it does not tell who led since"
            ),
            WaitCause::SessionMissing => "the session of its holder is missing, so it may still lead".into(),
            WaitCause::Reported => "its holder was reported gone, which may be wrong".into(),
            WaitCause::OtherHistory => {
                "the store was restored to an older state, in which nothing tells who led since".into()
            }
            WaitCause::Unsettled => self.directory.why_unsettled(lock, self.core.session()),
        };
        self.directory.note_wait(lock, &why);
        let until = time_of_day_after(wait);
        info!(lock = %name, why, "`{name}` is being claimed; if that succeeds, it is led in {wait:.1?}, at {until}: {why}");
    }

    /// Only a new watch can follow the new history, because the present one may have passed over some of it.
    fn history_back(&mut self, view: Version) {
        error!(
            "the store's records have been older than version {view}, which this member has seen, for longer than the \
             takeover wait: the store was restored from a backup; all leadership of this member ends, and after the \
             takeover wait it goes on with what is there now"
        );
        self.around.store.forget();
        self.written = 0;
        self.owed = None;
        self.distrusted.notify_one();
    }

    /// The holds of the session were fenced before this, and never see a deadline of the next one.
    fn session_lost(&mut self, session: SessionId, cause: SessionLoss) {
        self.deadline = SessionDeadline::new();
        let why = match cause {
            SessionLoss::Killed => "another member declared it dead",
            SessionLoss::Deleted => "its record was deleted",
            SessionLoss::HistoryBack => "the store was restored to an older state",
            SessionLoss::Recreated => "its record was deleted and made again",
            SessionLoss::Shared => {
                self.shared = true;
                "another process uses it too, so this one draws a new number"
            }
        };
        warn!(%session, "the session of this member has ended, it goes on with a new one: {why}");
    }
}

fn why_fenced(cause: FenceCause) -> &'static str {
    match cause {
        FenceCause::Deadline => "its deadline passed without an answer from the store",
        FenceCause::Deposed => "the lock's record names another holder, or nobody",
        FenceCause::SessionLost => "the session of this member has ended",
    }
}
