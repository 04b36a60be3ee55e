//! What is done to the files of living members, and what stands in their way: with real processes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Member, SHORT_TIMES, Stage, assert_exclusive, now};

const PATIENCE: Duration = Duration::from_secs(30);

/// A member whose work takes long, but ends in time.
fn short_timed(stage: &Stage, work_ms: u64, without_events: bool) -> Member {
    let mut variables =
        vec![("MEMBER_WORK_MS", work_ms.to_string()), (SHORT_TIMES.0, SHORT_TIMES.1.to_owned())];
    variables.extend(without_events.then(|| ("MEMBER_WITHOUT_EVENTS", "yes".to_owned())));
    stage.spawn("support::member_process", &variables)
}

fn lock_file(stage: &Stage) -> PathBuf {
    stage.locks().join("lock1.lock")
}

fn wait_for_members(stage: &Stage, count: usize) {
    let until = Instant::now() + PATIENCE;
    while bactrian::cluster_file::members(stage.locks()).unwrap().len() < count {
        assert!(Instant::now() < until, "not all members have joined");
        support::pause();
    }
}

#[test]
fn a_lock_file_that_comes_back_makes_no_second_leader() {
    for without_events in [false, true] {
        let stage = Stage::new();
        let mut members =
            vec![short_timed(&stage, 150, without_events), short_timed(&stage, 150, without_events)];
        let mut led = stage.wait_for_term_after(0);
        let (file, aside) = (lock_file(&stage), stage.locks().with_file_name("aside"));
        for _ in 0..2 {
            fs::rename(&file, &aside).unwrap();
            led = stage.wait_for_term_after(led.term);
            fs::rename(&aside, &file).unwrap();
            members.push(short_timed(&stage, 150, without_events));
            led = stage.wait_for_term_after(led.term);
        }
        drop(members);
        assert_exclusive(&stage.records());
    }
}

/// `touch` hides from the times of a file that it was elsewhere.
#[test]
fn a_lock_file_that_comes_back_and_is_touched_makes_no_second_leader() {
    for without_events in [false, true] {
        let stage = Stage::new();
        let mut members =
            vec![short_timed(&stage, 190, without_events), short_timed(&stage, 190, without_events)];
        let mut led = stage.wait_for_term_after(0);
        let (file, aside) = (lock_file(&stage), stage.locks().with_file_name("aside"));
        for _ in 0..3 {
            fs::rename(&file, &aside).unwrap();
            led = stage.wait_for_term_after(led.term);
            fs::rename(&aside, &file).unwrap();
            assert!(Command::new("touch").arg(&file).status().unwrap().success());
            members.push(short_timed(&stage, 190, without_events));
            led = stage.wait_for_term_after(led.term);
        }
        drop(members);
        assert_exclusive(&stage.records());
    }
}

/// Deletes everything in a directory.
fn empty(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        // What a member replaces is not there at times.
        let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path()));
    }
}

#[test]
fn a_root_that_is_emptied_makes_no_second_leader_and_terms_go_on() {
    for without_events in [false, true] {
        let stage = Stage::new();
        let members = (0..3).map(|_| short_timed(&stage, 150, without_events)).collect::<Vec<_>>();
        let mut led = stage.wait_for_term_after(0);
        for _ in 0..4 {
            empty(&stage.locks());
            led = stage.wait_for_term_after(led.term);
        }
        drop(members);
        assert_exclusive(&stage.records());
    }
}

/// A leader that is stopped, or has no time on the processor, does not raise the numbers that were deleted.
#[test]
fn a_term_that_only_its_stopped_leader_knew_is_below_the_next_one() {
    let stage = Stage::new();
    let first = short_timed(&stage, 0, false);
    let known = stage.wait_for_term_after(0);
    let second = short_timed(&stage, 0, false);
    wait_for_members(&stage, 2);
    // The first one hears nothing of the term of the second one.
    first.pause();
    fs::remove_file(lock_file(&stage)).unwrap();
    let unknown = stage.wait_for_term_after(known.term);
    second.pause();
    empty(&stage.locks());
    let resumed = now();
    first.signal(Signal::CONT);
    let is_next = |record: &support::Record| {
        record.member == first.id() && record.start > resumed && record.term != known.term
    };
    let records = stage.wait("another term of the first one", |records| records.iter().any(is_next));
    let next = records.iter().find(|record| is_next(record)).unwrap();
    assert!(next.term > unknown.term, "term {} after {}", next.term, unknown.term);
}

