//! [`Obstacles`]: what would keep this member from leading, found while it stands by and not when it is needed.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use router_core::cluster::ClusterError;
use router_core::cluster::backend::time_of_day_after;
use router_core::error::Chain;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::kernel_locks;
use crate::lock_file::open;
use crate::lock_table::{LockState, LockTable};
use crate::record::{Found, LeaderRecord};
use crate::reminder::Reminder;
use crate::root::{Root, cannot_use};
use crate::terms::TermNumbers;

/// How often a member that stands by looks whether it has the rights to lead.
const LOOK_AT_RIGHTS: Duration = Duration::from_secs(30);

/// What a candidate looks at that finds the lock busy.
pub(crate) struct Obstacles<'a> {
    state: &'a LockState,
    recheck: Duration,
    looked_at_rights: Option<Instant>,
    /// Since when it is not clear that a member has the lock.
    suspect: Option<Instant>,
    /// The processes that have it without leading, and since when: a member that is about to lead has it for a
    /// moment.
    strange: Option<(Vec<u32>, Instant)>,
}

impl<'a> Obstacles<'a> {
    pub(crate) fn new(state: &'a LockState, recheck: Duration) -> Self {
        Self { state, recheck, looked_at_rights: None, suspect: Some(Instant::now()), strange: None }
    }

    /// The leader may have ended: is it still a member that has the lock?
    pub(crate) fn suspect(&mut self) {
        // Without events there is one each second.
        self.suspect.get_or_insert_with(Instant::now);
    }

    /// Looks, as far as it is time to.
    pub(crate) fn look(&mut self, root: &Root, table: &LockTable) -> Result<(), ClusterError> {
        if self.looked_at_rights.is_none_or(|at| at.elapsed() >= LOOK_AT_RIGHTS) {
            self.looked_at_rights = Some(Instant::now());
            check_rights(root.path(), &self.state.path)?;
        }
        if self.state.is_taken() {
            self.clear();
        } else if self.suspect.is_some_and(|since| since.elapsed() >= 2 * self.recheck) {
            self.look_for_stranger(root, table);
        }
        Ok(())
    }

    fn look_for_stranger(&mut self, root: &Root, table: &LockTable) {
        let Ok(file) = open(&self.state.path) else { return };
        let Ok(metadata) = file.metadata() else { return };
        let found = LeaderRecord::read(&file).unwrap_or(Found::Nothing);
        let foreign =
            found.of_another_lock(&self.state.path).map_or(String::new(), |clause| format!("; {clause}"));
        let record = found.record_at(&self.state.path);
        let locks = table.kernel_locks();
        let led =
            record.as_ref().filter(|record| record.is_led(&file, || Arc::clone(&locks)).unwrap_or(false));
        let (path, highest) = (self.state.path.display(), self.state.highest_term());
        if let Some(LeaderRecord { term, member, .. }) = led {
            if *term >= highest {
                self.clear();
            } else {
                self.note(Some(format!(
                    "`{path}` says that {member} leads in term {term}, and this member has seen term {highest}: it was \
                     replaced by an older file, or the root by another directory"
                )));
            }
            return;
        }
        let holders = locks.of(&metadata);
        match &self.strange {
            Some((known, since)) if *known == holders => {
                if since.elapsed() < self.recheck {
                    return;
                }
            }
            _ => {
                self.strange = Some((holders, Instant::now()));
                return;
            }
        }
        let members = root.processes(&locks);
        let by_member = holders.is_empty() || holders.iter().any(|holder| members.contains(holder));
        let who = kernel_locks::named(&holders);
        self.note(Some(if by_member {
            format!("`{path}` is locked by {who}, which has not said that it leads{foreign}")
        } else {
            format!(
                "`{path}` is locked by {who}, which is no member; no member can lead until that one unlocks it or \
                 ends{foreign}"
            )
        }));
    }

    /// A member leads.
    fn clear(&mut self) {
        (self.suspect, self.strange) = (None, None);
        self.note(None);
    }

    /// Says what is in the way when that has changed. What stays is repeated by the views, for as long as there is
    /// no leader.
    fn note(&self, obstacle: Option<String>) {
        let changed = self.state.obstacle.send_if_modified(|known| {
            let changed = *known != obstacle;
            known.clone_from(&obstacle);
            changed
        });
        if let Some(obstacle) = obstacle.filter(|_| changed) {
            let lock = &self.state.lock;
            warn!(%lock, "`{lock}` has no leader: {obstacle}");
        }
    }

    /// The lock could be had, but a former leader may still work.
    pub(crate) fn wait(&self, rest: Duration, why: &str) {
        let until = time_of_day_after(rest);
        self.state
            .obstacle
            .send_replace(Some(format!("this member waits until {until} at the latest: {why}")));
    }

    /// The lock could be had, but members of another directory have to leave first.
    pub(crate) fn wait_for_members(&self, why: &str) {
        self.note(Some(format!("this member waits until those have ended or joined this one: {why}")));
    }
}

/// Whether this process may do in `root` what a leader of the lock with the file `lock_file` does.
fn check_rights(root: &Path, lock_file: &Path) -> Result<(), ClusterError> {
    let need = |path: &Path, access: Access| match accessat(CWD, path, access, AtFlags::EACCESS) {
        // What is missing is made; old kernels cannot answer.
        Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {
            Ok(())
        }
        Err(error) => Err(cannot_use(path, error.into())),
    };
    let directory = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    need(root, directory)?;
    need(lock_file, Access::READ_OK | Access::WRITE_OK)?;
    need(&root.join(crate::terms::MARK), Access::READ_OK)?;
    need(&root.join(crate::terms::MARK_LOCK), Access::READ_OK)?;
    need(&root.join(crate::states::FOLDER), directory)
}

/// Keeps this member ready to lead: with numbers at hand for the locks that it stands by for, and a mark that
/// is not below what it remembers. Never returns.
pub(crate) async fn keep_ready(terms: Arc<TermNumbers>, table: Arc<LockTable>, recheck: Duration) {
    let mut reminder = None::<Reminder>;
    loop {
        sleep(recheck).await;
        let (locks, highest) = table.not_led();
        let prepared = async {
            terms.guard(table.memory().term()).await?;
            if locks > 0 { terms.prepare(highest, locks).await } else { Ok(()) }
        };
        match prepared.await {
            Ok(()) => {
                if reminder.take().is_some() {
                    info!("this member could lead again");
                }
                *table.unable.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            Err(error) => {
                let why = Chain(&error).to_string();
                if reminder.get_or_insert_with(|| Reminder::new(10 * recheck)).is_due() {
                    warn!("this member stands by and could not lead: {why}");
                }
                *table.unable.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            }
        }
    }
}
