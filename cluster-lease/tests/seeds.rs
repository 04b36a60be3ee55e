//! Random schedules through the real [`LeaseCluster`], on paused time, over a store as bad as a network.
//!
//! Each seed runs three members with two locks for two minutes of virtual time: requests and answers are
//! lost, late, repeated and reordered, watches lag, fail and end, links are cut, records are deleted,
//! members resign, drain, are asked to by an operator, close and restart, their elections panic, clocks are up to 1 % wrong, hosts are
//! suspended. Two things
//! must hold at every moment: no two members work under one lock, judged by true time, which is that of
//! tokio; and the numbers of terms rise. Each leader also keeps a position with the lock: none that was
//! acknowledged is lost to a later leader, unless the record is deleted. When all is healed, every lock must have a leader again.
//!
//! ```text
//! cargo test -p bactrian-cluster-lease --test seeds                          # the usual number
//! SEEDS=10000 cargo test --release -p bactrian-cluster-lease --test seeds    # many
//! SEEDS=1 SEED=4711 cargo test -p bactrian-cluster-lease --test seeds        # one again
//! ```

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_lease::{
    Clock, Clocks, Faults, LeaseCluster, LeaseClusterSettings, LeaseOperator, MemoryHandle, MemoryStore,
    Settings, Span, StoreKey, TokioClock,
};
use router_core::cluster::{ClusterService, LeaderScope, LockName, Member, Operator, Term};
use router_core::state::RouteState;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const MEMBERS: usize = 3;
const LOCKS: usize = 2;
const STORM: Duration = Duration::from_secs(120);

/// What is true, whatever anybody believes.
#[derive(Default)]
struct Judge {
    working: HashMap<LockName, (usize, u64)>,
    newest: HashMap<LockName, u64>,
    terms: u64,
    /// By lock: the newest position that a store was acknowledged for.
    stored: HashMap<LockName, (u64, u64)>,
    /// How often the records of locks were deleted, and their states with them.
    deletions: u64,
    stores: u64,
    verdicts: Vec<String>,
}

impl Judge {
    fn enter(&mut self, member: usize, term: &Term) {
        let lock = term.lock();
        if let Some((other, number)) = self.working.insert(lock.clone(), (member, term.number())) {
            self.verdicts.push(format!(
                "{lock}: member {member} works in term {} while member {other} works in term {number}",
                term.number()
            ));
        }
        let newest = self.newest.entry(lock.clone()).or_default();
        if *newest > term.number() {
            self.verdicts.push(format!("{lock}: term {} after term {newest}", term.number()));
        }
        self.terms += u64::from(*newest < term.number());
        *newest = term.number();
    }

    /// What a load that is sent now must at least find, as far as nothing is deleted meanwhile.
    fn acknowledged(&self, lock: &LockName) -> (u64, (u64, u64)) {
        (self.deletions, self.stored.get(lock).copied().unwrap_or_default())
    }

    fn loaded(&mut self, term: &Term, position: (u64, u64), least: (u64, (u64, u64))) {
        let (lock, number) = (term.lock(), term.number());
        if position < least.1 && least.0 == self.deletions {
            self.verdicts
                .push(format!("{lock}: term {number} loads {position:?} after {:?} was stored", least.1));
        }
        if position.0 > number {
            self.verdicts.push(format!("{lock}: term {number} loads {position:?} of a later term"));
        }
    }

    fn stored(&mut self, term: &Term, position: (u64, u64), deletions: u64) {
        self.stores += 1;
        if deletions == self.deletions {
            let newest = self.stored.entry(term.lock().clone()).or_default();
            *newest = position.max(*newest);
        }
    }

    fn leave(&mut self, member: usize, term: &Term) {
        let entry = (member, term.number());
        if self.working.get(term.lock()) == Some(&entry) {
            self.working.remove(term.lock());
        }
    }
}

/// Work that the judge sees begin and end, also when it is dropped.
struct Work<'a> {
    judge: &'a Mutex<Judge>,
    member: usize,
    term: Term,
}

impl<'a> Work<'a> {
    fn begin(judge: &'a Mutex<Judge>, member: usize, term: &Term) -> Self {
        judge.lock().unwrap().enter(member, term);
        Self { judge, member, term: term.clone() }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.judge.lock().unwrap().leave(self.member, &self.term);
    }
}

/// What a route does, as badly as it may: it begins work whenever it is admitted, and does not end it
/// before it is dropped at the very end of its time.
async fn lead(cluster: Arc<LeaseCluster>, lock: LockName, member: usize, judge: Arc<Mutex<Judge>>) {
    let Ok(view) = cluster.view(&lock).await else { return };
    while let Ok(scope) = view.lead().await {
        work(&scope, member, &judge).await;
    }
}

