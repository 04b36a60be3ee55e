//! What views are told of locks that this member does not lead: who does, or why there is no leader.

use std::time::Duration;

use router_core::cluster::Leader;
use router_core::cluster::backend::time_of_day_after;
use tokio::time::Instant;
use tracing::warn;

use super::election::Election;
use crate::outlook::Outlook;
use crate::record::LockId;

/// How long after a change all locks are looked at: changes come in flocks, and a look is for people.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

impl Election<'_> {
    /// Something may have changed that no record of a lock shows: a session, a request, the store.
    pub(super) fn look_soon(&mut self) {
        let soon = Instant::now() + LOOK_PAUSE;
        self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
    }

    /// Tells how each lock stands, when that is due.
    pub(super) fn look_if_due(&mut self) {
        if self.look_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        let now = self.around.holds.clock.now();
        let mut silent_in: Option<Duration> = None;
        for lock in self.wanted.keys().copied().collect::<Vec<_>>() {
            self.publish_holder(lock);
            // Time alone makes a leader a silent one.
            let left = self.directory.silent_in(lock, now).filter(|_| self.core.guard(lock).is_none());
            if let Some(left) = left {
                let left = left.max(LOOK_PAUSE);
                silent_in = Some(silent_in.map_or(left, |other| other.min(left)));
            }
        }
        self.look_at = silent_in.map(|left| Instant::now() + left);
    }

    /// Tells the views of a lock that this member does not lead who does, or why there is no leader.
    pub(super) fn publish_holder(&self, lock: LockId) {
        let Some(publisher) = self.directory.name(lock).and_then(|name| self.desired.publisher(name)) else {
            return;
        };
        if self.core.guard(lock).is_some_and(|guard| !guard.draining) {
            // This member leads, and its views know.
            return;
        }
        let own = self.core.holder(lock) == Some(self.core.session());
        match self.directory.leader(lock, self.around.holds.clock.now()).filter(|_| !own) {
            Some(leader) => {
                let remark = self.remark(lock).map(Into::into);
                publisher.follow(Some(Leader { why: remark.unwrap_or(leader.why), ..leader }), "");
            }
            None => {
                let why = self.why_vacant(lock);
                publisher.follow(None, &why);
                publisher.explain(&why);
            }
        }
    }

    /// Says of each lock that stays behind, because the store does not answer, when others take it.
    pub(super) fn tell_unreleased(&self) {
        for id in self.core.unreleased() {
            let Some(lock) = self.directory.name(id) else { continue };
            let trouble = self.around.warnings.trouble(id);
            let trouble = trouble.unwrap_or_else(|| "the store has not confirmed it".into());
            let until = time_of_day_after(self.around.timing.takeover_wait());
            warn!(
                %lock,
                "`{lock}` could not be released: {trouble}; another member that reaches the store takes it at {until} at \
                 the latest"
            );
        }
    }

    fn why_vacant(&self, lock: LockId) -> String {
        if let Some(guard) = self.core.guard(lock) {
            return format!("this member led it, and its work under term {} has not ended yet", guard.term);
        }
        if self.desired.closing {
            return "this member leaves".into();
        }
        if self.desired.is_draining() {
            return "this member is drained, so another one must take it".into();
        }
        if let Some(left) = self.core.doubts_for() {
            let until = time_of_day_after(left);
            return format!(
                "the store's records are older than what this member knows of them, as after a restore from a backup: \
                 it waits until {until} for newer ones before it believes that"
            );
        }
        let why = self.around.warnings.trouble(lock).unwrap_or_else(|| self.why_by_view(lock));
        match self.around.store.why_unsent() {
            Some(unsent) => format!("{unsent}; {why}"),
            None => why,
        }
    }

    /// What this member knows of the lock, where no request fails.
    fn why_by_view(&self, lock: LockId) -> String {
        if !self.core.has_view() {
            return "this member has heard of none yet: the first list of the election's records is on its way".into();
        }
        match self.core.outlook(lock) {
            Outlook::Waits(left) => {
                format!(
                    "this member has claimed it and leads at {}: {}",
                    time_of_day_after(left),
                    self.directory.why_wait(lock)
                )
            }
            Outlook::Claims => "this member claims it, and that is not confirmed yet".into(),
            Outlook::StaysOut(left) => {
                format!("this member gave it up and leaves it to others until {}", time_of_day_after(left))
            }
            Outlook::Watches if self.core.holder(lock) == Some(self.core.session()) => {
                "this member gives it up".into()
            }
            Outlook::Watches if self.directory.why_former(lock).is_some() => self.why_former(lock),
            Outlook::Watches => self
                .remark(lock)
                .unwrap_or_else(|| self.directory.why_vacant(lock, self.around.holds.clock.now())),
        }
    }

    fn why_former(&self, lock: LockId) -> String {
        let why = self.directory.why_former(lock).unwrap_or_default();
        match self.core.rests_for() {
            Some(left) => format!("{why}; this member waits until {}", time_of_day_after(left)),
            None => why,
        }
    }

    fn remark(&self, lock: LockId) -> Option<String> {
        self.around.store.remark(self.directory.name(lock)?)
    }
}
