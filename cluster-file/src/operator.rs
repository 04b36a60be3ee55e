//! [`FileOperator`]: what can be asked of the processes that share a directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use router_core::cluster::{
    ClusterError, Handover, LockName, Member, Operator, OperatorError, select_member,
};
use smol_str::SmolStr;
use tokio::time::{Instant, sleep};

use crate::arbiter::why_released;
use crate::escape::escape;
use crate::kernel_locks;
use crate::lock_file::open;
use crate::members;
use crate::record::{LOCK_SUFFIX, LeaderRecord};
use crate::requests;
use crate::root::cannot_use;
use crate::survey::leaders;

/// How often to look what has become of a request. It is read, not locked: that would be in the way of those
/// who try to lead.
const LOOK: Duration = Duration::from_millis(2);

/// An [`Operator`] of the members that share a directory. What is asked is a file in it.
///
/// # Guarantees
/// No file of a lock is written or locked for longer than a look.
///
/// # Assumptions
/// Whoever may write to the directory may ask.
#[derive(Debug)]
pub struct FileOperator {
    root: PathBuf,
}

impl FileOperator {
    /// An operator of the members that share the directory `root`.
    ///
    /// # Errors
    /// [`ClusterError::Unusable`] when there is no such directory.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ClusterError> {
        let root = root.into();
        if root.join("members").is_dir() {
            return Ok(Self { root });
        }
        let text = format!(
            "no member has ever used the directory `{}`; is it the `root` of theirs?",
            root.display()
        );
        Err(ClusterError::Unusable(text, None))
    }

    /// Who leads a lock, or led it last, as the file says.
    fn record(&self, lock: &LockName) -> io::Result<Option<LeaderRecord>> {
        read(&self.lock_file(lock))
    }

    fn lock_file(&self, lock: &LockName) -> PathBuf {
        self.root.join(escape(lock.as_str()) + LOCK_SUFFIX)
    }

    fn members(&self) -> Result<Vec<Member>, OperatorError> {
        members::members(&self.root).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> OperatorError {
        cannot_use(&self.root, error).into()
    }

    async fn watch_hand_over(
        &self,
        lock: &LockName,
        before: &LeaderRecord,
        patience: Duration,
    ) -> Result<Handover, OperatorError> {
        let until = Instant::now() + patience;
        let (from, from_term) = (SmolStr::from(before.member.as_str()), before.term);
        let mut released = None;
        while Instant::now() < until {
            let now = self.record(lock).map_err(|error| self.failed(error))?;
            match now {
                Some(now) if now.term > from_term && now.member == before.member => {
                    let text = format!(
                        "nobody else took `{lock}` over: {from} released it after term {from_term} and leads again, \
                         term {}",
                        now.term
                    );
                    return Err(OperatorError::NotDone(text));
                }
                Some(now) if now.term > from_term => {
                    // A release that was too short to be seen is what the next leader tells of.
                    let after = match released {
                        Some(at) => Some(Instant::now() - at),
                        None => {
                            (now.why == why_released(&before.member, from_term)).then_some(Duration::ZERO)
                        }
                    };
                    return Ok(Handover { from, from_term, to: now.member.into(), to_term: now.term, after });
                }
                Some(now) if !now.leading => {
                    released.get_or_insert_with(Instant::now);
                }
                _ => {}
            }
            sleep(LOOK).await;
        }
        let text = if released.is_some() {
            format!("{from} released `{lock}` after term {from_term}, and nobody took it within {patience:?}")
        } else {
            format!(
                "{from} has not released `{lock}` within {patience:?}: if it hears us, work under the lock is still \
                 running, and the lock changes hands when that has ended"
            )
        };
        Err(OperatorError::NotDone(text))
    }

    fn held_by(&self, member: &str) -> io::Result<bool> {
        for entry in std::fs::read_dir(&self.root)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(LOCK_SUFFIX)
                && let Some(record) = read(&path)?
                && record.leading
                && record.member == member
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn read(path: &Path) -> io::Result<Option<LeaderRecord>> {
    match open(path) {
        Ok(file) => Ok(LeaderRecord::read(&file)?.record_at(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_called(member: &Member, name: &str) -> bool {
    member.id == name || member.pid.is_some_and(|pid| pid.to_string() == name)
}

#[async_trait]
impl Operator for FileOperator {
    async fn hand_over(&self, lock: &LockName, patience: Duration) -> Result<Handover, OperatorError> {
        let held = || {
            let Some(record) = self.record(lock)?.filter(|record| record.leading) else { return Ok(None) };
            let file = open(&self.lock_file(lock))?;
            Ok(record.is_led(&file, || Arc::new(kernel_locks::snapshot()))?.then_some(record))
        };
        let Some(before) = held().map_err(|error| self.failed(error))? else {
            let led = leaders(&self.root).map_err(|error| self.failed(error))?;
            let led = led.iter().map(|record| record.lock.as_str()).collect::<Vec<_>>().join(", ");
            let led = if led.is_empty() { "none".to_owned() } else { led };
            return Err(OperatorError::NotAsked(format!("nobody leads `{lock}`; led are: {led}")));
        };
        requests::ask_to_hand_over(&self.root, lock, before.term).map_err(|error| self.failed(error))?;
        let outcome = self.watch_hand_over(lock, &before, patience).await;
        let withdrawn = requests::withdraw_hand_over(&self.root, lock, before.term);
        let handover = outcome?;
        withdrawn.map_err(|error| self.failed(error))?;
        Ok(handover)
    }

    async fn drain(&self, member: Option<&str>, patience: Duration) -> Result<SmolStr, OperatorError> {
        let members = self.members()?;
        let asked = requests::drained(&self.root).map_err(|error| self.failed(error))?;
        // What was asked of members that have ended is forgotten.
        for gone in asked.iter().filter(|id| members.iter().all(|member| member.id != id.as_str())) {
            let _ = requests::withdraw(&requests::drain_file(&self.root, gone));
        }
        let name = |member: &Member| member.id.to_string();
        let id = select_member(member, &members, name, is_called, "members are")?.id.clone();
        requests::ask_to_drain(&self.root, &id).map_err(|error| self.failed(error))?;
        let until = Instant::now() + patience;
        while self.held_by(&id).map_err(|error| self.failed(error))? {
            if Instant::now() >= until {
                let text = format!(
                    "{id} has not given up everything within {patience:?}: work under its locks may still be \
                     running; it stays asked until `drain --undo`"
                );
                return Err(OperatorError::NotDone(text));
            }
            sleep(LOOK).await;
        }
        Ok(id)
    }

    async fn undrain(&self, member: Option<&str>) -> Result<SmolStr, OperatorError> {
        let drained = requests::drained(&self.root).map_err(|error| self.failed(error))?;
        let alive = self.members()?;
        let is_called = |id: &String, name: &str| {
            id == name || alive.iter().any(|member| member.id == id.as_str() && is_called(member, name))
        };
        let id = select_member(member, &drained, Clone::clone, is_called, "drained are")?;
        let path = requests::drain_file(&self.root, id);
        requests::withdraw(&path).map_err(|error| self.failed(error))?;
        Ok(id.as_str().into())
    }
}
