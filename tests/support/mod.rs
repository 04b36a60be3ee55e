//! Real processes for the tests of what a cluster promises.
//!
//! A test starts members as processes of its own: this very test program, asked to run only
//! [`member_process`]. Each runs one `master:` route whose exchanges note, in a file that all share, when
//! they start and end on CLOCK_MONOTONIC, which is the same for all processes of a host. The judge reads
//! that file.

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod group;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bactrian::prelude::*;
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on CLOCK_MONOTONIC.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}

/// One exchange, as its member saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) member: u32,
    pub(crate) term: u64,
    pub(crate) start: u64,
    /// `None`: it never ended, because its member was killed.
    pub(crate) end: Option<u64>,
}

/// A directory that members share: the locks, and the records.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.folder.path().join("locks")
    }

    pub(crate) fn records_file(&self) -> PathBuf {
        self.folder.path().join("records")
    }

    /// Starts a member whose exchanges take `work`.
    pub(crate) fn member(&self, work: Duration) -> Member {
        self.spawn("support::member_process", &[("MEMBER_WORK_MS", work.as_millis().to_string())])
    }

    /// Starts a member that runs `program`: the name of an ignored test of this very test program.
    pub(crate) fn spawn(&self, program: &str, variables: &[(&str, String)]) -> Member {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([program, "--exact", "--ignored", "--nocapture"])
            .env("MEMBER_LOCKS", self.locks())
            .env("MEMBER_RECORDS", self.records_file())
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Member { child }
    }

    /// All exchanges so far, in the order in which they were noted.
    pub(crate) fn records(&self) -> Vec<Record> {
        let text = std::fs::read_to_string(self.records_file()).unwrap_or_default();
        let mut records: Vec<Record> = Vec::new();
        for line in text.lines() {
            let mut fields = line.split(' ');
            let kind = fields.next().unwrap();
            let numbers = fields.map(|field| field.parse::<u64>().unwrap()).collect::<Vec<_>>();
            let member = u32::try_from(numbers[0]).unwrap();
            let (term, time) = (numbers[1], numbers[2]);
            if kind == "start" {
                records.push(Record { member, term, start: time, end: None });
            } else {
                let open = records.iter_mut().rev().find(|record| record.member == member).unwrap();
                open.end = Some(time);
            }
        }
        records
    }

    /// Waits until the records are as `wanted`, looking again after each new one.
    pub(crate) fn wait(&self, what: &str, wanted: impl Fn(&[Record]) -> bool) -> Vec<Record> {
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            let records = self.records();
            if wanted(&records) {
                return records;
            }
            assert!(Instant::now() < patience, "waited 30 s for {what}; {}", show(&records));
            pause();
        }
    }

    /// Waits for the first exchange of a term after `term`, and returns it.
    pub(crate) fn wait_for_term_after(&self, term: u64) -> Record {
        let records = self.wait("a new term", |records| records.iter().any(|record| record.term > term));
        records.into_iter().find(|record| record.term > term).unwrap()
    }
}

/// Looking again costs a moment; what is looked for is in a file that another process writes.
#[expect(clippy::disallowed_methods, reason = "a test program has no runtime to block")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

/// Proves from the records that leadership was exclusive: each term belongs to one member, terms grow
/// with time, and the work of a term has ended before that of the next one starts.
pub(crate) fn assert_exclusive(records: &[Record]) {
    assert!(!records.is_empty(), "there is nothing to judge");
    let mut terms: Vec<(u64, u32, u64, u64)> = Vec::new();
    for record in records {
        let end = record.end.unwrap_or(record.start);
        match terms.iter_mut().find(|(term, ..)| *term == record.term) {
            None => terms.push((record.term, record.member, record.start, end)),
            Some((_, member, first, last)) => {
                assert_eq!(*member, record.member, "term {} has two members; {}", record.term, show(records));
                *first = record.start.min(*first);
                *last = end.max(*last);
            }
        }
    }
    terms.sort_unstable();
    for pair in terms.windows(2) {
        let ((term, _, _, last), (next, _, first, _)) = (pair[0], pair[1]);
        assert!(last < first, "term {next} starts before term {term} ends; {}", show(records));
    }
}

fn show(records: &[Record]) -> String {
    records.iter().rev().take(20).rev().fold("the last records:\n".to_owned(), |mut text, record| {
        let _ = writeln!(text, "{record:?}");
        text
    })
}

/// A member process; dropping it kills it.
pub(crate) struct Member {
    child: Child,
}

impl Member {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// `SIGSTOP`; returns when all threads have stopped: those that are in the kernel first come back from it.
    pub(crate) fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
        let tasks = format!("/proc/{}/task", self.id());
        let stopped = |task: &Path| {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, state)| state.trim_start().starts_with('T'))
        };
        while !std::fs::read_dir(&tasks).unwrap().all(|task| stopped(&task.unwrap().path())) {
            pause();
        }
    }

    /// `kill -9`, at the returned time.
    pub(crate) fn kill(mut self) -> u64 {
        let at = now();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        at
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl From<Child> for Member {
    fn from(child: Child) -> Self {
        Self { child }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Short times for members that are started with these variables, and that lose their files.
pub(crate) const SHORT_TIMES: (&str, &str) = ("MEMBER_TIMES_MS", "100 200 400");

/// The settings of a member process.
pub(crate) fn cluster_settings() -> FileClusterSettings {
    let mut settings = FileClusterSettings::new(std::env::var("MEMBER_LOCKS").unwrap());
    settings.member = Some(format!("member-{}", std::process::id()).into());
    settings.without_events = std::env::var("MEMBER_WITHOUT_EVENTS").is_ok();
    if let Ok(times) = std::env::var(SHORT_TIMES.0) {
        let times =
            times.split(' ').map(|time| Duration::from_millis(time.parse().unwrap())).collect::<Vec<_>>();
        let [recheck, drain, margin] = times[..] else { panic!("three times") };
        settings.timing = bactrian::cluster_file::Timing { recheck, drain, margin };
    }
    settings
}

/// What a member does. Not a test: [`Stage::member`] starts it in a process of its own.
#[test]
#[ignore = "this is the program of a member process, which other tests start"]
fn member_process() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let records = variable("MEMBER_RECORDS");
    let work = Duration::from_millis(variable("MEMBER_WORK_MS").parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let cluster = FileCluster::open(cluster_settings()).await.unwrap();
        let route = from("master:lock1:timer:work?delay=0&period=5ms").process_async(move |exchange| {
            let note = Note::new(&records, exchange.term.as_ref().unwrap().number());
            Box::pin(async move {
                note.write("start");
                tokio::time::sleep(work).await;
                note.write("end");
                Ok(())
            })
        });
        let router = bactrian::router().cluster(cluster).route(route).build().unwrap();
        bactrian::run(&router).await
    });
    assert_eq!(outcome, ShutdownOutcome::Drained);
}

/// The two notes of an exchange.
struct Note {
    records: PathBuf,
    term: u64,
}

impl Note {
    fn new(records: impl AsRef<Path>, term: u64) -> Self {
        Self { records: records.as_ref().to_owned(), term }
    }

    /// One write to a file that is open for appending: lines of different processes do not mix.
    fn write(&self, kind: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.records).unwrap();
        let line = format!("{kind} {} {} {}\n", std::process::id(), self.term, now());
        file.write_all(line.as_bytes()).unwrap();
    }
}
