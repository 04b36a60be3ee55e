//! [`Seat`]: this member's place in one root directory.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use router_core::cluster::{ClusterError, Member};
use router_core::error::Chain;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::history::Joined;
use crate::kernel_locks;
use crate::lock_table::LockTable;
use crate::members::{self, Membership};
use crate::prepared;
use crate::reminder::Reminder;
use crate::root::{Place, Root, cannot_use};
use crate::timing::Timing;
use crate::watch::Watch;

/// A member in one root directory: from when it joins until it leaves, or until the directory is gone and it
/// joins the one that is there instead. Grants keep the seat in which they were granted, and so this member
/// stays one of the members of the directory that is gone until its work under them has ended.
pub(crate) struct Seat {
    pub(crate) root: Root,
    pub(crate) watch: Arc<Watch>,
    pub(crate) joined: Joined,
    /// The directories that were the root before: while they have members, one of them may lead.
    former: Mutex<Vec<File>>,
    membership: Arc<Mutex<Option<Membership>>>,
    /// The tasks that keep the table up to date, and the file of this member in its place; they end with us.
    _watching: JoinSet<()>,
}

/// How a member joins.
#[derive(Clone, Copy)]
pub(crate) struct Joining<'a> {
    pub(crate) local: &'a Member,
    pub(crate) table: &'a Arc<LockTable>,
    pub(crate) timing: Timing,
    pub(crate) without_events: bool,
}

/// How often a member that starts joins another directory, because the one that it joined was gone.
const ATTEMPTS: u32 = 5;

/// What a member that joins a directory knows of another one that was the root before.
#[derive(Clone, Copy)]
enum Others<'a> {
    /// Nothing: if no other member is there, there is none.
    Unknown,
    /// There was one, and may have members.
    Elsewhere,
    /// This one was there itself.
    Former(&'a Seat),
}

impl Seat {
    /// Joins the members of the root that `open` opens. If it is moved or deleted just then, the one that is there
    /// instead; its former members are not known then, and may lead.
    pub(crate) async fn first(
        open: impl Fn() -> Result<Root, ClusterError>,
        joining: Joining<'_>,
    ) -> Result<Self, ClusterError> {
        let mut others = Others::Unknown;
        for _ in 1..ATTEMPTS {
            let root = open()?;
            let place = Arc::clone(root.place());
            match Self::join(root, joining, others).await {
                Err(error) if place.lost().is_some() => {
                    info!(
                        "the root was replaced while this member joined, so it joins anew: {}",
                        Chain(&error)
                    );
                    others = Others::Elsewhere;
                }
                joined => return joined,
            }
        }
        Self::join(open()?, joining, others).await
    }

    /// Joins the members of `root`, which is in the place of another directory.
    pub(crate) async fn instead_of(
        former: &Seat,
        root: Root,
        joining: Joining<'_>,
    ) -> Result<Self, ClusterError> {
        Self::join(root, joining, Others::Former(former)).await
    }

    async fn join(root: Root, joining: Joining<'_>, others: Others<'_>) -> Result<Self, ClusterError> {
        let Joining { local, table, timing, without_events } = joining;
        let failed = |error: io::Error| cannot_use(root.path(), error);
        let membership = Membership::join(&root.members(), local, timing.ends_within()).await?;
        // What members that were killed left is removed by who lists them. A process that starts and crashes in a circle
        // may be the only one, with an id of its own each time. An error is told by who needs the list.
        let _ = members::list(&root.members());
        // First watch, then look whether another member is there: so no deletion under a leader goes unseen.
        let watch = Arc::new(Watch::start(root.path(), Arc::clone(table), timing.recheck, without_events));
        // Where another directory was led before, it makes no difference that this one has no members.
        let alone = root.join().await? && matches!(others, Others::Unknown);
        if alone {
            prepared::remove_leftovers(root.path());
        }
        let joined = Joined::now(root.path(), alone).map_err(failed)?;
        let former = match others {
            Others::Former(seat) => seat.handles().map_err(failed)?,
            Others::Elsewhere | Others::Unknown => Vec::new(),
        };
        let mut watching = JoinSet::new();
        watching.spawn({
            let watch = Arc::clone(&watch);
            async move { watch.run().await }
        });
        let membership = Arc::new(Mutex::new(Some(membership)));
        watching.spawn(keep_membership(Arc::clone(&membership), Arc::clone(root.place()), timing.recheck));
        let former = Mutex::new(former);
        Ok(Self { root, watch, joined, former, membership, _watching: watching })
    }

    /// Handles of the directories that a member that leaves this one has to ask: this one, and those before.
    fn handles(&self) -> io::Result<Vec<File>> {
        let former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        let before = former.iter().map(File::try_clone);
        before.chain([self.root.another_handle()]).collect()
    }

    /// Who is still a member of a directory that was the root before, in words; `None`: no process.
    pub(crate) fn left_behind(&self) -> Option<String> {
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        // The handle has no lock that could be lost: members have theirs on handles of their own.
        former.retain(|directory| directory.try_lock().is_err() || directory.unlock().is_err());
        let metadata = former.first()?.metadata().ok()?;
        Some(kernel_locks::named(&kernel_locks::snapshot().of(&metadata)))
    }

    /// Removes this member's file: it is gone from here, or is about to make one elsewhere. That may be the same
    /// place, if the directory was replaced while this one joined.
    pub(crate) fn end_membership(&self) {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Shows the others that this member is gone. To be called when no lock is held.
    pub(crate) fn leave(&self) {
        self.end_membership();
        if let Err(error) = self.root.leave() {
            warn!("cannot unlock `{}`: {error}", self.root.path().display());
        }
    }
}

/// Keeps the file of this member in its place. Never returns.
async fn keep_membership(membership: Arc<Mutex<Option<Membership>>>, place: Arc<Place>, recheck: Duration) {
    let mut reminder = Reminder::new(recheck);
    loop {
        sleep(recheck).await;
        // In another directory this member is not, or is with a membership of its own.
        if place.lost().is_some() {
            continue;
        }
        let mended = membership.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(Membership::mend);
        match mended {
            Some(Err(error)) if reminder.is_due() => {
                warn!("other members do not see this one, because its file cannot be made anew: {error}");
            }
            Some(Err(_)) | None => {}
            Some(Ok(())) => reminder = Reminder::new(recheck),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_member_that_starts_while_the_root_is_moved_joins_the_one_that_is_there_instead() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("locks");
        let local = Member::new("a");
        let table = Arc::new(LockTable::new(&root, &local));
        let joining =
            Joining { local: &local, table: &table, timing: Timing::default(), without_events: false };
        let moved = AtomicBool::new(false);
        let open = || {
            let opened = Root::open(&root, false)?;
            if !moved.swap(true, Ordering::Relaxed) {
                fs::rename(&root, folder.path().join("elsewhere")).unwrap();
            }
            Ok(opened)
        };
        let seat = Seat::first(open, joining).await.unwrap();
        assert!(seat.root.place().lost().is_none());
        assert!(root.join("members/a").exists());
        assert!(!seat.joined.alone, "members of the other directory may lead");
    }
}
