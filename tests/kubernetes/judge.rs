//! What the members did, as they wrote it down themselves, and whether it was allowed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// Reads what members have written down, each time from where it had come to.
#[derive(Default)]
pub(crate) struct Reader {
    offset: u64,
    records: Vec<Record>,
    /// The open exchange of each lock and member.
    open: BTreeMap<(String, u32), usize>,
}

impl Reader {
    /// All exchanges until now, in the order in which they started.
    pub(crate) fn read(&mut self, file: &Path) -> &[Record] {
        let mut text = String::new();
        if let Ok(mut file) = File::open(file) {
            file.seek(SeekFrom::Start(self.offset)).unwrap();
            file.read_to_string(&mut text).unwrap();
        }
        // The last line may still be on its way.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.offset += whole as u64;
        for line in text[..whole].lines() {
            self.take(line);
        }
        &self.records
    }

    fn take(&mut self, line: &str) {
        let fields = line.split(' ').collect::<Vec<_>>();
        let [kind, lock, member, term, time] = fields[..] else { panic!("odd line {line:?}") };
        let (member, term, time) = (member.parse().unwrap(), term.parse().unwrap(), time.parse().unwrap());
        if kind == "start" {
            self.open.insert((lock.to_owned(), member), self.records.len());
            self.records.push(Record { lock: lock.to_owned(), member, term, start: time, end: None });
        } else if let Some(index) = self.open.remove(&(lock.to_owned(), member)) {
            self.records[index].end = Some(time);
        }
    }
}

/// What was wrong with leadership, and the number of terms. It is exclusive when of each lock a term belongs
/// to one member, terms rise with time, and the work of one has ended before that of the next starts.
pub(crate) fn judge(records: &[Record]) -> (Vec<String>, usize) {
    let mut errors = Vec::new();
    // Of each term of a lock: its member, its first start, its last end.
    let mut terms: BTreeMap<(&str, u64), (u32, u64, u64)> = BTreeMap::new();
    for record in records {
        let end = record.end.unwrap_or(record.start);
        let entry = terms.entry((&record.lock, record.term)).or_insert((record.member, record.start, end));
        if entry.0 != record.member {
            errors.push(format!("term {} of {} has two members", record.term, record.lock));
        }
        *entry = (entry.0, entry.1.min(record.start), entry.2.max(end));
    }
    let ordered = terms.iter().collect::<Vec<_>>();
    for pair in ordered.windows(2) {
        let (((lock, term), (_, _, last)), ((next_lock, next), (_, first, _))) = (pair[0], pair[1]);
        if lock == next_lock && first <= last {
            let time = Duration::from_nanos(last - first);
            errors.push(format!("term {next} of {lock} starts {time:?} before term {term} ends"));
        }
    }
    (errors, terms.len())
}

/// How long two or more members worked at once. A member works between exchanges too, as long as the next
/// one starts within this time.
pub(crate) fn overlap(records: &[Record]) -> Duration {
    const PAUSE: u64 = 100_000_000;
    // Of each member: when it worked.
    let mut work: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
    for record in records {
        let end = record.end.unwrap_or(record.start);
        let times = work.entry(record.member).or_default();
        match times.last_mut() {
            Some(last) if record.start.saturating_sub(last.1) < PAUSE => last.1 = last.1.max(end),
            _ => times.push((record.start, end)),
        }
    }
    let ends = work.into_values().flatten().flat_map(|(start, end)| [(start, 1), (end, -1)]);
    let mut ends = ends.collect::<Vec<_>>();
    ends.sort_unstable();
    let (mut working, mut since, mut total) = (0, 0, 0);
    for (time, change) in ends {
        if working > 1 {
            total += time - since;
        }
        (working, since) = (working + change, time);
    }
    Duration::from_nanos(total)
}

pub(crate) fn show(records: &[Record]) -> String {
    records.iter().rev().take(20).rev().fold("the last records:\n".to_owned(), |mut text, record| {
        let _ = writeln!(text, "{record:?}");
        text
    })
}
