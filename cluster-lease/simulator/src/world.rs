//! The event loop: true time, the members, and what happens next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use cluster_lease::{
    Branch, Candidate, Core, Death, Event, Identity, Key, LockId, LockRecord, Mutant, Operation, Outcome,
    Precondition, Record, RequestId, SessionId, Version, name_hash,
};
use fastrand::Rng;

use crate::clock::{MachineClock, Stretch, Time};
use crate::judge::{History, Invariant, Judge, ProcessId, Violation};
use crate::keeping::{Step, Turn};
use crate::plan::{Breakage, Plan, SECOND};
use crate::process::Process;
use crate::store::{State, Store};

/// What is due at some moment.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Alarm {
        process: ProcessId,
        number: u32,
    },
    /// Sent when this version was the newest that was known.
    Request {
        process: ProcessId,
        request: RequestId,
        operation: Operation,
        known: Version,
    },
    /// A list reaches its process.
    Listed {
        process: ProcessId,
        stream: Option<u32>,
        asked: Version,
        event: Event,
    },
    Event {
        process: ProcessId,
        event: Event,
    },
    Watch {
        process: ProcessId,
        stream: u32,
        event: Event,
    },
    Reconnect {
        process: ProcessId,
        stream: u32,
    },
    WorkEnds {
        process: ProcessId,
        lock: u32,
        term: u64,
        scheduled: u32,
    },
    Keep(Turn, Step),
    FaultBegins(usize),
    FaultEnds(usize),
    Resume {
        process: ProcessId,
    },
    ClockChanges(usize),
}

/// One member: its machine, and the process that runs there now.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) clock: MachineClock,
    pub(crate) process: Option<Process>,
    pub(crate) started: u32,
    /// How many faults cut its requests, its answers, its watch.
    pub(crate) cut: [u32; 3],
}

/// What one schedule came to.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// How many terms started.
    pub terms: u64,
    /// How often each branch of the rules ran, in the order of [`Branch::ALL`].
    pub coverage: Vec<u64>,
    /// How many states were stored.
    pub stores: u64,
    /// How many things happened.
    pub happenings: u64,
    /// The longest time from the healing until a lock was led, in true nanoseconds.
    pub slowest: Time,
    /// How often two worked at once because the later one could not know how long the earlier one may work.
    pub unknowable: u64,
    /// What was violated.
    pub violations: Vec<Violation>,
}

/// One schedule in progress.
pub struct World<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    pub(crate) store: Store,
    pub(crate) members: Vec<Member>,
    pub(crate) judge: Judge,
    pub(crate) trace: bool,
    pub(crate) coverage: Vec<u64>,
    heap: BinaryHeap<Reverse<(Time, u64)>>,
    happenings: std::collections::HashMap<u64, Happening>,
    scheduled: u64,
    led_at: Vec<Option<Time>>,
    /// What the store is set back to, and the judge's history of it.
    pub(crate) backup: Option<(Store, History)>,
    /// The record of a lock that is written again later.
    pub(crate) saved: Option<(Version, Record)>,
}

impl fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("now", &self.now).finish_non_exhaustive()
    }
}

impl<'a> World<'a> {
    /// Runs a schedule to its end, or to its first violation.
    pub fn run(plan: &'a Plan, trace: bool, wanted: &[Invariant]) -> Verdict {
        let mut world = Self::new(plan, trace);
        let mut happened = 0;
        let enough =
            |judge: &Judge| judge.violations.iter().any(|violation| wanted.contains(&violation.invariant));
        while let Some(Reverse((at, number))) = world.heap.pop() {
            let Some(happening) = world.happenings.remove(&number) else { continue };
            if at > plan.end() || enough(&world.judge) {
                break;
            }
            if happened == plan.most_happenings {
                world.report_endless(at);
                break;
            }
            happened += 1;
            world.now = at;
            world.happen(happening);
            world.note_leaders();
        }
        if !enough(&world.judge) {
            world.judge_liveness();
            let alive: Vec<_> =
                world.members.iter().filter_map(|member| Some(member.process.as_ref()?.id)).collect();
            world.judge.judge_records(plan.end(), &alive, plan.slack(), &world.store);
        }
        for member in 0..world.members.len() {
            world.count_coverage(member);
        }
        let healed = world.led_at.iter().flatten().map(|at| at.saturating_sub(plan.heal));
        Verdict {
            terms: world.judge.terms,
            stores: world.judge.stores,
            unknowable: world.judge.unknowable,
            happenings: happened,
            slowest: healed.max().unwrap_or_default(),
            coverage: world.coverage,
            violations: world.judge.violations,
        }
    }

