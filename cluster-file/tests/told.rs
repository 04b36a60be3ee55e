//! What views and tools are told: never a leader that has ended, never a term below one that was seen.
//!
//! The clock is paused; see `file_cluster.rs`.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cluster_file::{FileCluster, FileClusterSettings, FileOperator, leaders, locks, survey};
use router_core::cluster::{ClusterService, ClusterView, Leadership, LockName, Operator};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

fn lock() -> LockName {
    "l0".parse().unwrap()
}

struct Stage {
    _folder: TempDir,
    root: PathBuf,
    without_events: bool,
}

impl Stage {
    fn new(without_events: bool) -> Self {
        let folder = TempDir::new().unwrap();
        Self { root: folder.path().join("locks"), _folder: folder, without_events }
    }

    async fn open(&self, id: &str) -> Arc<FileCluster> {
        let mut settings = FileClusterSettings::new(&self.root).member(id);
        settings.without_events = self.without_events;
        FileCluster::open(settings).await.unwrap()
    }

    fn file(&self) -> PathBuf {
        self.root.join("l0.lock")
    }

    fn record(&self) -> Value {
        serde_json::from_slice(&fs::read(self.file()).unwrap()).unwrap()
    }

    /// Leaves what a leader leaves that was killed: the record of a term that says that it leads.
    async fn was_led_by(&self, member: &str, pid: Option<u32>) -> u64 {
        let cluster = self.open(member).await;
        let view = cluster.view(&lock()).await.unwrap();
        let term = view.lead().await.unwrap().term().number();
        drop(view);
        cluster.close().await;
        let mut record = self.record();
        record["leading"] = true.into();
        record["pid"] = pid.into();
        fs::write(self.file(), format!("{record}\n")).unwrap();
        term
    }
}

/// The number of a process that has ended.
fn dead_process() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

