//! What a driver does: carries events to the core and its actions to the store, the work and the watch.

use std::time::Duration;

use cluster_lease::{
    Action, Event, Key, LockId, Mutant, Operation, Outcome, Precondition, Record, RequestId, SessionLoss,
    Target, Version,
};

use crate::clock::Time;
use crate::judge::{Invariant, ProcessId};
use crate::plan::{Breakage, Fault, FaultKind, MILLISECOND, SECOND};
use crate::process::{Queued, Work};
use crate::world::{Happening, World};

impl World<'_> {
    /// Passes a list on, as the driver does: one that the core does not take is told as an old one.
    pub(crate) fn deliver_list(&mut self, id: ProcessId, begins_watch: bool, asked: Version, event: Event) {
        let believed = self.plan.breakage == Some(Breakage::Rule(Mutant::StaleSnapshot));
        let Some(process) = self.process(id) else { return };
        if process.paused_until.is_some() {
            process.queue.push_back(Queued::List(begins_watch, asked, event));
            return;
        }
        let event = match event {
            Event::Snapshot { version, .. }
                if !believed && !process.core.takes(version, asked, begins_watch) =>
            {
                Event::OldList { version, asked }
            }
            event => event,
        };
        self.deliver(id, event);
    }

    /// Passes an event to the core of a process, unless it does not run or is gone.
    pub(crate) fn deliver(&mut self, id: ProcessId, event: Event) {
        let clocks = self.read_clock(id.member);
        let trace = self.trace;
        let Some(process) = self.process(id) else { return };
        if process.paused_until.is_some() {
            process.queue.push_back(Queued::Event(event));
            return;
        }
        let text = trace.then(|| format!("{id} @{:.6} <- {event:?}", clocks.leader.as_secs_f64()));
        let view = process.core.view_version();
        // Changes that reach a process in doubt are not what it sees.
        let ignored = process.core.doubts() && !matches!(event, Event::Snapshot { .. });
        if !ignored {
            self.judge.shown(id, view, &event);
        }
        let Some(process) = self.process(id) else { return };
        let actions = process.core.step(clocks, event);
        let moved = process.core.view_version() != view;
        if ignored && moved {
            let text =
                format!("{id} judges by changes that it saw while it doubted which history they are of");
            self.judge.report(Invariant::I7, self.now, text);
        }
        if let Some(text) = text {
            self.note(|| text);
        }
        for action in actions {
            self.note(|| format!("{id}    -> {action:?}"));
            self.act(id, clocks.leader, action);
        }
        self.exit_if_drained(id);
        self.set_alarm(id.member);
    }

    fn act(&mut self, id: ProcessId, clock: Duration, action: Action) {
        match action {
            Action::Send { request, operation } => self.send(id, clock, request, operation),
            Action::Renewed { deadline } => {
                let Some(process) = self.process(id) else { return };
                let sent = deadline.checked_sub(process.core.settings().deadline());
                process.deadline = deadline;
                let view = process.core.view_version();
                self.judge.renewed(self.now, id, sent, view);
            }
            Action::Lead { lock, term, deadline } => self.lead(id, clock, lock, term, deadline),
            Action::Drain { lock, term } => {
                // A drain may take any time; sometimes longer than the deadline lasts.
                let longest = 20 * SECOND * u64::from(self.rng.u8(..3)) + 50 * MILLISECOND;
                let drained = self.now + self.rng.u64(..longest);
                self.schedule_end(id, lock, term, drained.min(self.plan.heal.max(self.now)), None);
            }
            Action::Fence { lock, term, abort_at, .. } => self.fence(id, lock, term, abort_at),
            Action::Abort { lock, term } => self.schedule_end(id, lock, term, self.now, None),
            Action::Relist | Action::HistoryBack { .. } => self.relist(id.member),
            Action::SessionLost { cause: SessionLoss::HistoryBack, session } => {
                self.judge.accepted(self.now, id, session);
            }
            Action::Holder { .. } | Action::Wait { .. } | Action::SessionLost { .. } => {}
        }
    }

    fn send(&mut self, id: ProcessId, clock: Duration, request: RequestId, operation: Operation) {
        if let Operation::Write { key, expect, record } = operation {
            let working = match key {
                Key::Lock(LockId(lock)) => {
                    self.process(id).is_some_and(|process| process.work.contains_key(&lock))
                }
                Key::Session(_) => false,
            };
            self.judge.write_sent(self.now, id, key, expect, record, working);
            self.judge.claim_sent(id, record);
            if let (Target::Heartbeat, Key::Session(session), Record::Session(record)) =
                (request.target, key, record)
            {
                self.judge.heartbeat_sent(id, clock, session, record.seq);
            }
        }
        if self.members[id.member].cut[0] > 0 || self.is_lost() {
            if self.rng.u8(..3) == 0 {
                // A connection that is refused says so at once.
                let event = Event::Answer { request, outcome: Outcome::Unknown };
                self.schedule(self.now + MILLISECOND, Happening::Event { process: id, event });
            }
            return;
        }
        // Creations are doubled more often, because what they make again looks so much like the original.
        let creates = matches!(operation, Operation::Write { expect: Precondition::Absent, .. });
        let often = self.plan.network.duplicate * if creates { 5.0 } else { 1.0 };
        let copies = if self.now < self.plan.heal && self.rng.f64() < often { 2 } else { 1 };
        let known = self.process(id).map(|process| process.core.known_version()).unwrap_or_default();
        for _ in 0..copies {
            let at = self.now + self.delay();
            self.schedule(at, Happening::Request { process: id, request, operation, known });
        }
    }

    fn lead(&mut self, id: ProcessId, clock: Duration, LockId(lock): LockId, term: u64, deadline: Duration) {
        let Some(process) = self.process(id) else { return };
        let claim = process.core.claim(LockId(lock));
        let view = process.core.view_version();
        self.judge.started(self.now, id, lock, term, claim, view);
        if clock >= deadline {
            self.judge.report(Invariant::I2, self.now, format!("{id} starts lock {lock} after its deadline"));
        }
        let Some(process) = self.process(id) else { return };
        process.deadline = deadline;
        process.work.insert(lock, Work { term, end_by: None, scheduled: 0 });
        self.begin_keeping(id, lock, term);
        self.judge.work_runs(self.now, id, lock, term);
    }

    /// Work that is cut short ends at any time up to the abort, or has to be aborted.
    fn fence(&mut self, id: ProcessId, lock: LockId, term: u64, abort_at: Duration) {
        let Some(process) = self.process(id) else { return };
        let stop = process.core.settings().stop();
        let end_by = process.deadline + stop;
        let latest = self.members[id.member].clock.when(self.now, abort_at);
        let ends =
            if self.rng.bool() { latest + SECOND } else { self.now + self.rng.u64(..=latest - self.now) };
        self.schedule_end(id, lock, term, ends, Some(end_by));
    }

    fn schedule_end(&mut self, id: ProcessId, lock: LockId, term: u64, at: Time, end_by: Option<Duration>) {
        let Some(process) = self.process(id) else { return };
        let Some(work) = process.work.get_mut(&lock.0).filter(|work| work.term == term) else { return };
        work.scheduled += 1;
        work.end_by = work.end_by.or(end_by);
        let scheduled = work.scheduled;
        self.schedule(at, Happening::WorkEnds { process: id, lock: lock.0, term, scheduled });
    }

    pub(crate) fn work_ends(&mut self, id: ProcessId, lock: u32, term: u64, scheduled: u32) {
        let clock = self.read_clock(id.member).leader;
        let now = self.now;
        let Some(process) = self.process(id) else { return };
        if let Some(until) = process.paused_until {
            // It cannot end while it does not run.
            return self.schedule(until + 1, Happening::WorkEnds { process: id, lock, term, scheduled });
        }
        if process.work.get(&lock).is_none_or(|work| work.term != term || work.scheduled != scheduled) {
            return;
        }
        let Some(work) = process.work.remove(&lock) else { return };
        self.judge.work_rests(id, lock);
        let late = work.end_by.is_some_and(|end_by| clock > end_by + Duration::from_micros(10));
        // A process that was suspended past the end ends its work in the moment in which it wakes.
        if late && !self.woke_just_now(id) {
            let text = format!("work of {id} under lock {lock} outlives its deadline and the stop time");
            self.judge.report(Invariant::I2, now, text);
        }
        let joined = Event::Joined { lock: LockId(lock), term };
        self.deliver(id, joined.clone());
        // Sometimes it is said once more, at once or so late that another term may have begun.
        if now < self.plan.heal && self.rng.u8(..4) == 0 {
            let longest = if self.rng.bool() { SECOND / 10 } else { 25 * SECOND };
            let again = now + self.rng.u64(..longest);
            self.schedule(again, Happening::Event { process: id, event: joined });
        }
    }

    fn woke_just_now(&self, id: ProcessId) -> bool {
        let woke = |fault: &Fault| {
            matches!(fault.kind, FaultKind::Pause | FaultKind::Suspend)
                && fault.member == id.member
                && self.now.abs_diff(fault.at + fault.lasts) < 1_000
        };
        self.plan.faults.iter().any(woke)
    }

    /// A drained process exits when nothing is held or claimed any more.
    fn exit_if_drained(&mut self, id: ProcessId) {
        if self.process(id).is_some_and(|process| process.terminating && process.core.is_idle()) {
            self.stop_process(id.member);
        }
    }

    /// The process runs again. Whether its timers or its sockets are looked at first is anybody's guess.
    pub(crate) fn resume(&mut self, id: ProcessId) {
        let now = self.now;
        let Some(process) = self.process(id) else { return };
        if process.paused_until.is_none_or(|until| until > now) {
            return;
        }
        process.paused_until = None;
        process.alarm_at = None;
        let queue = std::mem::take(&mut process.queue);
        self.note(|| format!("{id} runs again"));
        if self.rng.bool() {
            self.deliver(id, Event::Tick);
        }
        let mut first = true;
        for queued in queue {
            match queued {
                Queued::Event(event) => self.deliver(id, event),
                Queued::List(begins_watch, asked, event) => self.deliver_list(id, begins_watch, asked, event),
            }
            if first {
                self.work_resumes(id);
                first = false;
            }
        }
        self.deliver(id, Event::Tick);
        if first {
            self.work_resumes(id);
        }
    }

    /// Work runs again, except what was ended in the moment of waking.
    fn work_resumes(&mut self, id: ProcessId) {
        let Some(process) = self.process(id) else { return };
        let core = &process.core;
        let goes_on = |(lock, work): &(u32, Work)| !core.is_aborted(LockId(*lock), work.term);
        let running = process.work.iter().map(|(lock, work)| (*lock, *work));
        let running: Vec<_> = running.filter(goes_on).collect();
        for (lock, work) in running {
            self.judge.work_rests(id, lock);
            self.judge.work_runs(self.now, id, lock, work.term);
        }
    }
}
