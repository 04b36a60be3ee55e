//! Many schedules on several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cluster_lease::Branch;

use crate::clock::Time;
use crate::judge::{Invariant, Violation};
use crate::plan::{Breakage, Plan};
use crate::world::World;

/// Every invariant.
pub const ALL: &[Invariant] = &[
    Invariant::I1,
    Invariant::I2,
    Invariant::I3,
    Invariant::I4,
    Invariant::I5,
    Invariant::I6,
    Invariant::I7,
    Invariant::I8,
    Invariant::I9,
    Invariant::Liveness,
    Invariant::End,
];

/// What does harm by itself, and not only as the first step towards it.
pub const HARM: &[Invariant] = &[Invariant::I1, Invariant::I3, Invariant::I9, Invariant::End];

/// What many schedules came to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// How many ran.
    pub schedules: u64,
    /// How many terms started.
    pub terms: u64,
    /// How many states were stored.
    pub stores: u64,
    /// In how many schedules two worked at once because the later one could not know how long the earlier one
    /// may work.
    pub unknowable: u64,
    /// How many things happened.
    pub happenings: u64,
    /// The most that happened in one schedule, and its seed.
    pub busiest: (u64, u64),
    /// The longest time from healing to leading, in true nanoseconds, and its seed.
    pub slowest: (Time, u64),
    /// How much of the allowed time the tightest schedule used, from 0 to 1.
    pub tightest: f64,
    /// How long the schedules lasted together, in simulated seconds.
    pub simulated: f64,
    /// How often each branch ran, in the order of [`Branch::ALL`].
    pub coverage: Vec<u64>,
    /// The seeds that failed, each with its violations.
    pub failures: Vec<(u64, Vec<Violation>)>,
}

impl Summary {
    fn new() -> Self {
        Self {
            schedules: 0,
            terms: 0,
            stores: 0,
            unknowable: 0,
            happenings: 0,
            busiest: (0, 0),
            slowest: (0, 0),
            tightest: 0.0,
            simulated: 0.0,
            coverage: vec![0; Branch::ALL.len()],
            failures: Vec::new(),
        }
    }

    fn add(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.terms += other.terms;
        self.stores += other.stores;
        self.unknowable += other.unknowable;
        self.happenings += other.happenings;
        self.busiest = self.busiest.max(other.busiest);
        self.slowest = self.slowest.max(other.slowest);
        self.tightest = self.tightest.max(other.tightest);
        self.simulated += other.simulated;
        for (total, count) in self.coverage.iter_mut().zip(&other.coverage) {
            *total += count;
        }
        self.failures.extend(other.failures);
    }
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The first seed; the others follow it.
    pub first: u64,
    /// How many schedules.
    pub schedules: u64,
    /// On how many threads.
    pub threads: usize,
    /// What is broken on purpose.
    pub breakage: Option<Breakage>,
    /// Which invariants end a schedule and count as its failure.
    pub wanted: &'a [Invariant],
    /// After how many failures to stop.
    pub enough: usize,
}

/// Runs schedules until all have run or enough have failed.
pub fn run(batch: Batch<'_>) -> Summary {
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(0);
    let total = Mutex::new(Summary::new());
    std::thread::scope(|scope| {
        for _ in 0..batch.threads.max(1) {
            scope.spawn(|| {
                let mut part = Summary::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= batch.schedules || failed.load(Ordering::Relaxed) >= batch.enough as u64 {
                        break;
                    }
                    let failures = part.failures.len();
                    run_one(batch, batch.first.wrapping_add(index), &mut part);
                    failed.fetch_add((part.failures.len() - failures) as u64, Ordering::Relaxed);
                }
                if let Ok(mut total) = total.lock() {
                    total.add(part);
                }
            });
        }
    });
    let mut total = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    total.failures.sort_by_key(|(seed, _)| *seed);
    total
}

fn run_one(batch: Batch<'_>, seed: u64, part: &mut Summary) {
    let plan = Plan::new(seed, batch.breakage);
    let verdict = World::run(&plan, false, batch.wanted);
    part.schedules += 1;
    part.terms += verdict.terms;
    part.stores += verdict.stores;
    part.unknowable += u64::from(verdict.unknowable > 0);
    part.happenings += verdict.happenings;
    part.busiest = part.busiest.max((verdict.happenings, seed));
    part.slowest = part.slowest.max((verdict.slowest, seed));
    part.tightest = part.tightest.max(verdict.slowest as f64 / (plan.end() - plan.heal) as f64);
    part.simulated += plan.end() as f64 / 1e9;
    for (total, count) in part.coverage.iter_mut().zip(&verdict.coverage) {
        *total += count;
    }
    let counts = |violation: &Violation| batch.wanted.contains(&violation.invariant);
    if verdict.violations.iter().any(counts) {
        part.failures.push((seed, verdict.violations));
    }
}
