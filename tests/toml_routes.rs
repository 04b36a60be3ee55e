//! The promise: `bactrian check` and `bactrian run` report every error in a folder of routes at once,
//! the same way, and nothing starts before there is none.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod program;

use std::path::Path;
use std::process::Output;

use program::{bactrian as command, folder};

fn bactrian(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What both verbs print for files with errors.
#[track_caller]
fn errors(files: &[(&str, &str)], arguments: &[&str]) -> String {
    let folder = folder(files);
    let before = entries(folder.path());
    let verb = |verb| bactrian(folder.path(), &[&[verb], arguments].concat());
    let (check, run) = (verb("check"), verb("run"));
    assert_eq!((check.status.code(), run.status.code()), (Some(78), Some(78)), "{}", stderr(&check));
    assert_eq!(stderr(&check), stderr(&run));
    assert_eq!((stdout(&check), stdout(&run)), (String::new(), String::new()));
    assert_eq!(entries(folder.path()), before, "nothing may be created");
    stderr(&check)
}

fn entries(folder: &Path) -> Vec<std::ffi::OsString> {
    let mut names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    names.sort();
    names
}

/// The first lines of all errors, with their places.
fn summary(printed: &str) -> Vec<String> {
    let lines = printed.lines().collect::<Vec<_>>();
    let pairs = lines.windows(2).filter(|pair| pair[0].starts_with("error: "));
    pairs.map(|pair| format!("{} {}", pair[1].trim().trim_start_matches("--> "), &pair[0][7..])).collect()
}

const GOOD: &str = "[cluster]\nservice = 'memory'\n[[route]]\nid = 'clock'\nfrom = 'master:lock1:timer:clock?delay=0&period=50ms'\nsteps = [{ log = 'tick ${term}' }]\n";

#[test]
fn every_kind_of_error_is_reported_at_once_with_its_place() {
    let routes = r#"
[cluster]
servce = "file"

[[route]]
id = "clock"
from = "master:lock1:timer:clock?perod=1s"
steps = [
  { lgo = "Hello" },
  { to = "lgo:audit" },
  { to = "log:audit?levle=INFO" },
  { to = "direct:nowhere" },
  { log = "${heder.x}" },
  { filter = 5 },
  { set_header = { name = "x", vaule = 1 } },
  { log = "${env:NO_SUCH}" },
]
stesp = []

[[route]]
id = "clock"
from = "direct:there"
"#;
    let printed = errors(&[("routes.toml", routes)], &[]);
    assert_eq!(
        summary(&printed),
        [
            "routes.toml:3:1 unknown key `servce` in `[cluster]`",
            "routes.toml:7:34 unknown option `perod` for component `timer`",
            "routes.toml:9:5 unknown step `lgo`",
            "routes.toml:10:11 unknown component `lgo`",
            "routes.toml:11:21 unknown option `levle` for component `log`",
            "routes.toml:12:11 no route consumes `direct:nowhere`",
            "routes.toml:13:14 unknown placeholder `heder.x`",
            "routes.toml:14:14 `filter` takes text or a table with `predicate` and `steps`, found an integer",
            "routes.toml:15:32 unknown key `vaule` in `set_header`",
            "routes.toml:16:12 the environment variable `NO_SUCH` is not set",
            "routes.toml:18:1 unknown key `stesp` in `route`",
            "routes.toml:21:7 there is already a route `clock`",
        ]
    );
    let option = r#"
error: unknown option `perod` for component `timer`
 --> routes.toml:7:34
  |
7 | from = "master:lock1:timer:clock?perod=1s"
  |                                  ^^^^^ did you mean `period`?
  |
  = help: `bactrian doc timer` lists its options"#;
    assert!(printed.contains(option), "{printed}");
    assert!(printed.contains("= help: the first one is at routes.toml:6:7"), "{printed}");
    assert!(printed.ends_with("\n\n12 errors, nothing was started\n"), "{printed}");
}

#[test]
fn a_master_route_without_a_cluster_names_both_ways_to_have_one() {
    let routes = "[[route]]\nfrom = 'master:lock1:timer:clock'\n";
    let printed = errors(&[("routes.toml", routes)], &[]);
    let expected = "
error: `master:` needs a cluster service, and none is configured
 --> routes.toml:2:9
  |
2 | from = 'master:lock1:timer:clock'
  |         ^^^^^^
  |
  = help: in TOML add a table `[cluster]` with `service = \"file\"`; in Rust call `RouterBuilder::cluster`

1 error, nothing was started
";
    assert_eq!(printed, expected.trim_start());
}

#[test]
#[cfg(not(feature = "cluster-kubernetes"))]
fn a_service_that_is_not_built_in_is_an_error_where_it_is_named() {
    let routes = GOOD.replace("'memory'", "'kubernetes'");
    let printed = errors(&[("routes.toml", &routes)], &[]);
    assert_eq!(
        summary(&printed),
        ["routes.toml:2:11 the cluster service `kubernetes` is not built into this program"]
    );
    let printed = errors(&[("routes.toml", GOOD)], &["--set", "cluster.service=kubernetes"]);
    assert_eq!(
        summary(&printed),
        ["--set:1:17 the cluster service `kubernetes` is not built into this program"]
    );
}

#[test]
#[cfg(feature = "cluster-kubernetes")]
fn settings_that_are_not_safe_together_are_an_error() {
    let routes =
        GOOD.replace("'memory'", "'kubernetes'\n[cluster.kubernetes]\nprofile = 'fast'\nstop = '4s'");
    let printed = errors(&[("routes.toml", &routes)], &[]);
    assert!(summary(&printed)[0].starts_with("routes.toml:5:8 the takeover wait is too short"), "{printed}");
    let printed = errors(&[("routes.toml", &routes)], &["--set", "cluster.kubernetes.group=A"]);
    assert!(
        summary(&printed)[0].starts_with("--set:1:26 a group has 1 to 63 of the characters"),
        "{printed}"
    );
}

#[test]
fn what_is_written_from_habit_gets_a_hint() {
    for (text, hint) in [
        ("service = 'file'\n[[route]]\nfrom = 'timer:t'\n", "it is a key of `[cluster]`"),
        ("log.level = 'debug'\n[[route]]\nfrom = 'timer:t'\n", "`RUST_LOG=debug`"),
        ("from = 'timer:t'\n", "write `[[route]]` in a line above it"),
        ("route:\n  from: timer:t\n", "this looks like YAML"),
        ("[[route]]\nfrom = 'timer:t?note=a?b&c'\n", "written `%3F` and `%26`"),
        (
            "[[route]]\nfrom = 'timer:t'\nsteps = [{ to = 'log:${header.x}' }]\n",
            "`to_dynamic` replaces placeholders",
        ),
    ] {
        let printed = errors(&[("routes.toml", text)], &["routes.toml"]);
        assert!(printed.contains(hint), "{text}: {printed}");
    }
}

#[test]
fn errors_between_files_are_found() {
    let files = [("b.toml", GOOD), ("a.toml", GOOD), ("not-toml.toml", "a = b"), (".hidden.toml", "a = b")];
    let printed = errors(&files, &["."]);
    assert_eq!(
        summary(&printed),
        [
            "./b.toml:4:7 there is already a route `clock`",
            "./not-toml.toml:1:5 not TOML: string values must be quoted, expected literal string",
        ]
    );
}

#[test]
fn what_is_no_text_in_utf_8_is_an_error_at_its_first_byte() {
    let folder = folder(&[]);
    let check = |bytes: &[u8]| {
        std::fs::write(folder.path().join("routes.toml"), bytes).unwrap();
        let output = bactrian(folder.path(), &["check"]);
        assert_eq!(output.status.code(), Some(78));
        stderr(&output)
    };
    let latin = check(b"[[route]]\nfrom = 'timer:x'\nsteps = [{ log = 'caf\xE9' }]\n");
    assert!(latin.contains("the byte 0xe9 is not UTF-8, and TOML is\n --> routes.toml:3:22\n"), "{latin}");
    assert!(latin.contains("Latin-1"), "{latin}");
    let utf_16 = GOOD.encode_utf16().flat_map(u16::to_le_bytes);
    let utf_16 = check(&[0xFF, 0xFE].into_iter().chain(utf_16).collect::<Vec<_>>());
    assert!(utf_16.contains("routes.toml:1:1") && utf_16.contains("UTF-16"), "{utf_16}");
    // With a mark of UTF-8 it is text.
    std::fs::write(folder.path().join("routes.toml"), format!("\u{FEFF}{GOOD}")).unwrap();
    let marked = bactrian(folder.path(), &["check"]);
    assert_eq!(marked.status.code(), Some(0), "{}", stderr(&marked));
    let endless = bactrian(folder.path(), &["check", "/dev/zero"]);
    assert!(stderr(&endless).contains("`/dev/zero` has more than 16 MiB"), "{}", stderr(&endless));
}

#[test]
fn files_that_can_each_be_run_alone_can_be_run_together_if_their_settings_are_equal() {
    let other = GOOD.replace("'clock'", "'other'");
    let folder = folder(&[("a.toml", GOOD), ("b.toml", &other)]);
    assert_eq!(bactrian(folder.path(), &["check", "."]).status.code(), Some(0));
    let printed = errors(&[("a.toml", GOOD), ("b.toml", &other.replace("memory", "auto"))], &["."]);
    assert_eq!(summary(&printed), ["./b.toml:2:1 setting `cluster.service` is set to two values"]);
}

#[test]
fn settings_that_the_cluster_service_does_not_use_are_errors() {
    let with = |service: &str, line: &str| GOOD.replace("'memory'", &format!("{service}\n{line}"));
    let check = |routes: &str, arguments: &[&str]| summary(&errors(&[("routes.toml", routes)], arguments));
    let reason = |service| format!("has no effect: the cluster service is `{service}`");
    assert_eq!(
        check(&with("'memory'", "[cluster.file]\nroot = 'x'"), &[]),
        [format!("routes.toml:4:8 setting `cluster.file.root` {}", reason("memory"))]
    );
    let without = GOOD
        .replace("[cluster]\nservice = 'memory'", "[cluster.file]\nroot = 'x'")
        .replace("master:lock1:", "");
    assert_eq!(
        check(&without, &[]),
        ["routes.toml:2:8 setting `cluster.file.root` has no effect: no cluster service is set"]
    );
    // The settings of a service that is overridden are its own, those beside the override are not.
    let folder = folder(&[(
        "routes.toml",
        &with("'auto'", "[cluster.file]\nroot = 'x'\n[cluster.kubernetes]\nnamespace = 'y'"),
    )]);
    let memory = ["check", "--set", "cluster.service=memory"];
    assert_eq!(bactrian(folder.path(), &memory).status.code(), Some(0));
    let ignored = [&memory[..], &["--set", "cluster.kubernetes.namespace=z"]].concat();
    assert!(stderr(&bactrian(folder.path(), &ignored)).contains(&reason("memory")));
    if cfg!(feature = "cluster-file") {
        assert_eq!(bactrian(folder.path(), &["check"]).status.code(), Some(0), "`auto` takes both");
        let printed = check(&with("'file'", "[cluster.kubernetes]\nnamespace = 'x'"), &[]);
        assert_eq!(printed.len(), 1);
        // A program without that service knows its table.
        let what = if cfg!(feature = "cluster-kubernetes") {
            "routes.toml:4:13 setting `cluster.kubernetes.namespace`"
        } else {
            "routes.toml:3:10 the table `[cluster.kubernetes]`"
        };
        assert_eq!(printed, [format!("{what} {}", reason("file"))]);
        for verb in [&["handover", "lock1"][..], &["drain"], &["leaders"]] {
            let arguments = [verb, &["-n", "x", "--set", "cluster.service=file"]].concat();
            let output = bactrian(folder.path(), &arguments);
            assert_eq!(output.status.code(), Some(78), "{verb:?}");
            assert!(stderr(&output).contains(&reason("file")), "{}", stderr(&output));
        }
    }
}

#[test]
#[cfg(feature = "cluster-file")]
fn a_root_that_cannot_hold_lock_files_is_an_error_before_anything_runs() {
    let routes = |root: &str| GOOD.replace("'memory'", &format!("'file'\n[cluster.file]\nroot = '{root}'"));
    let printed = errors(&[("routes.toml", &routes("routes.toml/locks"))], &[]);
    assert_eq!(summary(&printed), ["routes.toml:4:8 `routes.toml` is not a directory"]);
    let printed = errors(&[("routes.toml", &routes("/proc/sys/kernel/locks"))], &[]);
    // Root may write all there, and make nothing.
    assert!(summary(&printed)[0].contains("belongs to the kernel"), "{printed}");
}

#[test]
fn what_is_not_built_in_is_named_with_its_feature() {
    let optional = [
        (cfg!(feature = "component-sql"), "sql:select 1", "sql", "component-sql"),
        (cfg!(feature = "component-cron"), "cron:c", "cron", "component-cron"),
        (cfg!(feature = "component-file"), "file:in", "file", "component-file"),
        (cfg!(feature = "component-http"), "telegram:bots", "telegram", "component-http"),
    ];
    for (_, uri, scheme, feature) in optional.into_iter().filter(|(built_in, ..)| !built_in) {
        let printed = errors(&[("routes.toml", &format!("[[route]]\nfrom = '{uri}'\n"))], &[]);
        assert!(
            printed.contains(&format!("the component `{scheme}` is not built into this program")),
            "{printed}"
        );
        assert!(printed.contains(&format!("the feature `{feature}`")), "{printed}");
        let folder = folder(&[]);
        let doc = stderr(&bactrian(folder.path(), &["doc", scheme]));
        assert!(doc.contains(&format!("the feature `{feature}`")), "{doc}");
    }
    if cfg!(not(feature = "cluster-kubernetes")) {
        let folder = folder(&[]);
        let output = bactrian(folder.path(), &["kubernetes", "manifest", "--image", "x"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("the feature `cluster-kubernetes`"), "{}", stderr(&output));
    }
}

#[test]
fn a_source_with_an_error_may_be_the_one_that_is_called() {
    let routes =
        "[[route]]\nfrom = 'timer:x'\nsteps = [{ to = 'direct:audit' }]\n[[route]]\nfrom = 'dirct:audit'\n";
    let printed = errors(&[("routes.toml", routes)], &[]);
    assert_eq!(summary(&printed), ["routes.toml:5:9 unknown component `dirct`"]);
}

#[test]
fn without_files_and_without_routes_there_is_nothing_to_do() {
    let printed = errors(&[], &[]);
    assert!(printed.starts_with("error: there is no `routes.toml` in this folder\n"), "{printed}");
    let printed = errors(&[], &["missing.toml", "."]);
    assert!(printed.contains("error: cannot read `missing.toml`: "), "{printed}");
    assert!(printed.contains("error: there is no `*.toml` in `.`"), "{printed}");
    let printed = errors(&[("routes.toml", "[cluster]\nservice = 'memory'\n")], &[]);
    assert!(printed.starts_with("error: there is no route in `routes.toml`"), "{printed}");
}

#[test]
fn good_files_are_counted_once_and_nothing_is_created() {
    let folder = folder(&[(
        "routes.toml",
        &GOOD.replace("memory", if cfg!(feature = "cluster-file") { "auto" } else { "memory" }),
    )]);
    let check = bactrian(folder.path(), &["check"]);
    assert_eq!((check.status.code(), stdout(&check)), (Some(0), "routes.toml: 1 route, 0 errors\n".into()));
    let twice = bactrian(folder.path(), &["check", "routes.toml", "."]);
    assert_eq!(stdout(&twice), "routes.toml: 1 route, 0 errors\n");
    assert_eq!(entries(folder.path()), ["routes.toml"]);
}

#[test]
fn an_environment_variable_is_replaced_inside_a_uri() {
    let folder = folder(&[("routes.toml", "[[route]]\nfrom = 'timer:x?period=${env:PERIOD}'\n")]);
    let check = |period| command(folder.path(), &["check"]).env("PERIOD", period).output().unwrap();
    assert_eq!(check("2s").status.code(), Some(0));
    // The caret is under the variable, because that is what stands in the file.
    let expected = " --> routes.toml:2:24\n  |\n2 | from = 'timer:x?period=${env:PERIOD}'\n  |                        ^^^^^^^^^^^^^\n";
    assert!(stderr(&check("soon")).contains(expected), "{}", stderr(&check("soon")));
}

#[test]
fn the_command_line_itself_can_be_wrong() {
    let folder = folder(&[]);
    for arguments in [&[][..], &["rnu"], &["check", "--force"], &["doc"], &["doc", "timr"]] {
        assert_eq!(bactrian(folder.path(), arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert!(stderr(&bactrian(folder.path(), &["doc", "timr"])).contains("did you mean `timer`?"));
}

#[test]
fn list_and_doc_show_the_components() {
    let folder = folder(&[]);
    let list = stdout(&bactrian(folder.path(), &["list"]));
    assert!(list.lines().any(|line| line.starts_with("timer ") && line.contains("from")), "{list}");
    let doc = stdout(&bactrian(folder.path(), &["doc", "timer"]));
    assert!(doc.contains("Syntax: `timer:name`, in `from`"), "{doc}");
    assert!(doc.contains("| `period` | duration | `1s` |"), "{doc}");
    let step = stdout(&bactrian(folder.path(), &["doc", "loop"]));
    assert!(step.contains("| `copy` | boolean | `false` |"), "{step}");
    let both = stdout(&bactrian(folder.path(), &["doc", "log"]));
    assert!(
        both.contains("| `message` | text with placeholders |") && both.contains("| `show_all` |"),
        "{both}"
    );
    for verb in ["run", "check", "list", "doc"] {
        let help = stdout(&bactrian(folder.path(), &[verb, "--help"]));
        assert!(help.contains(&format!("Example:\n  bactrian {verb}")), "{help}");
    }
}

#[cfg(unix)]
mod real_processes {
    use rustix::process::Signal;

    use super::program::{PATIENCE, Process};
    use super::*;

    #[test]
    fn the_first_signal_drains_and_the_process_ends_well() {
        for signal in [Signal::TERM, Signal::INT] {
            let folder = folder(&[("routes.toml", GOOD)]);
            let mut process = Process::run(folder.path(), &[]);
            process.wait_for("tick 1");
            process.signal(signal);
            assert_eq!(process.ends(PATIENCE).code(), Some(0), "{signal:?}");
        }
    }

    #[test]
    fn the_second_signal_aborts() {
        let routes = "[[route]]\nid = 'slow'\nfrom = 'timer:x?delay=0'\nsteps = [{ log = 'begin' }, { delay = '1h' }]\n";
        let folder = folder(&[("routes.toml", routes)]);
        let mut process = Process::run(folder.path(), &[]);
        process.wait_for("begin");
        process.signal(Signal::TERM);
        process.wait_for("draining");
        // Of the other kind: it cannot count as the same.
        process.signal(Signal::INT);
        assert_eq!(process.ends(PATIENCE).code(), Some(1));
    }

    #[test]
    fn the_log_is_json_unless_it_is_for_people() {
        let folder = folder(&[("routes.toml", GOOD)]);
        let mut process = Process::run(folder.path(), &[]);
        process.wait_for(" INFO clock: tick 1");
        let line = process.line().unwrap();
        assert_eq!(&line[8..], " INFO clock: tick 1");
        let mut process = Process::start(command(folder.path(), &["run"]));
        process.wait_for(r#""message":"tick 1","logger":"clock""#);
    }
}

#[test]
fn a_variable_that_is_not_text_is_not_one_that_is_not_set() {
    use std::os::unix::ffi::OsStrExt as _;
    let routes = "# ${env:NAME}\n[[route]]\nfrom = 'timer:t${env:NAME}${env:NAME:-x}'\n";
    let folder = folder(&[("routes.toml", routes)]);
    let value = std::ffi::OsStr::from_bytes(b"\xff");
    let mut check = command(folder.path(), &["check"]);
    let output = check
        .env("NAME", value)
        .env("BACTRIAN_CLUSTER__FILE__ROOT", value)
        .env("BACTRIAN_X", "y")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let mut found = summary(&stderr(&output));
    found.sort();
    assert_eq!(
        found,
        [
            "environment:1:1 the value of the environment variable `BACTRIAN_CLUSTER__FILE__ROOT` is not UTF-8",
            "routes.toml:3:16 the value of the environment variable `NAME` is not UTF-8",
            "routes.toml:3:27 the value of the environment variable `NAME` is not UTF-8",
        ]
    );
    let output = command(folder.path(), &["check"]).env("NAME", "x").env("BACTRIAN_X", "y").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "warning: the environment variable `BACTRIAN_X` is not a setting\n");
}
