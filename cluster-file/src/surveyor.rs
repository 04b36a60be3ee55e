//! [`Surveyor`]: how the locks of the processes of a host stand.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use router_core::cluster::{Candidates, LockState, LockStatus, NEVER_LED, Sight, Survey};
use router_core::error::BoxError;

use crate::members::members;
use crate::record::LeaderRecord;
use crate::requests::drained;
use crate::survey::survey;

/// How often to look for changes. A look reads a line per lock.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

pub(crate) struct Surveyor {
    root: PathBuf,
}

impl Surveyor {
    pub(crate) fn open(root: PathBuf) -> Result<Self, BoxError> {
        if root.is_dir() {
            return Ok(Self { root });
        }
        let message = format!(
            "there is no directory `{}`, so no member has run here; go where the members are started, or use `--set \
             cluster.file.root=DIR`",
            root.display()
        );
        Err(message.into())
    }
}

#[async_trait]
impl Survey for Surveyor {
    fn place(&self) -> String {
        format!("in the directory `{}`", self.root.display())
    }

    /// The kernel tells who leads, and whether that process runs.
    async fn look(&mut self) -> Result<Sight, BoxError> {
        let asked = drained(&self.root)?;
        let alive = members(&self.root)?.into_iter().map(|member| member.id.to_string());
        let (drained, standbys) = alive.partition(|id| asked.contains(id));
        let members = Candidates { standbys, drained, unseen: None };
        let seen = survey(&self.root)?;
        let unreadable = seen.unreadable.into_iter();
        let unreadable = unreadable.map(|it| LockStatus::free(&it.lock, &members, "").unknown(it.why));
        let obstacle = seen.obstacle.as_deref();
        let unled = seen.unled.into_iter().map(|unled| {
            let why = unled.obstacle.unwrap_or_else(|| members.why_free());
            LockStatus::free(&unled.lock, &members, format!("{NEVER_LED}; {why}"))
        });
        let led = seen.locks.into_iter().map(|record| status(record, &members, obstacle));
        let locks = unreadable.chain(unled).chain(led);
        Ok(Sight { locks: locks.collect(), members: members.clone(), ..Sight::default() })
    }

    async fn changed(&mut self) -> Result<(), BoxError> {
        tokio::time::sleep(LOOK_PERIOD).await;
        Ok(())
    }
}

/// `obstacle`: why no standby could lead now.
fn status(record: LeaderRecord, members: &Candidates, obstacle: Option<&str>) -> LockStatus {
    let why = record.obstacle.clone().unwrap_or_else(|| members.why_free());
    let why = format!("{} led it in term {}; {why}", record.member, record.term);
    let mut free = LockStatus::free(&record.lock, members, why);
    if !record.leading {
        return free;
    }
    free.candidates.standbys.retain(|member| *member != record.member);
    let pid = record.pid.map_or(String::new(), |pid| format!(" {pid}"));
    let (state, reason) = match record.stopped {
        true => {
            (LockState::Silent, Some(format!("its process{pid} is stopped (SIGSTOP), and keeps the lock")))
        }
        false => {
            let obstacle = obstacle.filter(|_| !free.candidates.standbys.is_empty());
            let obstacle = obstacle.map(|why| format!("no standby could take it over: {why}"));
            (LockState::Led, members.why_still_led(&record.member).or(obstacle))
        }
    };
    LockStatus {
        state,
        reason,
        holder: Some(record.member.clone()),
        member: Some(record.member),
        term: Some(record.term),
        held_since: Some(record.since),
        ..free
    }
}