    fn new(plan: &'a Plan, trace: bool) -> Self {
        let totals = plan.breakage == Some(Breakage::ClockTotals);
        let member = |(index, (offset, stretches)): (usize, &(u64, Vec<Stretch>))| Member {
            clock: MachineClock::new(*offset, &plan.with_suspensions(index, stretches), totals),
            process: None,
            started: 0,
            cut: [0; 3],
        };
        let mut world = Self {
            plan,
            now: 0,
            rng: Rng::with_seed(plan.seed),
            store: Store::default(),
            members: plan.clocks.iter().enumerate().map(member).collect(),
            judge: Judge::new(),
            trace,
            coverage: vec![0; Branch::ALL.len()],
            heap: BinaryHeap::new(),
            happenings: std::collections::HashMap::new(),
            scheduled: 0,
            led_at: vec![None; plan.locks as usize],
            backup: None,
            saved: None,
        };
        if let Some(record) = plan.prepared {
            for lock in 0..plan.locks {
                let record = Record::Lock(record);
                world.store.write(Key::Lock(LockId(lock)), Precondition::Absent, record);
            }
        }
        for member in 0..plan.members {
            let changes: Vec<Time> = world.members[member].clock.changes().collect();
            for at in changes {
                world.schedule(at, Happening::ClockChanges(member));
            }
            world.start_process(member);
        }
        for (index, fault) in plan.faults.iter().enumerate() {
            world.schedule(fault.at, Happening::FaultBegins(index));
            world.schedule(fault.at + fault.lasts, Happening::FaultEnds(index));
        }
        world
    }

