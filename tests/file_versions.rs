//! Members of two versions of the program share a directory, as they do while one is updated.
//! `tests/two-versions` builds the older one and runs this.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bactrian::cluster_file;
use rustix::process::Signal;
use support::{Record, assert_exclusive, now};

/// How long the work of an exchange takes.
const WORK: Duration = Duration::from_millis(5);

/// A server to which members send what they do.
struct Sink {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

/// What members did.
#[derive(Default)]
struct Seen {
    records: Vec<Record>,
    /// The members that were killed: what the sink does afterwards is no work of theirs.
    killed: BTreeSet<u32>,
}

impl Sink {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Mutex<Seen>>::default();
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let noted = Arc::clone(&noted);
                std::thread::spawn(move || serve(&stream.unwrap(), &noted));
            }
        });
        Self { port, seen }
    }

    fn records(&self) -> Vec<Record> {
        self.seen.lock().unwrap().records.clone()
    }

    /// A member is about to be killed: what it has in hand does not end any more.
    fn kills(&self, member: u32) {
        self.seen.lock().unwrap().killed.insert(member);
    }
}

/// Serves one connection, until the member closes it or is killed.
fn serve(mut stream: &TcpStream, seen: &Mutex<Seen>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    loop {
        let mut headers = BTreeMap::new();
        loop {
            let line = lines.next()?.ok()?;
            match line.split_once(':') {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
                None if line.is_empty() => break,
                None => None,
            };
        }
        let (member, term) =
            (headers.get("member")?.parse().ok()?, headers.get("bactrian-term")?.parse().ok()?);
        let index = {
            let mut seen = seen.lock().unwrap();
            // It was sent before, and nothing tells when.
            if seen.killed.contains(&member) {
                return None;
            }
            seen.records.push(Record { member, term, start: now(), end: None });
            seen.records.len() - 1
        };
        #[expect(clippy::disallowed_methods, reason = "this thread serves one connection")]
        std::thread::sleep(WORK);
        // Before the answer: after it the member may release the lock.
        let mut seen = seen.lock().unwrap();
        if !seen.killed.contains(&member) {
            seen.records[index].end = Some(now());
        }
        drop(seen);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

struct Program {
    child: Child,
    old: bool,
    /// Its number, by which the sink knows it.
    number: u32,
}

impl Program {
    fn run(program: &Path, old: bool, folder: &Path, number: u32, port: u16) -> Self {
        let routes = folder.join(format!("routes{number}.toml"));
        let text = format!(
            "[[route]]\nfrom = \"master:lock1:timer:t?delay=0&period=5ms\"\nsteps = [\n\
             {{ set_header = {{ name = \"member\", value = \"{number}\" }} }},\n\
             {{ to = \"http://127.0.0.1:{port}/\" }},\n]\n"
        );
        std::fs::write(&routes, text).unwrap();
        let mut command = Command::new(program);
        // Versions may call the setting differently, but all have the same default.
        command.args(["run", "--set", "cluster.service=file", "--set", "admin.listen=off"]);
        command.arg(&routes).current_dir(folder);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, old, number }
    }
}

/// What operators ask, where `MEMBER` is the one that leads.
const HAND_OVER: [&[&str]; 1] = [&["handover", "lock1"]];
const DRAIN_AND_UNDO: [&[&str]; 2] = [&["drain", "MEMBER"], &["drain", "--undo", "MEMBER"]];

/// Asks by the tool of one version, which members of both hear.
fn ask(tool: &Path, folder: &Path, request: &[&str], member: &str) {
    let mut command = Command::new(tool);
    command.args(request.iter().map(|word| word.replace("MEMBER", member)));
    let output = command.args(["--set", "cluster.service=file"]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{tool:?} {request:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs the program of an older version, which tests/two-versions builds"]
fn old_and_new_members_lead_one_at_a_time_through_kills() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let (seed, rounds) =
        (number("SEED").unwrap_or_else(|| fastrand::u64(..)), number("ROUNDS").unwrap_or(60));
    println!("repeat with SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let old = PathBuf::from(std::env::var("OLD_PROGRAM").expect("the path of the older program"));
    let new = PathBuf::from(env!("CARGO_BIN_EXE_bactrian"));
    let folder = tempfile::tempdir().unwrap();
    let locks = folder.path().join(".bactrian/locks");
    let sink = Sink::start();
    let mut started = 0;
    let mut start = |old_one: bool| {
        started += 1;
        Program::run(if old_one { &old } else { &new }, old_one, folder.path(), started, sink.port)
    };
    let mut members = vec![start(true), start(false), start(true), start(false)];
    let mut led_by = BTreeMap::<bool, usize>::new();
    let (mut term, mut asked) = (0, 0);
    for round in 0..rounds {
        let patience = Instant::now() + Duration::from_secs(30);
        let led = loop {
            assert!(Instant::now() < patience, "no term after {term} in round {round}");
            let led = sink.records().into_iter().rfind(|record| record.term > term);
            if let Some(led) = led {
                break led.term;
            }
            support::pause();
        };
        term = led;
        let leaders = cluster_file::leaders(&locks).unwrap();
        let pid = leaders.first().and_then(|leader| leader.pid);
        let Some(leader) = members.iter().position(|member| Some(member.child.id()) == pid) else { continue };
        *led_by.entry(members[leader].old).or_default() += 1;
        let way = random.u8(0..5);
        if way >= 3 {
            let tool = if random.bool() { &old } else { &new };
            let member = members[leader].child.id().to_string();
            let requests = if way == 3 { &HAND_OVER[..] } else { &DRAIN_AND_UNDO };
            requests.iter().for_each(|request| ask(tool, folder.path(), request, &member));
            asked += 1;
            continue;
        }
        let mut leader = members.swap_remove(leader);
        let id = rustix::process::Pid::from_child(&leader.child);
        match way {
            0 => {
                sink.kills(leader.number);
                rustix::process::kill_process(id, Signal::KILL).unwrap();
            }
            1 => rustix::process::kill_process(id, Signal::TERM).unwrap(),
            _ => {
                rustix::process::kill_process(id, Signal::STOP).unwrap();
                support::pause();
                sink.kills(leader.number);
                rustix::process::kill_process(id, Signal::KILL).unwrap();
            }
        }
        leader.child.wait().unwrap();
        members.push(start(random.bool()));
    }
    drop(members);
    println!(
        "{} exchanges; leaders of the old version, and of the new one: {led_by:?}; {asked} asked by operators",
        sink.records().len()
    );
    assert!(led_by.values().filter(|count| **count > 3).count() == 2, "both have led");
    assert_exclusive(&sink.records());
}
