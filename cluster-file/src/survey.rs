//! [`Survey`]: how the locks in a directory stand, for tools.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::escape::unescape;
use crate::kernel_locks::{self, Snapshot};
use crate::lock_file::open;
use crate::record::{Found, LOCK_SUFFIX, LeaderRecord, holders};
use crate::terms;

/// What the files of locks say.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Survey {
    /// The locks that were ever led, sorted by lock. `leading` is true of those that are led now, and `obstacle`
    /// tells of the others what is in the way.
    pub locks: Vec<LeaderRecord>,
    /// The locks whose files cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// The locks whose files say nothing, because no member has led them since the files were made.
    pub unled: Vec<Unled>,
    /// Why no member that stands by could lead now, as far as this process can see.
    pub obstacle: Option<String>,
}

/// A lock that no member has led yet.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unled {
    /// The lock; of one with a long name, the name of its file.
    pub lock: String,
    /// What keeps it from being led, as far as this process can see.
    pub obstacle: Option<String>,
}

/// What the file of a lock says.
enum Seen {
    Record(Box<LeaderRecord>),
    /// Nothing, and what keeps the lock from being led.
    Unled(Option<String>),
    /// Nothing to go by; a sentence that tells why.
    Unreadable(String),
}

/// A lock of which it is not known who leads it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unreadable {
    /// The lock; of one with a long name, the name of its file.
    pub lock: String,
    /// A sentence that names the file and, where the kernel tells, who has it locked.
    pub why: String,
}

/// Who leads which lock under `root` now, sorted by lock; for tools. It takes no part in any election.
///
/// # Errors
/// As [`survey`].
pub fn leaders(root: impl AsRef<Path>) -> io::Result<Vec<LeaderRecord>> {
    Ok(locks(root)?.into_iter().filter(|record| record.leading).collect())
}

/// The locks of a [`survey`].
///
/// # Errors
/// As [`survey`].
pub fn locks(root: impl AsRef<Path>) -> io::Result<Vec<LeaderRecord>> {
    Ok(survey(root)?.locks)
}

/// How the locks under `root` stand; for tools. One that cannot be read does not hide the others.
///
/// # Errors
/// When the directory cannot be read.
pub fn survey(root: impl AsRef<Path>) -> io::Result<Survey> {
    let root = root.as_ref();
    let snapshot = Arc::new(kernel_locks::snapshot());
    let numbers = terms::locked_by(root, &snapshot);
    let mut survey = Survey { obstacle: numbers.or_else(|| without_room(root)), ..Survey::default() };
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(name) = name.strip_suffix(LOCK_SUFFIX).filter(|name| !name.starts_with('.')) else {
            continue;
        };
        match look(&path, &snapshot, survey.obstacle.as_deref()) {
            Ok(Seen::Record(record)) => survey.locks.push(*record),
            Ok(Seen::Unled(obstacle)) => survey.unled.push(Unled { lock: unescape(name), obstacle }),
            Ok(Seen::Unreadable(why)) => survey.unreadable.push(Unreadable { lock: unescape(name), why }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let holders =
                    path.symlink_metadata().map(|file| snapshot.exactly_of(&file)).unwrap_or_default();
                let locked = match &holders[..] {
                    [] => String::new(),
                    holders => format!("; it is locked by {}", kernel_locks::named(holders)),
                };
                let why = format!("its file `{}` cannot be read: {error}{locked}", path.display());
                survey.unreadable.push(Unreadable { lock: unescape(name), why });
            }
        }
    }
    survey.locks.sort_by(|one, other| one.lock.cmp(&other.lock));
    Ok(survey)
}

/// Why nothing can be written under `root`. Each term begins with a number, which is written there.
fn without_room(root: &Path) -> Option<String> {
    let disk = rustix::fs::statvfs(root).ok()?;
    let what = if disk.f_blocks > 0 && disk.f_bavail == 0 {
        "no room"
    } else if disk.f_files > 0 && disk.f_favail == 0 {
        "no room for another file"
    } else {
        return None;
    };
    Some(format!("there is {what} on the disk of `{}`, so no term can begin", root.display()))
}

/// What the file of a lock says; `beginning`: why no term can begin at all.
fn look(path: &Path, locks: &Arc<Snapshot>, beginning: Option<&str>) -> io::Result<Seen> {
    let file = open(path)?;
    let found = LeaderRecord::read(&file)?;
    let holders = holders(&file, locks)?;
    let foreign = found.of_another_lock(path).map_or(String::new(), |clause| format!(", and {clause}"));
    let obstacle = match &holders[..] {
        [] => beginning.map(str::to_owned),
        holders => Some(format!("its file is locked by {}{foreign}", kernel_locks::named(holders))),
    };
    let record = match found {
        Found::Refused(refusal) => return Ok(Seen::Unreadable(refusal.about(path))),
        found => found.record_at(path),
    };
    let Some(record) = record else { return Ok(Seen::Unled(obstacle)) };
    let leading = record.is_led(&file, || Arc::clone(locks))?;
    let stopped = leading && holders.iter().any(|holder| kernel_locks::is_stopped(*holder));
    let obstacle = obstacle.filter(|_| !leading);
    Ok(Seen::Record(Box::new(LeaderRecord { leading, stopped, obstacle, ..record })))
}
