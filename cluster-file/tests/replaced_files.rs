//! Whatever is done to the files: one leader at a time, and terms that grow, as long as a member remembers.
//!
//! The clock is paused; see `file_cluster.rs`. Members work under their terms for as long as they may.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_file::{FileCluster, FileClusterSettings};
use router_core::cluster::{ClusterService, LockName};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long a member needs at most to end, and how long the next one waits.
const ENDS: Duration = Duration::from_secs(3);
const SETTLE: Duration = Duration::from_secs(5);
/// For what is polled and not told.
const POLLS: Duration = Duration::from_millis(1200);

fn lock() -> LockName {
    "l0".parse().unwrap()
}

#[derive(Clone, Debug)]
struct Led {
    #[allow(dead_code, reason = "it is shown when a test fails")]
    member: String,
    term: u64,
    start: Instant,
    end: Option<Instant>,
}

/// Members that want one lock, in one directory.
struct Stage {
    _folder: TempDir,
    root: PathBuf,
    without_events: bool,
    led: Arc<Mutex<Vec<Led>>>,
    members: JoinSet<()>,
}

impl Stage {
    fn new(without_events: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let root = folder.path().join("locks");
        Self { root, _folder: folder, without_events, led: Arc::default(), members: JoinSet::new() }
    }

    fn file(&self) -> PathBuf {
        self.root.join("l0.lock")
    }

    fn aside(&self) -> PathBuf {
        self.root.with_file_name("aside")
    }

    async fn open(&self, id: &str) -> Arc<FileCluster> {
        let mut settings = FileClusterSettings::new(&self.root).member(id);
        settings.without_events = self.without_events;
        FileCluster::open(settings).await.unwrap()
    }

    /// Joins, and leads the lock whenever it can.
    async fn start(&mut self, id: &str) {
        let cluster = self.open(id).await;
        let (led, member) = (Arc::clone(&self.led), id.to_owned());
        self.members.spawn(async move {
            let view = cluster.view(&lock()).await.unwrap();
            loop {
                let scope = view.lead().await.unwrap();
                let term = scope.term().number();
                led.lock().unwrap().push(Led {
                    member: member.clone(),
                    term,
                    start: Instant::now(),
                    end: None,
                });
                scope.term().expired().await;
                let mut led = led.lock().unwrap();
                led.iter_mut().find(|led| led.term == term).unwrap().end = Some(Instant::now());
            }
        });
    }

