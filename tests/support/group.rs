//! [`Group`]: members of which one leads, and what happens to leaders; and the [`Story`] that comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use bactrian::cluster_file;
use bactrian::prelude::*;
use rustix::process::Signal;
use tokio::time::sleep;

use super::{Member, Stage};

/// How leaders end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Killed,
    Stopped,
    PausedAndKilled,
    Paused,
}

/// All of them.
pub(crate) const ANY_FATE: &[Fate] = &[Fate::Killed, Fate::Stopped, Fate::PausedAndKilled, Fate::Paused];
/// Those after which nothing may come twice.
pub(crate) const GRACEFUL: &[Fate] = &[Fate::Stopped, Fate::Paused];

/// Three processes that want the same lock.
pub(crate) struct Group<'a> {
    stage: &'a Stage,
    program: &'a str,
    variables: &'a [(&'a str, String)],
    members: Vec<Member>,
    pub(crate) random: fastrand::Rng,
    /// The leaders that were killed.
    pub(crate) killed: BTreeSet<u32>,
    pub(crate) fates: BTreeMap<String, usize>,
}

/// A number from the environment.
pub(crate) fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|number| number.parse().ok())
}

impl<'a> Group<'a> {
    /// Starts three members that run `program`. What is random comes from `SEED`, or from a seed that is
    /// printed.
    pub(crate) fn start(stage: &'a Stage, program: &'a str, variables: &'a [(&'a str, String)]) -> Self {
        let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
        println!("repeat with SEED={seed}");
        let mut group = Self {
            stage,
            program,
            variables,
            members: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            killed: BTreeSet::new(),
            fates: BTreeMap::new(),
        };
        group.fill();
        group
    }

    /// Starts members until there are three.
    pub(crate) fn fill(&mut self) {
        while self.members.len() < 3 {
            self.members.push(self.stage.spawn(self.program, self.variables));
        }
    }

    /// Lets the leader meet one of these fates, if there is a leader. A pause lasts `pause`.
    pub(crate) async fn end_leader(&mut self, fates: &[Fate], pause: Duration) {
        let leaders = cluster_file::leaders(self.stage.locks()).unwrap_or_default();
        let leader = leaders.first().and_then(|leader| leader.pid);
        let Some(leader) = self.members.iter().position(|member| Some(member.id()) == leader) else {
            return;
        };
        let fate = fates[self.random.usize(..fates.len())];
        *self.fates.entry(format!("{fate:?}")).or_default() += 1;
        if matches!(fate, Fate::Paused | Fate::PausedAndKilled) {
            self.members[leader].signal(Signal::STOP);
            sleep(pause).await;
        }
        match fate {
            Fate::Paused => self.members[leader].signal(Signal::CONT),
            Fate::Stopped => assert!(terminate(self.members.swap_remove(leader)).await.success()),
            Fate::Killed | Fate::PausedAndKilled => {
                let member = self.members.swap_remove(leader);
                self.killed.insert(member.id());
                member.kill();
            }
        }
        self.fill();
    }

    /// Lets leaders meet these fates until all of `1..=last` is done.
    pub(crate) async fn end_leaders_until_done(&mut self, fates: &[Fate], last: usize) {
        // Each may be stored and synced to a disk on which others work.
        let patience = Instant::now() + Duration::from_secs(120) + Duration::from_millis(50 * last as u64);
        let file = self.stage.records_file();
        while done(&file).iter().map(|done| done.number).collect::<BTreeSet<_>>().len() < last {
            assert!(Instant::now() < patience, "not all of {last} is done");
            sleep(Duration::from_millis(self.random.u64(20..250))).await;
            if !fates.is_empty() {
                self.end_leader(fates, Duration::from_millis(60)).await;
            }
        }
    }

    /// Asks all members to stop, and waits for them.
    pub(crate) async fn stop(&mut self) {
        for member in self.members.drain(..) {
            let status = terminate(member).await;
            // Who has just been started does not listen to signals yet. A leader does.
            assert!(status.success() || status.signal() == Some(Signal::TERM.as_raw()), "{status}");
        }
    }

    /// What has happened.
    pub(crate) fn story(self) -> Story {
        Story { done: done(&self.stage.records_file()), killed: self.killed, fates: self.fates }
    }
}

