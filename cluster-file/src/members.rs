//! [`Membership`]: the file that shows that a member lives.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use router_core::cluster::{ClusterError, Member};
use router_core::state::FileLock;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

use crate::escape::escape;
use crate::kernel_locks;
use crate::lock_file::{FileVersion, create, is_at, make_folder, open, open_to_write, present};
use crate::record::{FORMAT, first_format, is_locked, millis, timestamp};
use crate::root::{MEMBERS, cannot_use, remove};

/// How often a member's file is tried before its id counts as taken, a millisecond apart: those who
/// list the members hold it for microseconds.
const ATTEMPTS: u32 = 20;

/// What a member writes about itself.
#[derive(Serialize, Deserialize)]
struct MemberRecord {
    #[serde(default = "first_format")]
    format: u32,
    id: String,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    pid: Option<u32>,
    /// For humans.
    #[serde(default)]
    since: String,
    /// How long a term of it needs to end once its files are gone, in milliseconds.
    #[serde(default)]
    ends_within_ms: Option<u64>,
}

/// This member's file. It is locked as long as this exists, and removed with it.
pub(crate) struct Membership {
    path: PathBuf,
    /// What is in it.
    text: Vec<u8>,
    claimed: Claimed,
}

/// The file, with the lock; a `Drop` of a [`Membership`] removes it while it is held.
struct Claimed {
    file: FileLock,
    /// As it was when the member had written to it.
    version: FileVersion,
}

impl Membership {
    /// Makes and locks the file of `member` in `directory`. Its terms end within `ends_within` once their files
    /// are gone.
    pub(crate) async fn join(
        directory: &Path,
        member: &Member,
        ends_within: Duration,
    ) -> Result<Self, ClusterError> {
        let path = directory.join(escape(&member.id));
        let failed = |error: io::Error| cannot_use(&path, error);
        let record = MemberRecord {
            format: FORMAT,
            id: member.id.to_string(),
            host: member.host.as_deref().map(str::to_owned),
            pid: member.pid,
            since: timestamp(),
            ends_within_ms: Some(millis(ends_within)),
        };
        let text = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        for _ in 0..ATTEMPTS {
            if let Some(claimed) = claim(&path, &text).map_err(failed)? {
                return Ok(Self { path, text, claimed });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(ClusterError::Unusable(why_taken(&path, &member.id), None))
    }

    /// Makes the file anew if it was deleted or overwritten: without it others do not see this member.
    pub(crate) fn mend(&mut self) -> io::Result<()> {
        if present(&self.path).ok().flatten() == Some(self.claimed.version) {
            return Ok(());
        }
        if is_at(&self.claimed.file, &self.path) {
            self.claimed.version = write(&self.claimed.file, &self.text)?;
            return Ok(());
        }
        self.path.parent().map(make_folder).transpose()?;
        // If another process has it, that one is a member of the same id, or looks at it for a moment.
        if let Some(claimed) = claim(&self.path, &self.text)? {
            self.claimed = claimed;
            warn!("`{}` was deleted or replaced under this member, and is made anew", self.path.display());
        }
        Ok(())
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // Where the root was replaced, the file at the path is that of our next membership.
        if is_at(&self.claimed.file, &self.path) {
            remove(&self.path);
        }
    }
}

/// Which process has the file of the member `id` locked, in words.
fn why_taken(path: &Path, id: &str) -> String {
    let other = open(path).ok().and_then(|file| read(&file).ok()).map(MemberRecord::member);
    let pid = other.as_ref().and_then(|other| other.pid);
    let locks = kernel_locks::snapshot();
    let of = |path: &Path| fs::metadata(path).map(|file| locks.of(&file)).unwrap_or_default();
    let holders = of(path);
    // Who has not written yet what it is has the lock on the root, if it is a member.
    let in_root = path.ancestors().nth(2).map(of).unwrap_or_default();
    let is_member = |holder: &u32| match pid {
        Some(pid) => kernel_locks::calls_itself(*holder, pid),
        None => in_root.contains(holder),
    };
    if !holders.is_empty() && !holders.iter().any(is_member) {
        let (path, who) = (path.display(), kernel_locks::named(&holders));
        return format!(
            "`{path}` is locked by {who}, which is no member: it must end before a member with the id `{id}` can \
             start"
        );
    }
    let pid = pid.map_or(String::new(), |pid| format!(" with process id {pid}"));
    let other = other.map_or(String::new(), |other| {
        format!(", a process{pid} on host `{}`", other.host.as_deref().unwrap_or("unknown"))
    });
    format!(
        "the member id `{id}` is in use by another live member{other}; give each member its own `member` id, or none"
    )
}

/// Locks the file at `path` and writes `text` into it; `None`: another process has it, or it was removed.
fn claim(path: &Path, text: &[u8]) -> io::Result<Option<Claimed>> {
    create(path)?;
    let file = match open_to_write(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let Some(file) = FileLock::try_new(file)? else { return Ok(None) };
    if !is_at(&file, path) {
        return Ok(None);
    }
    let version = write(&file, text)?;
    Ok(Some(Claimed { file, version }))
}

fn write(file: &File, text: &[u8]) -> io::Result<FileVersion> {
    file.write_all_at(text, 0)?;
    file.set_len(text.len() as u64)?;
    Ok(FileVersion::of(&file.metadata()?))
}

/// All members whose file is locked, sorted by id. Files that dead members left behind are removed.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<Member>> {
    let mut members = look(directory)?.into_iter().map(MemberRecord::member).collect::<Vec<_>>();
    members.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(members)
}

/// What the files of members say about how long their terms need to end.
pub(crate) enum Ends {
    /// The longest, in milliseconds.
    Within(Option<u64>),
    /// A member of a newer program does not say it in a way that we know.
    Unknown { member: String, format: u32 },
}

/// How long the terms of members need to end.
pub(crate) fn ends(directory: &Path) -> io::Result<Ends> {
    let members = look(directory)?;
    Ok(match members.iter().find(|member| member.format > FORMAT) {
        Some(member) => Ends::Unknown { member: member.id.clone(), format: member.format },
        None => Ends::Within(members.iter().filter_map(|member| member.ends_within_ms).max()),
    })
}

fn look(directory: &Path) -> io::Result<Vec<MemberRecord>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().filter_map(|entry| look_at(&entry.path())).collect()),
        // Deleted with all else; members make it anew within a second.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The members that live and share `root`, sorted by id; for tools. What dead members left behind is
/// removed.
///
/// # Errors
/// When the folder of their files cannot be read.
pub fn members(root: impl AsRef<Path>) -> io::Result<Vec<Member>> {
    list(&root.as_ref().join(MEMBERS))
}

fn look_at(path: &Path) -> Option<MemberRecord> {
    let file = open(path).ok()?;
    if is_locked(&file).ok()? {
        // A member that has not yet written who it is will be seen next time.
        return read(&file).ok();
    }
    // Only who has the file locked may remove it, and who locks it afterwards looks whether it is still
    // there: so a member that just joins cannot lose its file.
    let lock = FileLock::try_new(file).ok()??;
    if is_at(&lock, path) {
        remove(path);
    }
    None
}

fn read(mut file: &File) -> io::Result<MemberRecord> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).or_else(|error| MemberRecord::of_newer_program(&text).ok_or(error))?)
}

