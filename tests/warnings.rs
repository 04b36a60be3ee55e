//! The promise: what runs, but most likely not as meant, is a warning at its place. `bactrian check` prints it and
//! succeeds, `bactrian run` logs it before anything starts and goes on.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod program;

use std::process::{Command, Output};

use tempfile::TempDir;

use program::Process;

fn folder(text: &str) -> TempDir {
    program::folder(&[("routes.toml", text)])
}

fn bactrian(folder: &TempDir, arguments: &[&str]) -> Command {
    program::bactrian(folder.path(), arguments)
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// What `check` prints: a line for the file, and what it says about it.
fn check(text: &str) -> (Option<i32>, String, String) {
    let output = bactrian(&folder(text), &["check"]).output().unwrap();
    let (line, said) = texts(&output);
    (output.status.code(), line, said)
}

const SMALL: &str = "\
[router]
shutdown_timeout = 9

[[route]]
from = 'timer:clock?period=5&delay=0&repeat_count=1'
error_handler = { redelivery_delay = 1 }
steps = [{ delay = 5 }, { delay = '7' }, { delay = '5ms' }, { delay = 10 }, { delay = 0 }, { log = 'tick' }]
";

#[test]
fn a_small_duration_without_a_unit_is_a_warning_where_it_is_written() {
    let (code, line, said) = check(SMALL);
    assert_eq!((code, line.as_str()), (Some(0), "routes.toml: 1 route, 0 errors, 5 warnings\n"), "{said}");
    let expected = [
        ("warning: setting `router.shutdown_timeout`: `9` means 9 milliseconds", "routes.toml:2:20"),
        ("warning: option `period`: `5` means 5 milliseconds", "routes.toml:5:28"),
        ("warning: `redelivery_delay`: `1` means 1 millisecond", "routes.toml:6:38"),
        ("warning: `delay`: `5` means 5 milliseconds", "routes.toml:7:20"),
        ("warning: `delay`: `7` means 7 milliseconds", "routes.toml:7:36"),
    ];
    let mut rest = said.as_str();
    for (message, place) in expected {
        let (title, after) = rest.split_once(message).unwrap_or_else(|| panic!("{message} in {said}"));
        assert!(
            !title.contains("warning:") && after.trim_start().starts_with(&format!("--> {place}")),
            "{said}"
        );
        rest = after;
    }
    assert!(said.contains("write `5ms` or `5s`"), "{said}");
}

#[test]
fn a_run_logs_its_warnings_first_and_once() {
    let output = bactrian(&folder(&SMALL.replace("'tick' }", "'tick' }, { process = 'x' }")), &["run"])
        .output()
        .unwrap();
    let (_, said) = texts(&output);
    assert_eq!(output.status.code(), Some(78));
    assert!(said.ends_with("\n\n1 error, 5 warnings, nothing was started\n"), "beside an error: {said}");

    let folder = folder(SMALL);
    let log = Process::run(folder.path(), &["--set", "admin.listen=off"]).wait_for("tick");
    let warning = "routes.toml:5:28: option `period`: `5` means 5 milliseconds (write `5ms` or `5s`)";
    assert_eq!(log.matches(warning).count(), 1, "{log}");
    let first = log.lines().take(5).filter(|line| line.contains("WARN")).count();
    assert_eq!(first, 5, "before anything else: {log}");
}

const SECRETS: &str = "\
[[route]]
from = 'timer:clock?delay=1h'
steps = [
  { to = 'http:localhost/a?auth_bearer_token=env:NO_SUCH_TOKEN' },
  { to_dynamic = 'http:localhost/${body}?auth_bearer_token=file:no/such/file' },
]
";

#[test]
fn a_secret_that_is_not_there_is_a_warning_of_check_and_an_error_of_run() {
    let (code, line, said) = check(SECRETS);
    assert_eq!((code, line.as_str()), (Some(0), "routes.toml: 1 route, 0 errors, 2 warnings\n"), "{said}");
    let expected = [
        "option `auth_bearer_token`: the environment variable `NO_SUCH_TOKEN` is not set\n --> \
         routes.toml:4:46",
        "option `auth_bearer_token`: the file `no/such/file` cannot be read: No such file or directory (os error 2)\n \
         --> routes.toml:5:60",
    ];
    for error in expected {
        assert!(said.contains(&format!("warning: {error}")), "{said}");
    }
    let folder = folder(SECRETS);
    let output = bactrian(&folder, &["run"]).output().unwrap();
    let (_, said) = texts(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for error in expected {
        assert!(said.contains(&format!("error: {error}")), "{said}");
    }
    assert!(said.ends_with("\n\n2 errors, nothing was started\n"), "{said}");

    std::fs::create_dir_all(folder.path().join("no/such")).unwrap();
    std::fs::write(folder.path().join("no/such/file"), "hunter2\n").unwrap();
    let output = bactrian(&folder, &["check"]).env("NO_SUCH_TOKEN", "hunter2").output().unwrap();
    assert_eq!(texts(&output), ("routes.toml: 1 route, 0 errors\n".into(), String::new()));
}

#[test]
fn a_position_that_cannot_be_kept_is_a_warning_of_check_and_an_error_of_run() {
    let long = "n".repeat(250);
    let expected = [
        ("none/position", "there is no directory `none`"),
        ("file/position", "`file` is not a directory"),
        ("/proc/position", "`/proc` belongs to the kernel"),
        ("/", "this is no path of a file"),
        ("..", "this is no path of a file"),
        ("fifo", "it is no regular file"),
        ("locked", "`./.locked.lock` is no regular file"),
        ("file", "the state in `file` cannot be used: it is no JSON"),
        ("other", "it belongs to the route `other`"),
        ("nobody", "it names no route"),
        (&*long, "File name too long"),
    ];
    for (path, error) in expected {
        let text =
            format!("[[route]]\nid = 'a'\nfrom = 'cron:c?schedule=0+0+*+*+*&state={path}'\nsteps = []\n");
        let folder = folder(&text);
        for (name, content) in
            [("file", "text"), ("other", r#"{"route":"other","state":1}"#), ("nobody", "{}")]
        {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        std::fs::create_dir(folder.path().join(".locked.lock")).unwrap();
        assert!(
            std::process::Command::new("mkfifo").arg(folder.path().join("fifo")).status().unwrap().success()
        );
        for (verb, kind, code) in [("check", "warning", 0), ("run", "error", 78)] {
            let output = bactrian(&folder, &[verb]).output().unwrap();
            let (_, said) = texts(&output);
            assert_eq!(output.status.code(), Some(code), "{said}");
            assert!(said.contains(&format!("{kind}: ")) && said.contains(error), "{path}: {said}");
            assert!(said.contains("--> routes.toml:3:41"), "{said}");
        }
    }
}

#[test]
fn a_position_in_a_file_below_a_lock_is_an_error_at_the_option() {
    let text = |from: &str| {
        format!("[cluster]\nservice = 'memory'\n[[route]]\nid = 'a'\nfrom = '{from}'\nsteps = []\n")
    };
    for from in [
        "cron:a?schedule=*+*+*+*+*&state=x",
        "timer:a?period=1m&fixed_rate=true&missed=once&state=x",
        "http-poll:http://localhost/?state=x",
    ] {
        assert_eq!(check(&text(from)).0, Some(0), "{from}: without a lock");
        let (code, _, said) = check(&text(&format!("master:lock1:{from}")));
        assert_eq!(code, Some(78), "{from}");
        assert!(said.starts_with("error: option `state` has no effect below `master:`\n"), "{said}");
        assert!(said.contains("^^^^^\n") && said.contains("the position travels with the lock"), "{said}");
        assert!(said.ends_with("\n\n1 error, nothing was started\n"), "{said}");
    }
}

#[test]
fn a_placeholder_in_an_id_is_an_error_at_the_placeholder() {
    let (code, _, said) = check("[[route]]\nid = 'a-${header.id}-b'\nfrom = 'timer:a'\nsteps = []\n");
    assert_eq!(code, Some(78));
    assert!(said.contains("error: a placeholder is not replaced here\n --> routes.toml:2:9\n"), "{said}");
    assert!(said.contains(&format!(" {}\n", "^".repeat("${header.id}".len()))), "{said}");
    let (code, _, said) = check(
        "[cluster]\nservice = 'file'\n[cluster.file]\nroot = '/tmp/${node}'\n[[route]]\nfrom = 'timer:a'\n",
    );
    assert_eq!(code, Some(78));
    assert!(said.contains("error: setting `cluster.file.root` takes text without placeholders"), "{said}");
    assert!(said.contains(" --> routes.toml:4:8\n"), "{said}");
}

#[cfg(feature = "component-sql")]
#[test]
fn a_question_mark_that_was_meant_as_a_parameter_is_an_error() {
    let text = |uri: &str| {
        format!(
            "[[route]]\nfrom = 'timer:a'\nsteps = [{{ to = {{ uri = '{uri}', data_source = 'sqlite:x' }} }}]\n"
        )
    };
    for mark in ["?", "?&delay=1s"] {
        let (code, _, said) = check(&text(&format!("sql:select * from a where id = {mark}")));
        assert_eq!(code, Some(78), "{mark}");
        assert!(
            said.contains(
                "error: a `?` ends the statement, and no option follows it\n --> routes.toml:3:57\n"
            ),
            "{said}"
        );
        assert!(said.contains("a parameter is written `:name`"), "{said}");
    }
    assert_eq!(check(&text("sql:select * from a where id = :id")).0, Some(0));
}
