//! Nothing that was not read is moved, deleted or replaced; and one bad file stops no other.

use super::*;

/// Runs a route over a folder in which a file is called `a`; each exchange waits until the test, which is told of
/// it, has `changed` the folder.
async fn change_during_work(
    options: &str,
    change: impl FnOnce(&Path),
    count: usize,
) -> (TempDir, Vec<String>) {
    let inbox = folder(&["a"]);
    let (begun, mut is_begun) = tokio::sync::mpsc::unbounded_channel();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let mock = MockComponent::default();
    let waits = Arc::clone(&gate);
    let route = source(&inbox, options).process_async(move |_| {
        let (begun, waits) = (begun.clone(), Arc::clone(&waits));
        Box::pin(async move {
            begun.send(()).unwrap();
            drop(waits.acquire().await.unwrap());
            Ok(())
        })
    });
    let router = builder(&mock).route(route.to("mock:out")).build().unwrap();
    let work = async {
        is_begun.recv().await.unwrap();
        change(inbox.path());
        gate.add_permits(1);
        mock.endpoint("out").wait_for(count).await;
        sleep(Duration::from_millis(60)).await;
    };
    let _ = timeout(Duration::from_secs(20), router.run_until(work)).await.unwrap();
    let received = mock.endpoint("out").received();
    (inbox, received.iter().map(|exchange| exchange.message.body.to_string()).collect())
}

