//! [`LeaderRecord`]: who leads a lock, as written in its file.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use router_core::cluster::{HIGHEST_TERM, Leader, LockName, Member};
use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::escape::escape;
use crate::kernel_locks::{self, Snapshot};

/// The format of what this program writes: records of leaders and members, and states.
///
/// 1 had no number, and its first records no `why`. 2 says how long a leader needs to end, and when its file
/// was made. Whatever has a greater number was written by a newer program, which may live and follow rules that
/// this one does not know: it stands by.
pub(crate) const FORMAT: u32 = 2;

/// How the files of locks end.
pub(crate) const LOCK_SUFFIX: &str = ".lock";

/// Longer than any record: names and ids are limited, and a byte of them takes two at most.
const MAX_BYTES: usize = 4096;

/// The format of records without a number.
pub(crate) fn first_format() -> u32 {
    1
}

/// The line of JSON in the file of a lock.
///
/// It is for humans, tools and standbys. No member leads because of it: that is decided by the lock on the
/// file alone. Only `lock`, `term`, `file` and `born` matter to the next leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    /// The format of the record.
    #[serde(default = "first_format")]
    pub format: u32,
    /// The lock.
    pub lock: String,
    /// The number of the term.
    pub term: u64,
    /// False once the leader has released the lock. A leader that was killed leaves it true.
    pub leading: bool,
    /// The id of the member that leads, or led last.
    pub member: String,
    /// Its host, where known.
    pub host: Option<String>,
    /// Its process id, where known.
    pub pid: Option<u32>,
    /// Why it leads, for humans.
    #[serde(default)]
    pub why: String,
    /// When the term began, for humans. No clock is ever compared.
    pub since: String,
    /// The inode of the file it was written to: a copy of the file does not vouch for its own history.
    pub file: u64,
    /// When that file was made, in nanoseconds since 1970, where the file system tells: inodes are used again.
    #[serde(default)]
    pub born: Option<u64>,
    /// How long the leader and its work need to end once the file is gone, in milliseconds.
    #[serde(default)]
    pub ends_within_ms: Option<u64>,
    /// The time of the file when this was written, in milliseconds since 1970.
    #[serde(default)]
    pub written_ms: Option<u64>,
    /// Whether the process that has the file locked is stopped (`SIGSTOP`, a debugger), as far as this process
    /// can see: a stopped leader keeps its lock. Not part of the file.
    #[serde(skip)]
    pub stopped: bool,
    /// What keeps a lock without a leader from being led, as far as this process can see. Not part of the file.
    #[serde(skip)]
    pub obstacle: Option<String>,
}

/// What is in the file of a lock.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing that is a record.
    Nothing,
    Record(Box<LeaderRecord>),
    /// A record that this program cannot go by.
    Refused(Refusal),
}

/// Why a record, or the states of a lock, can neither be used nor be taken for nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It has a format of a newer program.
    Newer(u32),
    /// This is no number of a term, as far as any program has written them.
    Term(Number),
}

impl Found {
    pub(crate) fn record(self) -> Option<LeaderRecord> {
        match self {
            Self::Record(record) => Some(*record),
            Self::Nothing | Self::Refused(_) => None,
        }
    }

    /// The record, if it is of the lock whose file is at `path`. A link to the file of another lock, or a copy of it,
    /// says nothing about this one.
    pub(crate) fn record_at(self, path: &Path) -> Option<LeaderRecord> {
        self.record().filter(|record| record.is_at(path))
    }

    /// What to know about the file at `path` if it has the record of another lock in it, in one clause.
    pub(crate) fn of_another_lock(&self, path: &Path) -> Option<String> {
        let Self::Record(record) = self else { return None };
        let clause = || {
            format!("it has the record of `{}` in it: delete it if it is a link to that file", record.lock)
        };
        (!record.is_at(path)).then(clause)
    }
}

