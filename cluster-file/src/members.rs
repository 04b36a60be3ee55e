//! [`Membership`]: the file that shows that a member lives.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use router_core::cluster::{ClusterError, Member};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::escape::escape;
use crate::lock_file::identity;
use crate::record::{is_locked, timestamp};
use crate::root::{cannot_use, remove};

/// How often a member's file is tried before its id counts as taken, a millisecond apart: those who
/// list the members hold it for microseconds.
const ATTEMPTS: u32 = 20;

/// The folder of the members' files.
pub(crate) const DIRECTORY: &str = "members";

/// What a member writes about itself.
#[derive(Serialize, Deserialize)]
struct MemberRecord {
    id: String,
    host: Option<String>,
    pid: Option<u32>,
    /// For humans.
    since: String,
}

/// This member's file. It is locked as long as this exists, and removed with it.
pub(crate) struct Membership {
    path: PathBuf,
    /// The lock; a `Drop` of this struct removes the file while it is held.
    _file: File,
}

impl Membership {
    /// Makes and locks the file of `member` in `directory`.
    pub(crate) async fn join(directory: &Path, member: &Member) -> Result<Self, ClusterError> {
        let path = directory.join(escape(&member.id));
        for _ in 0..ATTEMPTS {
            if let Some(file) = claim(&path, member).map_err(|error| cannot_use(&path, error))? {
                return Ok(Self { path, _file: file });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let other = File::open(&path).ok().and_then(|file| read(&file).ok()).map_or(String::new(), |other| {
            let pid = other.pid.map_or(String::new(), |pid| format!(" with process id {pid}"));
            format!(", a process{pid} on host `{}`", other.host.as_deref().unwrap_or("unknown"))
        });
        let text = format!(
            "the member id `{}` is in use by another live member{other}; give each member its own `member` id, \
             or none",
            member.id
        );
        Err(ClusterError::Unusable(text, None))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Locks the file at `path` and writes `member` into it; `None`: somebody has it, or it was removed.
fn claim(path: &Path, member: &Member) -> io::Result<Option<File>> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    if !is_at(&file, path) {
        return Ok(None);
    }
    let record = MemberRecord {
        id: member.id.to_string(),
        host: member.host.as_deref().map(str::to_owned),
        pid: member.pid,
        since: timestamp(),
    };
    file.set_len(0)?;
    file.write_all(&serde_json::to_vec(&record)?)?;
    Ok(Some(file))
}

/// All members whose file is locked, sorted by id. Files that dead members left behind are removed.
pub(crate) fn list(directory: &Path) -> Vec<Member> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            warn!("cannot list the members in `{}`: {error}", directory.display());
            return Vec::new();
        }
    };
    let mut members: Vec<Member> = entries.flatten().filter_map(|entry| look_at(&entry.path())).collect();
    members.sort_by(|one, other| one.id.cmp(&other.id));
    members
}

/// The members that live and share `root`, sorted by id; for tools. What dead members left behind is
/// removed.
#[must_use]
pub fn members(root: impl AsRef<Path>) -> Vec<Member> {
    list(&root.as_ref().join(DIRECTORY))
}

fn look_at(path: &Path) -> Option<Member> {
    let file = File::open(path).ok()?;
    if is_locked(&file).ok()? {
        // A member that has not yet written who it is will be seen next time.
        return read(&file).ok();
    }
    // Only who has the file locked may remove it, and who locks it afterwards looks whether it is still
    // there: so a member that just joins cannot lose its file.
    if file.try_lock().is_ok() && is_at(&file, path) {
        remove(path);
    }
    None
}

fn read(mut file: &File) -> io::Result<Member> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let record: MemberRecord = serde_json::from_slice(&text)?;
    Ok(Member { id: record.id.into(), host: record.host.map(Into::into), pid: record.pid })
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = || Ok::<_, io::Error>(identity(&file.metadata()?) == identity(&fs::symlink_metadata(path)?));
    same().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn members_are_those_whose_file_is_locked_and_the_files_of_dead_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let a = Membership::join(directory.path(), &Member::new("a")).await.unwrap();
        let b = Membership::join(directory.path(), &Member::new("B/1")).await.unwrap();
        fs::write(directory.path().join("dead"), "{}").unwrap();
        assert_eq!(list(directory.path()), [Member::new("B/1"), Member::new("a")]);
        assert!(!directory.path().join("dead").exists());
        drop(b);
        assert_eq!(list(directory.path()), [Member::new("a")]);
        drop(a);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_id_in_use_is_refused_and_says_by_whom() {
        let directory = tempfile::tempdir().unwrap();
        let host = Some("host1".into());
        let first = Member { id: "a".into(), host, pid: Some(42) };
        let _first = Membership::join(directory.path(), &first).await.unwrap();
        let Err(error) = Membership::join(directory.path(), &Member::new("a")).await else {
            panic!("joined")
        };
        let text = error.to_string();
        assert!(text.contains("`a`") && text.contains("42") && text.contains("host1"), "{text}");
    }
}