    pub(crate) fn schedule(&mut self, at: Time, happening: Happening) {
        self.scheduled += 1;
        self.heap.push(Reverse((at.max(self.now), self.scheduled)));
        self.happenings.insert(self.scheduled, happening);
    }

    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12.6} v{:<5} {}", self.now as f64 / 1e9, self.store.version, text());
        }
    }

    pub(crate) fn process(&mut self, id: ProcessId) -> Option<&mut Process> {
        self.members[id.member].process.as_mut().filter(|process| process.id == id)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Alarm { process, number } => {
                if self.process(process).is_some_and(|process| process.alarm == number) {
                    self.deliver(process, Event::Tick);
                }
            }
            Happening::Request { process, request, operation, known } => {
                self.serve(process, request, operation, known);
            }
            Happening::Listed { process, stream, asked, event } => {
                let present = self.process(process).map(|process| process.watch.stream);
                if stream.is_none() || stream == present {
                    self.deliver_list(process, stream.is_some(), asked, event);
                }
            }
            Happening::Event { process, event } => self.deliver(process, event),
            Happening::Watch { process, stream, event } => {
                if self.process(process).is_some_and(|process| process.watch.stream == stream) {
                    self.deliver(process, event);
                }
            }
            Happening::Reconnect { process, stream } => self.reconnect(process, stream),
            Happening::WorkEnds { process, lock, term, scheduled } => {
                self.work_ends(process, lock, term, scheduled);
            }
            Happening::Keep(turn, step) => self.keep(turn, step),
            Happening::FaultBegins(index) => self.fault_begins(self.plan.faults[index]),
            Happening::FaultEnds(index) => self.fault_ends(self.plan.faults[index]),
            Happening::Resume { process } => self.resume(process),
            Happening::ClockChanges(member) => self.set_alarm(member),
        }
    }

    pub(crate) fn start_process(&mut self, member: usize) {
        self.members[member].started += 1;
        let id = ProcessId { member, number: self.members[member].started };
        let name = format!("member-{member}");
        let incarnation = u128::from(id.number) << 64 | (member as u128 + 1);
        let identity = Identity::new(&name, incarnation).expect("the name is not empty");
        let timing = self.plan.timing(id);
        self.judge.knows_timing(id, incarnation, &timing, self.plan.rate_error);
        let mut core = Core::new(identity, timing, self.read_clock(member));
        match self.plan.breakage {
            Some(Breakage::Rule(mutant)) => core.break_rule(Some(mutant)),
            // Records say it, so only those who do not look can be surprised by it.
            Some(Breakage::DeadlineTooLong) => core.break_rule(Some(Mutant::HoldersTimingIgnored)),
            _ => {}
        }
        self.members[member].process = Some(Process::new(id, core));
        self.note(|| format!("{id} starts"));
        let candidate = |member| Candidate { member: name_hash(&format!("member-{member}")), weight: 1 };
        self.deliver(id, Event::Candidates((0..self.plan.members).map(candidate).collect()));
        for lock in 0..self.plan.locks {
            let name = name_hash(&format!("lock-{lock}"));
            self.deliver(id, Event::View { lock: LockId(lock), name });
        }
        self.schedule(self.now, Happening::Reconnect { process: id, stream: 0 });
    }

    pub(crate) fn stop_process(&mut self, member: usize) {
        self.count_coverage(member);
        let Some(process) = self.members[member].process.take() else { return };
        self.note(|| format!("{} is gone", process.id));
        for lock in process.work.keys() {
            self.judge.work_rests(process.id, *lock);
        }
        // Sometimes the kubelet tells the others that this very process has ended.
        if self.rng.u8(..10) < 6 {
            let session = process.core.session();
            let delay = self.rng.u64(SECOND / 20..3 * SECOND);
            for generation in 0..=session.generation {
                let session = SessionId { generation, ..session };
                self.tell_others(member, Event::Evidence { session, death: Death::Proof }, delay);
            }
        }
    }

    pub(crate) fn tell_others(&mut self, about: usize, event: Event, delay: Time) {
        for member in 0..self.plan.members {
            let Some(process) = self.members[member].process.as_ref().map(|process| process.id) else {
                continue;
            };
            if member != about && self.rng.u8(..4) > 0 {
                self.schedule(self.now + delay, Happening::Event { process, event: event.clone() });
            }
        }
    }

    fn count_coverage(&mut self, member: usize) {
        if let Some(process) = &self.members[member].process {
            for (total, count) in self.coverage.iter_mut().zip(process.core.coverage()) {
                *total += u64::from(*count);
            }
        }
    }

    pub(crate) fn read_clock(&self, member: usize) -> cluster_lease::Clocks {
        self.members[member].clock.read(self.now)
    }

    /// Rings the alarm of a process when its core asks for it, by its own clock.
    pub(crate) fn set_alarm(&mut self, member: usize) {
        let now = self.now;
        let clock = &self.members[member].clock;
        let Some(process) = self.members[member].process.as_ref() else { return };
        let Some(wakeup) = process.core.next_wakeup().filter(|_| process.paused_until.is_none()) else {
            return;
        };
        let at = clock.when(now, wakeup);
        let (id, unchanged) = (process.id, process.alarm_at == Some(at));
        if unchanged && at > now {
            return;
        }
        let Some(process) = self.process(id) else { return };
        process.alarm += 1;
        process.alarm_at = Some(at);
        let number = process.alarm;
        self.schedule(at, Happening::Alarm { process: id, number });
    }

    pub(crate) fn delay(&mut self) -> Time {
        let network = &self.plan.network;
        if self.now >= self.plan.heal {
            return self.rng.u64(..network.delay);
        }
        let slow = self.rng.f64() < network.slow;
        let longest = if slow { network.slow_delay.max(1) } else { network.delay };
        let delay = self.rng.u64(..longest);
        // What is on its way arrives before everything is well again.
        delay.min(self.plan.heal.saturating_sub(self.now).max(self.rng.u64(..network.delay)))
    }

    pub(crate) fn is_lost(&mut self) -> bool {
        self.now < self.plan.heal && self.rng.f64() < self.plan.network.loss
    }

    fn note_leaders(&mut self) {
        if self.now < self.plan.heal {
            return;
        }
        for lock in 0..self.plan.locks {
            if self.led_at[lock as usize].is_none() && self.judge.is_led(lock) {
                self.led_at[lock as usize] = Some(self.now);
            }
        }
    }

    fn report_endless(&mut self, at: Time) {
        let (seconds, most) = (at as f64 / 1e9, self.plan.most_happenings);
        let text = format!("more than {most} happenings by {seconds:.3} s, and the schedule goes on");
        self.judge.report(Invariant::End, at, text);
    }

    fn judge_liveness(&mut self) {
        for lock in 0..self.plan.locks {
            if self.led_at[lock as usize].is_none() {
                let waited = (self.plan.end() - self.plan.heal) as f64 / 1e9;
                let text = format!("nobody leads lock {lock} within {waited:.3} s after everything is well");
                self.judge.report(Invariant::Liveness, self.plan.end(), text);
            }
        }
    }

    /// The session in whose object a new one of the same member begins, if it takes one.
    fn object_of(&self, key: Key, expect: Precondition, record: Record) -> Option<Key> {
        let (Key::Session(session), Precondition::Absent, Record::Session(_)) = (key, expect, record) else {
            return None;
        };
        if !self.plan.reuse || self.store.get(key).is_some() {
            return None;
        }
        // What is on its way from a process of before finds its object changed. An object whose session is named
        // by a lock is left alone, because the lock would wait anew.
        let locks = 0..self.plan.locks;
        let named = |other: &SessionId| {
            locks.clone().any(|lock| {
                matches!(self.store.get(Key::Lock(LockId(lock))),
                    Some((_, Record::Lock(record))) if record.holder == Some(*other))
            })
        };
        let earlier = |other: &SessionId| {
            let same_member = other.incarnation as u64 == session.incarnation as u64;
            same_member && other.incarnation < session.incarnation && !named(other)
        };
        self.store.sessions().find(earlier).map(Key::Session)
    }

    /// The store serves a request, whether or not its sender still waits for the answer or still lives.
    fn serve(&mut self, process: ProcessId, request: RequestId, operation: Operation, asked: Version) {
        let event = match operation {
            Operation::List => Event::Snapshot { version: self.store.version, entries: self.store.list() },
            Operation::Write { key, expect, record } => {
                let outcome = self.apply(key, expect, record, None);
                self.note(|| format!("{process} #{}: {key:?} {record:?}: {outcome:?}", request.number));
                Event::Answer { request, outcome }
            }
        };
        let cut = self.members[process.member].cut[1] > 0;
        if !cut && !self.is_lost() {
            let at = self.now + self.delay();
            let happening = match event {
                Event::Snapshot { .. } => Happening::Listed { process, stream: None, asked, event },
                event => Happening::Event { process, event },
            };
            self.schedule(at, happening);
        }
    }

    /// Applies a write if its precondition holds. What is kept with a lock stays, unless it is replaced.
    pub(crate) fn apply(
        &mut self,
        key: Key,
        expect: Precondition,
        record: Record,
        state: Option<State>,
    ) -> Outcome {
        let before = self.store.get(key).map(|(_, record)| record);
        let kept = self.store.state(key);
        let former = self.object_of(key, expect, record);
        let seq = former.and_then(|former| self.store.get(former)).and_then(|(_, record)| match record {
            Record::Session(record) => Some(record.seq),
            _ => None,
        });
        let outcome = match former {
            Some(former) => self.store.replace(former, key, record),
            None => self.store.write(key, expect, record),
        };
        if let Some((Key::Session(session), seq)) = former.zip(seq) {
            self.judge.session_deleted(self.now, session, seq, self.store.version);
        }
        if matches!(outcome, Outcome::Written { .. }) {
            let claims =
                matches!(record, Record::Lock(LockRecord { holder: Some(_), .. })) && state.is_none();
            let dropped = self.plan.breakage == Some(Breakage::ClaimWithoutStates) && claims;
            if let Some(state) = state.or(dropped.then(State::default)) {
                self.store.keep(key, state);
            }
            if let Key::Lock(lock) = key {
                self.judge.state_applied(self.now, lock.0, kept, &self.store);
            }
            self.judge.applied(self.now, key, before, record, &self.store);
            self.feed_watches();
        }
        outcome
    }
}
