//! A group of members over one store, moved by hand: nothing happens unless a test says so.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_lease::{
    Action, Clocks, Core, Entry, Event, FenceCause, Identity, Key, LockId, LockRecord, Operation, Outcome,
    Precondition, Record, RequestId, SessionId, SessionRecord, Settings, Target, Version,
};

pub(crate) const LOCK: LockId = LockId(0);
pub(crate) const OTHER: LockId = LockId(1);

pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A request that has left its member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) member: usize,
    pub(crate) request: RequestId,
    pub(crate) operation: Operation,
}

/// What a member has been told to do about leading, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Lead(u64),
    Drain(u64),
    Fence(u64, FenceCause, Duration),
    Abort(u64),
}

pub(crate) struct Member {
    pub(crate) core: Core,
    /// Whether its requests are served and its watch delivers.
    pub(crate) connected: bool,
    /// Whether it runs at all.
    pub(crate) running: bool,
    pub(crate) told: Vec<Told>,
    pub(crate) actions: Vec<Action>,
    /// How far its clocks are ahead of everybody else's. Nobody may care.
    pub(crate) offset: Duration,
    seen: Version,
}

pub(crate) struct Group {
    pub(crate) now: Duration,
    pub(crate) version: Version,
    pub(crate) records: BTreeMap<Key, (Version, Record)>,
    /// Every change; the last key is that of the record whose object it took.
    pub(crate) log: Vec<(Version, Key, Option<Record>, Option<Key>)>,
    pub(crate) members: Vec<Member>,
    /// Requests that were sent while their member was not connected, for the test to apply or forget.
    pub(crate) stranded: Vec<Sent>,
    pub(crate) served: Vec<Sent>,
}

impl Group {
    /// So many members that have seen a store in which the lock is free.
    pub(crate) fn new(members: usize) -> Self {
        let mut group = Self::empty();
        group.set(Key::Lock(LOCK), Record::Lock(LockRecord::RELEASED));
        for _ in 0..members {
            group.join();
        }
        group
    }

    /// A store without records and without members.
    pub(crate) fn empty() -> Self {
        Self {
            now: seconds(1000.0),
            version: 0,
            records: BTreeMap::new(),
            log: Vec::new(),
            members: Vec::new(),
            stranded: Vec::new(),
            served: Vec::new(),
        }
    }

    /// One more process, which wants the lock. All processes have the same name: only the incarnation
    /// tells them apart.
    pub(crate) fn join(&mut self) -> usize {
        self.join_ahead(Duration::ZERO)
    }

    /// One more process, whose clocks are ahead of everybody else's.
    pub(crate) fn join_ahead(&mut self, offset: Duration) -> usize {
        self.join_as(offset, Settings::default())
    }

    /// One more process, with another timing than the default.
    pub(crate) fn join_with(&mut self, settings: Settings) -> usize {
        self.join_as(Duration::ZERO, settings)
    }

    fn join_as(&mut self, offset: Duration, settings: Settings) -> usize {
        let index = self.members.len();
        let identity = Identity::new("pod-0", index as u128 + 1).expect("a good identity");
        let core = Core::new(identity, settings, Clocks::both(self.now + offset));
        self.members.push(Member {
            core,
            connected: true,
            running: true,
            told: Vec::new(),
            actions: Vec::new(),
            offset,
            seen: 0,
        });
        self.list(index);
        self.tell(index, Event::View { lock: LOCK, name: 1 });
        index
    }

    /// Passes one event; requests go to the store at once if the member is connected.
    pub(crate) fn tell(&mut self, member: usize, event: Event) {
        let clocks = Clocks::both(self.now + self.members[member].offset);
        let actions = self.members[member].core.step(clocks, event);
        for action in actions {
            self.members[member].actions.push(action.clone());
            let told = match action {
                Action::Lead { lock: LOCK, term, .. } => Some(Told::Lead(term)),
                Action::Drain { lock: LOCK, term } => Some(Told::Drain(term)),
                Action::Fence { lock: LOCK, term, cause, abort_at } => {
                    Some(Told::Fence(term, cause, abort_at))
                }
                Action::Abort { lock: LOCK, term } => Some(Told::Abort(term)),
                Action::Send { request, operation } => {
                    let sent = Sent { member, request, operation };
                    if self.members[member].connected {
                        self.serve(sent);
                    } else {
                        self.stranded.push(sent);
                    }
                    None
                }
                _ => None,
            };
            self.members[member].told.extend(told);
        }
    }

    /// Serves a request and gives its answer to a member that is connected.
    pub(crate) fn serve(&mut self, sent: Sent) {
        self.served.push(sent);
        match sent.operation {
            Operation::List => self.list(sent.member),
            Operation::Write { .. } => {
                let outcome = self.apply(sent);
                if self.members[sent.member].connected {
                    self.tell(sent.member, Event::Answer { request: sent.request, outcome });
                }
            }
        }
    }

