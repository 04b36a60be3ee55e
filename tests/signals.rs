//! The promise: a process that is asked to stop stops, wherever it is: while it starts, while it works, and when
//! its threads are stuck.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use bactrian::prelude::*;
use rustix::process::{Pid, Signal, kill_process};

/// A process and its log.
struct Process {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    fn run(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
        command.current_dir(folder).env_clear().args(["run", "--set", "log.format=human"]).args(arguments);
        Self::start(command)
    }

    /// This very test program, asked to run one of its ignored tests.
    fn program(name: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([name, "--exact", "--ignored", "--nocapture"]);
        Self::start(command)
    }

    fn wait_for(&mut self, wanted: &str) {
        let mut lines = String::new();
        while !lines.contains(wanted) {
            assert!(self.log.read_line(&mut lines).unwrap() > 0, "it ended without `{wanted}`:\n{lines}");
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How it ends, within `limit`.
    fn ends(&mut self, limit: Duration) -> Option<i32> {
        let patience = Instant::now() + limit;
        while Instant::now() < patience {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            pause();
        }
        panic!("it does not end");
    }

    /// Whether the kernel would hand it that signal, instead of ending it by its default action.
    fn catches(&self, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
        u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (signal.as_raw() - 1)) != 0
    }

    fn wait_until_it_catches(&self, signal: Signal) {
        let patience = Instant::now() + Duration::from_secs(30);
        while !self.catches(signal) {
            assert!(Instant::now() < patience, "it never listens to signals");
            pause();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test program has no runtime to block")]
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

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
        assert_eq!(process.ends(PATIENCE), Some(0), "nothing was dropped");
    }
}

#[cfg(feature = "kubernetes")]
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
    assert_eq!(process.ends(PATIENCE), Some(0));
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
    assert_eq!(process.ends(PATIENCE), Some(0));
}

#[test]
fn a_program_that_only_waits_for_its_end_ends_with_its_terminal() {
    let mut process = Process::program("a_program_that_waits_for_its_end");
    process.wait_until_it_catches(Signal::TERM);
    process.signal(Signal::HUP);
    assert_eq!(process.ends(PATIENCE), None, "by the signal");
}

#[test]
#[ignore = "this is a program that another test starts"]
fn a_program_that_waits_for_its_end() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(bactrian::shutdown_signal());
}

#[test]
fn a_second_signal_ends_a_process_whose_threads_are_all_stuck() {
    let mut process = Process::program("a_program_whose_threads_are_all_stuck");
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
    let mut process = Process::program("a_program_whose_threads_are_all_stuck");
    process.wait_for("stuck");
    process.signal(Signal::INT);
    // One of the other kind, so that the two cannot count as one.
    process.signal(Signal::TERM);
    assert_eq!(process.ends(PATIENCE), Some(1));
}

#[test]
fn a_program_that_listens_first_can_be_stopped_while_it_starts() {
    let mut process = Process::program("a_program_that_takes_long_to_start");
    process.wait_for("starting");
    process.signal(Signal::TERM);
    assert_eq!(process.ends(PATIENCE), Some(0));
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
        assert_eq!(process.ends(PATIENCE), Some(0));
    }
}
