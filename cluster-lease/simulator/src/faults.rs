//! What goes wrong, and how the watch survives it.

use std::collections::BTreeSet;

use cluster_lease::{Death, Event, Key, LockId, LockRecord, Precondition, Record, name_hash};

use crate::clock::{Stretch, Time};
use crate::judge::{ProcessId, Restored};
use crate::plan::{Fault, FaultKind, Plan, SECOND};
use crate::world::{Happening, World};

impl Plan {
    /// The stretches of a member's clock with its suspensions cut in.
    pub(crate) fn with_suspensions(&self, member: usize, stretches: &[Stretch]) -> Vec<Stretch> {
        let mut edges: Vec<Time> = stretches.iter().map(|stretch| stretch.from).collect();
        let suspended = |fault: &&Fault| fault.member == member && fault.kind == FaultKind::Suspend;
        let suspensions: Vec<&Fault> = self.faults.iter().filter(suspended).collect();
        edges.extend(suspensions.iter().flat_map(|fault| [fault.at, fault.at + fault.lasts]));
        edges.sort_unstable();
        edges.dedup();
        let at = |from: Time| {
            let index = stretches.partition_point(|stretch| stretch.from <= from);
            let covers = |fault: &&&Fault| (fault.at..fault.at + fault.lasts).contains(&from);
            let suspended = suspensions.iter().any(|fault| covers(&fault));
            Stretch { from, suspended, ..stretches[index.max(1) - 1] }
        };
        edges.into_iter().map(at).collect()
    }
}

