//! What `FileCluster` promises, with several members in one process: they share nothing but the files.
//!
//! The clock is paused: a timer fires as soon as nothing else can happen, so that no test waits, and
//! what is measured are the pauses that members make.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster_file::{FileCluster, FileClusterSettings, leaders};
use router_core::cluster::{ClusterError, ClusterService, ClusterView, Leader, Leadership, LockName};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

fn lock1() -> LockName {
    "Lock/1".parse().unwrap()
}

const LOCK1_FILE: &str = "%4Cock%2F1.lock";

async fn join(root: &Path, id: &str) -> Arc<FileCluster> {
    FileCluster::open(FileClusterSettings::new(root).member(id)).await.unwrap()
}

async fn refused(settings: FileClusterSettings) -> String {
    match FileCluster::open(settings).await {
        Ok(_) => panic!("it was opened"),
        Err(error @ ClusterError::Unusable(..)) => error.to_string(),
        Err(error) => panic!("{error}"),
    }
}

/// Waits until the view says who leads, or that nobody does.
async fn follow(view: &mut ClusterView, wanted: Option<&str>) -> Option<Leader> {
    loop {
        let leader = match view.changed().await.unwrap() {
            Leadership::Follower { leader } => Some(leader),
            Leadership::Vacant(_) => None,
            Leadership::Leader(_) => continue,
        };
        if leader.as_ref().map(|leader| leader.member.id.as_str()) == wanted {
            return leader;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_member_leads_and_another_when_it_leaves_with_a_greater_term() {
    let root = TempDir::new().unwrap();
    let (a, b) = (join(root.path(), "a").await, join(root.path(), "b").await);
    let start = Instant::now();
    let on_a = a.view(&lock1()).await.unwrap();
    let scope = on_a.lead().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "the first one waits for nobody");
    let mut on_b = b.view(&lock1()).await.unwrap();
    let leader = follow(&mut on_b, Some("a")).await.unwrap();
    assert_eq!((leader.term, leader.member.pid), (scope.term().number(), Some(std::process::id())));
    assert!(timeout(Duration::from_secs(60), on_b.lead()).await.is_err(), "two lead");
    drop(on_a);
    assert!(timeout(Duration::from_secs(60), on_b.lead()).await.is_err(), "the work of a is still there");
    let first = scope.term().number();
    drop(scope);
    assert!(on_b.lead().await.unwrap().term().number() > first);
}

/// As in a circle of crashes, where each process has an id of its own.
#[tokio::test(start_paused = true)]
async fn the_files_of_members_that_were_killed_do_not_pile_up() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("members");
    fs::create_dir(&folder).unwrap();
    for killed in 0..288 {
        fs::write(folder.join(format!("host1-{killed}-1a2b3c4d")), "{}").unwrap();
    }
    let a = join(root.path(), "a").await;
    a.view(&lock1()).await.unwrap().lead().await.unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "the file of the one that lives");
}

#[tokio::test(start_paused = true)]
async fn who_resigns_stays_out_and_sees_who_leads() {
    let root = TempDir::new().unwrap();
    let (a, b) = (join(root.path(), "a").await, join(root.path(), "b").await);
    let mut on_a = a.view(&lock1()).await.unwrap();
    let scope = on_a.lead().await.unwrap();
    let on_b = b.view(&lock1()).await.unwrap();
    on_a.resign(Duration::from_secs(3600));
    scope.term().lost().await;
    drop(scope);
    let _led_by_b = on_b.lead().await.unwrap();
    follow(&mut on_a, Some("b")).await;
}

