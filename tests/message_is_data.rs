//! The promise: a message is data, never a route. The real program, with messages that try.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod program;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;

use program::{Process, bactrian};

fn run(folder: &Path, routes: &str) -> Process {
    std::fs::write(folder.join("routes.toml"), routes).unwrap();
    let mut command = bactrian(folder, &["run"]);
    command.env("DB_PASSWORD", "hunter2");
    Process::start(command)
}

#[test]
fn a_header_with_an_option_in_it_sends_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let routes = r#"
        [[route]]
        from = "timer:t?delay=0&repeat_count=1"
        steps = [
          { set_header = { name = "id", value = "7?auth_bearer_token=env:DB_PASSWORD&http_method=DELETE" } },
          { to_dynamic = "http:ADDRESS/o/${header.id}?skip_request_headers=true" },
        ]"#;
    let _running = run(folder.path(), &routes.replace("ADDRESS", &address.to_string()));
    let (connection, _) = server.accept().unwrap();
    let lines = BufReader::new(&connection).lines().map(Result::unwrap);
    let request = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>();
    (&connection).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    let path = "/o/7%3Fauth_bearer_token%3Denv%3ADB_PASSWORD%26http_method%3DDELETE";
    assert_eq!(request[0], format!("GET {path} HTTP/1.1"));
    let request = request.join("\n").to_lowercase();
    assert!(!request.contains("authorization") && !request.contains("hunter2"), "{request}");
}

#[test]
fn a_header_that_climbs_writes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("a/b");
    std::fs::create_dir_all(&inner).unwrap();
    let routes = r#"
        [[route]]
        id = "write"
        from = "timer:t?delay=0&repeat_count=1"
        steps = [
          { set_body = "content" },
          { set_header = { name = "id", value = "../../.." } },
          { to_dynamic = { uri = "file:", directory = "out/${header.id}", file_name = "f" } },
        ]"#;
    let log = run(&inner, routes).wait_for("failed");
    assert!(log.contains("route `write`, step 3 (to_dynamic) failed: `${header.id}` is `../../..`"), "{log}");
    let names = |place: &Path| std::fs::read_dir(place).unwrap().count();
    assert_eq!((names(folder.path()), names(&inner)), (1, 1), "the routes alone");
}

#[test]
fn what_cannot_be_compared_fails_the_exchange_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let routes = r#"
        [[route]]
        id = "compare"
        from = "timer:t?delay=0&repeat_count=1"
        error_handler = { dead_letter = { uri = "log:", name = "dead" } }
        steps = [
          { set_body = "many" },
          { choice = { when = [{ predicate = "${body} < 5", steps = ["stop"] }] } },
        ]"#;
    let log = run(folder.path(), routes).wait_for("Exchange[");
    let expected = "route `compare`, step 2 (choice) failed: `${body} < 5` cannot be decided: \
                    the text `many` and the number 5 have no order";
    assert!(log.contains(expected), "{log}");
}
