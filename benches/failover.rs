//! How long a lock has no leader after `kill -9`.
//!
//! Three processes run the same 1,000 `master:` routes, each with a lock of its own. In each round a
//! process that leads is killed, and for each lock that it led we measure the time on CLOCK_MONOTONIC
//! from just before the kill to the first exchange in another process. `spread`: each process leads a
//! third. `one`: the killed process leads all.
//!
//! ```text
//! cargo bench --bench failover              # 20 rounds of each
//! cargo bench --bench failover -- 50 1000   # rounds, locks
//! ```

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bactrian::prelude::*;
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, BoxError>;

const MEMBERS: usize = 3;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["member", root, first, end, locks] => member(root, first.parse()?, end.parse()?, locks.parse()?),
        // As a test it only shows that it works.
        [] | ["--test"] => measure_all(1, 30),
        ["--bench"] => measure_all(20, 1000),
        [rounds, "--bench"] => measure_all(rounds.parse()?, 1000),
        [rounds, locks, "--bench"] => measure_all(rounds.parse()?, locks.parse()?),
        _ => Err("usage: failover [ROUNDS [LOCKS]] --bench".into()),
    }
}

fn measure_all(rounds: usize, locks: usize) -> Outcome<()> {
    let root = tempfile::tempdir()?;
    println!("{locks} locks, {MEMBERS} processes, {rounds} rounds: from kill -9 to the next exchange, in ms");
    println!(
        "{:8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "leaders", "samples", "min", "p50", "p90", "p99", "max"
    );
    for name in ["spread", "one"] {
        let mut times = Vec::new();
        for round in 0..rounds {
            let (led, victim): (Vec<_>, _) = match name {
                "one" => (vec![0..locks, 0..0, 0..0], 0),
                _ => (
                    (0..MEMBERS).map(|i| i * locks / MEMBERS..(i + 1) * locks / MEMBERS).collect(),
                    round % MEMBERS,
                ),
            };
            times.extend(measure(root.path(), locks, &led, victim)?);
        }
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100] as f64 / 1e6;
        let [min, p50, p90, p99, max] = [at(0), at(50), at(90), at(99), at(100)];
        println!("{name:8} {:8} {min:8.2} {p50:8.2} {p90:8.2} {p99:8.2} {max:8.2}", times.len());
    }
    Ok(())
}

/// One round: the times, in nanoseconds, after which the locks of the victim have a leader again.
fn measure(root: &Path, locks: usize, led: &[std::ops::Range<usize>], victim: usize) -> Outcome<Vec<u64>> {
    let mut members = Vec::new();
    for range in led {
        members.push(Process::start(root, range, locks)?);
    }
    // Each leads what it should before anybody wants more.
    for (process, range) in members.iter_mut().zip(led) {
        process.expect_leading(range.len())?;
    }
    for process in &mut members {
        process.say("all")?;
    }
    for process in &mut members {
        process.expect("ready")?;
    }
    // What the start has caused is over, and standbys have numbers for terms in hand.
    std::thread::park_timeout(Duration::from_millis(1500));

    let mut dying = members.remove(victim);
    let killed_at = now_nanoseconds()?;
    dying.child.kill()?;
    let (sender, receiver) = mpsc::channel();
    for process in &mut members {
        process.report_to(sender.clone());
    }
    let mut times = HashMap::new();
    while times.len() < led[victim].len() {
        let (lock, at) = receiver.recv_timeout(Duration::from_secs(30))?;
        if led[victim].contains(&lock) {
            times.insert(lock, at - killed_at);
        }
    }
    dying.child.wait()?;
    Ok(times.into_values().collect())
}

/// A member, as the measuring process sees it.
struct Process {
    child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Process {
    fn start(root: &Path, range: &std::ops::Range<usize>, locks: usize) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("member")
            .arg(root)
            .args([range.start, range.end, locks].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Ok(Self { child, lines })
    }

    fn next_line(&mut self) -> Outcome<String> {
        Ok(self.lines.as_mut().and_then(Iterator::next).ok_or("a member ended early")??)
    }

    fn expect(&mut self, line: &str) -> Outcome<()> {
        while self.next_line()? != line {}
        Ok(())
    }

    fn expect_leading(&mut self, locks: usize) -> Outcome<()> {
        for _ in 0..locks {
            self.next_line()?;
        }
        Ok(())
    }

    fn say(&mut self, line: &str) -> Outcome<()> {
        Ok(writeln!(self.child.stdin.as_mut().ok_or("no stdin")?, "{line}")?)
    }

    /// Sends which lock it leads from when on, until it ends.
    fn report_to(&mut self, sender: mpsc::Sender<(usize, u64)>) {
        let lines = self.lines.take();
        std::thread::spawn(move || {
            for line in lines.into_iter().flatten().map_while(Result::ok) {
                let Some((lock, at)) = line.split_once(' ') else { continue };
                let (Ok(lock), Ok(at)) = (lock.parse(), at.parse()) else { continue };
                if sender.send((lock, at)).is_err() {
                    return;
                }
            }
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is just as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A member: runs the routes of `first..end`, then on a line of input all of them, and prints each
/// exchange with its time. There is one exchange for each term.
#[tokio::main]
async fn member(root: &str, first: usize, end: usize, locks: usize) -> Outcome<()> {
    let cluster = FileCluster::open(FileClusterSettings::new(root)).await?;
    let (sender, receiver) = mpsc::channel();
    // Printing could block: the time is taken before, and the pipe is filled by a thread of its own.
    std::thread::spawn(move || {
        let mut output = std::io::stdout().lock();
        // The measuring process may have seen enough, and be gone.
        while receiver.recv().is_ok_and(|line| writeln!(output, "{line}").is_ok()) {}
    });
    let route = |lock: usize| {
        let lines = sender.clone();
        from(format!("master:lock-{lock}:timer:once?delay=0&period=0"))
            .id(lock.to_string())
            .auto_startup((first..end).contains(&lock))
            .process(move |_| Ok(lines.send(format!("{lock} {}", now_nanoseconds()?))?))
    };
    let router = bactrian::router().cluster(cluster).routes((0..locks).map(route)).build()?;
    let _ = router
        .run_until(async {
            tokio::task::spawn_blocking(|| std::io::stdin().lock().read_line(&mut String::new()))
                .await
                .expect("reading a line does not panic")
                .expect("the measuring process is there");
            for lock in (0..locks).filter(|lock| !(first..end).contains(lock)) {
                router.start_route(&lock.to_string()).await.expect("the route exists");
            }
            // All of them have their turn before this timer.
            tokio::time::sleep(Duration::from_millis(200)).await;
            sender.send("ready".to_owned()).expect("the thread receives");
            std::future::pending().await
        })
        .await;
    Ok(())
}

fn now_nanoseconds() -> Outcome<u64> {
    let now = clock_gettime(ClockId::Monotonic);
    Ok(u64::try_from(now.tv_sec)? * 1_000_000_000 + u64::try_from(now.tv_nsec)?)
}
