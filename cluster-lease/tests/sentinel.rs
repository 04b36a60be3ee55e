//! The deadline holds although the runtime stands still: in real time, with the fast clock of this
//! machine and a timing as short as it can be.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and blocks on purpose")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use cluster_lease::{
    Clock, Clocks, Faults, LeaseCluster, LeaseClusterSettings, MemoryStore, Settings, Span, SystemClock,
};
use router_core::cluster::{ClusterService, LockName, Member, Term, TermEnd};
use tokio::runtime::Builder;

const X: Duration = Duration::from_millis(1_500);
const Y: Duration = Duration::from_millis(1_000);
const STOP: Duration = Duration::from_millis(400);
const T: Duration = Duration::from_millis(300);

fn settings(name: &str) -> LeaseClusterSettings {
    LeaseClusterSettings::new(Member::new(name)).timing(Settings::new(X, Y, STOP, T, 10_000).unwrap())
}

fn lock() -> LockName {
    "lock1".parse().unwrap()
}

#[test]
fn a_term_ends_at_its_deadline_while_the_runtime_is_blocked() {
    let store = MemoryStore::new();
    store.create_free(&lock());
    let handle = store.handle(1);
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let cluster = LeaseCluster::start(handle.clone(), settings("a").strict(false)).unwrap();
        let view = cluster.view(&lock()).await.unwrap();
        let scope = view.lead().await.unwrap();
        // What counts is when a heartbeat was sent, not when its echo came.
        let late = Span::exactly(Duration::from_millis(250));
        handle.link().set(Faults { watch_delay: late, ..Faults::default() });
        tokio::time::sleep(T * 5).await;
        let term = scope.term().clone();
        let writes = handle.link().requests().writes;
        while handle.link().requests().writes == writes {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let sent = Instant::now();
        tokio::time::sleep(Duration::from_millis(280)).await;
        let observer = thread::spawn(move || {
            while term.is_valid() {
                thread::sleep(Duration::from_micros(200));
            }
            (Instant::now(), term)
        });
        let lost = scope.term().clone();
        let sleeper = thread::spawn(move || {
            // Another runtime stands for whoever can still be woken.
            Builder::new_current_thread().enable_time().build().unwrap().block_on(lost.lost());
            Instant::now()
        });
        thread::sleep(X);
        let (ended, _term) = observer.join().unwrap();
        let woken = sleeper.join().unwrap();
        for (what, at) in [("the check", ended), ("the wake-up", woken)] {
            let after = at - sent;
            // The observer may be late on a busy machine, but by less than the echo was.
            assert!(Y - T <= after && after <= Y + Duration::from_millis(150), "{what}: {after:?}");
        }
        // So said the sentinel: nobody else has run.
        assert_eq!(scope.term().ended(), Some(TermEnd::Expired));
        drop(scope);
    });
}

/// Not a test of its own: what the next one runs in a process that may die.
#[test]
fn child_that_blocks_its_runtime_under_a_term() {
    let Ok(strict) = std::env::var("BLOCKED_CHILD_STRICT") else { return };
    if std::env::var("BLOCKED_CHILD_LOG").is_ok() {
        tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    }
    let store = MemoryStore::new();
    store.create_free(&lock());
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut settings = settings("a").strict(strict == "true");
        if std::env::var("BLOCKED_CHILD_CLOCK").is_ok() {
            settings = settings.clock(Arc::new(ClockThatPanics::default()));
        }
        let cluster = LeaseCluster::start(store.handle(1), settings).unwrap();
        let view = cluster.view(&lock()).await.unwrap();
        let scope = view.lead().await.unwrap();
        thread::sleep(X * 2);
        assert!(!scope.term().is_valid());
    });
}

/// Not a test of its own: what another one suspends.
#[test]
fn child_that_works_under_a_term_until_it_is_dropped() {
    if std::env::var("SUSPENDED_CHILD").is_err() {
        return;
    }
    let store = MemoryStore::new();
    store.create_free(&lock());
    let clock = Arc::new(StandingClock::default());
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let cluster = LeaseCluster::start(store.handle(1), settings("a").clock(clock.clone())).unwrap();
        let view = cluster.view(&lock()).await.unwrap();
        let scope = view.lead().await.unwrap();
        clock.term.set((SystemClock.leader(), scope.term().clone())).unwrap();
        if !scope.term().is_valid() {
            // It had so little of the processor that its term was over before its clock stood.
            return;
        }
        let resumed = clock.clone();
        thread::spawn(move || {
            std::io::stdin().read_line(&mut String::new()).unwrap();
            resumed.resumed.set(SystemClock.leader()).unwrap();
        });
        eprintln!("leading");
        scope.term().expired().await;
        while !clock.has_seen_work.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(1));
        }
        eprintln!("the work was dropped");
        drop(scope);
        tokio::time::sleep(X * 20).await;
    });
}

/// A child that leads, and what it says after that.
fn child_that_leads() -> Option<(Child, impl Iterator<Item = String>)> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_that_works_under_a_term_until_it_is_dropped", "--nocapture"])
        .env("SUSPENDED_CHILD", "1");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    if lines.any(|line| line.contains("leading")) {
        return Some((child, lines));
    }
    child.wait().unwrap();
    None
}