fn why(view: &ClusterView) -> String {
    match view.leadership() {
        Leadership::Vacant(vacancy) => vacancy.why().to_string(),
        other => panic!("not vacant: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_killed_is_not_told_as_the_leader_while_the_next_one_waits_for_a_number() {
    for (without_events, pid) in [(false, None), (true, None), (false, Some(dead_process()))] {
        let stage = Stage::new(without_events);
        let killed = stage.was_led_by("killed", pid).await;
        let numbers = fs::File::open(stage.root.join(".terms-lock")).unwrap();
        numbers.lock().unwrap();
        let members = [stage.open("a").await, stage.open("b").await, stage.open("c").await];
        let mut views = Vec::new();
        for member in &members {
            views.push(member.view(&lock()).await.unwrap());
        }
        for _ in 0..400 {
            sleep(Duration::from_millis(10)).await;
            assert!(leaders(&stage.root).unwrap().is_empty());
            for view in &views {
                assert!(matches!(view.leadership(), Leadership::Vacant(_)), "{:?}", view.leadership());
            }
        }
        for view in &views {
            assert!(why(view).contains(".terms-lock"), "{}", why(view));
        }
        sleep(Duration::from_secs(5)).await;
        for member in &members {
            assert!(member.unable().unwrap().contains(".terms-lock"));
        }
        numbers.unlock().unwrap();
        let led = async {
            while !leaders(&stage.root).unwrap().iter().any(|record| record.term > killed) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), led).await.unwrap();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(members[0].unable(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_drained_says_so_whoever_led_before() {
    let stage = Stage::new(false);
    let (a, b) = (stage.open("a").await, stage.open("b").await);
    let (on_a, on_b) = (a.view(&lock()).await.unwrap(), b.view(&lock()).await.unwrap());
    let scope = on_a.lead().await.unwrap();
    sleep(Duration::from_secs(2)).await;
    fs::write(stage.root.join("b.drain"), "{}").unwrap();
    sleep(Duration::from_secs(2)).await;
    fs::write(stage.root.join("a.drain"), "{}").unwrap();
    scope.term().lost().await;
    drop(scope);
    for _ in 0..30 {
        sleep(Duration::from_millis(100)).await;
        for view in [&on_a, &on_b] {
            assert_eq!(why(view), "this member is drained, so another one must take it");
        }
    }
    fs::remove_file(stage.root.join("b.drain")).unwrap();
    timeout(Duration::from_secs(20), on_b.lead()).await.unwrap().unwrap();
}

/// How long a stopped process keeps the directory that was the root is not known, so no time is told.
#[tokio::test(start_paused = true)]
async fn those_that_keep_a_former_root_are_named_and_no_time_is_promised() {
    let stage = Stage::new(false);
    let a = stage.open("a").await;
    let view = a.view(&lock()).await.unwrap();
    let scope = view.lead().await.unwrap();
    let stopped = fs::File::open(&stage.root).unwrap();
    stopped.lock_shared().unwrap();
    fs::rename(&stage.root, stage.root.with_extension("away")).unwrap();
    scope.term().lost().await;
    drop(scope);
    sleep(Duration::from_secs(2)).await;
    let told = why(&view);
    assert!(told.starts_with("this member waits until those have ended or joined this one: "), "{told}");
    assert!(told.contains(&format!("process {}", std::process::id())), "{told}");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(why(&view), told);
    drop(stopped);
    timeout(Duration::from_secs(20), view.lead()).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_time_that_no_leader_needs_is_not_waited_for() {
    for milliseconds in [u64::MAX, 1 << 40] {
        let stage = Stage::new(false);
        fs::create_dir_all(stage.root.join("members")).unwrap();
        let ghost = stage.root.join("members/ghost");
        fs::write(&ghost, format!(r#"{{"format":2,"id":"ghost","ends_within_ms":{milliseconds}}}"#)).unwrap();
        let (ghost, root) = (fs::File::open(&ghost).unwrap(), fs::File::open(&stage.root).unwrap());
        ghost.lock().unwrap();
        root.lock_shared().unwrap();
        let a = stage.open("a").await;
        let view = a.view(&lock()).await.unwrap();
        assert!(timeout(Duration::from_secs(590), view.lead()).await.is_err(), "ten minutes are believed");
        timeout(Duration::from_secs(30), view.lead()).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_lock_of_a_program_that_is_no_member_does_not_make_a_killed_leader_one() {
    for without_events in [false, true] {
        let stage = Stage::new(without_events);
        stage.was_led_by("killed", Some(dead_process())).await;
        let mut stranger = Command::new("flock")
            .args(["-x", stage.file().to_str().unwrap(), "-c", "echo; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read(stranger.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let a = stage.open("a").await;
        let view = a.view(&lock()).await.unwrap();
        for _ in 0..500 {
            sleep(Duration::from_millis(10)).await;
            assert!(matches!(view.leadership(), Leadership::Vacant(_)), "{:?}", view.leadership());
        }
        assert!(leaders(&stage.root).unwrap().is_empty());
        let obstacle = locks(&stage.root).unwrap()[0].obstacle.clone().unwrap();
        assert!(obstacle.contains("locked by"), "{obstacle}");
        assert!(why(&view).contains("no member"), "{}", why(&view));
        drop(stranger.stdin.take());
        stranger.wait().unwrap();
        timeout(Duration::from_secs(20), view.lead()).await.unwrap().unwrap();
    }
}

/// `ln`, or a backup that keeps the same content once.
#[tokio::test(start_paused = true)]
async fn a_link_to_the_file_of_another_lock_does_not_make_the_leader_of_that_one_its_own() {
    for without_events in [false, true] {
        let stage = Stage::new(without_events);
        let (a, b) = (stage.open("a").await, stage.open("b").await);
        let other = a.view(&"other".parse().unwrap()).await.unwrap();
        let scope = timeout(Duration::from_secs(20), other.lead()).await.unwrap().unwrap();
        fs::hard_link(stage.root.join("other.lock"), stage.file()).unwrap();
        let view = b.view(&lock()).await.unwrap();
        for _ in 0..500 {
            sleep(Duration::from_millis(10)).await;
            assert!(matches!(view.leadership(), Leadership::Vacant(_)), "{:?}", view.leadership());
        }
        assert!(why(&view).contains("has the record of `other` in it"), "{}", why(&view));
        let seen = survey(&stage.root).unwrap();
        assert_eq!(seen.locks.iter().map(|record| &record.lock).collect::<Vec<_>>(), ["other"]);
        let obstacle = seen.unled[0].obstacle.clone().unwrap();
        assert!(obstacle.contains("has the record of `other` in it"), "{obstacle}");
        let operator = FileOperator::open(&stage.root).unwrap();
        let error = operator.hand_over(&lock(), Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains("nobody leads `l0`"), "{error}");
        fs::remove_file(stage.file()).unwrap();
        timeout(Duration::from_secs(20), view.lead()).await.unwrap().unwrap();
        assert!(scope.term().is_valid());
    }
}

#[tokio::test(start_paused = true)]
async fn what_keeps_a_lock_from_its_first_leader_is_shown() {
    let stage = Stage::new(false);
    let _member = stage.open("a").await;
    fs::write(stage.file(), "").unwrap();
    let stranger = fs::File::open(stage.file()).unwrap();
    stranger.lock().unwrap();
    let unled = survey(&stage.root).unwrap().unled;
    assert_eq!(unled[0].lock, "l0");
    let expected = format!("its file is locked by process {}", std::process::id());
    assert_eq!(unled[0].obstacle.as_deref(), Some(&*expected));
    stranger.unlock().unwrap();
    assert_eq!(survey(&stage.root).unwrap().unled[0].obstacle, None);
}

/// Its leader is stopped, so nobody writes down again what was deleted.
#[tokio::test(start_paused = true)]
async fn a_newcomer_goes_on_above_the_terms_that_a_stopped_leader_alone_remembers() {
    for without_events in [false, true] {
        for terms in [None, Some("1\n")] {
            let stage = Stage::new(without_events);
            let mut last = 0;
            for _ in 0..4 {
                last = stage.was_led_by("former", None).await;
            }
            let stopped = fs::File::open(&stage.root).unwrap();
            stopped.lock_shared().unwrap();
            fs::remove_file(stage.file()).unwrap();
            fs::remove_file(stage.root.join("terms")).unwrap();
            if let Some(terms) = terms {
                fs::write(stage.root.join("terms"), terms).unwrap();
            }
            let newcomer = stage.open("newcomer").await;
            let view = newcomer.view(&lock()).await.unwrap();
            let scope = timeout(Duration::from_secs(20), view.lead()).await.unwrap().unwrap();
            assert!(scope.term().number() > last, "{} after {last}", scope.term().number());
        }
    }
}

/// As at a takeover under load: a member has the lock for a while, and then leads or gives it back.
#[tokio::test(start_paused = true)]
async fn a_member_that_is_about_to_lead_is_no_obstacle() {
    for without_events in [false, true] {
        let stage = Stage::new(without_events);
        stage.was_led_by("former", None).await;
        let mut record = stage.record();
        record["leading"] = false.into();
        fs::write(stage.file(), format!("{record}\n")).unwrap();
        let about_to_lead = fs::File::open(stage.file()).unwrap();
        about_to_lead.lock().unwrap();
        let a = stage.open("a").await;
        let view = a.view(&lock()).await.unwrap();
        for _ in 0..270 {
            sleep(Duration::from_millis(10)).await;
            assert!(!why(&view).contains("locked by"), "{}", why(&view));
        }
        sleep(Duration::from_secs(2)).await;
        assert!(why(&view).contains("has not said that it leads"), "{}", why(&view));
        drop(about_to_lead);
        timeout(Duration::from_secs(20), view.lead()).await.unwrap().unwrap();
    }
}

/// What is done to a file in place.
type Harm = fn(&Stage, &[u8]);

const OVERWRITTEN: [(&str, Harm); 4] = [
    ("a backup", |stage, backup| fs::write(stage.file(), backup).unwrap()),
    ("nothing", |stage, _| fs::write(stage.file(), "").unwrap()),
    ("xx", |stage, _| fs::write(stage.file(), "xx\n").unwrap()),
    ("a backup with its times", |stage, backup| {
        fs::write(stage.file(), backup).unwrap();
        let times = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
        fs::File::options().write(true).open(stage.file()).unwrap().set_times(times).unwrap();
        fs::write(stage.root.join("terms"), "1\n").unwrap();
    }),
];

#[tokio::test(start_paused = true)]
async fn a_leader_whose_file_is_overwritten_ends_its_term_and_the_next_one_goes_on_above_it() {
    for without_events in [false, true] {
        for (what, harm) in OVERWRITTEN {
            let stage = Stage::new(without_events);
            let former = stage.was_led_by("former", None).await;
            let backup = fs::read(stage.file()).unwrap();
            let a = stage.open("a").await;
            let view = a.view(&lock()).await.unwrap();
            // One more, so that the backup is well below.
            drop(view.lead().await.unwrap());
            view.resign(Duration::from_millis(10));
            sleep(Duration::from_millis(5)).await;
            let scope = view.lead().await.unwrap();
            let term = scope.term().number();
            assert!(term > former + 1);
            scope.term().states().store("poll", &1.into()).await.unwrap();
            harm(&stage, &backup);
            timeout(Duration::from_millis(1500), scope.term().lost()).await.expect(what);
            // It knows nothing but what the files say.
            let newcomer = stage.open("newcomer").await;
            let other = newcomer.view(&lock()).await.unwrap();
            drop(scope);
            let next = timeout(Duration::from_secs(10), async {
                tokio::select! {
                    biased;
                    scope = view.lead() => scope.unwrap(),
                    scope = other.lead() => scope.unwrap(),
                }
            });
            let next = next.await.expect(what);
            assert!(next.term().number() > term, "{what}: {} after {term}", next.term().number());
            next.term().states().store("poll", &2.into()).await.expect(what);
            assert_eq!(leaders(&stage.root).unwrap()[0].term, next.term().number());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_file_is_touched_leads_on() {
    use std::os::unix::fs::PermissionsExt;
    for without_events in [false, true] {
        let stage = Stage::new(without_events);
        let a = stage.open("a").await;
        let view = a.view(&lock()).await.unwrap();
        let scope = view.lead().await.unwrap();
        let file = stage.file();
        let harmless: [&dyn Fn(); 5] = [
            &|| fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap(),
            &|| fs::hard_link(&file, file.with_extension("kept")).unwrap(),
            &|| {
                fs::File::options()
                    .write(true)
                    .open(&file)
                    .unwrap()
                    .set_modified(std::time::SystemTime::UNIX_EPOCH)
                    .unwrap()
            },
            &|| fs::write(&file, fs::read(&file).unwrap()).unwrap(),
            &|| fs::remove_file(file.with_extension("kept")).unwrap(),
        ];
        for harmless in harmless {
            harmless();
            assert!(timeout(Duration::from_millis(1500), scope.term().lost()).await.is_err());
            scope.term().states().store("poll", &1.into()).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_finds_states_of_a_later_term_is_followed_by_a_term_above_them() {
    let stage = Stage::new(false);
    let a = stage.open("a").await;
    let view = a.view(&lock()).await.unwrap();
    let scope = view.lead().await.unwrap();
    scope.term().states().store("poll", &1.into()).await.unwrap();
    let states = stage.root.join("states/l0.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&states).unwrap()).unwrap();
    let later = scope.term().number() + 1_000_000_000_000;
    value["term"] = later.into();
    fs::write(&states, value.to_string()).unwrap();
    scope.term().states().store("poll", &2.into()).await.unwrap_err();
    timeout(Duration::from_millis(500), scope.term().lost())
        .await
        .expect("it leads on and can store nothing");
    drop(scope);
    let scope = timeout(Duration::from_secs(10), view.lead()).await.unwrap().unwrap();
    assert!(scope.term().number() > later);
    scope.term().states().store("poll", &2.into()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_standby_is_never_told_a_term_below_one_that_it_has_seen() {
    for without_events in [false, true] {
        let stage = Stage::new(without_events);
        stage.was_led_by("former", None).await;
        let backup = fs::read(stage.file()).unwrap();
        let a = stage.open("a").await;
        let on_a = a.view(&lock()).await.unwrap();
        let scope = on_a.lead().await.unwrap();
        let b = stage.open("b").await;
        let on_b = b.view(&lock()).await.unwrap();
        let mut highest = scope.term().number();
        sleep(Duration::from_secs(2)).await;
        fs::remove_file(stage.file()).unwrap();
        scope.term().lost().await;
        drop(scope);
        // An old file is there instead: its record says that another one leads, in a term long ago.
        fs::write(stage.file(), &backup).unwrap();
        for _ in 0..1000 {
            sleep(Duration::from_millis(10)).await;
            for view in [&on_a, &on_b] {
                let told = match view.leadership() {
                    Leadership::Follower { leader } => leader.term,
                    Leadership::Leader(term) => term.number(),
                    Leadership::Vacant(_) => continue,
                };
                assert!(told >= highest, "term {told} was told after {highest}");
                highest = told;
            }
        }
    }
}

/// Each is told with its file, no member leads with a lower term meanwhile, and one does once it is mended.
#[tokio::test(start_paused = true)]
async fn a_file_that_no_member_wrote_is_named_and_leaves_the_others_at_work() {
    let highest = u64::MAX.to_string();
    for (name, content) in [
        ("terms", Some(highest.clone())),
        ("terms", Some((u64::MAX - 1).to_string())),
        ("terms", None),
        (".terms-lock", None),
        ("l0.lock", Some(format!(r#"{{"format":2,"lock":"l0","term":{highest},"leading":false}}"#))),
        ("l0.lock", None),
        ("states/l0.json", Some(format!(r#"{{"term":{highest},"routes":{{}}}}"#))),
        ("states/l0.json", None),
        ("members/a", None),
        ("l0.handover", None),
    ] {
        let stage = Stage::new(false);
        let before = stage.was_led_by("killed", None).await;
        fs::create_dir_all(stage.root.join("states")).unwrap();
        let (path, aside) = (stage.root.join(name), stage.root.join("aside"));
        let _ = fs::rename(&path, &aside);
        match &content {
            Some(content) => fs::write(&path, content).unwrap(),
            // What is opened without a second process waits for one.
            None => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
        }
        locks(&stage.root).unwrap();
        if name == "members/a" {
            let opened = FileCluster::open(FileClusterSettings::new(&stage.root).member("a")).await;
            let error = opened.err().unwrap().to_string();
            assert!(error.contains("members/a") && error.contains("move it away"), "{error}");
            continue;
        }
        let a = stage.open("a").await;
        let view = a.view(&lock()).await.unwrap();
        if name != "l0.handover" {
            assert!(timeout(Duration::from_secs(30), view.lead()).await.is_err(), "{name} {content:?}");
            assert!(why(&view).contains(path.to_str().unwrap()), "{}", why(&view));
            fs::remove_file(&path).unwrap();
            let _ = fs::rename(&aside, &path);
        }
        let led = timeout(Duration::from_secs(120), view.lead()).await.unwrap().unwrap();
        assert!(led.term().number() > before, "{name} {content:?}");
    }
}
