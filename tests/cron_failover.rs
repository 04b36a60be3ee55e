//! The promise: when the leader of a schedule ends in any way, the next one goes on. No tick fires twice, and
//! what becomes of ticks at which nobody led is what `missed` says. A tick is noted as fired before its
//! exchange starts, so one whose leader is killed just then is lost: such ticks are counted.
//!
//! `SEED` repeats a run (as far as a wall clock lets it), `TICKS` makes it longer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bactrian::prelude::*;
use support::Stage;
use support::group::{ANY_FATE, Fate, GRACEFUL, Group, number};
use tokio::time::sleep;

/// A tick that has fired. Times are in milliseconds since 1970.
#[derive(Clone, Debug)]
struct Tick {
    term: u64,
    /// When it was due, in seconds.
    due: u64,
    /// Whether it makes up for a missed one.
    missed: bool,
    /// When its exchange was done; `None`: its leader was killed.
    done: Option<u64>,
}

fn ticks(stage: &Stage) -> Vec<Tick> {
    let text = std::fs::read_to_string(stage.records_file()).unwrap_or_default();
    let number = |field: &str| field.parse::<u64>().unwrap();
    let mut ticks: Vec<Tick> = Vec::new();
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["start", term, due, missed] => {
                assert_eq!(number(due) % 1_000, 0);
                let (term, due) = (number(term), number(due) / 1_000);
                ticks.push(Tick { term, due, missed: missed == "true", done: None });
            }
            ["end", time] => ticks.last_mut().unwrap().done = Some(number(time)),
            _ => panic!("{line}"),
        }
    }
    ticks
}

/// Waits for another tick.
async fn next_tick(stage: &Stage) {
    let (patience, before) = (Instant::now() + Duration::from_secs(30), ticks(stage).len());
    while ticks(stage).len() == before {
        assert!(Instant::now() < patience, "there was no tick for 30 s");
        sleep(Duration::from_millis(5)).await;
    }
}

/// What happened under one policy.
struct Story {
    ticks: Vec<Tick>,
    killed: usize,
    /// How often all members were gone for some ticks.
    outages: usize,
}

/// Lets three members run a schedule that fires every second, while leaders end and, every third time, all.
async fn play(missed: &str, fates: &[Fate]) -> Story {
    let (stage, wanted) = (Stage::new(), number("TICKS").unwrap_or(14));
    let bound = if missed == "all" { "&missed_max=1000" } else { "" };
    let uri = format!("cron:tick?schedule=*+*+*+*+*+*&missed={missed}{bound}");
    let variables = [("MEMBER_URI", uri)];
    let mut group = Group::start(&stage, "clock_process", &variables);
    next_tick(&stage).await;
    let (begin, mut outages) = (ticks(&stage)[0].due, 0);
    let span = |ticks: &[Tick]| ticks.last().map_or(0, |tick| tick.due - begin);
    for turn in 1.. {
        if span(&ticks(&stage)) >= wanted && outages > 0 {
            break;
        }
        if turn % 3 == 0 {
            // Two ticks at least pass without a leader.
            group.stop().await;
            sleep(Duration::from_millis(2_100)).await;
            group.fill();
            next_tick(&stage).await;
            outages += 1;
        } else {
            let pause = Duration::from_millis(group.random.u64(20..1_200));
            sleep(Duration::from_millis(group.random.u64(20..700))).await;
            group.end_leader(fates, pause).await;
        }
    }
    next_tick(&stage).await;
    group.stop().await;
    let story = Story { ticks: ticks(&stage), killed: group.killed.len(), outages };
    let (count, made_up) = (story.ticks.len(), story.ticks.iter().filter(|tick| tick.missed).count());
    let fates = group.fates;
    println!(
        "missed={missed}: {count} of {} ticks fired, {made_up} of them late; {outages} outages, {fates:?}",
        span(&story.ticks) + 1
    );
    story
}

