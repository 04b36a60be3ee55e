//! Every schedule of a small scope, by the model checker stateright, over the same state machine.
//!
//! Time moves in ticks of one second: T = 1, y = 2, stop = 1, x = 3, all clocks alike (their rates are
//! what the simulator is for). A group starts with member 0 leading and everybody up to date. From there
//! the checker explores every order of requests and watch deliveries within a tick, and every placement of
//! the faults that the scope's budget allows. Between members that are well, messages arrive within the
//! tick in which they were sent; whatever touches a member that is cut off, paused or gone may arrive at
//! any later time or never.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_lease::{
    Action as CoreAction, Clocks, Core, Death, Event, Identity, Key, LockRecord, Mutant, Operation,
    Precondition, Record, RequestId, Version,
};
use stateright::{Checker, Model, Property};

use crate::judge::Invariant;
use crate::store::Store;
use state::{LOCK, Life, Link, Member, Request, seconds, settings};

pub use state::State;

mod state;

/// How much the checker may do.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// How many members.
    pub members: usize,
    /// How many ticks.
    pub ticks: u8,
    /// How many faults of each kind.
    pub faults: Faults,
    /// What is broken on purpose.
    pub mutant: Option<Mutant>,
}

/// How many faults of each kind are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A process ends; another may start under the same name.
    pub crashes: u8,
    /// A process stands still for any time.
    pub pauses: u8,
    /// The lock's record, or a session's, is deleted.
    pub deletions: u8,
    /// A member loses the store, or only its watch, for any time.
    pub partitions: u8,
    /// A member is told that another may be gone.
    pub evidence: u8,
    /// A member gives the lock up.
    pub resignations: u8,
    /// A request is applied a second time, later.
    pub duplicates: u8,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One second passes.
    Tick,
    /// A request of a member is served, and answered.
    Serve(usize, usize),
    /// The same, but a copy stays on its way.
    ServeTwice(usize, usize),
    /// A late request arrives.
    Late(usize),
    /// The next change reaches a member.
    Deliver(usize),
    /// A member's alarm rings.
    Alarm(usize),
    /// The guarded work of a member has ended.
    Join(usize),
    /// A process ends.
    Crash(usize),
    /// A process stands still.
    Pause(usize),
    /// It runs again.
    Resume(usize),
    /// A member loses the store.
    Cut(usize),
    /// A member loses its watch.
    CutWatch(usize),
    /// The member has both again; its watch goes on where it was, or after a list.
    Heal(usize, bool),
    /// A record is deleted.
    Delete(Key),
    /// A member is told that another may be gone.
    Accuse(usize, usize),
    /// A member gives the lock up for one tick.
    Resign(usize),
}

impl Scope {
    fn start(&self, state: &mut State) {
        state.processes += 1;
        let identity = Identity::new("member", u128::from(state.processes)).expect("the name is not empty");
        let mut core = Core::new(identity, settings(), Clocks::both(seconds(state.tick)));
        core.break_rule(self.mutant);
        state.members.push(Member {
            core: Arc::new(core),
            life: Life::Up,
            link: Link::Up,
            requests: Vec::new(),
            seen: 0,
            beats: BTreeMap::new(),
        });
        let index = state.members.len() - 1;
        self.list(state, index);
        self.tell(state, index, Event::View { lock: LOCK, name: 0 });
    }

    fn list(&self, state: &mut State, index: usize) {
        let version = state.store.version;
        state.members[index].seen = version;
        let entries = state.store.list();
        self.tell(state, index, Event::Snapshot { version, entries });
    }

    fn tell(&self, state: &mut State, index: usize, event: Event) {
        let now = Clocks::both(seconds(state.tick));
        let member = &mut state.members[index];
        let actions = Arc::make_mut(&mut member.core).step(now, event);
        for action in actions {
            match action {
                CoreAction::Send { request, operation } => self.send(state, index, request, operation),
                CoreAction::Lead { term, .. } => {
                    state.terms += 1;
                    if term <= state.last_epoch {
                        state.violate(Invariant::I3);
                    }
                    state.last_epoch = state.last_epoch.max(term);
                    let claim = state.members[index].core.claim(LOCK);
                    let debt = claim.and_then(|claim| state.debts.get(&claim)).copied();
                    if debt.is_some_and(|since| state.tick < since + 3) {
                        state.violate(Invariant::I8);
                    }
                }
                CoreAction::Renewed { deadline } => state.judge_renewal(index, deadline),
                _ => {}
            }
        }
    }