#[tokio::test]
async fn a_file_that_is_appended_to_while_it_is_worked_on_is_read_again() {
    for options in ["", "delete=true", "move_failed=bad"] {
        let append = |inbox: &Path| {
            use std::io::Write as _;
            fs::OpenOptions::new().append(true).open(inbox.join("a")).unwrap().write_all(b", more").unwrap();
        };
        let (_inbox, bodies) = change_during_work(options, append, 2).await;
        assert_eq!(bodies, ["content of a", "content of a, more"], "{options}");
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_worked_on_is_read_again() {
    for options in ["", "delete=true", "done_file_name=$%7Bfile.name%7D.ok"] {
        // Of the same length and with the same time of modification, as `cp -p` and `rsync` make them.
        let replace = |inbox: &Path| {
            let old = fs::metadata(inbox.join("a")).unwrap().modified().unwrap();
            fs::write(inbox.join(".new"), "CONTENT OF A").unwrap();
            fs::File::open(inbox.join(".new")).unwrap().set_modified(old).unwrap();
            fs::rename(inbox.join(".new"), inbox.join("a")).unwrap();
        };
        let (inbox, bodies) = if options.starts_with("done") {
            let inbox = folder(&["a", "a.ok"]);
            let bodies = {
                let mock = MockComponent::default();
                let path = inbox.path().to_owned();
                let first = std::sync::Once::new();
                let route = source(&inbox, options).process(move |_| {
                    first.call_once(|| replace(&path));
                    Ok(())
                });
                let router = builder(&mock).route(route.to("mock:out")).build().unwrap();
                run(&router, &mock, 2).await
            };
            (inbox, bodies)
        } else {
            change_during_work(options, replace, 2).await
        };
        assert_eq!(bodies, ["content of a", "CONTENT OF A"], "{options}");
        assert!(!names(inbox.path()).iter().any(|name| name.starts_with('a')), "{:?}", names(inbox.path()));
    }
}

#[tokio::test]
async fn a_file_that_is_written_in_place_with_its_time_set_back_is_read_again() {
    let overwrite = |inbox: &Path| {
        let old = fs::metadata(inbox.join("a")).unwrap().modified().unwrap();
        fs::write(inbox.join("a"), "CONTENT OF A").unwrap();
        fs::File::open(inbox.join("a")).unwrap().set_modified(old).unwrap();
    };
    let (_inbox, bodies) = change_during_work("delete=true", overwrite, 2).await;
    assert_eq!(bodies, ["content of a", "CONTENT OF A"]);
}

#[tokio::test]
async fn a_file_that_is_gone_when_its_exchange_is_done_is_no_failure() {
    let (inbox, bodies) = change_during_work("", |inbox| fs::remove_file(inbox.join("a")).unwrap(), 1).await;
    assert_eq!((bodies.len(), names(inbox.path()).len()), (1, 0));
}

#[tokio::test]
async fn a_done_file_that_says_so_of_a_newer_file_stays() {
    let inbox = folder(&["a", "a.ok"]);
    let renew = |inbox: &Path| fs::write(inbox.join("a.ok"), "anew").unwrap();
    let mock = MockComponent::default();
    let path = inbox.path().to_owned();
    let route = source(&inbox, "done_file_name=$%7Bfile.name%7D.ok").process(move |_| {
        renew(&path);
        Ok(())
    });
    let router = builder(&mock).route(route.to("mock:out")).build().unwrap();
    assert_eq!(run(&router, &mock, 1).await.len(), 1);
    assert_eq!(names(inbox.path()), [".done/a", "a.ok"]);
}

#[tokio::test]
async fn a_moved_file_replaces_none() {
    let inbox = folder(&["a.txt", ".done/a.txt", "bad/a.txt", "bad/a-1.txt"]);
    read(&inbox, "", 1).await;
    assert_eq!(names(inbox.path()), [".done/a-1.txt", ".done/a.txt", "bad/a-1.txt", "bad/a.txt"]);
    fs::write(inbox.path().join("a.txt"), "fails").unwrap();
    let mock = MockComponent::default();
    let route = source(&inbox, "move_failed=bad").to("mock:out").process(|_| Err("bad".into()));
    run(&builder(&mock).route(route).build().unwrap(), &mock, 1).await;
    assert_eq!(fs::read_to_string(inbox.path().join("bad/a-2.txt")).unwrap(), "fails");
    assert_eq!(fs::read_to_string(inbox.path().join("bad/a.txt")).unwrap(), "content of bad/a.txt");
}

#[tokio::test]
async fn names_that_are_not_text_are_left_alone_and_others_are_data() {
    use std::os::unix::ffi::OsStrExt as _;
    let inbox = folder(&["-rf", "two\nlines", "a b", "ok.ready", "ok"]);
    for name in [&b"x\xff"[..], b"x\xfe", b"y\xff", b"y\xff.ready"] {
        fs::write(inbox.path().join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let outbox = folder(&[]);
    let mock = MockComponent::default();
    let to = format!("file:{}", outbox.path().display());
    let route = source(&inbox, "delete=true&exclude=.*ready").to(to).to("mock:out");
    run(&builder(&mock).route(route).build().unwrap(), &mock, 4).await;
    assert_eq!(names(outbox.path()), ["-rf", "a b", "ok", "two\nlines"]);
    assert_eq!(fs::read_dir(inbox.path()).unwrap().count(), 5, "three that are not text, and two done files");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_fails_waits_longer_each_time_and_no_other_file_waits_for_it() {
    let inbox = folder(&["bad", "good1", "good2"]);
    let mock = MockComponent::default();
    let uri = format!("file:{}?max_messages_per_poll=1&delete=true", inbox.path().display());
    let route = from(uri).to("mock:out").process(|exchange| {
        if exchange.message.body.to_string().ends_with("bad") { Err("bad".into()) } else { Ok(()) }
    });
    let router = builder(&mock).route(route).build().unwrap();
    let work = async {
        // Blocking calls stop the paused clock, so this is the time of the polls.
        sleep(Duration::from_secs(60)).await;
        let bodies = mock.endpoint("out").received().len();
        // Tried at 1, 2, 4, 8, 16, 32 s or a little later, and the two good ones.
        assert!((6..=9).contains(&bodies), "{bodies}");
        assert_eq!(names(inbox.path()), ["bad"]);
        // Another file under the name is read at once.
        fs::write(inbox.path().join("bad"), "mended").unwrap();
        mock.endpoint("out").wait_for(bodies + 1).await;
        sleep(Duration::from_secs(1)).await;
        assert!(names(inbox.path()).is_empty());
    };
    let _ = router.run_until(work).await;
}

#[tokio::test(start_paused = true)]
async fn many_files_that_fail_do_not_starve_one_that_was_not_tried() {
    let bad = (0..40).map(|number| format!("bad{number:02}")).collect::<Vec<_>>();
    let inbox = folder(&bad.iter().map(String::as_str).chain(["zgood"]).collect::<Vec<_>>());
    let mock = MockComponent::default();
    let uri = format!("file:{}?delay=100ms&max_messages_per_poll=1&delete=true", inbox.path().display());
    let route = from(uri).process(|exchange| match exchange.message.body.to_string().contains("bad") {
        true => Err("bad".into()),
        false => Ok(()),
    });
    let router = builder(&mock).route(route.to("mock:out")).build().unwrap();
    let work = async {
        let good = mock.endpoint("out");
        tokio::time::timeout(Duration::from_secs(30), good.wait_for(1)).await.unwrap();
    };
    let _ = router.run_until(work).await;
}

#[tokio::test]
async fn a_file_that_could_not_be_moved_is_worked_on_once() {
    let inbox = folder(&["a", "b"]);
    let mock = MockComponent::default();
    // Nothing can be moved to where a file is, and that is found out only afterwards.
    let way = inbox.path().join("bad");
    fs::write(&way, "in the way").unwrap();
    let route = source(&inbox, "move_failed=bad&exclude=bad").to("mock:out").process(|_| Err("bad".into()));
    let router = builder(&mock).route(route).build().unwrap();
    let work = async {
        mock.endpoint("out").wait_for(2).await;
        while router.routes()[0].note.is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        let note = router.routes()[0].note.clone().unwrap();
        assert!(note.contains("waits: ") && note.contains("no directory of its own"), "{note}");
        // While it is tried again, a file has another name for a moment.
        while names(inbox.path()) != ["a", "b", "bad"] {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(100)).await;
        fs::remove_file(&way).unwrap();
        while names(inbox.path()) != ["bad/a", "bad/b"] {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = timeout(Duration::from_secs(20), router.run_until(work)).await.unwrap();
    assert_eq!(mock.endpoint("out").received().len(), 2, "each was worked on once");
}

#[tokio::test]
async fn a_file_that_was_being_settled_when_its_process_ended_is_read_again() {
    let inbox = folder(&[".settling-a", ".settling-b", "b", ".settling-skip"]);
    let bodies = read(&inbox, "exclude=skip&delete=true", 3).await;
    assert_eq!(bodies.len(), 3);
    assert_eq!(names(inbox.path()), [".settling-skip"], "it is of a consumer of other files");
}

#[tokio::test]
async fn a_pipe_that_takes_the_place_of_a_file_blocks_nothing() {
    let inbox = folder(&["b"]);
    let fifo = inbox.path().join("a");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_eq!(read(&inbox, "", 1).await, ["content of b"]);
    assert!(fifo.exists());
}

/// As long as a name can be, with an extension.
fn longest(first: char) -> String {
    format!("{first}{}.txt", "x".repeat(250))
}

#[tokio::test]
async fn a_file_with_the_longest_name_is_settled_and_numbered() {
    for (options, left) in [("delete=true", 0), ("move=done", 1)] {
        let folder = folder(&[&longest('a')]);
        assert_eq!(read(&folder, options, 1).await, [format!("content of {}", longest('a'))]);
        assert_eq!(names(folder.path()).len(), left, "{options}: {:?}", names(folder.path()));
    }
    // There is one of the same name already.
    let folder = folder(&[&longest('a'), &format!("done/{}", longest('a'))]);
    read(&folder, "move=done", 1).await;
    let found = names(folder.path());
    assert!(found.len() == 2 && found.iter().all(|name| name.starts_with("done/")), "{found:?}");
    assert!(found.iter().any(|name| name.ends_with("-1.txt")), "{found:?}");
}

#[tokio::test]
async fn a_file_with_the_longest_name_gets_it_back_when_its_process_has_ended() {
    let folder = folder(&[&format!(".settling/{}", longest('a')), "sub/.settling/b"]);
    assert_eq!(read(&folder, "noop=true&recursive=true", 2).await.len(), 2);
    assert_eq!(names(folder.path()), [longest('a'), "sub/b".into()]);
}
