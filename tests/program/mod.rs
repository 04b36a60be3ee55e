//! The real program, as a user starts it.

#![allow(dead_code, reason = "each test uses its part")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with these files.
pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// The program in a folder, without any environment.
pub(crate) fn bactrian(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
    command.current_dir(folder).args(arguments).env_clear();
    command
}

/// A process and its log. It ends with the test.
pub(crate) struct Process {
    pub(crate) child: Child,
    log: BufReader<ChildStderr>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// `bactrian run`, with a log for people.
    pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = bactrian(folder, &["run", "--set", "log.format=human"]);
        command.args(arguments);
        Self::start(command)
    }

    /// The next line of the log, without its end.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.log.read_line(&mut line).unwrap();
        (length > 0).then(|| line.trim_end_matches('\n').to_owned())
    }

    /// The log up to a line with this text.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, wanted: &str) -> String {
        let mut lines = String::new();
        loop {
            let Some(line) = self.line() else { panic!("it ended without `{wanted}`:\n{lines}") };
            lines.push_str(&line);
            lines.push('\n');
            if line.contains(wanted) {
                return lines;
            }
        }
    }

    pub(crate) fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).unwrap();
    }

    /// How it ends, within `limit`.
    pub(crate) fn ends(&mut self, limit: Duration) -> ExitStatus {
        let patience = Instant::now() + limit;
        while Instant::now() < patience {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
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

    pub(crate) fn wait_until_it_catches(&self, signal: Signal) {
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
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}