impl MemberRecord {
    /// What a newer program has written, whatever else is in it.
    fn of_newer_program(text: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Signs {
            format: u32,
            #[serde(default)]
            id: Value,
        }
        let Signs { format, id } = serde_json::from_slice(text).ok()?;
        let id = id.as_str().unwrap_or("of an unknown name").to_owned();
        let record = Self { format, id, host: None, pid: None, since: String::new(), ends_within_ms: None };
        (format > FORMAT).then_some(record)
    }

    fn member(self) -> Member {
        Member { id: self.id.into(), host: self.host.map(Into::into), pid: self.pid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: Duration = Duration::from_secs(3);

    #[tokio::test]
    async fn members_are_those_whose_file_is_locked_and_the_files_of_dead_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let a = Membership::join(directory.path(), &Member::new("a"), ENDS).await.unwrap();
        let b = Membership::join(directory.path(), &Member::new("B/1"), ENDS).await.unwrap();
        fs::write(directory.path().join("dead"), "{}").unwrap();
        assert_eq!(list(directory.path()).unwrap(), [Member::new("B/1"), Member::new("a")]);
        assert!(!directory.path().join("dead").exists());
        drop(b);
        assert_eq!(list(directory.path()).unwrap(), [Member::new("a")]);
        drop(a);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn members_that_cannot_be_listed_are_an_error_and_not_none() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("members");
        assert_eq!(list(&directory).unwrap(), []);
        fs::write(&directory, "").unwrap();
        list(&directory).unwrap_err();
        assert!(ends(&directory).is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_deleted_or_overwritten_is_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("members");
        fs::create_dir(&directory).unwrap();
        let mut a = Membership::join(&directory, &Member::new("a"), ENDS).await.unwrap();
        let file = directory.join("a");
        let harm: [&dyn Fn(); 4] = [
            &|| fs::write(&file, "").unwrap(),
            &|| fs::write(&file, r#"{"id":"another"}"#).unwrap(),
            &|| fs::remove_file(&file).unwrap(),
            &|| fs::remove_dir_all(&directory).unwrap(),
        ];
        for harm in harm {
            harm();
            assert_ne!(list(&directory).unwrap(), [Member::new("a")]);
            a.mend().unwrap();
            assert_eq!(list(&directory).unwrap(), [Member::new("a")]);
        }
        drop(a);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_id_in_use_is_refused_and_says_by_whom() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("members");
        fs::create_dir(&directory).unwrap();
        let own = std::process::id();
        let first = |pid| Member { id: "a".into(), host: Some("host1".into()), pid: Some(pid) };
        let why = async || {
            let Err(error) = Membership::join(&directory, &Member::new("a"), ENDS).await else {
                panic!("joined")
            };
            error.to_string()
        };
        let member = Membership::join(&directory, &first(own), ENDS).await.unwrap();
        let text = why().await;
        assert!(
            text.starts_with("the member id `a` is in use by another live member, a process with"),
            "{text}"
        );
        assert!(text.contains(&own.to_string()) && text.contains("host1"), "{text}");
        drop(member);
        // What a member leaves that was killed, and another process has locked.
        let _left = Membership::join(&directory, &first(1), ENDS).await.unwrap();
        let text = why().await;
        let stranger = format!("is locked by process {own}, which is no member");
        assert!(text.contains(&stranger), "{text}");
        // A file in which nothing is written yet, by a stranger and by a member, which has the lock on the root.
        fs::write(directory.join("a"), "").unwrap();
        let text = why().await;
        assert!(text.contains(&stranger), "{text}");
        let member = File::open(root.path()).unwrap();
        member.lock_shared().unwrap();
        let text = why().await;
        assert!(text.starts_with("the member id `a` is in use by another live member;"), "{text}");
    }
}
