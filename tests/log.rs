//! The promise: a log that cannot be written stops nothing. Lines are lost and counted, and come again when they
//! can be written; and what a message says cannot look like a line of the log.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bactrian::logging::{LogFormat, init_logging_as};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A process whose one route notes its work in a file: a line when an exchange begins, one when it ends.
struct Process {
    child: Child,
    folder: TempDir,
}

impl Process {
    /// Each exchange logs `message`, and takes a moment.
    fn start(message: &str, stderr: impl Into<Stdio>, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let note = format!("{{ to = 'file:{}?file_name=notes&file_exist=append' }}", folder.path().display());
        let routes = format!(
            "[cluster]\nservice = 'file'\n[[route]]\nid = 'work'\nfrom = 'master:lock1:timer:t?delay=0&period=5ms'\n\
             steps = [{{ set_body = \"begin ${{term}}\\n\" }}, {note}, {{ log = {message:?} }}, {{ delay = '20ms' }}, \
             {{ set_body = \"end\\n\" }}, {note}]\n"
        );
        fs::write(folder.path().join("routes.toml"), routes).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
        command.current_dir(folder.path()).env_clear().args(["run", "--set", "admin.listen=127.0.0.1:0"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        Self { child, folder }
    }

    fn notes(&self) -> Vec<String> {
        let notes = fs::read_to_string(self.folder.path().join("notes")).unwrap_or_default();
        notes.lines().map(ToOwned::to_owned).collect()
    }

    /// Waits until exchanges have begun and ended that had not before.
    fn assert_works(&self) {
        let before = self.notes().len();
        wait("the route works", || self.notes().len() > before + 20);
    }

    /// Asks it to stop; all exchanges have ended then, and in one term.
    fn stop(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        let notes = self.notes();
        assert_eq!(notes.last().unwrap(), "end", "the exchange in flight was finished");
        let (begun, ended): (Vec<_>, Vec<_>) = notes.iter().partition(|note| note.starts_with("begin"));
        assert_eq!(begun.len(), ended.len());
        assert!(begun.iter().all(|note| *note == begun[0]), "the term was kept: {begun:?}");
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn wait(what: &str, so: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < patience, "waited 30 s until {what}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test program has no runtime to block")]
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// How many lines a process says that it has lost.
fn lost(address: &str) -> u64 {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let line = response.lines().find(|line| line.starts_with("bactrian_log_lines_lost_total "));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// The address of the admin listener, from the log.
fn address(log: &mut impl BufRead) -> String {
    let mut line = String::new();
    while !line.contains("probes and metrics are at http://") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0);
    }
    let address = line.split("http://").nth(1).unwrap();
    address.chars().take_while(|character| character.is_ascii_digit() || ".:".contains(*character)).collect()
}

#[test]
fn a_log_whose_reader_has_gone_stops_nothing() {
    let (reader, writer) = std::io::pipe().unwrap();
    let process = Process::start("tick", writer, &[]);
    let mut reader = BufReader::new(reader);
    let address = address(&mut reader);
    drop(reader);
    process.assert_works();
    wait("lost lines are counted", || lost(&address) > 10);
    assert_eq!(process.stop().code(), Some(0));
}

#[test]
fn a_log_on_a_device_that_is_full_stops_nothing() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let process = Process::start("tick", full, &[]);
    process.assert_works();
    assert_eq!(process.stop().code(), Some(0));
}

#[test]
fn a_log_that_is_not_read_stops_nothing_and_goes_on_when_it_is() {
    let (reader, writer) = std::io::pipe().unwrap();
    // A few lines fill the pipe, and some hundred what the process keeps.
    let process = Process::start(&"x".repeat(8000), writer, &["log.format=human"]);
    let mut reader = BufReader::new(reader);
    let address = address(&mut reader);
    process.assert_works();
    wait("lost lines are counted", || lost(&address) > 10);
    process.assert_works();
    let mut line = String::new();
    while !line.contains(" lines of the log were lost") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0);
    }
    // Also at its end it waits for a moment at most.
    process.assert_works();
    let before = Instant::now();
    assert_eq!(process.stop().code(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
}

#[test]
fn the_last_lines_before_the_end_are_written() {
    for end in ["exit", "abort"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["a_program_that_ends_after_its_last_line", "--exact", "--ignored", "--nocapture"]);
        let output = command.env("END", end).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("the last words"), "{end}: {text}");
        // A panic is a line like any other.
        let panic = text.lines().find(|line| line.contains("a bad step")).unwrap();
        let panic: serde_json::Value = serde_json::from_str(panic).unwrap();
        let message = panic["message"].as_str().unwrap();
        assert!(
            message.starts_with("thread `worker` panicked at ") && message.contains("log.rs"),
            "{message}"
        );
    }
}

