//! What the members did, as they wrote it down themselves, and whether it was allowed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on CLOCK_MONOTONIC, which is the same for all processes of a host.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}

/// One exchange of a guarded route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) lock: String,
    pub(crate) member: u32,
    pub(crate) term: u64,
    pub(crate) start: u64,
    /// `None`: it has not ended, or its process was killed.
    pub(crate) end: Option<u64>,
}

/// Writes down the beginning of an exchange at once, and its end when it is dropped: an exchange that is
/// cut short ends then.
pub(crate) struct Note {
    file: PathBuf,
    line: String,
}

impl Note {
    pub(crate) fn begin(file: &Path, lock: &str, term: u64) -> Self {
        let note = Self { file: file.to_owned(), line: format!("{lock} {} {term}", std::process::id()) };
        note.write("start");
        note
    }

    /// One write to a file that is open for appending: lines of different processes do not mix.
    fn write(&self, kind: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.file).unwrap();
        file.write_all(format!("{kind} {} {}\n", self.line, now()).as_bytes()).unwrap();
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.write("end");
    }
}

pub(crate) fn read(file: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut records: Vec<Record> = Vec::new();
    // The open exchange of each lock and member.
    let mut open = BTreeMap::new();
    for line in text.lines() {
        let fields = line.split(' ').collect::<Vec<_>>();
        let [kind, lock, member, term, time] = fields[..] else { panic!("odd line {line:?}") };
        let (member, term, time) = (member.parse().unwrap(), term.parse().unwrap(), time.parse().unwrap());
        if kind == "start" {
            open.insert((lock.to_owned(), member), records.len());
            records.push(Record { lock: lock.to_owned(), member, term, start: time, end: None });
        } else if let Some(index) = open.remove(&(lock.to_owned(), member)) {
            records[index].end = Some(time);
        }
    }
    records
}

/// Proves that leadership was exclusive: of each lock, a term belongs to one member, terms rise with time,
/// and the work of one has ended before that of the next starts. Returns the number of terms.
pub(crate) fn assert_exclusive(records: &[Record]) -> usize {
    assert!(!records.is_empty(), "there is nothing to judge");
    // Of each term of a lock: its member, its first start, its last end.
    let mut terms: BTreeMap<(&str, u64), (u32, u64, u64)> = BTreeMap::new();
    for record in records {
        let end = record.end.unwrap_or(record.start);
        let entry = terms.entry((&record.lock, record.term)).or_insert((record.member, record.start, end));
        assert_eq!(entry.0, record.member, "term {} has two members; {}", record.term, show(records));
        *entry = (entry.0, entry.1.min(record.start), entry.2.max(end));
    }
    let ordered = terms.iter().collect::<Vec<_>>();
    for pair in ordered.windows(2) {
        let (((lock, term), (_, _, last)), ((next_lock, next), (_, first, _))) = (pair[0], pair[1]);
        assert!(
            lock != next_lock || last < first,
            "term {next} of {lock} starts {} ns before term {term} ends; {}",
            last - first,
            show(records)
        );
    }
    terms.len()
}

pub(crate) fn show(records: &[Record]) -> String {
    records.iter().rev().take(20).rev().fold("the last records:\n".to_owned(), |mut text, record| {
        let _ = writeln!(text, "{record:?}");
        text
    })
}
