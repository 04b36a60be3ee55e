//! The promise: `bactrian leaders` shows who leads, who stands by and which routes use a lock, also those
//! that nobody has led yet, and with `--watch` every change. For pods, `tests/kubernetes/leaders.rs`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const ROUTES: &str = "[cluster]\nservice = 'auto'\n[[route]]\nid = 'clock'\n\
    from = 'master:lock1:timer:clock?delay=0&period=20ms'\nsteps = [{ log = 'tick' }]\n";
/// With a lock that no member leads, and something that a member would need.
const MORE_ROUTES: &str = "[[route]]\nid = 'late'\nfrom = 'master:lock2:timer:late'\nsteps = [{ log = 'late' }, { to = 'log:${env:NOT_HERE}' }]\n";

fn bactrian(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
    command.current_dir(folder).args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn leaders(folder: &Path, arguments: &[&str]) -> Output {
    bactrian(folder, &[&["leaders"], arguments].concat()).output().unwrap()
}

#[track_caller]
fn all(folder: &Path, arguments: &[&str]) -> Value {
    let output = leaders(folder, &[&["-o", "json"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The locks of it.
#[track_caller]
fn json(folder: &Path, arguments: &[&str]) -> Value {
    all(folder, arguments)["locks"].clone()
}

/// A child whose end is the end of the test's interest in it.
struct Running(Child);

impl Running {
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a member, and returns when its log says `wanted`.
fn member(folder: &Path, name: &str, wanted: &str) -> Running {
    let mut command = bactrian(folder, &["run", "routes.toml", "--set", &format!("cluster.member={name}")]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let running = Running(child);
    let mut text = String::new();
    while !text.contains(wanted) {
        assert!(log.read_line(&mut text).unwrap() > 0, "{text}");
    }
    // What else it says is read, so that it is not held up.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    running
}

/// The reason of the first lock.
fn first_reason(locks: &Value) -> Value {
    locks[0]["reason"].clone()
}

/// All files below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// The tool that watches, and its lines.
fn watch(folder: &Path) -> (Running, impl FnMut() -> Value) {
    let mut watch = bactrian(folder, &["leaders", "--watch", "-o", "json"]);
    let mut watch = Running(watch.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(watch.0.stdout.take().unwrap()).lines();
    (watch, move || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap())
}

fn members_of_this_kind_have_no_deadlines(folder: &Path, guide: &str) {
    let members = &all(folder, &[])["members"];
    assert_eq!(
        members[1],
        serde_json::json!({
            "host": "b", "member": null, "drained": false,
            "deadline_seconds": null, "stop_seconds": null, "clock_error_percent": null,
        })
    );
    assert!(members[0].as_object().unwrap().keys().all(|key| guide.contains(&format!("`{key}`"))));
}

#[test]
fn who_leads_who_stands_by_and_what_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let nothing = leaders(folder, &[]);
    assert_eq!(nothing.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("no cluster service is named"));
    std::fs::create_dir(folder.join("locks")).unwrap();
    let nothing = leaders(folder, &["--set", "cluster.service=file", "--set", "cluster.file.root=locks"]);
    assert!(nothing.status.success());
    let place = format!("note: there are no locks in the directory `{}`", folder.join("locks").display());
    assert!(String::from_utf8_lossy(&nothing.stderr).contains(&place));
    std::fs::write(folder.join("routes.toml"), ROUTES).unwrap();
    let nobody = leaders(folder, &[]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("so no member has run here"));
    let first = member(folder, "a", "tick");
    let second = member(folder, "b", "stand");
    std::fs::write(folder.join("more.toml"), MORE_ROUTES).unwrap();

    let locks = json(folder, &["routes.toml", "more.toml"]);
    let term = locks[0]["term"].as_u64().unwrap();
    let expected = [
        serde_json::json!(["lock1", "led", "a", "a", term, ["b"], ["clock"]]),
        serde_json::json!(["lock2", "free", null, null, null, ["a", "b"], ["late"]]),
    ];
    for (lock, expected) in locks.as_array().unwrap().iter().zip(&expected) {
        let keys = ["lock", "state", "holder", "member", "term", "standbys", "routes"];
        assert_eq!(Value::from(keys.map(|key| lock[key].clone()).to_vec()), *expected);
    }
    // The form is a promise: the guide names each key.
    let guide = include_str!("../docs/src/kubernetes.md");
    let keys = locks[0].as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
    let expected = [
        "clock_error_percent",
        "deadline_seconds",
        "drained",
        "heartbeat_age_seconds",
        "held_seconds",
        "held_since",
        "holder",
        "lock",
        "member",
        "reason",
        "routes",
        "standbys",
        "state",
        "stop_seconds",
        "term",
    ];
    assert_eq!(keys, expected);
    assert!(keys.iter().all(|key| guide.contains(&format!("`{key}`"))));
    assert!(locks[0]["held_since"].as_str().unwrap().ends_with('Z'));
    assert_eq!(locks[0]["heartbeat_age_seconds"], Value::Null, "the kernel needs no heartbeat");
    members_of_this_kind_have_no_deadlines(folder, guide);
    let table = String::from_utf8(leaders(folder, &[]).stdout).unwrap();
    let cells = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect::<Vec<_>>();
    assert_eq!(
        cells[0],
        ["LOCK", "STATE", "HOLDER", "TERM", "HELD", "HEARTBEAT", "STANDBYS", "ROUTES", "REASON"]
    );
    assert_eq!(cells[1], ["lock1", "led", "a", &term.to_string(), cells[1][4], "-", "1", "clock"]);
    assert_eq!(leaders(folder, &["-o", "holder"]).stdout, b"a\n");

    let (watch, mut next) = watch(folder);
    assert_eq!(next()["member"], "a");
    first.stop();
    // In between, nobody may have been seen to lead.
    let after = std::iter::repeat_with(&mut next).find(|lock| lock["state"] == "led").unwrap();
    assert_eq!((&after["member"], &after["standbys"]), (&"b".into(), &serde_json::json!([])));
    assert!(after["term"].as_u64() > Some(term));
    // A member that was killed stands by no more.
    drop(second);
    assert_eq!(next()["state"], "free");
    let locks = json(folder, &[]);
    assert_eq!((&locks[0]["state"], &locks[0]["standbys"]), (&"free".into(), &serde_json::json!([])));
    watch.stop();
}

#[test]
fn a_leader_that_is_stopped_drained_or_out_of_sight_is_told_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("routes.toml"), ROUTES).unwrap();
    let second = member(folder, "b", "tick");
    let (watch, mut next) = watch(folder);
    assert_eq!(next()["member"], "b");
    // A leader that is stopped keeps the lock, and does nothing.
    let id = Pid::from_child(&second.0);
    kill_process(id, Signal::STOP).unwrap();
    let stopped = next();
    assert_eq!((&stopped["state"], &stopped["member"]), (&"silent".into(), &"b".into()), "{stopped}");
    assert!(stopped["reason"].as_str().unwrap().contains("is stopped (SIGSTOP)"), "{stopped}");
    kill_process(id, Signal::CONT).unwrap();
    assert_eq!((next()["state"].clone(), first_reason(&json(folder, &[]))), ("led".into(), Value::Null));
    // One that is drained holds nothing, and says so.
    assert!(bactrian(folder, &["drain", "b"]).output().unwrap().status.success());
    let free = std::iter::repeat_with(&mut next).find(|lock| lock["state"] == "free").unwrap();
    assert_eq!((&free["standbys"], &free["drained"]), (&serde_json::json!([]), &serde_json::json!(["b"])));
    let why = free["reason"].as_str().unwrap();
    assert!(why.starts_with("b led it in term ") && why.ends_with("; all members are drained: b"), "{why}");
    let table = String::from_utf8(leaders(folder, &[]).stdout).unwrap();
    assert!(table.contains("0 (+1 drained)") && table.contains("; all members are drained: b\n"), "{table}");
    assert!(bactrian(folder, &["drain", "--undo", "b"]).output().unwrap().status.success());
    assert_eq!(next()["state"], "led");
    drop(second);
    assert_eq!(next()["state"], "free");
    let locks = json(folder, &[]);
    assert!(first_reason(&locks).as_str().unwrap().ends_with("; no member is alive"), "{locks}");
    // What can no longer be seen is marked.
    std::fs::rename(folder.join(".bactrian"), folder.join("away")).unwrap();
    assert_eq!(next()["state"], "unknown");
    std::fs::rename(folder.join("away"), folder.join(".bactrian")).unwrap();
    assert_eq!(next()["state"], "free");
    let lock = walk(folder).into_iter().find(|path| path.ends_with("lock1.lock")).unwrap();
    std::fs::write(&lock, "").unwrap();
    let empty = json(folder, &[]);
    assert_eq!(first_reason(&empty), "no member has led it yet; no member is alive", "{empty}");
    std::fs::remove_file(lock).unwrap();
    let gone = json(folder, &[]);
    assert_eq!(first_reason(&gone), "no member has led it yet", "{gone}");
    watch.stop();
}

/// Tools look; only members write.
#[test]
#[ignore = "needs root, to be another user"]
fn a_root_that_this_user_may_only_read_is_enough_to_see_who_leads() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("routes.toml"), ROUTES).unwrap();
    let leader = member(folder, "a", "tick");
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    let root = folder.join(".bactrian/locks");
    std::fs::set_permissions(folder.join(".bactrian"), PermissionsExt::from_mode(0o755)).unwrap();
    chown(&root, Some(65_534), None).unwrap();
    std::fs::set_permissions(&root, PermissionsExt::from_mode(0o500)).unwrap();
    for file in walk(&root).into_iter().chain([root.join("members")]) {
        chown(file, Some(65_534), None).unwrap();
    }
    let mut reader = bactrian(folder, &["leaders", "-o", "holder"]);
    let output = reader.uid(65_534).gid(65_534).output().unwrap();
    assert_eq!(output.stdout, b"a\n", "{}", String::from_utf8_lossy(&output.stderr));
    drop(leader);
}

#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_disk_without_room_for_a_term_is_told_before_the_leader_ends() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("routes.toml"), ROUTES).unwrap();
    let disk = folder.join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&disk).status();
    assert!(mount.unwrap().success());
    // It is empty otherwise: the root is in it.
    std::os::unix::fs::symlink(&disk, folder.join(".bactrian")).unwrap();
    let leader = member(folder, "a", "tick");
    let standby = member(folder, "b", "stand");
    // Fails when it is full.
    let _ = std::fs::write(disk.join("filler"), vec![0; 1 << 20]);
    let locks = json(folder, &[]);
    assert_eq!(locks[0]["state"], "led");
    let why = first_reason(&locks).as_str().unwrap_or_default().to_owned();
    assert!(why.starts_with("no standby could take it over: there is no room on the disk of "), "{why}");
    std::fs::remove_file(disk.join("filler")).unwrap();
    assert_eq!(first_reason(&json(folder, &[])), Value::Null);
    drop((leader, standby));
    let _ = Command::new("umount").arg("-l").arg(&disk).status();
}