#[test]
fn a_leader_that_slept_while_its_file_was_deleted_starts_nothing_more() {
    for round in 0..6 {
        let stage = Stage::new();
        let mut members = vec![short_timed(&stage, 0, false), short_timed(&stage, 0, false)];
        let led = stage.wait_for_term_after(0);
        let leader = members.iter().position(|member| member.id() == led.member).unwrap();
        let leader = members.swap_remove(leader);
        leader.pause();
        let file = lock_file(&stage);
        if round % 2 == 0 {
            fs::remove_file(&file).unwrap();
        } else {
            fs::rename(&file, file.with_extension("aside")).unwrap();
        }
        let next = stage.wait_for_term_after(led.term);
        if round % 2 != 0 {
            // Its file is where it was: it must not be taken in by that.
            fs::rename(file.with_extension("aside"), &file).unwrap();
        }
        let resumed = now();
        leader.signal(Signal::CONT);
        let next_terms = |records: &[support::Record]| {
            records.iter().filter(|record| record.term >= next.term && record.start > resumed).count()
        };
        let records = stage.wait("exchanges after the pause", |records| next_terms(records) > 20);
        let late = records.iter().find(|record| record.term == led.term && record.start > resumed);
        assert!(late.is_none(), "it led on: {late:?}");
    }
}

#[test]
fn members_join_the_directory_that_is_there_when_theirs_is_gone() {
    for replaced in [false, true] {
        let stage = Stage::new();
        let members = vec![short_timed(&stage, 50, false), short_timed(&stage, 50, false)];
        let mut led = stage.wait_for_term_after(0);
        for round in 0..4 {
            // One that comes to an empty directory knows of no other: that is the first start of all.
            wait_for_members(&stage, members.len());
            fs::rename(stage.locks(), stage.locks().with_extension(round.to_string())).unwrap();
            if replaced {
                // A member may be as fast.
                let _ = fs::create_dir(stage.locks());
            }
            led = stage.wait_for_term_after(led.term);
        }
        drop(members);
        assert_exclusive(&stage.records());
    }
}

/// The program, and what it logs.
struct Program {
    child: Child,
    log: Receiver<String>,
}

