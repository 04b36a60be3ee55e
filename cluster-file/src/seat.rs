//! [`Seat`]: this member's place in one root directory.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use router_core::cluster::{ClusterError, Member};
use tokio::task::JoinSet;
use tracing::warn;

use crate::history::Joined;
use crate::kernel_locks;
use crate::lock_table::LockTable;
use crate::members::Membership;
use crate::root::{Root, cannot_use};
use crate::terms;
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
    membership: Mutex<Option<Membership>>,
    /// The task that keeps the table up to date; it ends with us.
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

impl Seat {
    /// Joins the members of `root`.
    pub(crate) async fn first(root: Root, joining: Joining<'_>) -> Result<Self, ClusterError> {
        Self::join(root, joining, None).await
    }

    /// Joins the members of `root`, which is in the place of another directory.
    pub(crate) async fn instead_of(
        former: &Seat,
        root: Root,
        joining: Joining<'_>,
    ) -> Result<Self, ClusterError> {
        Self::join(root, joining, Some(former)).await
    }

    async fn join(root: Root, joining: Joining<'_>, former: Option<&Seat>) -> Result<Self, ClusterError> {
        let Joining { local, table, timing, without_events } = joining;
        let failed = |error: io::Error| cannot_use(root.path(), error);
        let membership = Membership::join(&root.members(), local, timing.ends_within()).await?;
        // First watch, then look whether another member is there: so no deletion under a leader goes unseen.
        let watch = Arc::new(Watch::start(root.path(), Arc::clone(table), timing.recheck, without_events));
        // Where another directory was led before, it makes no difference that this one has no members.
        let alone = root.join().await? && former.is_none();
        if alone {
            terms::remove_leftovers(root.path());
        }
        let joined = Joined::now(root.path(), alone).map_err(failed)?;
        let former = former.map(Self::handles).transpose().map_err(failed)?.unwrap_or_default();
        let mut watching = JoinSet::new();
        watching.spawn({
            let watch = Arc::clone(&watch);
            async move { watch.run().await }
        });
        let (former, membership) = (Mutex::new(former), Mutex::new(Some(membership)));
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