impl World<'_> {
    pub(crate) fn fault_begins(&mut self, fault: Fault) {
        self.note(|| format!("fault {fault:?}"));
        let member = fault.member;
        let process = self.members[member].process.as_ref().map(|process| process.id);
        match (fault.kind, process) {
            (FaultKind::Cut(requests, answers, watch), _) => {
                for (cut, wanted) in self.members[member].cut.iter_mut().zip([requests, answers, watch]) {
                    *cut += u32::from(wanted);
                }
                if watch {
                    self.break_watch(member);
                }
            }
            (FaultKind::Pause | FaultKind::Suspend, Some(id)) => self.pause(id, fault.at + fault.lasts),
            (FaultKind::Crash, Some(_)) => self.stop_process(member),
            (FaultKind::Terminate, Some(id)) => {
                if let Some(process) = self.process(id) {
                    process.terminating = true;
                }
                self.deliver(id, Event::Drain);
            }
            // A paused process would begin to stay out only when it wakes, perhaps after the healing.
            (FaultKind::Resign(lock), Some(id)) if !self.is_paused(id) => {
                let stay_out = std::time::Duration::from_nanos(fault.lasts * 9 / 10);
                self.deliver(id, Event::Resign { lock: LockId(lock), stay_out });
            }
            (FaultKind::Unview(lock), Some(id)) => self.deliver(id, Event::Unview { lock: LockId(lock) }),
            (FaultKind::DeleteLock(lock), _) => self.delete(Key::Lock(LockId(lock))),
            (FaultKind::RemakeLock(lock), _) => {
                let key = Key::Lock(LockId(lock));
                self.delete(key);
                self.apply(key, Precondition::Absent, Record::Lock(LockRecord::UNKNOWN), Some((0, 0)));
            }
            (FaultKind::SetBackLock(lock), _) => {
                self.saved = self.store.get(Key::Lock(LockId(lock)));
            }
            (FaultKind::Restore, _) => {
                self.backup = Some((self.store.clone(), self.judge.history()));
                // Others may write so much to the store that the new history never comes to where the former was.
                if self.rng.bool() {
                    self.store.version += 1_000_000;
                }
            }
            (FaultKind::DeleteSession, Some(_)) => self.delete_session(member),
            (FaultKind::WeakEvidence, Some(_)) => {
                if let Some(process) = self.members[member].process.as_ref() {
                    let session = process.core.session();
                    let delay = self.rng.u64(..SECOND);
                    self.tell_others(member, Event::Evidence { session, death: Death::Weak }, delay);
                }
            }
            (FaultKind::WatchGap, Some(_)) => self.break_watch(member),
            (FaultKind::GapAndDeleteSession, Some(_)) => {
                self.break_watch(member);
                self.delete_session(member);
            }
            _ => {}
        }
    }

    pub(crate) fn fault_ends(&mut self, fault: Fault) {
        let member = fault.member;
        let process = self.members[member].process.as_ref().map(|process| process.id);
        match (fault.kind, process) {
            (FaultKind::Cut(requests, answers, watch), _) => {
                for (cut, wanted) in self.members[member].cut.iter_mut().zip([requests, answers, watch]) {
                    *cut -= u32::from(wanted);
                }
            }
            (FaultKind::Restore, _) => self.restore(),
            (FaultKind::SetBackLock(lock), _) => self.set_back(LockId(lock)),
            (FaultKind::Crash, None) => self.start_process(member),
            (FaultKind::Terminate, _) => {
                self.restart_terminated(member);
            }
            (FaultKind::Unview(lock), Some(id)) => {
                let name = name_hash(&format!("lock-{lock}"));
                self.deliver(id, Event::View { lock: LockId(lock), name });
            }
            _ => {}
        }
    }

    /// The record is what it was, in the same object. In another one its seal would not fit.
    fn set_back(&mut self, lock: LockId) {
        let Some((version, Record::Lock(record))) = self.saved.take() else { return };
        let key = Key::Lock(lock);
        if self.store.get(key).is_none() || self.judge.is_deleted_since(lock.0, version) {
            return;
        }
        self.note(|| format!("lock {} is set back to {record:?}", lock.0));
        self.store.write(key, Precondition::Any, Record::Lock(record));
        self.judge.set_back(self.now, lock.0, version, record);
        self.feed_watches();
    }

    /// The store is what it was, and counts on from there in other numbers than before: that a number is given
    /// twice to the same record is not simulated. All watches break.
    fn restore(&mut self) {
        let Some((store, history)) = self.backup.take() else { return };
        let version = store.version;
        self.note(|| format!("the store is restored to version {version}"));
        self.store = store;
        self.store.version += 1;
        let running = self.members.iter().filter_map(|member| member.process.as_ref());
        let robbed = running.filter(|process| process.core.known_version() > version);
        let robbed = robbed.map(|process| process.id).collect();
        self.judge.restored(Restored { at: self.now, version, robbed, deleted: BTreeSet::new() }, history);
        for member in 0..self.members.len() {
            self.break_watch(member);
        }
    }

    /// What has not exited by now is killed.
    fn restart_terminated(&mut self, member: usize) {
        if self.members[member].process.as_ref().is_none_or(|process| process.terminating) {
            self.stop_process(member);
            self.start_process(member);
        }
    }

    fn is_paused(&self, id: ProcessId) -> bool {
        let process = self.members[id.member].process.as_ref();
        process.is_some_and(|process| process.paused_until.is_some())
    }

    fn pause(&mut self, id: ProcessId, until: Time) {
        let Some(process) = self.process(id) else { return };
        let until = process.paused_until.map_or(until, |other| other.max(until));
        process.paused_until = Some(until);
        let locks: Vec<u32> = process.work.keys().copied().collect();
        for lock in locks {
            self.judge.work_rests(id, lock);
        }
        self.schedule(until, Happening::Resume { process: id });
    }

    fn delete_session(&mut self, member: usize) {
        let Some(process) = self.members[member].process.as_ref() else { return };
        let session = process.core.session();
        self.delete(Key::Session(session));
    }

    fn delete(&mut self, key: Key) {
        let before = self.store.get(key);
        if self.store.delete(key) {
            if let Key::Lock(lock) = key {
                self.judge.lock_deleted(lock.0, self.store.version);
            }
            if let (Key::Session(session), Some((_, Record::Session(record)))) = (key, before) {
                self.judge.session_deleted(self.now, session, record.seq, self.store.version);
            }
            self.feed_watches();
        }
    }

    /// Puts new changes on every watch that flows.
    pub(crate) fn feed_watches(&mut self) {
        for member in 0..self.members.len() {
            if self.members[member].cut[2] == 0 {
                self.feed_watch(member);
            }
        }
    }

    fn feed_watch(&mut self, member: usize) {
        let Some(process) = self.members[member].process.as_ref() else { return };
        let (id, mut watch) = (process.id, process.watch);
        if !watch.flowing {
            return;
        }
        let changes: Vec<_> = self.store.since(watch.cursor).to_vec();
        for change in changes {
            watch.cursor = change.version;
            watch.last_arrival = watch.last_arrival.max(self.now + self.delay());
            let event = change.event();
            if self.rng.f64() < self.plan.network.duplicate {
                let at = watch.last_arrival + self.delay();
                self.schedule(
                    at,
                    Happening::Watch { process: id, stream: watch.stream, event: event.clone() },
                );
            }
            self.schedule(watch.last_arrival, Happening::Watch { process: id, stream: watch.stream, event });
        }
        if let Some(process) = self.process(id) {
            process.watch = watch;
        }
    }

    pub(crate) fn break_watch(&mut self, member: usize) {
        let noticed = self.now + self.rng.u64(..5 * SECOND);
        let Some(process) = self.members[member].process.as_mut() else { return };
        process.watch.flowing = false;
        process.watch.stream += 1;
        let (id, stream) = (process.id, process.watch.stream);
        self.schedule(noticed, Happening::Event { process: id, event: Event::WatchLost });
        self.schedule(noticed, Happening::Reconnect { process: id, stream });
    }

    /// The driver begins a new watch with a list, unless it is about to.
    pub(crate) fn relist(&mut self, member: usize) {
        if self.members[member].process.as_ref().is_some_and(|process| process.watch.flowing) {
            self.break_watch(member);
        }
    }

    /// The driver opens a watch again: from where it was, or with a list when that is too long ago.
    pub(crate) fn reconnect(&mut self, id: ProcessId, stream: u32) {
        let (now, version) = (self.now, self.store.version);
        let cut = self.members[id.member].cut.iter().any(|cut| *cut > 0);
        let gap = self.rng.f64() < self.plan.network.gap;
        let again =
            now + if now < self.plan.heal { self.rng.u64(SECOND / 2..3 * SECOND) } else { SECOND / 50 };
        let lost = self.is_lost();
        let Some(process) = self.process(id).filter(|process| process.watch.stream == stream) else { return };
        if cut || lost || process.paused_until.is_some() {
            let at = again.min(self.plan.heal.max(now + SECOND / 50));
            return self.schedule(at, Happening::Reconnect { process: id, stream });
        }
        let (seen, asked) = (process.core.view_version(), process.core.known_version());
        process.watch.flowing = true;
        process.watch.stream += 1;
        let list = gap || seen == 0 || seen > version || process.core.doubts();
        process.watch.cursor = if list { version } else { seen };
        let stream = process.watch.stream;
        let arrival = now + self.delay();
        if let Some(process) = self.process(id) {
            process.watch.last_arrival = arrival;
        }
        if list {
            let event = Event::Snapshot { version, entries: self.store.list() };
            let happening = Happening::Listed { process: id, stream: Some(stream), asked, event };
            self.schedule(arrival, happening);
        }
        self.schedule(arrival, Happening::Watch { process: id, stream, event: Event::WatchRestored });
        self.feed_watch(id.member);
    }
}