impl Program {
    /// Runs a route under `lock1` that logs and sends to `to`, as another user if one is named.
    fn run(stage: &Stage, to: &str, user: Option<u32>) -> Self {
        let routes = stage.locks().with_file_name(format!("routes{}.toml", user.unwrap_or(0)));
        let text = format!(
            "[[route]]\nfrom = \"master:lock1:timer:t?delay=0&period=10ms\"\nsteps = [{{ to = \"log:work\" }}, {{ set_body = \"x\" }}, {{ to = {to:?} }}]\n"
        );
        fs::write(&routes, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
        command.args(["run", "--set", "cluster.service=file", "--set"]);
        command.arg(format!("cluster.file.root={}", stage.locks().display())).arg(&routes);
        if let Some(user) = user {
            command.uid(user).gid(user).current_dir("/");
        }
        Self::start(command)
    }

    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, log) = channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Self { child, log }
    }

    /// Waits for a line with all of `parts` in it.
    fn says(&self, parts: &[&str]) -> String {
        let until = Instant::now() + PATIENCE;
        let mut all = String::new();
        loop {
            match self.log.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if parts.iter().all(|part| line.contains(part)) => return line,
                Ok(line) => all += &(line + "\n"),
                Err(RecvTimeoutError::Timeout) => panic!("it never said {parts:?}:\n{all}"),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without {parts:?}:\n{all}"),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended by itself.
    fn ends(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "it goes on");
            support::pause();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stage_with_root() -> Stage {
    let stage = Stage::new();
    fs::create_dir(stage.locks()).unwrap();
    stage
}

#[test]
fn a_lock_on_the_numbers_is_said_with_who_has_it_and_a_signal_ends_the_process() {
    let stage = stage_with_root();
    let path = stage.locks().join(".terms-lock");
    fs::write(&path, "").unwrap();
    let in_the_way = fs::File::open(&path).unwrap();
    in_the_way.lock().unwrap();
    let mut member = Program::run(&stage, "log:work", None);
    let pid = format!("process {}", std::process::id());
    member.says(&[".terms-lock", "locked", &pid]);
    member.signal(Signal::TERM);
    member.ends();
    let member = Program::run(&stage, "log:work", None);
    member.says(&[".terms-lock", "locked", &pid]);
    in_the_way.unlock().unwrap();
    member.says(&["leading `lock1`"]);
}

#[test]
fn a_stranger_that_has_a_lock_is_named() {
    let stage = stage_with_root();
    fs::write(lock_file(&stage), "").unwrap();
    let in_the_way = fs::File::open(lock_file(&stage)).unwrap();
    in_the_way.lock_shared().unwrap();
    let member = Program::run(&stage, "log:work", None);
    let pid = format!("process {}", std::process::id());
    member.says(&["`lock1` has no leader", "lock1.lock", &pid, "no member"]);
    in_the_way.unlock().unwrap();
    member.says(&["leading `lock1`"]);
    // It takes the place of a leader that was killed, whose record says that it leads.
    let standby = Program::run(&stage, "log:work", None);
    standby.says(&["standing by for `lock1`"]);
    standby.signal(Signal::STOP);
    drop(member);
    in_the_way.lock().unwrap();
    standby.signal(Signal::CONT);
    standby.says(&["`lock1` has no leader", &pid, "no member"]);
}

#[test]
#[ignore = "needs root, to be another user"]
fn a_standby_that_could_not_lead_says_so_while_it_stands_by() {
    use std::os::unix::fs::PermissionsExt;
    let stage = stage_with_root();
    // Not its group, or the files would be for the group too.
    let anybody = || fs::Permissions::from_mode(0o757);
    fs::create_dir(stage.locks().join("members")).unwrap();
    for directory in
        [stage.locks().parent().unwrap().to_owned(), stage.locks(), stage.locks().join("members")]
    {
        fs::set_permissions(directory, anybody()).unwrap();
    }
    let leader = Program::run(&stage, "log:work", None);
    leader.says(&["open to other users", "chmod 700"]);
    leader.says(&["leading `lock1`"]);
    let standby = Program::run(&stage, "log:work", Some(65_534));
    standby.says(&["cannot stand for `lock1`", "lock1.lock", "right to write"]);
}

#[test]
fn members_with_the_default_root_in_two_directories_name_the_root_of_each() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let run = |folder: &std::path::Path| {
        let text = "[cluster]\nservice = 'file'\n[admin]\nlisten = 'off'\n[[route]]\nfrom = 'master:lock1:timer:t'\n";
        fs::write(folder.join("routes.toml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
        command.arg("run").current_dir(folder);
        Program::start(command)
    };
    let leaders = folders.each_ref().map(|folder| run(folder.path()));
    for (leader, folder) in leaders.iter().zip(&folders) {
        let root = format!("in {}/.bactrian/locks, ", folder.path().canonicalize().unwrap().display());
        leader.says(&[&format!("leading `lock1` {root}term ")]);
        run(folder.path()).says(&[&format!("standing by for `lock1` {root}led by ")]);
    }
}

#[test]
fn a_stopped_leader_is_shown_as_stopped() {
    let stage = Stage::new();
    let member = stage.member(Duration::ZERO);
    stage.wait_for_term_after(0);
    let stopped = || bactrian::cluster_file::leaders(stage.locks()).unwrap()[0].stopped;
    assert!(!stopped());
    member.signal(Signal::STOP);
    let until = Instant::now() + PATIENCE;
    while !stopped() {
        assert!(Instant::now() < until);
        support::pause();
    }
}