async fn work(scope: &LeaderScope, member: usize, judge: &Mutex<Judge>) {
    let term = scope.term();
    let state = RouteState::new("poll", term.states());
    let mut count = 0;
    let least = judge.lock().unwrap().acknowledged(term.lock());
    if let Ok(position) = state.load().await {
        let position = position.map(|value| serde_json::from_value(value).unwrap()).unwrap_or_default();
        if term.is_valid() {
            judge.lock().unwrap().loaded(term, position, least);
        }
    }
    while term.admits_work() {
        count += 1;
        let position = (term.number(), count);
        let deletions = judge.lock().unwrap().deletions;
        if state.store(&json!(position)).await.is_ok() {
            judge.lock().unwrap().stored(term, position, deletions);
        }
        if !term.admits_work() {
            return;
        }
        let _work = Work::begin(judge, member, term);
        let step = async {
            // A graceful end lets a step of up to three seconds finish; a loss drops it.
            sleep(Duration::from_millis(300 * (1 + term.number() % 10))).await;
        };
        tokio::select! {
            biased;
            () = term.expired() => return,
            () = step => {}
        }
    }
}

/// A clock that can be made to panic in the election's loop.
struct Moody {
    clock: TokioClock,
    explodes: AtomicBool,
}

impl Clock for Moody {
    fn now(&self) -> Clocks {
        if self.explodes.swap(false, Ordering::Relaxed) {
            // Without a message: there are very many of them.
            std::panic::resume_unwind(Box::new("the clock explodes"));
        }
        self.clock.now()
    }

    fn leader(&self) -> Duration {
        self.clock.now().leader
    }

    fn follows_tokio(&self) -> bool {
        true
    }
}

struct Process {
    cluster: Arc<LeaseCluster>,
    clock: Arc<Moody>,
    handle: MemoryHandle,
    leading: JoinSet<()>,
}

struct World {
    random: fastrand::Rng,
    store: MemoryStore,
    locks: Vec<LockName>,
    judge: Arc<Mutex<Judge>>,
    processes: Vec<Process>,
    started: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let locks: Vec<LockName> = (0..LOCKS).map(|lock| format!("lock{lock}").parse().unwrap()).collect();
        let store = MemoryStore::new();
        let mut random = fastrand::Rng::with_seed(seed);
        for lock in locks.iter().filter(|_| random.bool()) {
            store.create_free(lock);
        }
        let (judge, processes) = (Arc::default(), Vec::new());
        Self { random, store, locks, judge, processes, started: 0 }
    }

    fn start(&mut self, member: usize) -> Process {
        self.started += 1;
        let clock = TokioClock::starting_at(Duration::from_secs(self.random.u64(0..1_000_000)));
        clock.skew(self.random.i32(-10_000..=10_000));
        let clock = Arc::new(Moody { clock, explodes: AtomicBool::new(false) });
        // Each election that begins anew after a panic draws one more.
        let incarnation = AtomicU64::new(self.started << 32);
        let settings = LeaseClusterSettings::new(Member::new(format!("member{member}")))
            .timing(Settings::fast())
            .clock(clock.clone())
            // Work that a suspension made late is late by the clock of its host only.
            .strict(false)
            .candidates((0..MEMBERS).map(|member| (format!("member{member}").into(), 1)))
            .incarnations(move || incarnation.fetch_add(1, Ordering::Relaxed).into());
        let handle = self.store.handle(self.random.u64(..));
        handle.link().set(self.faults());
        let cluster = LeaseCluster::start(handle.clone(), settings).unwrap();
        let mut leading = JoinSet::new();
        for lock in &self.locks {
            leading.spawn(lead(cluster.clone(), lock.clone(), member, Arc::clone(&self.judge)));
        }
        Process { cluster, clock, handle, leading }
    }

    fn faults(&mut self) -> Faults {
        let random = &mut self.random;
        let mut span = |chance: u8, longest: u64| {
            let to = if random.u8(0..100) < chance { random.u64(0..longest) } else { random.u64(0..20) };
            Span::up_to(Duration::from_millis(to))
        };
        let (request_delay, answer_delay) = (span(40, 4000), span(40, 4000));
        let (duplicate_delay, watch_delay) = (span(60, 25_000), span(40, 5000));
        let mut percent = |most: u8| if random.bool() { random.u8(0..=most) } else { 0 };
        Faults {
            request_delay,
            answer_delay,
            lose_request: percent(30),
            lose_answer: percent(30),
            fail_early: percent(20),
            duplicate: percent(30),
            duplicate_delay,
            watch_delay,
            break_watch: percent(5),
            end_watch: percent(5),
        }
    }

    async fn misfortune(&mut self) {
        let at = self.random.usize(0..MEMBERS);
        let faults = self.faults();
        match self.random.u8(0..17) {
            0..=2 => self.processes[at].handle.link().cut(),
            3..=5 => self.processes[at].handle.link().mend(),
            6 => self.processes[at].handle.link().set(faults),
            7 => self.processes[at].handle.link().set(Faults::default()),
            8 => self.processes[at].handle.link().stall_watch(true),
            9 => self.processes[at].handle.link().stall_watch(false),
            10 => self.store.compact(),
            11 => self.store.touch(),
            12 => self.delete_something(),
            13 => self.give_up(at).await,
            14 => self.processes[at].clock.clock.jump(Duration::from_millis(self.random.u64(0..20_000))),
            15 => self.processes[at].clock.explodes.store(true, Ordering::Relaxed),
            _ => self.replace(at).await,
        }
    }

    fn delete_something(&mut self) {
        let entries = self.store.listing().entries;
        if let Some(entry) = self.random.choice(&entries) {
            if let StoreKey::Lock(lock) = &entry.key {
                // The states go with the record of a lock.
                let mut judge = self.judge.lock().unwrap();
                judge.deletions += 1;
                judge.stored.remove(lock);
            }
            self.store.delete(&entry.key);
        }
    }

    async fn give_up(&mut self, at: usize) {
        let cluster = &self.processes[at].cluster;
        let operator = LeaseOperator::new(self.store.handle(self.random.u64(..)), &Settings::fast());
        let patience = Duration::from_millis(self.random.u64(0..5000));
        let member = format!("member{at}");
        match self.random.u8(0..6) {
            // What comes of it is for the judge to see.
            3 => drop(operator.hand_over(self.random.choice(&self.locks).unwrap(), patience).await),
            4 => drop(operator.drain(Some(&member), patience).await),
            5 => drop(operator.undrain(None).await),
            0 => {
                let lock = self.random.choice(&self.locks).unwrap();
                cluster.view(lock).await.unwrap().resign(Duration::from_millis(self.random.u64(0..5000)));
            }
            1 => {
                let _ = timeout(Duration::from_millis(self.random.u64(0..5000)), cluster.drain()).await;
            }
            _ => cluster.undrain(),
        }
    }

    /// The process ends, in good order or not, and another one starts under its name. Its requests stay
    /// under way.
    async fn replace(&mut self, at: usize) {
        let process = self.start(at);
        let old = std::mem::replace(&mut self.processes[at], process);
        if self.random.bool() {
            let patience = Duration::from_millis(self.random.u64(0..10_000));
            let _ = timeout(patience, old.cluster.close()).await;
        }
        drop(old.leading);
        // The link is cut as with the death of the process; what is under way stays so.
        old.handle.link().cut();
    }

    async fn heal(&mut self) {
        let operator = LeaseOperator::new(self.store.handle(0), &Settings::fast());
        for member in 0..MEMBERS {
            let _ = operator.undrain(Some(&format!("member{member}"))).await;
        }
        for process in &self.processes {
            let link = process.handle.link();
            link.set(Faults::default());
            link.mend();
            link.stall_watch(false);
            process.clock.explodes.store(false, Ordering::Relaxed);
            process.cluster.undrain();
        }
    }
}

