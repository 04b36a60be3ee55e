//! One process of one member: the core, and what a driver keeps beside it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cluster_lease::{Core, Event, Version};

use crate::clock::Time;
use crate::judge::ProcessId;
use crate::keeping::Keeping;

/// Guarded work of one hold, from its start until nothing of it runs any more.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Of which term.
    pub term: u64,
    /// By which reading of the leader's clock it must have ended, fixed when it was fenced by what the
    /// deadline was then.
    pub end_by: Option<Duration>,
    /// How often its end was scheduled; only the last one counts.
    pub scheduled: u32,
}

/// What arrived while the process did not run.
#[derive(Clone, Debug)]
pub enum Queued {
    /// An event.
    Event(Event),
    /// A list: whether a watch begins with it, and the version of the view when it was asked for.
    List(bool, Version, Event),
}

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Which one.
    pub id: ProcessId,
    /// The election.
    pub core: Core,
    /// Guarded work by lock.
    pub work: BTreeMap<u32, Work>,
    /// What work keeps with its lock, by lock.
    pub(crate) keeping: BTreeMap<u32, Keeping>,
    /// The deadline as the guards of the work know it.
    pub deadline: Duration,
    /// What arrived while the process did not run.
    pub queue: VecDeque<Queued>,
    /// Until when it does not run.
    pub paused_until: Option<Time>,
    /// Drains, and exits when nothing is held any more.
    pub terminating: bool,
    /// Counts alarms; only the last one rings.
    pub alarm: u32,
    /// When the present alarm rings.
    pub alarm_at: Option<Time>,
    /// The present watch; deliveries of older ones are dropped.
    pub watch: Watch,
}

/// The watch of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    /// Counts the streams of this process.
    pub stream: u32,
    /// Whether the stream carries changes.
    pub flowing: bool,
    /// Up to which version changes have been put on the stream.
    pub cursor: Version,
    /// When the last one arrives: a stream keeps its order.
    pub last_arrival: Time,
}

impl Process {
    /// A process that has seen nothing yet.
    pub fn new(id: ProcessId, core: Core) -> Self {
        Self {
            id,
            core,
            work: BTreeMap::new(),
            keeping: BTreeMap::new(),
            deadline: Duration::ZERO,
            queue: VecDeque::new(),
            paused_until: None,
            terminating: false,
            alarm: 0,
            alarm_at: None,
            watch: Watch::default(),
        }
    }
}