impl Story {
    /// The gaps: the ticks before and after.
    fn gaps(&self) -> impl Iterator<Item = (&Tick, &Tick)> {
        let pairs = self.ticks.windows(2).map(|pair| (&pair[0], &pair[1]));
        pairs.filter(|(before, after)| after.due > before.due + 1)
    }

    /// No tick fired twice, and they fired in order.
    fn judge_order(&self) {
        for pair in self.ticks.windows(2) {
            assert!(pair[0].due < pair[1].due, "twice, or not in order: {pair:?}");
            assert!(pair[0].term <= pair[1].term, "two leaders at once: {pair:?}");
        }
    }

    /// Not more ticks are lost than leaders were killed.
    fn judge_lost(&self, lost: u64) {
        println!("{lost} ticks were lost, of {} leaders that were killed", self.killed);
        assert!(lost <= self.killed as u64, "{lost} ticks are lost: {:?}", self.ticks);
    }
}

/// Whether ticks between these were missed: nobody led, or the one before was done too late for them.
fn excused(before: &Tick, after: &Tick) -> bool {
    before.term != after.term || before.done.is_some_and(|done| done >= (before.due + 1) * 1_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tick_fires_once_or_as_the_policy_says() {
    let (skip, once, all, graceful) = tokio::join!(
        play("skip", ANY_FATE),
        play("once", ANY_FATE),
        play("all", ANY_FATE),
        play("all", GRACEFUL)
    );
    for story in [&skip, &once, &all, &graceful] {
        story.judge_order();
    }
    // None of them is made up for.
    assert!(skip.ticks.iter().all(|tick| !tick.missed));
    assert!(skip.gaps().count() >= skip.outages);
    for (before, after) in skip.gaps() {
        assert!(excused(before, after), "skipped under a leader: {before:?} {after:?}");
    }
    // The latest one is made up for: where nothing was, the missed one was lost with its leader.
    let made_up = once.gaps().filter(|(before, after)| after.missed && excused(before, after)).count();
    assert!(made_up > 0, "{:?}", once.ticks);
    once.judge_lost((once.gaps().count() - made_up) as u64);
    // Each is made up for.
    for story in [&all, &graceful] {
        let missed = story.ticks.iter().filter(|tick| tick.missed).count();
        assert!(missed >= story.outages, "{:?}", story.ticks);
        story.judge_lost(story.gaps().map(|(before, after)| after.due - before.due - 1).sum());
    }
}

/// What a member does. Not a test: the others start it in a process of its own.
#[test]
#[ignore = "this is the program of a member process, which other tests start"]
fn clock_process() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let records = variable("MEMBER_RECORDS");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let cluster = FileCluster::open(support::cluster_settings()).await.unwrap();
        let route = from(format!("master:lock1:{}", variable("MEMBER_URI"))).id("tick");
        let route = route.process_async(move |exchange| {
            let header = |name: &str| exchange.message.headers.get(name).unwrap().to_string();
            let (due, missed) = (header("cron.scheduled_time"), header("cron.missed"));
            let line = format!("start {} {due} {missed}\n", exchange.term.as_ref().unwrap().number());
            // One write to a file that is open for appending: lines of different processes do not mix.
            let mut file = OpenOptions::new().append(true).create(true).open(&records).unwrap();
            Box::pin(async move {
                file.write_all(line.as_bytes())?;
                // Long enough for a crash to come meanwhile: then the tick must not come again.
                sleep(Duration::from_millis(200)).await;
                Ok(file.write_all(format!("end {}\n", milliseconds()).as_bytes())?)
            })
        });
        let router = bactrian::router().cluster(cluster).route(route).build().unwrap();
        bactrian::run(&router).await
    });
    assert_eq!(outcome, ShutdownOutcome::Drained);
}

#[expect(clippy::disallowed_methods, reason = "schedules are about the wall clock")]
fn milliseconds() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