#[tokio::test(start_paused = true)]
async fn tools_see_who_leads_and_every_name_has_a_file_of_its_own() {
    let root = TempDir::new().unwrap();
    let a = join(root.path(), "a").await;
    let long = "x".repeat(300);
    let names = ["..", ".", ".hidden", "Lock/1", "lock-1", "sperre-ü", &long, "\"quoted\" \\"];
    let mut scopes = Vec::new();
    for name in names {
        scopes.push(a.view(&name.parse().unwrap()).await.unwrap().lead().await.unwrap());
    }
    let records = leaders(root.path()).unwrap();
    let mut led: Vec<&str> = records.iter().map(|record| record.lock.as_str()).collect();
    let mut wanted = names.to_vec();
    led.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(led, wanted);
    assert!(records.iter().all(|record| record.member == "a" && record.pid == Some(std::process::id())));
    drop(scopes);
    a.close().await;
    assert_eq!(leaders(root.path()).unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn terms_grow_over_restarts_and_the_deletion_of_their_mark() {
    let root = TempDir::new().unwrap();
    let mut last = 0;
    for round in 0..6 {
        let a = join(root.path(), "a").await;
        let scope = a.view(&lock1()).await.unwrap().lead().await.unwrap();
        assert!(scope.term().number() > last, "{} after {last}", scope.term().number());
        last = scope.term().number();
        drop(scope);
        a.close().await;
        match round {
            1 | 2 => fs::remove_file(root.path().join("terms")).unwrap(),
            3 => fs::remove_file(root.path().join(LOCK1_FILE)).unwrap(),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn members_are_listed_while_they_live_and_an_id_is_used_once() {
    let root = TempDir::new().unwrap();
    let (a, b) = (join(root.path(), "a").await, join(root.path(), "b").await);
    let view = a.view(&lock1()).await.unwrap();
    let ids = || view.members().iter().map(|member| member.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(), ["a", "b"]);
    let text = refused(FileClusterSettings::new(root.path()).member("b")).await;
    assert!(text.contains("`b` is in use") && text.contains(&std::process::id().to_string()), "{text}");
    for id in ["", " b", "b\n", &"b".repeat(300)] {
        assert!(
            refused(FileClusterSettings::new(root.path()).member(id)).await.contains("not valid"),
            "{id}"
        );
    }
    b.close().await;
    assert_eq!(ids(), ["a"]);
    join(root.path(), "b").await;
}

#[tokio::test(start_paused = true)]
async fn a_view_tells_of_members_that_come_and_go() {
    let root = TempDir::new().unwrap();
    for without_events in [false, true] {
        let settings = FileClusterSettings { without_events, ..FileClusterSettings::new(root.path()) };
        let a = FileCluster::open(settings.member("a")).await.unwrap();
        let mut view = a.view(&lock1()).await.unwrap();
        let mut told = async |wanted: &[&str]| {
            let start = Instant::now();
            loop {
                let members =
                    timeout(Duration::from_secs(60), view.members_changed()).await.unwrap().unwrap();
                if members.iter().map(|member| member.id.as_str()).eq(wanted.iter().copied()) {
                    return start.elapsed();
                }
            }
        };
        let soon = Duration::from_millis(if without_events { 1_100 } else { 500 });
        assert_eq!(told(&["a"]).await, Duration::ZERO);
        let b = join(root.path(), "b").await;
        assert!(told(&["a", "b"]).await < soon);
        b.close().await;
        assert!(told(&["a"]).await < soon);
        // As the kernel does it for a process that was killed: the file stays, and is no longer locked.
        let path = root.path().join("members/killed");
        let file = fs::File::create(&path).unwrap();
        file.lock().unwrap();
        fs::write(&path, r#"{"id":"killed"}"#).unwrap();
        assert!(told(&["a", "killed"]).await < soon);
        file.unlock().unwrap();
        drop(file);
        assert!(told(&["a"]).await < soon);
        // Without the folder nothing is told of, until members have made it anew.
        fs::remove_dir_all(root.path().join("members")).unwrap();
        told(&[]).await;
        told(&["a"]).await;
        let b = join(root.path(), "b").await;
        assert!(told(&["a", "b"]).await < soon);
        b.close().await;
        a.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_file_is_replaced_steps_down_before_another_leads() {
    let root = TempDir::new().unwrap();
    let (a, b) = (join(root.path(), "a").await, join(root.path(), "b").await);
    let on_a = a.view(&lock1()).await.unwrap();
    let scope = on_a.lead().await.unwrap();
    let on_b = b.view(&lock1()).await.unwrap();
    let start = Instant::now();
    let path = root.path().join(LOCK1_FILE);
    fs::copy(&path, root.path().join("copy")).unwrap();
    fs::rename(root.path().join("copy"), &path).unwrap();
    scope.term().lost().await;
    scope.term().expired().await;
    assert!(start.elapsed() <= Duration::from_secs(3) + Duration::from_millis(100), "{:?}", start.elapsed());
    // The work ends as late as it may.
    let first = scope.term().number();
    drop(scope);
    let next = tokio::select! {
        biased;
        scope = on_a.lead() => scope.unwrap(),
        scope = on_b.lead() => scope.unwrap(),
    };
    assert!(start.elapsed() >= Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(next.term().number() > first);
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_all_files_were_deleted_waits_for_the_old_leader() {
    let root = TempDir::new().unwrap();
    let a = join(root.path(), "a").await;
    let scope = a.view(&lock1()).await.unwrap().lead().await.unwrap();
    fs::remove_file(root.path().join(LOCK1_FILE)).unwrap();
    fs::remove_file(root.path().join("terms")).unwrap();
    fs::remove_dir_all(root.path().join("members")).unwrap();
    let b = join(root.path(), "b").await;
    let start = Instant::now();
    let view = b.view(&lock1()).await.unwrap();
    let early = timeout(Duration::from_millis(4500), view.lead()).await;
    assert!(early.is_err(), "the old leader may not have ended");
    assert!(!scope.term().is_valid());
    drop(scope);
    drop(a);
    view.lead().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_loses_its_root_directory_stops_and_joins_the_one_that_is_there_then() {
    for replaced in [false, true] {
        let parent = TempDir::new().unwrap();
        let root = parent.path().join("root");
        let (a, b) = (join(&root, "a").await, join(&root, "b").await);
        let view = a.view(&lock1()).await.unwrap();
        let scope = view.lead().await.unwrap();
        let standby = b.view(&lock1()).await.unwrap();
        if replaced {
            fs::rename(&root, parent.path().join("moved")).unwrap();
            fs::create_dir(&root).unwrap();
        } else {
            fs::remove_dir_all(&root).unwrap();
        }
        scope.term().lost().await;
        let first = scope.term().number();
        // As long as there is work under the old term.
        let early = timeout(Duration::from_secs(60), standby.lead()).await;
        assert!(early.is_err(), "two lead");
        drop(scope);
        let next = timeout(Duration::from_secs(60), async {
            tokio::select! {
                biased;
                scope = view.lead() => scope.unwrap(),
                scope = standby.lead() => scope.unwrap(),
            }
        });
        let next = next.await.expect("no member leads in the new directory");
        assert!(next.term().number() > first, "{} after {first}", next.term().number());
        let mut members = view.members().iter().map(|member| member.id.to_string()).collect::<Vec<_>>();
        members.sort();
        assert_eq!(members, ["a", "b"]);
    }
}

/// As a container does that has the directory mounted: for it nothing has changed.
#[tokio::test(start_paused = true)]
async fn no_member_leads_in_a_new_directory_while_the_former_one_has_members() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("root");
    let a = join(&root, "a").await;
    let view = a.view(&lock1()).await.unwrap();
    let scope = view.lead().await.unwrap();
    let left_behind = fs::File::open(&root).unwrap();
    left_behind.lock_shared().unwrap();
    fs::rename(&root, parent.path().join("moved")).unwrap();
    scope.term().lost().await;
    drop(scope);
    assert!(timeout(Duration::from_secs(60), view.lead()).await.is_err(), "the one left behind may lead");
    drop(left_behind);
    timeout(Duration::from_secs(60), view.lead()).await.unwrap().unwrap();
}

/// The directory may be replaced while a member joins it: then its own file is in the other one.
#[tokio::test(start_paused = true)]
async fn a_member_that_joins_anew_is_not_in_its_own_way() {
    let parent = TempDir::new().unwrap();
    let (root, moved) = (parent.path().join("root"), parent.path().join("moved"));
    let a = join(&root, "a").await;
    let view = a.view(&lock1()).await.unwrap();
    drop(view.lead().await.unwrap());
    fs::rename(&root, &moved).unwrap();
    fs::create_dir(&root).unwrap();
    fs::rename(moved.join("members"), root.join("members")).unwrap();
    timeout(Duration::from_secs(60), async {
        while view.members().is_empty() || fs::metadata(root.join(LOCK1_FILE)).is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        view.lead().await.unwrap()
    })
    .await
    .expect("it did not join");
}

#[tokio::test(start_paused = true)]
async fn ids_that_no_one_chose_differ_even_where_process_ids_are_the_same() {
    let root = TempDir::new().unwrap();
    let settings = || FileClusterSettings::new(root.path());
    let (a, b) = (FileCluster::open(settings()).await.unwrap(), FileCluster::open(settings()).await.unwrap());
    assert_ne!(a.local().id, b.local().id);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_has_ended_is_no_longer_drained() {
    let root = TempDir::new().unwrap();
    let request = root.path().join("a.drain");
    for killed in [false, true] {
        let a = join(root.path(), "a").await;
        assert!(!*a.drained().borrow());
        fs::write(&request, "{\"member\":\"a\"}\n").unwrap();
        a.drained().wait_for(|drained| *drained).await.unwrap();
        if !killed {
            a.close().await;
            assert!(!request.exists());
        }
    }
    assert!(!*join(root.path(), "a").await.drained().borrow());
}

/// A root that is made is for this user alone, or for the group as well; what is in it too.
#[tokio::test]
async fn others_can_lock_nothing_unless_the_group_takes_part() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let parent = TempDir::new().unwrap();
    for (name, shared, wanted) in [("alone", false, 0o700), ("group", true, 0o2770)] {
        let mut settings = FileClusterSettings::new(parent.path().join(name)).member("a");
        settings.share_with_group = shared;
        let root = settings.root.clone();
        let a = FileCluster::open(settings).await.unwrap();
        let scope = a.view(&lock1()).await.unwrap().lead().await.unwrap();
        scope.term().states().store("poll", &1.into()).await.unwrap();
        for directory in [root.clone(), root.join("members"), root.join("states")] {
            assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o7777, wanted, "{}", directory.display());
        }
        for file in [LOCK1_FILE, "members/a", ".terms-lock", "states/.%4Cock%2F1.lock"] {
            let group = fs::metadata(root.join(file)).unwrap().mode() & 0o060;
            assert_eq!(group == 0o060, shared, "{file}");
        }
    }
    let mut settings = FileClusterSettings::new(parent.path().join("alone"));
    settings.share_with_group = true;
    let text = refused(settings.clone()).await;
    assert!(text.contains("cluster.file.share_with_group") && text.contains("chmod"), "{text}");
    fs::set_permissions(&settings.root, fs::Permissions::from_mode(0o2770)).unwrap();
    FileCluster::open(settings).await.unwrap();
}

/// Permission bits do not bind root, under which tests may run; a file in the way and a file system that
/// nobody can write bind everybody.
#[tokio::test]
async fn a_root_that_cannot_be_used_is_an_error_that_says_what_to_do() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path().to_owned(), file.path().join("below")] {
        let text = refused(FileClusterSettings::new(&path)).await;
        assert!(text.contains(path.to_str().unwrap()) && text.contains("set another `root`"), "{text}");
    }
    #[cfg(target_os = "linux")]
    {
        let mut settings = FileClusterSettings::new("/proc/bactrian");
        let text = refused(settings.clone()).await;
        assert!(
            text.contains("not known to be local") && text.contains("allow_network_file_system"),
            "{text}"
        );
        settings.allow_network_file_system = true;
        let text = refused(settings).await;
        assert!(text.contains("local directory"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_view_says_who_is_in_the_way() {
    let root = tempfile::tempdir().unwrap();
    let locks = root.path().join("locks");
    let cluster = FileCluster::open(FileClusterSettings::new(&locks)).await.unwrap();
    let path = locks.join("lock1.lock");
    std::fs::write(&path, "").unwrap();
    let in_the_way = std::fs::File::open(&path).unwrap();
    in_the_way.lock().unwrap();
    let view = cluster.view(&"lock1".parse().unwrap()).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let Leadership::Vacant(vacancy) = view.leadership() else { panic!("{:?}", view.leadership()) };
    assert!(vacancy.why().contains("lock1.lock` is locked by process"), "{}", vacancy.why());
    in_the_way.unlock().unwrap();
    drop(timeout(Duration::from_secs(60), view.lead()).await.unwrap().unwrap());
}
