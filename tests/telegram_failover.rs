//! The promise: when the leader that polls a bot ends in any way, the next one goes on, and no update is
//! lost. What comes twice is counted.
//!
//! `SEED` repeats a run, `UPDATES` makes it longer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bactrian::cluster_file;
use bactrian::prelude::*;
use rustix::process::Signal;
use support::{Member, Stage};
use testkit::TelegramServer;
use tokio::time::sleep;

const TOKEN: &str = "123:test";
/// How many updates a poll brings, and so how many a crash can repeat.
const LIMIT: usize = 20;

/// How leaders end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Killed,
    Stopped,
    PausedAndKilled,
    Paused,
}

/// What happened.
struct Story {
    done: Vec<Done>,
    /// The processes that were killed.
    killed: BTreeSet<u32>,
    fates: BTreeMap<String, usize>,
    unacknowledged: Vec<i64>,
    updates: usize,
}

/// An exchange that has ended, in the order in which they did.
#[derive(Clone, Debug)]
struct Done {
    member: u32,
    term: u64,
    update: usize,
}

/// Lets three members poll while somebody writes and leaders end.
async fn play(options: &str, updates: usize, fates: &[Fate]) -> Story {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("repeat with SEED={seed}");
    let updates = std::env::var("UPDATES").ok().and_then(|updates| updates.parse().ok()).unwrap_or(updates);
    let mut random = fastrand::Rng::with_seed(seed);
    let (stage, server) = (Stage::new(), TelegramServer::start(TOKEN).await.unwrap());
    let uri = format!(
        "telegram:bots?authorization_token=env:MEMBER_TOKEN&base_uri={}&limit={LIMIT}&{options}",
        server.base_uri()
    );
    let start = || {
        let variables = [("MEMBER_TOKEN", TOKEN.to_owned()), ("MEMBER_URI", uri.clone())];
        stage.spawn("poller_process", &variables)
    };
    let mut members = vec![start(), start(), start()];
    let mut story = Story {
        done: Vec::new(),
        killed: BTreeSet::new(),
        fates: BTreeMap::new(),
        unacknowledged: Vec::new(),
        updates,
    };
    let writing = async {
        for number in 0..updates {
            server.receive_text(1, &format!("update {number}")).unwrap();
            if number % 10 == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        }
    };
    let ending = async {
        let patience = Instant::now() + Duration::from_secs(120);
        while done(&stage.records_file()).iter().map(|done| done.update).collect::<BTreeSet<_>>().len()
            < updates
        {
            assert!(Instant::now() < patience, "not all is done in two minutes");
            sleep(Duration::from_millis(random.u64(20..250))).await;
            let leader = cluster_file::leaders(stage.locks()).unwrap_or_default();
            let leader = leader.first().and_then(|leader| leader.pid);
            let Some(leader) = members.iter().position(|member| Some(member.id()) == leader) else {
                continue;
            };
            let fate = fates[random.usize(..fates.len())];
            *story.fates.entry(format!("{fate:?}")).or_default() += 1;
            if let Some(killed) = end(fate, &mut members, leader).await {
                story.killed.insert(killed);
            }
            if members.len() < 3 {
                members.push(start());
            }
        }
    };
    tokio::join!(writing, ending);
    for member in members {
        member.signal(Signal::TERM);
        assert!(tokio::task::spawn_blocking(|| member.wait()).await.unwrap().success());
    }
    story.done = done(&stage.records_file());
    story.unacknowledged = server.unacknowledged();
    story
}

/// Lets the leader meet its fate; returns its process if that was killed.
async fn end(fate: Fate, members: &mut Vec<Member>, leader: usize) -> Option<u32> {
    let id = members[leader].id();
    if fate != Fate::Stopped && fate != Fate::Killed {
        members[leader].signal(Signal::STOP);
        sleep(Duration::from_millis(60)).await;
    }
    match fate {
        Fate::Paused => {
            members[leader].signal(Signal::CONT);
            None
        }
        Fate::Stopped => {
            let member = members.swap_remove(leader);
            member.signal(Signal::TERM);
            assert!(tokio::task::spawn_blocking(|| member.wait()).await.unwrap().success());
            None
        }
        Fate::Killed | Fate::PausedAndKilled => {
            members.swap_remove(leader).kill();
            Some(id)
        }
    }
}