    /// Applies a write without telling anybody.
    pub(crate) fn apply(&mut self, sent: Sent) -> Outcome {
        let Operation::Write { key, expect, record } = sent.operation else {
            panic!("not a write: {sent:?}")
        };
        let present = self.records.get(&key).map(|(version, _)| *version);
        let met = match expect {
            Precondition::Absent => present.is_none(),
            Precondition::Version(version) => present == Some(version),
            #[allow(unreachable_patterns)]
            _ => panic!("a write without a version: {sent:?}"),
        };
        if !met {
            return Outcome::Conflict;
        }
        self.set(key, record);
        Outcome::Written { version: self.version }
    }

    pub(crate) fn set(&mut self, key: Key, record: Record) {
        self.version += 1;
        self.records.insert(key, (self.version, record));
        self.log.push((self.version, key, Some(record), None));
    }

    /// Writes a record into the object of another.
    pub(crate) fn replace(&mut self, former: Key, key: Key, record: Record) {
        self.version += 1;
        self.records.remove(&former);
        self.records.insert(key, (self.version, record));
        self.log.push((self.version, key, Some(record), Some(former)));
    }

    pub(crate) fn delete(&mut self, key: Key) {
        self.version += 1;
        assert!(self.records.remove(&key).is_some(), "nothing to delete");
        self.log.push((self.version, key, None, None));
    }

    pub(crate) fn list(&mut self, member: usize) {
        let entry = |(key, (version, record)): (&Key, &(Version, Record))| Entry {
            version: *version,
            key: *key,
            record: *record,
        };
        let entries = self.records.iter().map(entry).collect();
        self.members[member].seen = self.version;
        self.tell(member, Event::Snapshot { version: self.version, entries });
    }

    /// Delivers all changes to all connected members until nothing moves.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut moved = false;
            for member in 0..self.members.len() {
                if self.members[member].connected && self.members[member].running {
                    moved |= self.deliver_next(member);
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Delivers the next change to one member.
    pub(crate) fn deliver_next(&mut self, member: usize) -> bool {
        let seen = self.members[member].seen;
        let next = self.log.iter().find(|(version, ..)| *version > seen).copied();
        let Some((version, key, record, former)) = next else { return false };
        self.members[member].seen = version;
        self.tell(
            member,
            match former {
                Some(former) => Event::Replaced { version, former, key, record },
                None => Event::Changed { version, key, record },
            },
        );
        true
    }

    /// Lets time pass in small steps, with every running member ticking and every connected one seeing.
    pub(crate) fn pass(&mut self, time: f64) {
        let until = self.now + seconds(time);
        self.settle();
        while self.now < until {
            self.now = (self.now + seconds(0.05)).min(until);
            for member in 0..self.members.len() {
                let member_due = self.members[member]
                    .core
                    .next_wakeup()
                    .is_some_and(|at| at <= self.now + self.members[member].offset);
                if self.members[member].running && member_due {
                    self.tell(member, Event::Tick);
                }
            }
            self.settle();
        }
    }

    /// Members that run and lead, or still run guarded work of a term that ended.
    pub(crate) fn active(&self) -> Vec<usize> {
        let active = |member: &usize| {
            let member = &self.members[*member];
            member.running && member.core.guard(LOCK).is_some()
        };
        (0..self.members.len()).filter(active).collect()
    }

    /// Whether a step of guarded work may start: what a guard checks, with a clock read now.
    pub(crate) fn may_step(&self, member: usize) -> bool {
        let guard = self.members[member].core.guard(LOCK);
        guard.is_some_and(|guard| !guard.fenced && self.now + self.members[member].offset < guard.deadline)
    }

    pub(crate) fn leads(&self, member: usize) -> bool {
        self.may_step(member)
    }

    pub(crate) fn terms(&self, member: usize) -> Vec<u64> {
        let lead = |told: &Told| if let Told::Lead(term) = told { Some(*term) } else { None };
        self.members[member].told.iter().filter_map(lead).collect()
    }

    pub(crate) fn lock(&self) -> LockRecord {
        match self.records.get(&Key::Lock(LOCK)) {
            Some((_, Record::Lock(record))) => *record,
            other => panic!("no lock record: {other:?}"),
        }
    }

    pub(crate) fn session_record(&self, session: SessionId) -> SessionRecord {
        match self.records.get(&Key::Session(session)) {
            Some((_, Record::Session(record))) => *record,
            other => panic!("no session record: {other:?}"),
        }
    }

    /// Lets time pass until a member leads. Says for how long.
    pub(crate) fn until_led(&mut self, member: usize) -> f64 {
        let from = self.now;
        while !self.leads(member) {
            assert!(self.now < from + seconds(200.0), "it does not lead");
            self.pass(0.05);
        }
        (self.now - from).as_secs_f64()
    }

    pub(crate) fn cut(&mut self, member: usize) {
        self.members[member].connected = false;
    }

    /// Connects a member again: its watch goes on where it was.
    pub(crate) fn heal(&mut self, member: usize) {
        self.members[member].connected = true;
    }

    pub(crate) fn join_work(&mut self, member: usize) {
        let term = self.members[member].core.guard(LOCK).expect("work is running").term;
        self.tell(member, Event::Joined { lock: LOCK, term });
    }

    /// The last request about a target that is still stranded.
    pub(crate) fn stranded(&self, target: Target) -> Sent {
        *self.stranded.iter().rev().find(|sent| sent.request.target == target).expect("a stranded request")
    }
}