#[test]
fn a_process_that_was_suspended_past_its_time_says_so_and_what_it_dropped_before_it_ends() {
    let (mut child, lines) = (0..10).find_map(|_| child_that_leads()).unwrap();
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &child.id().to_string()]).status();
        assert!(status.unwrap().success());
    };
    signal("-STOP");
    thread::sleep(X);
    signal("-CONT");
    // Its clock goes on.
    drop(child.stdin.take());
    let said = lines.collect::<Vec<_>>();
    assert_eq!(child.wait().unwrap().signal(), Some(6), "{said:?}");
    let [dropped, last] = &said[..] else { panic!("{said:?}") };
    assert_eq!(dropped, "the work was dropped");
    assert!(last.contains("this process did not run from before the end of term "), "{last}");
    assert!(last.ends_with("work under `lock1` may not be finished: this process ends now"), "{last}");
}

/// The clock of this machine, which stands from when there is a term, and then shows the sentinel at once how long the
/// process was suspended. So it does not matter how little of the processor the process gets: no term ends before it
/// is suspended, only the sentinel ends it after that, and the last words have all the time that they need.
#[derive(Default)]
struct StandingClock {
    /// The term, and when it was granted.
    term: OnceLock<(Duration, Term)>,
    resumed: OnceLock<Duration>,
    /// The sentinel has ended the term, has seen that there is work, and waits for its end.
    has_seen_work: AtomicBool,
}

impl Clock for StandingClock {
    fn now(&self) -> Clocks {
        Clocks::both(self.leader())
    }

    fn leader(&self) -> Duration {
        let Some((granted, term)) = self.term.get() else { return SystemClock.leader() };
        if thread::current().name() != Some("lease-sentinel") {
            return *granted;
        }
        if term.ended().is_some() {
            self.has_seen_work.store(true, Ordering::Release);
        }
        *self.resumed.get().unwrap_or(granted)
    }
}

/// The clock of this machine, which panics three times in the sentinel, early in a term.
#[derive(Default)]
struct ClockThatPanics {
    asked: AtomicU32,
}

impl Clock for ClockThatPanics {
    fn now(&self) -> Clocks {
        SystemClock.now()
    }

    fn leader(&self) -> Duration {
        let in_sentinel = thread::current().name() == Some("lease-sentinel");
        let asked = if in_sentinel { self.asked.fetch_add(1, Ordering::Relaxed) } else { 0 };
        assert!(!(10..13).contains(&asked), "this clock is broken");
        SystemClock.leader()
    }
}

fn child(strict: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_that_blocks_its_runtime_under_a_term", "--nocapture"])
        .env("BLOCKED_CHILD_STRICT", strict.to_string());
    command
}

fn run_child(strict: bool) -> (std::process::Output, Duration) {
    let started = Instant::now();
    let output = child(strict).output().unwrap();
    (output, started.elapsed())
}

#[test]
fn a_strict_process_does_not_outlive_its_term_and_another_does() {
    let (output, lived) = run_child(true);
    assert_eq!(output.status.signal(), Some(6), "it was aborted: {output:?}");
    assert!(lived < X * 2, "{lived:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("work under `lock1`, term ") && text.contains("outlives its leadership"), "{text}");
    let (output, _) = run_child(false);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_last_words_of_a_process_that_has_a_log_are_a_line_of_it() {
    let output = child(true).env("BLOCKED_CHILD_LOG", "json").output().unwrap();
    assert_eq!(output.status.signal(), Some(6), "it was aborted: {output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    let last = text.lines().filter(|line| line.contains("outlives")).collect::<Vec<_>>();
    let [last] = last[..] else { panic!("{text}") };
    let line = serde_json::from_str::<serde_json::Value>(last).unwrap();
    assert_eq!(line["level"], "ERROR");
    let message = line["fields"]["message"].as_str().unwrap();
    assert!(message.ends_with("outlives its leadership: this process ends now"), "{message}");
}

#[test]
fn a_strict_process_whose_standard_error_is_closed_does_not_outlive_its_term() {
    let started = Instant::now();
    let mut child = child(true).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().signal(), Some(6));
    assert!(started.elapsed() < X * 2, "{:?}", started.elapsed());
}

/// Also what a process without strictness needs: its sentinel goes on with the other terms.
#[test]
fn a_process_whose_standard_error_is_full_does_not_outlive_its_term_if_it_is_strict() {
    for strict in [true, false] {
        let started = Instant::now();
        let mut child = child(strict).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let fill = format!("timeout 0.5 head -c 1000000 /dev/zero > /proc/{}/fd/2", child.id());
        // Ends by its time limit, because nobody reads.
        assert_eq!(Command::new("sh").arg("-c").arg(fill).status().unwrap().code(), Some(124));
        let status = child.wait().unwrap();
        if strict {
            assert_eq!(status.signal(), Some(6), "{status:?}");
            assert!(started.elapsed() < X * 2, "{:?}", started.elapsed());
        } else {
            assert!(status.success(), "{status:?}");
        }
    }
}

#[test]
fn a_sentinel_that_panics_ends_a_strict_process_and_looks_again_in_another() {
    let run = |strict| child(strict).env("BLOCKED_CHILD_CLOCK", "1").output().unwrap();
    let (strict, other) = (run(true), run(false));
    for output in [&strict, &other] {
        assert!(String::from_utf8_lossy(&output.stderr).contains("this clock is broken"), "{output:?}");
    }
    assert_eq!(strict.status.signal(), Some(6), "{strict:?}");
    assert!(!String::from_utf8_lossy(&strict.stderr).contains("outlives"), "{strict:?}");
    assert!(other.status.success(), "{other:?}");
}