    fn send(&self, state: &mut State, index: usize, id: RequestId, operation: Operation) {
        let request = Request { id, operation, sent: state.tick };
        if let Operation::Write { expect, record, .. } = operation {
            let releases = matches!(record, Record::Lock(LockRecord { holder: None, .. }));
            if releases && state.members[index].core.guard(LOCK).is_some() {
                state.violate(Invariant::I5);
            }
            if expect == Precondition::Any {
                state.violate(Invariant::I4);
            }
        }
        if state.members[index].link == Link::Cut {
            state.strand(request);
        } else {
            state.members[index].requests.push(request);
        }
    }

    fn serve(&self, state: &mut State, index: usize, request: Request) {
        match request.operation {
            Operation::List => self.list(state, index),
            Operation::Write { .. } => {
                let outcome = state.apply(request);
                self.tell(state, index, Event::Answer { request: request.id, outcome });
            }
        }
    }
}

impl Model for Scope {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            tick: 0,
            store: Store::default(),
            members: Vec::new(),
            late: Vec::new(),
            faults: self.faults,
            last_epoch: 0,
            processes: 0,
            terms: 0,
            debts: BTreeMap::new(),
            lock_written: 0,
            violated: None,
        };
        state.store.write(Key::Lock(LOCK), Precondition::Absent, Record::Lock(LockRecord::RELEASED));
        for _ in 0..self.members {
            self.start(&mut state);
            // Everything that is urgent, in a fixed order, so that the first member leads.
            loop {
                let step = (0..state.members.len()).find_map(|index| self.urgent(&state, index));
                let Some(step) = step else { break };
                match self.next_state(&state, step) {
                    Some(next) => state = next,
                    None => break,
                }
            }
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        if state.violated.is_some() {
            return;
        }
        for (index, member) in state.members.iter().enumerate() {
            self.member_steps(state, index, member, actions);
        }
        actions.extend((0..state.late.len()).map(Step::Late));
        if state.faults.deletions > 0 {
            actions.extend(state.store.list().iter().map(|entry| Step::Delete(entry.key)));
        }
        if state.tick < self.ticks && !state.members.iter().any(|member| state.is_urgent(member)) {
            actions.push(Step::Tick);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Tick => next.tick += 1,
            Step::Serve(index, number) => {
                let request = next.members[index].requests.remove(number);
                self.serve(&mut next, index, request);
            }
            Step::ServeTwice(index, number) => {
                let request = next.members[index].requests.remove(number);
                next.faults.duplicates -= 1;
                next.strand(request);
                self.serve(&mut next, index, request);
            }
            Step::Late(number) => {
                let request = next.late.remove(number);
                next.apply(request);
            }
            Step::Deliver(index) => {
                let change = *next.store.since(next.members[index].seen).first()?;
                next.members[index].seen = change.version;
                self.tell(&mut next, index, change.event());
            }
            Step::Alarm(index) => self.tell(&mut next, index, Event::Tick),
            Step::Join(index) => {
                let term = next.members[index].core.guard(LOCK)?.term;
                self.tell(&mut next, index, Event::Joined { lock: LOCK, term });
            }
            Step::Delete(key) => {
                next.faults.deletions -= 1;
                next.store.delete(key);
            }
            Step::Accuse(judge, accused) => {
                next.faults.evidence -= 1;
                let session = next.members[accused].core.session();
                self.tell(&mut next, judge, Event::Evidence { session, death: Death::Weak });
            }
            Step::Resign(index) => {
                next.faults.resignations -= 1;
                let stay_out = Duration::from_secs(1);
                self.tell(&mut next, index, Event::Resign { lock: LOCK, stay_out });
            }
            fault => self.fault(&mut next, fault),
        }
        if next.active() > 1 {
            next.violate(Invariant::I1);
        }
        next.store.forget(next.members.iter().map(|member| member.seen).min().unwrap_or_default());
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1-I8", |_, state: &State| state.violated.is_none()),
            Property::sometimes("a second term", |_, state: &State| state.terms >= 2),
            Property::sometimes("a third term", |_, state: &State| state.terms >= 3),
        ]
    }
}

impl Scope {
    fn urgent(&self, state: &State, index: usize) -> Option<Step> {
        let member = &state.members[index];
        if !member.requests.is_empty() {
            Some(Step::Serve(index, 0))
        } else if member.seen < state.store.version {
            Some(Step::Deliver(index))
        } else if state.is_due(member) {
            Some(Step::Alarm(index))
        } else {
            None
        }
    }

