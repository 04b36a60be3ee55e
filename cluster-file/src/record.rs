//! [`LeaderRecord`]: who leads a lock, as written in its file.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use router_core::cluster::{Leader, LockName, Member};
use serde::{Deserialize, Serialize};

use crate::board::LOCK_SUFFIX;

/// Longer than any record: names and ids are limited, and a byte of them takes two at most.
const MAX_BYTES: usize = 4096;

/// The line of JSON in the file of a lock.
///
/// It is for humans, tools and standbys. Nobody leads because of it: that is decided by the lock on the
/// file alone. Only `term` and `file` matter to the next leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
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
    pub why: String,
    /// When the term began, for humans. No clock is ever compared.
    pub since: String,
    /// The inode of the file it was written to: a copy of the file does not vouch for its own history.
    pub file: u64,
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

    /// The record in the file of a lock, whose inode is `inode`; `None` when there is none that was
    /// written to this very file.
    pub(crate) fn read(file: &File, inode: u64) -> io::Result<Option<Self>> {
        Ok(Self::read_any(file)?.filter(|record| record.file == inode))
    }

    /// The record in the file of a lock, even if it was written to another file and copied.
    pub(crate) fn read_any(file: &File) -> io::Result<Option<Self>> {
        let mut buffer = [0; MAX_BYTES];
        let length = file.read_at(&mut buffer, 0)?;
        // A shorter line may be followed by the rest of a longer one whose writer was killed.
        let line = buffer[..length].split(|byte| *byte == b'\n').next().unwrap_or_default();
        Ok(serde_json::from_slice(line).ok())
    }

    /// As the line that [`read`](Self::read) reads.
    pub(crate) fn to_line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    /// A record of a term that begins now.
    pub(crate) fn starting(lock: &LockName, term: u64, why: &str, member: &Member, inode: u64) -> Self {
        Self {
            lock: lock.as_str().to_owned(),
            term,
            leading: true,
            member: member.id.to_string(),
            host: member.host.as_deref().map(str::to_owned),
            pid: member.pid,
            why: why.to_owned(),
            since: timestamp(),
            file: inode,
        }
    }
}

/// The wall clock, as text for humans.
#[expect(clippy::disallowed_methods, reason = "it is shown and never compared")]
pub(crate) fn timestamp() -> String {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string()
}

/// Whether somebody has the file locked. Asks for a shared lock, so that those who ask do not see each
/// other, and gives it back at once.
pub(crate) fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Who leads which lock under `root` now, sorted by lock; for tools. It takes no part in any election.
///
/// # Errors
/// When the directory or a file in it cannot be read.
pub fn leaders(root: impl AsRef<Path>) -> io::Result<Vec<LeaderRecord>> {
    Ok(locks(root)?.into_iter().filter(|record| record.leading).collect())
}

/// The locks under `root` that were ever led, sorted by lock; for tools. `leading` is true of those that are
/// led now.
///
/// # Errors
/// As [`leaders`].
pub fn locks(root: impl AsRef<Path>) -> io::Result<Vec<LeaderRecord>> {
    let mut records = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if !path.to_string_lossy().ends_with(LOCK_SUFFIX) {
            continue;
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if let Some(record) = LeaderRecord::read_any(&file)? {
            let leading = record.leading && is_locked(&file)?;
            records.push(LeaderRecord { leading, ..record });
        }
    }
    records.sort_by(|one, other| one.lock.cmp(&other.lock));
    Ok(records)
}
