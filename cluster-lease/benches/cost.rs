//! What the election costs, on a `MemoryStore`.
//!
//! ```text
//! cargo bench -p bactrian-cluster-lease --bench cost
//! ```
//!
//! Requests are counted over virtual time; everything else is real time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_lease::{LeaseCluster, LeaseClusterSettings, MemoryHandle, MemoryStore, TokioClock};
use router_core::cluster::{ClusterService, ClusterView, Leadership, LockName, Member};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    // As a test it only shows that it works.
    let small = !std::env::args().any(|argument| argument == "--bench");
    let (locks, rounds, checks) = if small { (100, 5, 1_000) } else { (10_000, 200, 2_000_000) };
    let paused = Builder::new_current_thread().enable_time().start_paused(true).build()?;
    paused.block_on(requests(10, 100))?;
    drop(paused);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    runtime.block_on(async {
        many_locks(locks).await?;
        handover(rounds).await?;
        check(checks).await
    })
}

fn names(store: &MemoryStore, count: usize) -> Outcome<Vec<LockName>> {
    let names = (0..count).map(|lock| format!("lock{lock}").parse::<LockName>());
    let names = names.collect::<Result<Vec<_>, _>>()?;
    names.iter().for_each(|name| store.create_free(name));
    Ok(names)
}

fn is_led(view: &ClusterView) -> bool {
    matches!(view.leadership(), Leadership::Leader(_))
}

async fn views(cluster: &LeaseCluster, locks: &[LockName]) -> Outcome<Vec<ClusterView>> {
    let mut views = Vec::with_capacity(locks.len());
    for lock in locks {
        views.push(cluster.view(lock).await?);
    }
    Ok(views)
}

/// Requests per second of a group in which nothing happens.
async fn requests(members: usize, locks: usize) -> Outcome<()> {
    const SPAN: Duration = Duration::from_secs(3_100);
    let store = MemoryStore::new();
    let locks = names(&store, locks)?;
    let named = |member| format!("member{member}");
    let mut group: Vec<(Arc<LeaseCluster>, MemoryHandle, Vec<ClusterView>)> = Vec::new();
    // One more, which comes last everywhere and stands by.
    for member in 0..=members {
        let settings = LeaseClusterSettings::new(Member::new(named(member)))
            .clock(Arc::new(TokioClock::default()))
            .candidates((0..=members).map(|other| (named(other).into(), u32::from(other < members))));
        let handle = store.handle(1);
        let cluster = LeaseCluster::start(handle.clone(), settings)?;
        let views = views(&cluster, &locks).await?;
        group.push((cluster, handle, views));
    }
    sleep(Duration::from_secs(60)).await;
    let led: Vec<usize> =
        group.iter().map(|(_, _, views)| views.iter().filter(|view| is_led(view)).count()).collect();
    assert_eq!(led.iter().sum::<usize>(), locks.len());
    let sent = || group.iter().map(|(_, handle, _)| handle.link().requests().total()).collect::<Vec<_>>();
    let before = sent();
    sleep(SPAN).await;
    let sent: Vec<u64> = sent().iter().zip(&before).map(|(after, before)| after - before).collect();
    let rate = sent.iter().sum::<u64>() as f64 / SPAN.as_secs_f64();
    let holders = led.iter().filter(|led| **led > 0).count();
    println!(
        "{members} members, {} locks, {holders} of them hold some ({led:?}), {SPAN:?} of virtual time:",
        locks.len()
    );
    println!("  {rate:.2} requests/s in all; a standby sent {} requests", sent[members]);
    println!("  by their formulas: client-go 328, Camel 919, rust-camel 470 requests/s");
    assert!(rate <= 3.5 && sent[members] == 0);
    Ok(())
}

/// One process that leads very many locks.
async fn many_locks(count: usize) -> Outcome<()> {
    let store = MemoryStore::new();
    let locks = names(&store, count)?;
    let before = resident_kib();
    let started = Instant::now();
    let cluster = LeaseCluster::start(store.handle(1), LeaseClusterSettings::new(Member::new("a")))?;
    let views = views(&cluster, &locks).await?;
    while !views.iter().all(is_led) {
        sleep(Duration::from_millis(1)).await;
    }
    let start = started.elapsed();
    let grown = resident_kib().saturating_sub(before);
    let busy = process_time();
    let idle = Duration::from_millis(count as u64);
    sleep(idle).await;
    let busy = process_time() - busy;
    let closing = Instant::now();
    timeout(Duration::from_secs(300), cluster.close()).await?;
    println!(
        "{count} locks in one process: all led after {start:?}, {grown} KiB more resident ({:.1} KiB a lock, with the store's log), \
         {busy:?} of processor time in {idle:?} of leading, all released after {:?}",
        grown as f64 / count as f64,
        closing.elapsed()
    );
    Ok(())
}

/// From when the last work ends to when the next member leads.
async fn handover(rounds: usize) -> Outcome<()> {
    let store = MemoryStore::new();
    let lock = names(&store, 1)?.remove(0);
    let mut members = Vec::new();
    for name in ["a", "b"] {
        let cluster = LeaseCluster::start(store.handle(1), LeaseClusterSettings::new(Member::new(name)))?;
        let view = cluster.view(&lock).await?;
        members.push((cluster, view));
    }
    let mut scope = tokio::select! {
        biased;
        scope = members[0].1.lead() => scope?,
        scope = members[1].1.lead() => scope?,
    };
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let at = members.iter().position(|(cluster, _)| *cluster.local() == *scope.term().holder());
        let at = at.ok_or("a stranger leads")?;
        members[at].1.resign(Duration::from_millis(50));
        scope.term().lost().await;
        let started = Instant::now();
        drop(scope);
        scope = members[1 - at].1.lead().await?;
        times.push(started.elapsed());
        sleep(Duration::from_millis(60)).await;
    }
    times.sort_unstable();
    println!(
        "graceful handover, {rounds} rounds: median {:?}, 99th percentile {:?}, longest {:?}",
        times[rounds / 2],
        times[rounds * 99 / 100],
        times[rounds - 1]
    );
    Ok(())
}

/// What each side effect costs.
async fn check(rounds: u32) -> Outcome<()> {
    let store = MemoryStore::new();
    let lock = names(&store, 1)?.remove(0);
    let cluster = LeaseCluster::start(store.handle(1), LeaseClusterSettings::new(Member::new("a")))?;
    let scope = cluster.view(&lock).await?.lead().await?;
    let term = scope.term().clone();
    let best = (0..7)
        .map(|_| {
            let started = Instant::now();
            for _ in 0..rounds {
                std::hint::black_box(std::hint::black_box(&term).is_valid());
            }
            started.elapsed().as_nanos() as f64 / f64::from(rounds)
        })
        .fold(f64::INFINITY, f64::min);
    assert!(term.is_valid());
    println!("check: {best:.1} ns, best of 7 runs of {rounds}");
    Ok(())
}

/// Resident memory of this process.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Processor time of this process so far.
fn process_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