    fn member_steps(&self, state: &State, index: usize, member: &Member, actions: &mut Vec<Step>) {
        if member.life == Life::Paused {
            actions.push(Step::Resume(index));
        }
        if member.life != Life::Up {
            return;
        }
        for number in 0..member.requests.len() {
            actions.push(Step::Serve(index, number));
            if state.faults.duplicates > 0 {
                actions.push(Step::ServeTwice(index, number));
            }
        }
        if member.link == Link::Up && member.seen < state.store.version {
            actions.push(Step::Deliver(index));
        }
        if state.is_due(member) {
            actions.push(Step::Alarm(index));
        }
        if member.core.guard(LOCK).is_some_and(|guard| guard.draining || guard.fenced) {
            actions.push(Step::Join(index));
        }
        if member.link != Link::Up {
            actions.extend([Step::Heal(index, false), Step::Heal(index, true)]);
        } else if state.faults.partitions > 0 {
            actions.extend([Step::Cut(index), Step::CutWatch(index)]);
        }
        if state.faults.crashes > 0 {
            actions.push(Step::Crash(index));
        }
        if state.faults.pauses > 0 {
            actions.push(Step::Pause(index));
        }
        if state.faults.resignations > 0 && member.core.guard(LOCK).is_some_and(|guard| !guard.draining) {
            actions.push(Step::Resign(index));
        }
        if state.faults.evidence > 0 {
            let others = (0..state.members.len()).filter(|other| *other != index);
            actions.extend(others.map(|other| Step::Accuse(index, other)));
        }
    }

    fn fault(&self, next: &mut State, fault: Step) {
        match fault {
            Step::Crash(index) => {
                next.faults.crashes -= 1;
                next.strand_all(index);
                next.members[index].life = Life::Gone;
                next.members[index].seen = Version::MAX;
                // The next process under the same name starts where it may be started last: at once.
                self.start(next);
            }
            Step::Pause(index) => {
                next.faults.pauses -= 1;
                next.strand_all(index);
                next.members[index].life = Life::Paused;
            }
            Step::Resume(index) => {
                next.members[index].life = Life::Up;
                self.tell(next, index, Event::Tick);
            }
            Step::Cut(index) => {
                next.faults.partitions -= 1;
                next.strand_all(index);
                next.members[index].link = Link::Cut;
                self.tell(next, index, Event::WatchLost);
            }
            Step::CutWatch(index) => {
                next.faults.partitions -= 1;
                next.members[index].link = Link::WatchDown;
                self.tell(next, index, Event::WatchLost);
            }
            Step::Heal(index, gap) => {
                next.members[index].link = Link::Up;
                if gap {
                    self.list(next, index);
                }
                self.tell(next, index, Event::WatchRestored);
            }
            _ => {}
        }
    }
}

/// What an exhaustive search found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Steps from a state to another.
    pub steps: usize,
    /// The longest schedule.
    pub depth: usize,
    /// How long it took.
    pub seconds: f64,
    /// Whether every state of the scope was visited.
    pub complete: bool,
    /// Whether a second and a third term were ever reached.
    pub terms: (bool, bool),
    /// What was violated, and by which steps.
    pub violation: Option<(Invariant, Vec<Step>)>,
}

/// Visits every state of a scope, or as many as allowed.
pub fn explore(scope: Scope, threads: usize, most_states: usize) -> Report {
    let started = Instant::now();
    let builder = scope.checker().threads(threads).target_state_count(most_states);
    // Breadth first finds the shortest violation of a mutant; depth first needs the least memory.
    if scope.mutant.is_some() {
        summarize(&builder.spawn_bfs().join(), started, most_states)
    } else {
        summarize(&builder.spawn_dfs().join(), started, most_states)
    }
}

fn summarize(checker: &impl Checker<Scope>, started: Instant, most_states: usize) -> Report {
    let violation = checker.discovery("I1-I8").map(|path| {
        let invariant = path.last_state().violated.unwrap_or(Invariant::I1);
        (invariant, path.into_actions())
    });
    let reached = |name| checker.discovery(name).is_some();
    Report {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        seconds: started.elapsed().as_secs_f64(),
        complete: violation.is_none() && checker.state_count() < most_states,
        terms: (reached("a second term"), reached("a third term")),
        violation,
    }
}