    /// Waits until a term has begun that is the `count`th.
    async fn terms(&self, count: usize) -> Vec<Led> {
        let begun = async {
            loop {
                let led = self.led.lock().unwrap().clone();
                if led.len() >= count {
                    return led;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(60), begun).await.expect("no other term began")
    }

    /// One of two members leads, its file is moved aside, and the next one leads; returns where the file was, and
    /// is.
    async fn lead_in_turn(&mut self) -> (PathBuf, PathBuf) {
        self.start("a").await;
        self.start("b").await;
        self.terms(1).await;
        let (file, aside) = (self.file(), self.aside());
        fs::rename(&file, &aside).unwrap();
        self.terms(2).await;
        (file, aside)
    }

    /// Proves that terms did not overlap and grew.
    fn judge(&self) {
        let led = self.led.lock().unwrap().clone();
        for pair in led.windows(2) {
            let end = pair[0].end.unwrap_or_else(|| panic!("it never ended: {pair:#?}"));
            assert!(end <= pair[1].start, "two led at once: {pair:#?}");
            assert!(pair[0].term < pair[1].term, "the term fell: {pair:#?}");
        }
    }
}

/// Moves a file aside, lets the next member lead, and moves the file back by `back`.
async fn comes_back(without_events: bool, back: impl Fn(&Path, &Path)) {
    let mut stage = Stage::new(without_events);
    let (file, aside) = stage.lead_in_turn().await;
    back(&aside, &file);
    let returned = Instant::now();
    // It has not seen what was done to the file.
    stage.start("c").await;
    let led = stage.terms(3).await;
    assert!(led[2].start - returned >= ENDS, "{led:#?}");
    assert!(led[2].start - returned <= SETTLE + POLLS, "{led:#?}");
    stage.judge();
}

#[tokio::test(start_paused = true)]
async fn a_lock_file_that_comes_back_is_not_believed() {
    for without_events in [false, true] {
        comes_back(without_events, |aside, file| fs::rename(aside, file).unwrap()).await;
        comes_back(without_events, |aside, file| {
            fs::remove_file(file).unwrap();
            fs::hard_link(aside, file).unwrap();
        })
        .await;
        comes_back(without_events, |aside, file| {
            fs::remove_file(file).unwrap();
            fs::copy(aside, file).unwrap();
        })
        .await;
    }
}

/// What a leader writes when it releases would make its file look as if nothing had been done to it.
#[tokio::test(start_paused = true)]
async fn a_leader_that_lost_its_file_does_not_vouch_for_it() {
    let mut stage = Stage::new(false);
    let held_up = stage.open("a").await;
    let view = held_up.view(&lock()).await.unwrap();
    let scope = view.lead().await.unwrap();
    let (file, aside) = (stage.file(), stage.aside());
    fs::rename(&file, &aside).unwrap();
    scope.term().lost().await;
    stage.start("b").await;
    stage.terms(1).await;
    fs::rename(&aside, &file).unwrap();
    // As if it had been stopped until now.
    drop((view, scope));
    held_up.close().await;
    stage.start("c").await;
    stage.terms(2).await;
    stage.judge();
}

/// A file that is written to after it came back looks as if nothing had been done to it.
#[tokio::test(start_paused = true)]
async fn what_was_seen_counts_more_than_what_the_file_says() {
    let mut stage = Stage::new(false);
    let (file, aside) = stage.lead_in_turn().await;
    fs::rename(&aside, &file).unwrap();
    let text = fs::read(&file).unwrap();
    fs::write(&file, text).unwrap();
    stage.terms(3).await;
    stage.judge();
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_file_was_away_does_not_lead_on_when_it_is_back() {
    let mut stage = Stage::new(false);
    stage.start("a").await;
    stage.terms(1).await;
    let (file, aside) = (stage.file(), stage.aside());
    // Faster than it could look: only the events tell.
    fs::rename(&file, &aside).unwrap();
    fs::rename(&aside, &file).unwrap();
    stage.terms(2).await;
    stage.judge();
}

/// A member that did not look for a while, and finds its directory where it was, or a third one.
#[tokio::test(start_paused = true)]
async fn a_leader_of_a_directory_that_was_there_meanwhile_is_waited_for() {
    for (without_events, back) in [(false, false), (false, true), (true, false)] {
        let mut stage = Stage::new(without_events);
        let a = stage.open("a").await;
        drop(a.view(&lock()).await.unwrap().lead().await.unwrap());
        sleep(ENDS).await;
        fs::rename(&stage.root, stage.aside()).unwrap();
        stage.start("b").await;
        stage.terms(1).await;
        fs::rename(&stage.root, stage.aside().with_extension("2")).unwrap();
        if back {
            fs::rename(stage.aside(), &stage.root).unwrap();
        }
        let view = a.view(&lock()).await.unwrap();
        let scope = timeout(Duration::from_secs(60), view.lead()).await.unwrap().unwrap();
        let led = stage.led.lock().unwrap()[0].clone();
        assert!(led.end.is_some_and(|end| end <= Instant::now()), "{led:?}");
        drop(scope);
    }
}

#[tokio::test(start_paused = true)]
async fn the_file_of_another_lock_is_not_believed() {
    let mut stage = Stage::new(false);
    stage.start("a").await;
    stage.terms(1).await;
    let cluster = stage.open("other").await;
    let view = cluster.view(&"l1".parse().unwrap()).await.unwrap();
    let other = tokio::time::timeout(Duration::from_secs(20), view.lead()).await.unwrap().unwrap();
    drop((other, view));
    cluster.close().await;
    // As an editor does that writes a new file: the times do not tell.
    let other = fs::read(stage.root.join("l1.lock")).unwrap();
    fs::remove_file(stage.file()).unwrap();
    fs::write(stage.file(), other).unwrap();
    stage.start("c").await;
    stage.terms(2).await;
    stage.judge();
}

/// `rm -rf locks/*`, and what is made anew by a member that knows nothing.
#[tokio::test(start_paused = true)]
async fn a_root_that_is_emptied_under_members_has_one_leader_and_terms_that_grow() {
    for without_events in [false, true] {
        let mut stage = Stage::new(without_events);
        stage.start("a").await;
        stage.start("b").await;
        for round in 0..6 {
            stage.terms(round + 1).await;
            for entry in fs::read_dir(&stage.root).unwrap().flatten() {
                // A member may remove its own file at the same time.
                let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path()));
            }
            // It remembers nothing, and may well be the next one.
            let newcomer = format!("c{round}");
            fs::create_dir_all(stage.root.join("members")).unwrap();
            stage.start(&newcomer).await;
        }
        stage.terms(7).await;
        stage.judge();
    }
}

#[tokio::test(start_paused = true)]
async fn without_events_a_member_that_was_alone_does_not_stay_so_for_ever() {
    let mut stage = Stage::new(true);
    let alone = stage.open("a").await;
    stage.start("b").await;
    stage.terms(1).await;
    fs::remove_file(stage.file()).unwrap();
    let view = alone.view(&lock()).await.unwrap();
    let begun = Instant::now();
    view.lead().await.unwrap();
    assert!(begun.elapsed() >= ENDS, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_events_the_first_member_leads_at_once_and_the_next_one_soon_after() {
    let stage = Stage::new(true);
    let (a, b) = (stage.open("a").await, stage.open("b").await);
    let start = Instant::now();
    let on_a = a.view(&lock()).await.unwrap();
    let scope = on_a.lead().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "the first one waits for no other");
    let on_b = b.view(&lock()).await.unwrap();
    assert!(timeout(Duration::from_secs(60), on_b.lead()).await.is_err(), "two lead");
    let first = scope.term().number();
    drop((on_a, scope));
    let start = Instant::now();
    assert!(on_b.lead().await.unwrap().term().number() > first);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn terms_do_not_fall_when_the_numbers_are_restored_from_a_backup() {
    let mut stage = Stage::new(false);
    let terms = stage.root.join("terms");
    stage.start("a").await;
    stage.terms(1).await;
    let backup = fs::read(&terms).unwrap();
    for round in 0..4 {
        fs::remove_file(stage.file()).unwrap();
        stage.terms(round + 2).await;
    }
    fs::write(&terms, backup).unwrap();
    fs::remove_file(stage.file()).unwrap();
    stage.start("b").await;
    stage.terms(6).await;
    stage.judge();
}

/// It cannot know of the directory that was moved away, nor of its numbers.
#[tokio::test(start_paused = true)]
async fn a_member_that_starts_in_the_place_of_a_directory_has_terms_above_those_before() {
    for without_events in [false, true] {
        let stage = Stage::new(without_events);
        let lead = async |cluster: &FileCluster| {
            let view = cluster.view(&lock()).await.unwrap();
            (timeout(Duration::from_secs(1), view.lead()).await.unwrap().unwrap(), view)
        };
        let a = stage.open("a").await;
        let mut before = 0;
        for round in 0..3 {
            let (scope, _view) = lead(&a).await;
            assert!(scope.term().number() > before, "{round}");
            before = scope.term().number();
        }
        fs::rename(&stage.root, stage.aside()).unwrap();
        let b = stage.open("b").await;
        let (scope, _view) = lead(&b).await;
        let term = scope.term().number();
        assert!(term > before, "{term} after {before}");
        assert!(term < 1 << 53, "JSON holds it exactly");
    }
}

#[tokio::test(start_paused = true)]
async fn a_term_is_above_every_number_in_the_states() {
    let stage = Stage::new(false);
    let mut last = 0;
    for _ in 0..3 {
        let a = stage.open("a").await;
        let view = a.view(&lock()).await.unwrap();
        let scope = view.lead().await.unwrap();
        assert!(scope.term().number() > last);
        // More than time makes up for.
        last = scope.term().number() + 1_000_000_000_000;
        // What a route stores is stored, and is what it reads.
        scope.term().states().store("poll", &last.into()).await.unwrap();
        assert_eq!(scope.term().states().load("poll").await.unwrap(), Some(last.into()));
        drop((scope, view));
        a.close().await;
        let states = stage.root.join("states/l0.json");
        let text = fs::read_to_string(&states).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["term"] = last.into();
        fs::write(&states, value.to_string()).unwrap();
        fs::remove_file(stage.file()).unwrap();
        fs::remove_file(stage.root.join("terms")).unwrap();
    }
    // The numbers are there, and too small.
    fs::write(stage.root.join("terms"), "1\n").unwrap();
    let a = stage.open("a").await;
    assert!(a.view(&lock()).await.unwrap().lead().await.unwrap().term().number() > last);
}

/// A leader of a version that needs longer to end is waited for, wherever it says so.
#[tokio::test(start_paused = true)]
async fn what_counts_is_how_long_the_leader_needs_to_end() {
    for forgotten in ["no file", "the members", "the records"] {
        let stage = Stage::new(false);
        let mut slow = FileClusterSettings::new(&stage.root).member("slow");
        slow.timing.recheck = Duration::from_secs(8);
        slow.timing.drain = Duration::from_secs(12);
        let slow = FileCluster::open(slow).await.unwrap();
        let led = slow.view(&lock()).await.unwrap().lead().await.unwrap();
        if forgotten == "the records" {
            fs::write(stage.file(), "").unwrap();
        }
        let b = stage.open("b").await;
        let view = b.view(&lock()).await.unwrap();
        assert!(timeout(Duration::from_secs(10), view.lead()).await.is_err());
        if forgotten == "the members" {
            fs::remove_file(stage.root.join("members/slow")).unwrap();
        }
        fs::remove_file(stage.file()).unwrap();
        let begun = Instant::now();
        led.term().lost().await;
        drop(led);
        view.lead().await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(20), "{forgotten}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn without_events_a_member_that_was_alone_waits_for_a_file_after_it_lost_one() {
    let stage = Stage::new(true);
    let alone = stage.open("a").await;
    let view = alone.view(&lock()).await.unwrap();
    let scope = view.lead().await.unwrap();
    let first = scope.term().number();
    fs::rename(stage.file(), stage.aside()).unwrap();
    scope.term().lost().await;
    drop(scope);
    let begun = Instant::now();
    let scope = timeout(Duration::from_secs(60), view.lead()).await.unwrap().unwrap();
    assert!(begun.elapsed() >= ENDS, "{:?}", begun.elapsed());
    assert!(scope.term().number() > first);
}
