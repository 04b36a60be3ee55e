//! What `file:` promises: files are read and written whole, moved only when they are done, and nothing
//! gets out of the starting directory.

#![cfg(feature = "file")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

mod settling;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use components::{FileComponent, MasterComponent, MockComponent, TimerComponent};
use router_core::builder::{RouteBuilder, Steps, from};
use router_core::cluster::{ClusterService, LockName, MemoryCluster};
use router_core::exchange::{Body, Exchange};
use router_core::router::{Router, RouterBuilder};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// Polls quickly. The files are real, and so is the time.
const FAST: &str = "initial_delay=0&delay=5";

fn builder(mock: &MockComponent) -> RouterBuilder {
    RouterBuilder::new()
        .component(FileComponent)
        .component(MasterComponent::default())
        .component(mock.clone())
        .component(TimerComponent)
}

/// A directory with these files.
fn folder(files: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("content of {name}")).unwrap();
    }
    folder
}

/// All files below a directory, as relative names.
fn names(folder: &Path) -> Vec<String> {
    let (mut names, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(place) = folders.pop() {
        for entry in fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                names.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    names
}

fn source(folder: &TempDir, options: &str) -> RouteBuilder {
    from(format!("file:{}?{FAST}&{options}", folder.path().display()))
}

/// Runs a route until `mock:out` has got `count` exchanges and a few polls more; returns their bodies.
async fn read(folder: &TempDir, options: &str, count: usize) -> Vec<String> {
    let mock = MockComponent::default();
    let router = builder(&mock).route(source(folder, options).to("mock:out")).build().unwrap();
    run(&router, &mock, count).await
}

async fn run(router: &Router, mock: &MockComponent, count: usize) -> Vec<String> {
    let work = async {
        mock.endpoint("out").wait_for(count).await;
        sleep(Duration::from_millis(60)).await;
    };
    let _ = timeout(Duration::from_secs(20), router.run_until(work)).await.unwrap();
    let received = mock.endpoint("out").received();
    received.iter().map(|exchange| exchange.message.body.to_string()).collect()
}

#[tokio::test]
async fn files_are_read_in_order_and_moved_when_they_are_done() {
    let inbox = folder(&["b", "a", ".hidden", "sub/c"]);
    let mock = MockComponent::default();
    let router = builder(&mock).route(source(&inbox, "").to("mock:out")).build().unwrap();
    assert_eq!(run(&router, &mock, 2).await, ["content of a", "content of b"]);
    assert_eq!(names(inbox.path()), [".done/a", ".done/b", ".hidden", "sub/c"]);
    let headers = &mock.endpoint("out").received()[0].message.headers;
    assert_eq!(headers.get("file.name"), Some(&"a".into()));
    assert_eq!(headers.get("file.length"), Some(&12.into()));
    assert_eq!(headers.get("file.path").unwrap().to_string(), inbox.path().join("a").display().to_string());
    assert!(headers.get("file.last_modified").unwrap().as_number().unwrap() > 1e12);
}

#[tokio::test]
async fn patterns_match_the_whole_name_in_any_case() {
    let inbox = folder(&["a.csv", "B.CSV", "a.csv.bak", "skip.csv"]);
    assert_eq!(read(&inbox, "include=.*%5C.csv&exclude=skip.*&delete=true", 2).await.len(), 2);
    assert_eq!(names(inbox.path()), ["a.csv.bak", "skip.csv"]);
}

#[tokio::test]
async fn directories_below_are_read_when_asked_but_not_those_of_moved_files() {
    let inbox = folder(&["a", "sub/b", "sub/deeper/c"]);
    let bodies = read(&inbox, "recursive=true&move=old", 3).await;
    assert_eq!(bodies, ["content of a", "content of sub/b", "content of sub/deeper/c"]);
    assert_eq!(names(inbox.path()), ["old/a", "sub/deeper/old/c", "sub/old/b"]);
}

#[tokio::test]
async fn noop_leaves_files_and_reads_each_once() {
    let inbox = folder(&["a", "b"]);
    assert_eq!(read(&inbox, "noop=true", 2).await.len(), 2);
    assert_eq!(names(inbox.path()), ["a", "b"]);
}

#[tokio::test]
async fn a_failed_file_is_moved_where_asked_and_read_again_otherwise() {
    let inbox = folder(&["bad", "good"]);
    let fails = |options: &str| {
        source(&inbox, options).to("mock:out").process(|exchange| {
            match exchange.message.body.to_string().ends_with("bad") {
                true => Err("bad content".into()),
                false => Ok(()),
            }
        })
    };
    let mock = MockComponent::default();
    let router = builder(&mock).route(fails("")).build().unwrap();
    assert!(run(&router, &mock, 4).await.len() >= 4, "the bad one is read again");
    assert_eq!(names(inbox.path()), [".done/good", "bad"]);
    let mock = MockComponent::default();
    let router = builder(&mock).route(fails("move_failed=failed")).build().unwrap();
    assert_eq!(run(&router, &mock, 1).await.len(), 1);
    assert_eq!(names(inbox.path()), [".done/good", "failed/bad"]);
}

#[tokio::test]
async fn a_file_waits_for_the_file_that_says_it_is_complete() {
    let inbox = folder(&["a", "b", "b.ready"]);
    let bodies = read(&inbox, "done_file_name=$%7Bfile.name%7D.ready", 1).await;
    assert_eq!(bodies, ["content of b"]);
    assert_eq!(names(inbox.path()), [".done/b", "a"]);
}

#[tokio::test]
async fn a_file_that_changes_is_not_read_before_it_rests() {
    let inbox = folder(&["a"]);
    let path = inbox.path().join("a");
    let mock = MockComponent::default();
    let uri = "read_lock=changed&read_lock_check_interval=100ms";
    let router = builder(&mock).route(source(&inbox, uri).to("mock:out")).build().unwrap();
    let work = async {
        for _ in 0..20 {
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text + "+").unwrap();
            sleep(Duration::from_millis(20)).await;
        }
        assert!(mock.endpoint("out").received().is_empty());
        mock.endpoint("out").wait_for(1).await;
    };
    let _ = timeout(Duration::from_secs(20), router.run_until(work)).await.unwrap();
    assert!(mock.endpoint("out").received()[0].message.body.to_string().ends_with(&"+".repeat(20)));
}

#[tokio::test]
async fn a_poll_reads_no_more_than_asked_and_bytes_stay_bytes() {
    let inbox = folder(&["1", "2", "3"]);
    fs::write(inbox.path().join("0"), [0xff, 0xfe]).unwrap();
    let mock = MockComponent::default();
    let uri = format!("file:{}?initial_delay=0&delay=1h&max_messages_per_poll=2", inbox.path().display());
    let router = builder(&mock).route(from(uri).to("mock:out")).build().unwrap();
    assert_eq!(run(&router, &mock, 2).await.len(), 2);
    assert!(mock.endpoint("out").received()[0].message.body == Body::bytes(vec![0xff, 0xfe]));
    assert_eq!(names(inbox.path()), [".done/0", ".done/1", "2", "3"]);
}

#[tokio::test]
async fn a_file_in_hand_when_the_leadership_is_lost_is_left_for_the_next_leader() {
    let inbox = folder(&["a"]);
    let (first, lock) = (MemoryCluster::new("a"), "lock1".parse::<LockName>().unwrap());
    let second = first.join("b");
    let mock = MockComponent::default();
    let uri = format!("master:lock1:file:{}?{FAST}", inbox.path().display());
    let clustered = |cluster: &Arc<MemoryCluster>, delay: &str| {
        let cluster = Arc::clone(cluster) as Arc<dyn ClusterService>;
        let route = from(uri.clone()).to("mock:begun").delay(delay).to("mock:out");
        builder(&mock).cluster(cluster).route(route).build().unwrap()
    };
    let (slow, quick) = (clustered(&first, "1h"), clustered(&second, "0"));
    let work = async {
        mock.endpoint("begun").wait_for(1).await;
        let taking_over = quick.run_until(async {
            sleep(Duration::from_millis(20)).await;
            assert_eq!(names(inbox.path()), ["a"]);
            first.revoke(&lock, Duration::ZERO);
            mock.endpoint("out").wait_for(1).await;
            sleep(Duration::from_millis(60)).await;
        });
        let _ = taking_over.await;
    };
    let _ = timeout(Duration::from_secs(20), slow.run_until(work)).await.unwrap();
    assert_eq!(mock.endpoint("begun").received().len(), 2);
    assert_eq!(mock.endpoint("out").received().len(), 1);
    assert_eq!(names(inbox.path()), [".done/a"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_does_not_stop_the_others() {
    let inbox = folder(&["a", "b"]);
    let unreadable = inbox.path().join("a");
    // A superuser reads everything: there is nothing to see then.
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o000)).unwrap();
    let superuser = fs::read(&unreadable).is_ok();
    let bodies = read(&inbox, "", 1).await;
    assert_eq!(bodies.last().unwrap(), "content of b");
    assert_eq!(bodies.len(), if superuser { 2 } else { 1 });
}

#[tokio::test]
async fn a_directory_that_cannot_be_read_does_not_stop_the_others() {
    let inbox = folder(&["closed/a", "open/b"]);
    let closed = inbox.path().join("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    // A superuser reads everything: there is nothing to see then.
    let superuser = fs::read_dir(&closed).is_ok();
    let bodies = read(&inbox, "recursive=true", 1).await;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(bodies.last().unwrap(), "content of open/b");
    assert_eq!(bodies.len(), if superuser { 2 } else { 1 });
}

#[tokio::test]
async fn a_file_that_could_not_be_moved_is_not_worked_on() {
    let (inbox, outside) = (folder(&["a"]), folder(&[]));
    symlink(outside.path(), inbox.path().join(".done")).unwrap();
    let mock = MockComponent::default();
    let router = builder(&mock).route(source(&inbox, "").to("mock:out")).build().unwrap();
    // Longer than the first pause before the consumer is tried again.
    let _ = router.run_until(sleep(Duration::from_secs(2))).await;
    assert!(mock.endpoint("out").received().is_empty());
    assert_eq!(names(outside.path()), [] as [String; 0]);
}

#[tokio::test]
async fn links_are_neither_read_nor_followed() {
    let (inbox, outside) = (folder(&["a"]), folder(&["secret", "sub/secret"]));
    symlink(outside.path().join("secret"), inbox.path().join("link")).unwrap();
    symlink(outside.path().join("sub"), inbox.path().join("linked")).unwrap();
    assert_eq!(read(&inbox, "recursive=true", 1).await, ["content of a"]);
    assert_eq!(names(outside.path()), ["secret", "sub/secret"]);
}

/// Writes `body` under `name`; returns the path, or the failure.
async fn write(
    folder: &Path,
    options: &str,
    name: Option<&str>,
    body: impl Into<Body>,
) -> Result<String, String> {
    let router = builder(&MockComponent::default()).build().unwrap();
    let to = router.producer(format!("file:{}?{options}", folder.display())).unwrap();
    let mut exchange = Exchange::new(body);
    if let Some(name) = name {
        exchange.message.headers.set("file.name", name);
    }
    let written = to.process(&mut exchange).await;
    let produced = exchange.message.headers.get("file.name_produced").map(ToString::to_string);
    written.map(|()| produced.unwrap()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_written_file_has_the_name_of_the_option_or_the_header_or_the_id() {
    let parent = folder(&[]);
    let outbox = parent.path().join("made/on/demand");
    let path = write(&outbox, "", Some("sub/a.txt"), "one").await.unwrap();
    assert_eq!(PathBuf::from(&path), outbox.join("sub/a.txt"));
    assert_eq!(fs::read_to_string(path).unwrap(), "one");
    write(&outbox, "file_name=x", Some("y"), serde_json::json!({"a": 1})).await.unwrap();
    assert_eq!(fs::read_to_string(outbox.join("x")).unwrap(), "{\"a\":1}");
    write(&outbox, "", None, "by id").await.unwrap();
    assert_eq!(names(&outbox).len(), 3, "and no temporary file is left");
}

#[tokio::test]
async fn what_happens_to_an_existing_file_is_decided_by_the_option() {
    let outbox = folder(&[]);
    let file = outbox.path().join("f");
    let write =
        async |options: &str, body: &'static str| write(outbox.path(), options, Some("f"), body).await;
    write("", "1").await.unwrap();
    write("", "2").await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "2");
    write("file_exist=append", "3").await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "23");
    let error = write("file_exist=fail", "4").await.unwrap_err();
    assert!(error.contains("File exists"), "{error}");
    write("file_exist=ignore", "5").await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "23");
    write("file_exist=try_rename", "6").await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "6");
    assert_eq!(names(outbox.path()), ["f"], "no temporary file is left");
}

#[tokio::test]
async fn only_a_regular_file_is_appended_to_or_replaced() {
    let folder = folder(&["kept/a"]);
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    for options in ["append", "override", "try_rename", "move&move_existing=old"] {
        let options = format!("file_exist={options}&file_name=pipe");
        let written = write(folder.path(), &options, None, "x");
        let written = timeout(Duration::from_secs(5), written).await.expect("it hangs");
        assert!(written.unwrap_err().contains("no regular file"), "{options}");
    }
    // With a reader the pipe could be opened.
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let written = write(folder.path(), "file_exist=append&file_name=pipe", None, "x").await;
    assert!(written.unwrap_err().contains("no regular file"));
    assert_eq!(names(folder.path()), ["kept/a", "pipe"]);
}

#[tokio::test]
async fn an_existing_file_is_kept_where_asked_and_its_place_is_never_empty() {
    let outbox = folder(&[]);
    let content = |name: &str| fs::read_to_string(outbox.path().join(name)).unwrap();
    for body in ["1", "2", "3"] {
        write(outbox.path(), "file_exist=move&move_existing=old/kept", Some("sub/f"), body).await.unwrap();
    }
    assert_eq!(content("sub/f"), "3");
    assert_eq!((content("sub/old/kept/f"), content("sub/old/kept/f-1")), ("1".into(), "2".into()));
    assert_eq!(
        names(outbox.path()),
        ["sub/f", "sub/old/kept/f", "sub/old/kept/f-1"],
        "no other file is left"
    );

    let watched = outbox.path().join("sub/f");
    let looking = tokio::task::spawn_blocking(move || {
        // Until it is told by the last content that all is written.
        let (mut looks, patience) = (0, std::time::Instant::now() + Duration::from_secs(30));
        while fs::read_to_string(&watched).expect("there is a file at any time") != "last" {
            assert!(std::time::Instant::now() < patience, "the last file did not come");
            looks += 1;
        }
        looks
    });
    let options = "file_exist=move&move_existing=.old&force_writes=false";
    for _ in 0..300 {
        write(outbox.path(), options, Some("sub/f"), "next").await.unwrap();
    }
    write(outbox.path(), options, Some("sub/f"), "last").await.unwrap();
    assert!(looking.await.unwrap() > 0);
    // What is in the way is not lost, and neither is what exists.
    fs::remove_dir_all(outbox.path().join("sub/.old")).unwrap();
    fs::create_dir_all(outbox.path().join("sub/.old/f")).unwrap();
    write(outbox.path(), options, Some("sub/f"), "more").await.unwrap();
    assert_eq!((content("sub/f"), content("sub/.old/f-1")), ("more".into(), "last".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_several_writers_each_keeps_what_the_one_before_it_has_written() {
    let outbox = folder(&[]);
    let router = builder(&MockComponent::default()).build().unwrap();
    let uri = format!(
        "file:{}?file_name=f&file_exist=move&move_existing=.old&force_writes=false",
        outbox.path().display()
    );
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let to = router.producer(uri.clone()).unwrap();
        writers.spawn(async move {
            for number in 0..50 {
                to.process(&mut Exchange::new(format!("{writer}.{number}"))).await.unwrap();
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let names = names(outbox.path());
    let contents = names.iter().map(|name| fs::read_to_string(outbox.path().join(name)).unwrap());
    let contents = contents.collect::<std::collections::HashSet<_>>();
    assert_eq!((names.len(), contents.len()), (200, 200), "{names:?}");
}

#[tokio::test]
async fn a_temporary_file_of_another_writer_is_not_deleted() {
    let outbox = folder(&[]);
    let router = builder(&MockComponent::default()).build().unwrap();
    let to = router.producer(format!("file:{}?file_name=f", outbox.path().display())).unwrap();
    let mut exchange = Exchange::new("x");
    let other = outbox.path().join(format!(".tmp-{}", exchange.id));
    fs::write(&other, "of another writer").unwrap();
    to.process(&mut exchange).await.unwrap_err();
    assert_eq!(fs::read_to_string(other).unwrap(), "of another writer");
}

#[tokio::test]
async fn an_empty_body_makes_a_file_only_when_that_is_allowed() {
    let outbox = folder(&[]);
    assert!(write(outbox.path(), "", Some("empty"), ()).await.is_err());
    assert!(names(outbox.path()).is_empty());
    write(outbox.path(), "allow_null_body=true", Some("empty"), ()).await.unwrap();
    assert!(fs::read(outbox.path().join("empty")).unwrap().is_empty());
}

#[tokio::test]
async fn a_done_file_follows_the_written_file() {
    let outbox = folder(&[]);
    write(outbox.path(), "done_file_name=$%7Bfile.name%7D.ok", Some("a"), "x").await.unwrap();
    assert_eq!(names(outbox.path()), ["a", "a.ok"]);

    // Another file of that name keeps its content.
    fs::write(outbox.path().join("b.ok"), "other").unwrap();
    write(outbox.path(), "done_file_name=$%7Bfile.name%7D.ok", Some("b"), "x").await.unwrap();
    assert_eq!(fs::read_to_string(outbox.path().join("b.ok")).unwrap(), "other");
}

#[tokio::test]
async fn nothing_is_written_outside_of_the_directory() {
    let parent = folder(&["out/present"]);
    let outbox = parent.path().join("out");
    let outside = folder(&["victim"]);
    let victim = outside.path().join("victim");
    symlink(outside.path(), outbox.join("linked")).unwrap();
    symlink(&victim, outbox.join("link")).unwrap();
    let absolute = victim.display().to_string();
    for name in [
        "../escaped",
        "a/../../escaped",
        "..",
        "/etc/escaped",
        &absolute,
        "linked/escaped",
        "linked/victim",
        "a/",
    ] {
        for options in ["", "file_exist=append", "file_exist=fail", "file_exist=move&move_existing=old"] {
            let error = write(&outbox, options, Some(name), "x").await.unwrap_err();
            assert!(
                error.contains("inside of the directory") || error.contains("no directory of its own"),
                "{error}"
            );
        }
    }
    assert!(write(&outbox, "file_exist=append", Some("link"), "x").await.is_err());
    write(&outbox, "", Some("link"), "the link is replaced").await.unwrap();
    assert_eq!(names(outside.path()), ["victim"]);
    assert_eq!(fs::read_to_string(victim).unwrap(), "content of victim");
    assert_eq!(fs::read_to_string(outbox.join("link")).unwrap(), "the link is replaced");
}

#[tokio::test]
async fn a_reader_never_sees_half_a_file() {
    let shared = folder(&[]);
    let mock = MockComponent::default();
    let body = "x".repeat(1 << 20);
    let route = source(&shared, "delete=true").to("mock:out");
    let router = builder(&mock).route(route).build().unwrap();
    let to = router.producer(format!("file:{}?force_writes=false", shared.path().display())).unwrap();
    let work = async {
        for _ in 0..20 {
            to.process(&mut Exchange::new(body.clone())).await.unwrap();
        }
        mock.endpoint("out").wait_for(20).await;
    };
    let _ = timeout(Duration::from_secs(30), router.run_until(work)).await.unwrap();
    let lengths =
        mock.endpoint("out").received().iter().map(|e| e.message.body.to_string().len()).collect::<Vec<_>>();
    assert_eq!(lengths, [1 << 20; 20]);
}

#[test]
fn errors_are_found_before_anything_runs() {
    let errors = |uri: &'static str| {
        let built = builder(&MockComponent::default()).route(from(uri)).build();
        built.err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    for (uri, expected) in [
        ("file:", "needs a directory"),
        ("file:in?include=(", "takes a regular expression"),
        ("file:in?include=*.txt", "write `.*\\.txt`"),
        ("file:in?include=a.*&file_name=b.txt", "none is read"),
        ("file:in?exclude=B.*&file_name=b.txt", "none is read"),
        ("file:in?noop=true&delete=true", "only one of"),
        ("file:in?delete=true&move=old", "only one of"),
        ("file:in?move=../old", "option `move`"),
        ("file:in?move_failed=/tmp", "option `move_failed`"),
        ("file:in?done_file_name=ready", "takes a name like"),
        ("file:in?temp_prefix=a/b", "option `temp_prefix`"),
        ("file:in?file_exist=move", "needs the option `move_existing`"),
        ("file:in?move_existing=old", "goes with `file_exist=move`"),
        ("file:in?file_exist=move&move_existing=../old", "option `move_existing`"),
        ("file:in?file_name=.a", "such files and directories are not read"),
        ("file:in?file_name=sub/a", "read with `recursive=true`"),
        ("file:in?include=sub/.*", "matched with names alone"),
        ("file:in?read_lock_check_interval=2s", "goes with `read_lock=changed`"),
        ("file:/proc/x", "belongs to the kernel"),
    ] {
        assert!(errors(uri).contains(expected), "{uri}: {}", errors(uri));
    }
    assert_eq!(errors("file:///tmp/in?noop=true"), "");
    assert_eq!(errors("file:in?include=b.*&exclude=a.*&recursive=true&file_name=a/b.txt"), "");
    // All at once, each at its option.
    for uri in [
        "file:in?move=/abs&move_failed=../x&include=(&exclude=[&done_file_name=done&sort_by=nme",
        "file:in?noop=true&delete=true&file_exist=move&temp_prefix=/",
        "file:in?move=.&move_existing=x",
    ] {
        let found = errors(uri);
        for option in uri.split(['?', '&']).skip(1).filter(|option| !option.starts_with("noop")) {
            let value = option.split_once('=').unwrap().1;
            let column = uri.find(&format!("={value}")).unwrap() + 1;
            let carets = format!("{}{}", " ".repeat(column), "^".repeat(value.len()));
            assert!(found.lines().any(|line| line.ends_with(&carets)), "{option}: {found}");
        }
    }
}

#[tokio::test]
async fn a_new_version_of_a_route_does_not_read_again_what_noop_has_read() {
    let (inbox, mock) = (folder(&["a", "b"]), MockComponent::default());
    let version = |body: &str| {
        source(&inbox, "noop=true")
            .id("read")
            .set_body(format!("{body} ${{header.file.name}}"))
            .to("mock:out")
    };
    let router = builder(&mock).route(version("old")).build().unwrap();
    let work = async {
        mock.endpoint("out").wait_for(2).await;
        router.apply([version("new")]).await.unwrap();
        fs::write(inbox.path().join("c"), "c").unwrap();
        mock.endpoint("out").wait_for(3).await;
    };
    let _ = router.run_until(work).await;
    let bodies =
        mock.endpoint("out").received().iter().map(|it| it.message.body.to_string()).collect::<Vec<_>>();
    assert_eq!(bodies, ["old a", "old b", "new c"]);
}