impl Refusal {
    /// Why `record` is refused, whatever else is in it; `None`: it is not, and may be no record at all.
    pub(crate) fn of(record: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Signs {
            #[serde(default = "first_format")]
            format: u32,
            term: Option<Number>,
        }
        let Signs { format, term } = serde_json::from_slice(record).ok()?;
        if format > FORMAT {
            return Some(Self::Newer(format));
        }
        let is_usual = |term: &Number| term.as_u64().is_some_and(|term| term <= HIGHEST_TERM);
        term.filter(|term| !is_usual(term)).map(Self::Term)
    }

    /// A sentence about the file at `path`.
    pub(crate) fn about(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Newer(format) => format!(
                "`{path}` was written by a newer version of this program (format {format}; this one knows {FORMAT}), \
                 whose members may live: this member stands by. Update it; or, if no member of that version lives, \
                 delete the file while no member lives at all"
            ),
            Self::Term(term) => format!(
                "`{path}` says that its term is {term}, which no member has written: terms have numbers from 0 to \
                 {HIGHEST_TERM}. Write the number of its last term there, or delete the file"
            ),
        }
    }
}

impl LeaderRecord {
    /// The leader, for the views of standbys.
    pub(crate) fn leader(&self) -> Option<Leader> {
        let member = Member {
            id: self.member.as_str().into(),
            host: self.host.as_deref().map(Into::into),
            pid: self.pid,
        };
        self.leading.then(|| Leader { member, term: self.term, why: self.why.as_str().into() })
    }

    /// Reads the record in the file of a lock, whichever file it was written to.
    pub(crate) fn read(file: &File) -> io::Result<Found> {
        let mut buffer = [0; MAX_BYTES];
        let length = file.read_at(&mut buffer, 0)?;
        // A shorter line may be followed by the rest of a longer one whose writer was killed.
        let line = buffer[..length].split(|byte| *byte == b'\n').next().unwrap_or_default();
        Ok(match Refusal::of(line) {
            Some(refusal) => Found::Refused(refusal),
            None => {
                serde_json::from_slice(line).map_or(Found::Nothing, |record| Found::Record(Box::new(record)))
            }
        })
    }

    /// Whether the record was written to the very file that `metadata` is about, as the record of `lock`.
    pub(crate) fn is_of(&self, lock: &LockName, metadata: &Metadata) -> bool {
        let same_birth = self.born.is_none() || born(metadata).is_none_or(|born| self.born == Some(born));
        self.lock == lock.as_str() && self.file == metadata.ino() && same_birth
    }

    /// Whether the file is, to within `bound`, as old as the record in it, and was not moved, linked or given away
    /// after that. Each of these changes the time of the last change (`ctime`) alone; a write sets both times to the
    /// same. So does `touch`, and then they are later than the record says.
    pub(crate) fn is_untouched(&self, metadata: &Metadata, bound: Duration) -> bool {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let as_written = |written: u64| modified_ms(metadata).abs_diff(written) <= millis(bound);
        (metadata.ctime(), metadata.ctime_nsec()) == modified && self.written_ms.is_none_or(as_written)
    }

    /// Whether the file of the record's lock is called as the one at `path`.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        path.file_name().is_some_and(|name| name == &*(escape(&self.lock) + LOCK_SUFFIX))
    }

    /// As the line that [`read`](Self::read) reads.
    pub(crate) fn to_line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    /// A record of a term that begins now in the file that `metadata` is about.
    pub(crate) fn starting(
        lock: &LockName,
        term: u64,
        why: &str,
        member: &Member,
        metadata: &Metadata,
        ends_within: Duration,
    ) -> Self {
        Self {
            format: FORMAT,
            lock: lock.as_str().to_owned(),
            term,
            leading: true,
            member: member.id.to_string(),
            host: member.host.as_deref().map(str::to_owned),
            pid: member.pid,
            why: why.to_owned(),
            since: timestamp(),
            file: metadata.ino(),
            born: born(metadata),
            ends_within_ms: Some(millis(ends_within)),
            written_ms: None,
            stopped: false,
            obstacle: None,
        }
    }

    /// Whether the process that wrote the record leads: it says so, and has the file locked. A lock of another
    /// process, a member that is about to lead or a program that is none, says nothing about the last leader.
    pub(crate) fn is_led(&self, file: &File, locks: impl FnOnce() -> Arc<Snapshot>) -> io::Result<bool> {
        if !self.leading || !is_locked(file)? {
            return Ok(false);
        }
        let Some(pid) = self.pid else { return Ok(true) };
        let holders = locks().of(&file.metadata()?);
        // The kernel does not show the processes of other containers.
        Ok(holders.is_empty() || holders.into_iter().any(|holder| kernel_locks::calls_itself(holder, pid)))
    }
}