async fn terminate(member: Member) -> ExitStatus {
    member.signal(Signal::TERM);
    tokio::task::spawn_blocking(|| member.wait()).await.unwrap()
}

/// An exchange that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) member: u32,
    pub(crate) term: u64,
    pub(crate) number: usize,
}

/// All exchanges that have ended, in the order in which they did.
fn done(records: &Path) -> Vec<Done> {
    let text = std::fs::read_to_string(records).unwrap_or_default();
    let read = |line: &str| {
        let numbers = line.split(' ').map(|number| number.parse::<u64>().ok()).collect::<Option<Vec<_>>>()?;
        let [member, term, number] = numbers[..] else { return None };
        Some(Done { member: u32::try_from(member).ok()?, term, number: usize::try_from(number).ok()? })
    };
    text.lines().map(|line| read(line).unwrap()).collect()
}

/// What was done, and what happened to those who did it.
pub(crate) struct Story {
    pub(crate) done: Vec<Done>,
    killed: BTreeSet<u32>,
    fates: BTreeMap<String, usize>,
}

impl Story {
    /// Proves that nothing of `1..=last` was lost and that all was in order; returns for each term what of it
    /// came again later. Only what a killed leader did may come again.
    pub(crate) fn judge(&self, last: usize) -> BTreeMap<u64, Vec<usize>> {
        let all = self.done.iter().map(|done| done.number).collect::<BTreeSet<_>>();
        assert!(all.into_iter().eq(1..=last), "something was lost");
        for pair in self.done.windows(2) {
            assert!(pair[0].term <= pair[1].term, "two leaders at once: {pair:?}");
            let ordered = pair[0].term != pair[1].term
                || (pair[0].number < pair[1].number && pair[0].member == pair[1].member);
            assert!(ordered, "not in order: {pair:?}");
        }
        let mut latest: BTreeMap<usize, u64> = BTreeMap::new();
        let mut repeated: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for done in &self.done {
            if let Some(earlier) = latest.insert(done.number, done.term) {
                repeated.entry(earlier).or_default().push(done.number);
            }
        }
        let terms = self.done.iter().map(|done| done.term).collect::<BTreeSet<_>>().len();
        let count = repeated.values().map(Vec::len).sum::<usize>();
        println!("{last} in {terms} terms, {:?}: {count} came twice", self.fates);
        for term in repeated.keys() {
            let member = self.done.iter().find(|done| done.term == *term).unwrap().member;
            let killed = self.killed.contains(&member);
            assert!(killed, "term {term} ended in order, and was repeated: {repeated:?}");
        }
        repeated
    }
}

/// The program of a member: below the lock it polls what `MEMBER_URI` names, sends it to `MEMBER_TO`, and
/// notes the `number` of each exchange that has ended. The exchange with the number `MEMBER_HOLDS_UP` is held
/// up for ever after that.
pub(crate) fn poll(number: fn(&Exchange) -> String) {
    let variable = |name: &str| std::env::var(name).unwrap();
    let records = variable("MEMBER_RECORDS");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let cluster = FileCluster::open(super::cluster_settings()).await.unwrap();
        let uri = format!("master:lock1:{}", variable("MEMBER_URI"));
        let mut route = from(uri).id("poller");
        if let Ok(to) = std::env::var("MEMBER_TO") {
            route = route.to(to);
        }
        let holds_up = std::env::var("MEMBER_HOLDS_UP").ok();
        let route = route.process_async(move |exchange| {
            let (term, number) = (exchange.term.as_ref().unwrap().number(), number(exchange));
            let line = format!("{} {term} {number}\n", std::process::id());
            let held_up = holds_up.as_ref() == Some(&number);
            // One write to a file that is open for appending: lines of different processes do not mix.
            let mut file = OpenOptions::new().append(true).create(true).open(&records).unwrap();
            Box::pin(async move {
                // Long enough for a crash to come in the middle of a batch.
                sleep(Duration::from_millis(1)).await;
                file.write_all(line.as_bytes())?;
                if held_up {
                    std::future::pending::<()>().await;
                }
                Ok(())
            })
        });
        let router = bactrian::router().cluster(cluster).route(route).build().unwrap();
        bactrian::run(&router).await
    });
    assert_eq!(outcome, ShutdownOutcome::Drained);
}
