//! The promise: every example and every command of the README works as it stands there.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bactrian() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bactrian"))
}

/// The program of an example; `cargo test` builds them beside the tests.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is missing: run `cargo build --examples`", program.display());
    Command::new(program)
}

/// Runs a program in a new directory until it has written `wanted`, asks it to stop, and returns what
/// else it wrote after it has ended well.
fn run_until(mut command: Command, wanted: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    // One pipe for both: examples print, routes log.
    let (reader, writer) = std::io::pipe().unwrap();
    command.current_dir(folder.path()).stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child: Child = command.stdin(Stdio::null()).spawn().unwrap();
    // The command holds the writing ends: without it, the pipe ends with the child.
    drop(command);
    let mut output = BufReader::new(reader);
    let mut lines = String::new();
    while !lines.contains(wanted) {
        let count = output.read_line(&mut lines).unwrap();
        assert!(count > 0, "it ended without `{wanted}`:\n{lines}");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}:\n{lines}{rest}");
    rest
}

#[test]
fn the_clock_in_rust_ticks() {
    run_until(example("clock"), "Hello World!");
}

#[test]
fn the_singleton_service_starts_and_stops() {
    let rest = run_until(example("singleton"), "the service works");
    assert!(rest.contains("the service has stopped"), "{rest}");
}

#[test]
fn the_singleton_closure_works() {
    let mut command = example("singleton");
    command.arg("closure");
    run_until(command, "the closure works in term ");
}

#[test]
fn the_quickstart_for_kubernetes_works_on_a_laptop() {
    for wanted in ["Hello World!", "the singleton works in term "] {
        let mut command = example("kubernetes");
        command.arg("run").arg(root().join("examples/kubernetes/clock.toml"));
        run_until(command, wanted);
    }
}

#[test]
fn every_route_file_is_sound_and_the_clock_ticks() {
    let files = std::fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let files =
        files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect::<Vec<PathBuf>>();
    assert!(!files.is_empty());
    for file in &files {
        let output = bactrian().arg("check").arg(file).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        if file.ends_with("nightly.toml") && cfg!(not(feature = "component-sql")) {
            assert!(printed.contains("unknown component `sql`"), "{printed}");
        } else {
            assert!(output.status.success(), "{printed}");
        }
    }
    let mut command = bactrian();
    command.arg("run").arg(root().join("examples/clock.toml"));
    run_until(command, "Hello World!");
}

/// An example in both forms: the route file, run by the command line, and the program.
#[cfg(any(feature = "component-http", feature = "component-sql"))]
fn both(name: &str) -> [Command; 2] {
    let mut command = bactrian();
    command.arg("run").arg(root().join(format!("examples/{name}.toml")));
    [command, example(name)]
}

#[cfg(feature = "component-http")]
#[tokio::test]
async fn the_echo_bot_answers() {
    for mut command in both("telegram") {
        let server = testkit::TelegramServer::start("123:test").await.unwrap();
        server.receive_text(5, "Hello").unwrap();
        command.env("BOT_TOKEN", "123:test").env("BOT_API", server.base_uri());
        let running = tokio::task::spawn_blocking(|| run_until(command, "answered in chat 5"));
        let rest = running.await.unwrap();
        assert!(!rest.contains("123:test"), "{rest}");
        assert_eq!(server.calls("sendMessage")[0].parameters["text"], "You said: Hello");
        assert!(server.unacknowledged().is_empty());
    }
}

#[test]
fn the_echo_bot_is_under_twenty_lines() {
    let file = std::fs::read_to_string(root().join("examples/telegram.toml")).unwrap();
    assert!(file.lines().count() < 20);
}

#[cfg(feature = "component-http")]
#[tokio::test]
async fn the_poller_logs_new_orders() {
    for mut command in both("http_poll") {
        let answer = |path: &str| match path {
            "/orders" => serde_json::json!({ "orders": [{ "id": 7, "text": "a camel" }], "next": 7 }),
            _ => serde_json::json!({ "orders": [] }),
        };
        let server = testkit::JsonServer::start(answer).await.unwrap();
        command.env("ORDERS", format!("{}/orders", server.uri()));
        tokio::task::spawn_blocking(|| run_until(command, "order 7: a camel")).await.unwrap();
    }
}

/// Sessions that have expired, and one that has not.
#[cfg(feature = "component-sql")]
async fn sessions(database: &str) {
    let router = bactrian::router().build().unwrap();
    for statement in [
        "create table session (id integer primary key, expires text)",
        "insert into session (expires) values ('2001-01-01'), ('2002-02-02'), ('2999-01-01')",
    ] {
        let sql = router.producer(format!("sql:{statement}?data_source={database}")).unwrap();
        sql.process(&mut bactrian::prelude::Exchange::new(())).await.unwrap();
    }
}

#[cfg(feature = "component-sql")]
#[tokio::test]
async fn the_nightly_job_deletes_what_has_expired() {
    for mut command in both("nightly") {
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite:{}", folder.path().join("test.db").display());
        sessions(&database).await;
        command.env("SCHEDULE", "*+*+*+*+*+*").env("DATABASE", &database);
        let running = || run_until(command, "deleted 2 expired sessions, in term ");
        tokio::task::spawn_blocking(running).await.unwrap();
    }
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

/// The fenced blocks of the README in a language.
fn blocks(language: &str) -> Vec<String> {
    let (readme, fence) = (readme(), format!("```{language}\n"));
    let parts = readme.split(&fence).skip(1);
    parts.map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_commands_of_the_readme_are_the_ones_that_are_tested() {
    let commands = blocks("sh");
    let commands = commands.iter().flat_map(|block| block.lines()).collect::<Vec<_>>();
    assert_eq!(commands, ["cargo run -- run examples/clock.toml", "tests/run"]);
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    for command in commands {
        assert!(ci.contains(command), ".ci/run does not run `{command}`");
    }
}

#[test]
fn the_program_in_the_readme_is_the_example() {
    let example = std::fs::read_to_string(root().join("examples/clock.rs")).unwrap();
    let program = example[example.find("use bactrian").unwrap()..].to_owned();
    assert!(blocks("rust").contains(&program), "the README shows another program than examples/clock.rs");
}

/// What the README shows of an error is what is printed.
#[test]
fn the_error_in_the_readme_is_printed_like_that() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[cluster]\nservice = \"file\"\n\n[[route]]\nid = \"clock\"\n\
                from = \"master:lock1:timer:clock?perod=1s\"\nsteps = [{ log = \"Hello\" }]\n";
    std::fs::write(folder.path().join("routes.toml"), text).unwrap();
    let output = bactrian().args(["check", "routes.toml"]).current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let printed = String::from_utf8(output.stderr).unwrap();
    let shown = &blocks("text")[0];
    assert!(printed.contains(shown.trim_end()), "the README shows\n{shown}\nbut this is printed\n{printed}");
}