#[test]
#[ignore = "this is a program that another test starts"]
fn a_program_that_ends_after_its_last_line() {
    init_logging_as(LogFormat::Json);
    let worker = std::thread::Builder::new().name("worker".into());
    worker.spawn(|| panic!("a bad step")).unwrap().join().unwrap_err();
    let router = bactrian::router().build().unwrap();
    // The router logs through the subscriber of the process, as every line here.
    router_logs(&router, "the last words");
    match std::env::var("END").unwrap().as_str() {
        "exit" => std::process::exit(0),
        _ => std::process::abort(),
    }
}

fn router_logs(_: &bactrian::prelude::Router, line: &str) {
    bactrian::core::log::log_line("test", line, bactrian::prelude::LogLevel::Info);
}

#[test]
fn a_message_cannot_look_like_a_line_or_control_a_terminal() {
    let message = "one\n12:00:00 ERROR forged\r\u{1b}[2J\u{7}\u{9b}31m\u{202e}";
    let logged = |format: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        // The TOML is the message's way in; `{:?}` of Rust and the texts of TOML escape alike, but for these.
        let text = message.replace('\u{1b}', "\\u001b").replace('\u{7}', "\\u0007").replace('\n', "\\n");
        let text = text.replace('\r', "\\r").replace('\u{9b}', "\\u009b");
        let routes = format!(
            "[[route]]\nid = 'a'\nfrom = 'timer:t?delay=0&period=0'\nsteps = [{{ set_body = \"{text}\" }}, \
             {{ log = '${{body}}' }}, {{ to = 'log:l' }}, {{ to = 'log:m?multiline=true' }}]\n"
        );
        fs::write(folder.path().join("routes.toml"), routes).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
        command.current_dir(folder.path()).env_clear().args([
            "run",
            "--set",
            "admin.listen=off",
            "--set",
            format,
        ]);
        let mut child = command.stdin(Stdio::null()).stderr(File::create(&path).unwrap()).spawn().unwrap();
        let log = || fs::read_to_string(&path).unwrap();
        wait("the lines are written", || log().contains("finished"));
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap();
        log()
    };
    let human = logged("log.format=human");
    let escaped = "one\\n12:00:00 ERROR forged\\r\\u{1b}[2J\\u{7}\\u{9b}31m\\u{202e}";
    let shown = |line: &str| human.lines().any(|other| other.ends_with(line));
    assert!(shown(&format!(" INFO a: {escaped}")), "{human}");
    assert!(shown(&format!(" INFO l: Exchange[BodyType: Text, Body: {escaped}]")), "{human}");
    let lines =
        human.lines().skip_while(|line| !line.ends_with(" INFO m: Exchange[")).take(4).collect::<Vec<_>>();
    let last = "    12:00:00 ERROR forged\\r\\u{1b}[2J\\u{7}\\u{9b}31m\\u{202e}]";
    assert_eq!(lines[1..], ["  BodyType: Text", "  Body: one", last], "{human}");
    let json = logged("log.format=json");
    assert!(!json.contains(['\u{1b}', '\u{7}', '\r', '\u{9b}', '\u{202e}']), "{json}");
    let messages = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    assert!(messages.into_iter().any(|line| line["message"] == message), "{json}");
}

/// A log volume that is full for a while.
#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_log_volume_that_is_full_for_a_while_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mount = Mount::tmpfs(folder.path());
    let path = folder.path().join("log");
    let file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let process = Process::start("a line of some length", file, &["log.format=human"]);
    let lines = || fs::read_to_string(&path).unwrap();
    wait("it logs", || lines().contains("a line"));
    let address = address(&mut BufReader::new(File::open(&path).unwrap()));
    // Fails when it is full.
    let _ = fs::write(folder.path().join("filler"), vec![0; 1 << 20]);
    wait("lost lines are counted", || lost(&address) > 10);
    process.assert_works();
    fs::remove_file(folder.path().join("filler")).unwrap();
    wait("it logs again", || lines().contains(" lines of the log were lost"));
    assert_eq!(process.stop().code(), Some(0));
    let whole = |line: &str| line.as_bytes().get(2) == Some(&b':') && line.len() > 12;
    let torn = lines().lines().filter(|line| !whole(line)).count();
    assert!(torn <= 1, "at most the line in which it became full: {}", lines());
    drop(mount);
}

struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn tmpfs(at: &'a Path) -> Self {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(at).status();
        assert!(mount.unwrap().success());
        Self(at)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
