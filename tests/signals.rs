//! The promise: a process that is asked to stop stops, wherever it is: while it starts, while it works, and when
//! its threads are stuck.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod program;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bactrian::prelude::*;
use rustix::process::Signal;

use program::{PATIENCE, Process, pause};

/// This very test program, asked to run one of its ignored tests.
fn test_program(name: &str) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--ignored", "--nocapture"]);
    Process::start(command)
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_process_that_loads_its_routes_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    // Reading it waits for a writer.
    mkfifo(&folder.path().join("routes.toml"));
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = Process::run(folder.path(), &[]);
        process.wait_until_it_catches(Signal::TERM);
        process.signal(signal);
        assert_eq!(process.ends(PATIENCE).code(), Some(0), "nothing was dropped");
    }
}

#[cfg(feature = "cluster-kubernetes")]
#[test]
fn a_process_that_waits_for_a_silent_server_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\n\
         users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u, namespace: default}}}}]\n"
    );
    std::fs::write(folder.path().join("config"), config).unwrap();
    let routes = "[cluster]\nservice = 'kubernetes'\n[[route]]\nfrom = 'master:lock1:timer:t'\n";
    std::fs::write(folder.path().join("routes.toml"), routes).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
    command.current_dir(folder.path()).env_clear().env("KUBECONFIG", folder.path().join("config"));
    command.args(["run", "--set", "log.format=human"]);
    let mut process = Process::start(command);
    let _connection = server.accept().unwrap();
    process.signal(Signal::TERM);
    assert_eq!(process.ends(PATIENCE).code(), Some(0));
}

#[test]
fn a_signal_that_hangs_up_changes_nothing_where_nothing_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let routes = "[[route]]\nfrom = 'timer:t?delay=0&period=10ms'\nsteps = [{ log = 'tick' }]\n";
    std::fs::write(folder.path().join("routes.toml"), routes).unwrap();
    let mut process = Process::run(folder.path(), &[]);
    process.wait_for("tick");
    process.signal(Signal::HUP);
    process.wait_for("the routes were read again: 1 unchanged");
    process.wait_for("tick");
    process.signal(Signal::TERM);
    assert_eq!(process.ends(PATIENCE).code(), Some(0));
}

#[test]
fn a_program_that_only_waits_for_its_end_ends_with_its_terminal() {
    let mut process = test_program("a_program_that_waits_for_its_end");
    process.wait_until_it_catches(Signal::TERM);
    process.signal(Signal::HUP);
    assert_eq!(process.ends(PATIENCE).code(), None, "by the signal");
}

#[test]
#[ignore = "this is a program that another test starts"]
fn a_program_that_waits_for_its_end() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(bactrian::shutdown_signal());
}

#[test]
fn a_second_signal_ends_a_process_whose_threads_are_all_stuck() {
    let mut process = test_program("a_program_whose_threads_are_all_stuck");
    process.wait_for("stuck");
    process.signal(Signal::TERM);
    // Signals that arrive together count as one.
    assert_eq!(process.child.try_wait().unwrap(), None);
    let patience = Instant::now() + PATIENCE;
    loop {
        process.signal(Signal::TERM);
        pause();
        if let Some(status) = process.child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(1), "what was in flight was dropped");
            return;
        }
        assert!(Instant::now() < patience, "it does not end");
    }
}

#[test]
#[ignore = "this is a program that another test starts"]
fn a_program_whose_threads_are_all_stuck() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let route = from("timer:t?delay=0&period=0").process(|_| {
            eprintln!("stuck");
            loop {
                std::thread::park();
            }
        });
        let router = bactrian::router().route(route).build().unwrap();
        let _ = bactrian::run(&router).await;
    });
}

#[test]
fn a_second_signal_alone_ends_a_process_that_does_not_abort_in_time() {
    let mut process = test_program("a_program_whose_threads_are_all_stuck");
    process.wait_for("stuck");
    process.signal(Signal::INT);
    // One of the other kind, so that the two cannot count as one.
    process.signal(Signal::TERM);
    assert_eq!(process.ends(PATIENCE).code(), Some(1));
}

/// As `timeout` does it: one to the process, one to its group.
#[test]
fn signals_of_one_kind_that_arrive_together_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let routes = "[[route]]\nfrom = 'timer:t?delay=0&repeat_count=1'\nsteps = [{ log = 'begun' }, { delay = '1s' }, { log = 'finished' }]\n";
    std::fs::write(folder.path().join("routes.toml"), routes).unwrap();
    // On a machine that is busy, too much time may pass between the two.
    for _ in 0..20 {
        let mut process = Process::run(folder.path(), &[]);
        process.wait_for("begun");
        let sent = Instant::now();
        process.signal(Signal::TERM);
        // The first has arrived: the kernel does not merge them.
        process.wait_for("draining");
        process.signal(Signal::TERM);
        if sent.elapsed() < Duration::from_millis(90) {
            assert_eq!(process.ends(PATIENCE).code(), Some(0), "what is in flight is finished");
            return;
        }
    }
    panic!("the two never arrive together");
}

#[test]
fn a_program_that_listens_first_can_be_stopped_while_it_starts() {
    let mut process = test_program("a_program_that_takes_long_to_start");
    process.wait_for("starting");
    process.signal(Signal::TERM);
    assert_eq!(process.ends(PATIENCE).code(), Some(0));
}

#[test]
#[ignore = "this is a program that another test starts"]
fn a_program_that_takes_long_to_start() {
    bactrian::listen_for_signals().unwrap();
    eprintln!("starting");
    loop {
        std::thread::park();
    }
}

/// As a container runs it: nothing has a default action for the process with the id 1.
#[test]
#[ignore = "needs root, for a namespace of processes"]
fn the_first_process_of_a_container_can_be_stopped_while_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    mkfifo(&folder.path().join("routes.toml"));
    for kill in ["TERM", "INT"] {
        let mut command = Command::new("unshare");
        command.current_dir(folder.path()).args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        command.arg(env!("CARGO_BIN_EXE_bactrian")).arg("run");
        let mut process = Process::start(command);
        let patience = Instant::now() + PATIENCE;
        let first = loop {
            let children = format!("/proc/{0}/task/{0}/children", process.child.id());
            let children = std::fs::read_to_string(children).unwrap_or_default();
            let first = children.trim().parse::<i32>().ok();
            let status = first.and_then(|id| std::fs::read_to_string(format!("/proc/{id}/status")).ok());
            // The thread of the signals is there, and the pipe is being opened.
            if status
                .is_some_and(|status| status.contains("Name:\tbactrian") && status.contains("Threads:\t2"))
            {
                break first.unwrap();
            }
            assert!(Instant::now() < patience, "it does not start");
            pause();
        };
        let _ = Command::new("kill").args([&format!("-{kill}"), &first.to_string()]).status().unwrap();
        assert_eq!(process.ends(PATIENCE).code(), Some(0));
    }
}