fn done(records: &Path) -> Vec<Done> {
    let text = std::fs::read_to_string(records).unwrap_or_default();
    let read = |line: &str| {
        let numbers = line.split(' ').map(|number| number.parse::<u64>().ok()).collect::<Option<Vec<_>>>()?;
        let [member, term, update] = numbers[..] else { return None };
        Some(Done { member: u32::try_from(member).ok()?, term, update: usize::try_from(update).ok()? })
    };
    text.lines().map(|line| read(line).unwrap()).collect()
}

impl Story {
    /// Proves that nothing was lost and all was in order; returns for each term with which updates of it came
    /// again later.
    fn judge(&self) -> BTreeMap<u64, Vec<usize>> {
        let all = self.done.iter().map(|done| done.update).collect::<BTreeSet<_>>();
        assert!(all.into_iter().eq(1..=self.updates), "an update was lost");
        assert!(self.unacknowledged.is_empty(), "not acknowledged: {:?}", self.unacknowledged);
        for pair in self.done.windows(2) {
            assert!(pair[0].term <= pair[1].term, "two leaders at once: {pair:?}");
            let ordered = pair[0].term != pair[1].term
                || (pair[0].update < pair[1].update && pair[0].member == pair[1].member);
            assert!(ordered, "not in order: {pair:?}");
        }
        let mut last: BTreeMap<usize, u64> = BTreeMap::new();
        let mut repeated: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for done in &self.done {
            if let Some(earlier) = last.insert(done.update, done.term) {
                repeated.entry(earlier).or_default().push(done.update);
            }
        }
        let terms = self.done.iter().map(|done| done.term).collect::<BTreeSet<_>>().len();
        let count = repeated.values().map(Vec::len).sum::<usize>();
        println!("{} updates in {terms} terms, {:?}: {count} came twice", self.updates, self.fates);
        for term in repeated.keys() {
            let member = self.done.iter().find(|done| done.term == *term).unwrap().member;
            assert!(
                self.killed.contains(&member),
                "term {term} ended in order, and was repeated: {repeated:?}"
            );
        }
        repeated
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_dedupe_a_crash_repeats_one_update_at_most() {
    let fates = [Fate::Killed, Fate::Stopped, Fate::PausedAndKilled, Fate::Paused];
    for (term, repeated) in play("dedupe=true", 2_000, &fates).await.judge() {
        assert_eq!(repeated.len(), 1, "term {term}: {repeated:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_dedupe_a_crash_repeats_a_batch_at_most() {
    let fates = [Fate::Killed, Fate::Stopped, Fate::PausedAndKilled, Fate::Paused];
    for (term, repeated) in play("", 2_000, &fates).await.judge() {
        assert!(repeated.len() <= LIMIT, "term {term}: {repeated:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_hand_over_repeats_nothing() {
    for options in ["dedupe=true", ""] {
        let repeated = play(options, 1_000, &[Fate::Stopped, Fate::Paused]).await.judge();
        assert!(repeated.is_empty(), "{options}: {repeated:?}");
    }
}

/// What a member does. Not a test: the others start it in a process of its own.
#[test]
#[ignore = "this is the program of a member process, which other tests start"]
fn poller_process() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let records = variable("MEMBER_RECORDS");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let cluster = FileCluster::open(FileClusterSettings::new(variable("MEMBER_LOCKS"))).await.unwrap();
        let uri = format!("master:lock1:{}", variable("MEMBER_URI"));
        let route = from(uri).id("bot").process_async(move |exchange| {
            let update = exchange.message.headers.get("telegram.update_id").unwrap().clone();
            let line =
                format!("{} {} {update}\n", std::process::id(), exchange.term.as_ref().unwrap().number());
            // One write to a file that is open for appending: lines of different processes do not mix.
            let mut file = OpenOptions::new().append(true).create(true).open(&records).unwrap();
            Box::pin(async move {
                // Long enough for a crash to come in the middle of a batch.
                sleep(Duration::from_millis(1)).await;
                Ok(file.write_all(line.as_bytes())?)
            })
        });
        let router = bactrian::router().cluster(cluster).route(route).build().unwrap();
        bactrian::run(&router).await
    });
    assert_eq!(outcome, Shutdown::Drained);
}