/// When a file was made, where the file system tells.
fn born(metadata: &Metadata) -> Option<u64> {
    let born = metadata.created().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(born.as_nanos()).ok()
}

/// When a file was last written to, in milliseconds since 1970.
pub(crate) fn modified_ms(metadata: &Metadata) -> u64 {
    let milliseconds =
        metadata.mtime().saturating_mul(1000).saturating_add(metadata.mtime_nsec() / 1_000_000);
    u64::try_from(milliseconds).unwrap_or(0)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock, as text for humans.
#[expect(clippy::disallowed_methods, reason = "it is shown and never compared")]
pub(crate) fn timestamp() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// Whether a process has the file locked. Asks for a shared lock, so that those who ask do not see each
/// other, and gives it back at once.
pub(crate) fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The processes that have the file locked, as far as the kernel shows them.
pub(crate) fn holders(file: &File, locks: &Snapshot) -> io::Result<Vec<u32>> {
    let metadata = file.metadata()?;
    Ok(if is_locked(file)? { locks.of(&metadata) } else { locks.exactly_of(&metadata) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_of_one_lock_and_one_file_even_if_its_inode_is_used_again() {
        let file = tempfile::tempfile().unwrap();
        let metadata = file.metadata().unwrap();
        let lock = "lock1".parse().unwrap();
        let record =
            LeaderRecord::starting(&lock, 7, "", &Member::new("a"), &metadata, Duration::from_secs(3));
        assert!(record.is_of(&lock, &metadata));
        assert!(!record.is_of(&"lock2".parse().unwrap(), &metadata));
        assert!(!LeaderRecord { file: record.file + 1, ..record.clone() }.is_of(&lock, &metadata));
        if let Some(born) = record.born {
            assert!(!LeaderRecord { born: Some(born + 1), ..record.clone() }.is_of(&lock, &metadata));
        }
        assert!(LeaderRecord { born: None, ..record }.is_of(&lock, &metadata), "an older program wrote it");
    }

    #[test]
    fn a_file_is_untouched_while_its_times_are_the_same_and_those_of_its_record() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = || file.as_file().metadata().unwrap();
        let lock = "lock1".parse().unwrap();
        let record =
            LeaderRecord::starting(&lock, 7, "", &Member::new("a"), &metadata(), Duration::from_secs(3));
        let written = modified_ms(&metadata());
        let bound = Duration::from_secs(2);
        let untouched =
            |written_ms| LeaderRecord { written_ms, ..record.clone() }.is_untouched(&metadata(), bound);
        for near in [written, written - 2000, written + 2000] {
            assert!(untouched(Some(near)));
        }
        for far in [0, written - 2001, written + 2001, u64::MAX] {
            assert!(!untouched(Some(far)), "as `touch` leaves it");
        }
        assert!(untouched(None), "an older program wrote it");
        std::fs::hard_link(file.path(), file.path().with_extension("link")).unwrap();
        std::fs::remove_file(file.path().with_extension("link")).unwrap();
        assert!(!untouched(Some(written)) && !untouched(None), "it was linked");
    }
}