/// Returns how many terms and stores there were.
async fn run(seed: u64) -> Result<(u64, u64), String> {
    let mut world = World::new(seed);
    for member in 0..MEMBERS {
        let process = world.start(member);
        world.processes.push(process);
    }
    let end = Instant::now() + STORM;
    while Instant::now() < end {
        sleep(Duration::from_millis(world.random.u64(0..4000))).await;
        world.misfortune().await;
        verdict(&world)?;
    }
    world.heal().await;
    // What is still under way arrives, the last session may have to be watched for x after that, and a
    // lock that was deleted rests for x more.
    let healed = Instant::now() + Duration::from_secs(25 + 4 * 5);
    while world.judge.lock().unwrap().working.len() < LOCKS {
        if Instant::now() > healed {
            let records = world.store.listing().entries;
            let working = world.judge.lock().unwrap().working.clone();
            return Err(format!("not every lock has a leader again: {working:?}, records {records:#?}"));
        }
        sleep(Duration::from_millis(10)).await;
        verdict(&world)?;
    }
    let closing = world.processes.iter().map(|process| process.cluster.close());
    for closing in closing {
        timeout(Duration::from_secs(30), closing).await.map_err(|_| "a member does not close")?;
    }
    verdict(&world)?;
    let judge = world.judge.lock().unwrap();
    Ok((judge.terms, judge.stores))
}

fn verdict(world: &World) -> Result<(), String> {
    let verdicts = std::mem::take(&mut world.judge.lock().unwrap().verdicts);
    if verdicts.is_empty() { Ok(()) } else { Err(verdicts.join("; ")) }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn random_schedules_never_have_two_leaders_and_always_get_one() {
    let first = variable("SEED").unwrap_or(1);
    let seeds = variable("SEEDS").unwrap_or(200);
    let (mut terms, mut stores) = (0, 0);
    for seed in first..first + seeds {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        match runtime.block_on(run(seed)) {
            Ok((more_terms, more_stores)) => (terms, stores) = (terms + more_terms, stores + more_stores),
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    println!(
        "{seeds} seeds from {first}: {terms} terms, no overlap, no number that fell, {stores} stores, none lost"
    );
}
