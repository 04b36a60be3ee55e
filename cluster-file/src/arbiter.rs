//! [`FileArbiter`]: the kernel, as an [`Arbiter`].

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use router_core::cluster::{Arbiter, Asked, ClusterError, Granted, Leader, LockName, Member, Revoked};
use router_core::state::StateKeeper;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::board::{Board, LockState};
use crate::history::{DRAIN, History, Witness};
use crate::lock_file::Held;
use crate::members::{self, Membership};
use crate::record::LeaderRecord;
use crate::root::{Root, cannot_use};
use crate::states::TermStates;
use crate::terms::{Last, TermNumbers};
use crate::watch::{RECHECK, Watch};

/// After an event, how long to wait before each further try. The event comes just before the kernel
/// frees the lock of a leader that died, and others hold it for a moment when they look.
const RETRIES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(20)];

/// Grants a lock to whoever has the lock on its file.
pub(crate) struct FileArbiter {
    root: Root,
    local: Member,
    board: Arc<Board>,
    watch: Arc<Watch>,
    terms: Arc<TermNumbers>,
    joined_alone: bool,
    membership: Mutex<Option<Membership>>,
    /// The tasks that keep the board and the numbers up to date; they end with us.
    _watching: JoinSet<()>,
}

/// A lock that this member holds.
pub(crate) struct Grant {
    state: Arc<LockState>,
    held: Held,
    record: LeaderRecord,
}

impl Drop for Grant {
    fn drop(&mut self) {
        // Also when the grant is not given back in order: others may lead from now on.
        self.state.lead(None);
    }
}

/// What came of an attempt to get a lock.
enum Attempt {
    Granted(Box<Granted<Grant>>),
    /// Somebody has it.
    Busy,
    /// Nobody may have it for so long.
    Unsettled(Duration),
}

impl FileArbiter {
    /// Joins the members of `root` as `local`.
    pub(crate) async fn join(root: Root, local: Member) -> Result<Self, ClusterError> {
        let membership = Membership::join(&root.members(), &local).await?;
        let board = Arc::new(Board::new(root.path(), &local));
        // First watch, then look whether anybody is there: so no deletion under a leader goes unseen.
        let watch = Arc::new(Watch::start(root.path(), Arc::clone(&board)));
        Self::watched(root, local, membership, board, watch).await
    }

    /// The part of [`join`](Self::join) for which it does not matter whether there are events.
    async fn watched(
        root: Root,
        local: Member,
        membership: Membership,
        board: Arc<Board>,
        watch: Arc<Watch>,
    ) -> Result<Self, ClusterError> {
        let joined_alone = root.join().await?;
        let mut watching = JoinSet::new();
        watching.spawn({
            let watch = Arc::clone(&watch);
            async move { watch.run().await }
        });
        let terms = Arc::new(TermNumbers::new(root.path()));
        watching.spawn(keep_numbers(Arc::clone(&terms), Arc::clone(&board)));
        Ok(Self {
            terms,
            root,
            local,
            board,
            watch,
            joined_alone,
            membership: Mutex::new(Some(membership)),
            _watching: watching,
        })
    }

    /// Whether an operator has drained this member.
    pub(crate) fn drained(&self) -> watch::Receiver<bool> {
        self.board.drained.subscribe()
    }

    /// Shows the others that this member is gone. To be called when no lock is held.
    pub(crate) fn leave(&self) {
        if self.membership.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            self.root.leave();
        }
    }

    async fn attempt(&self, state: &Arc<LockState>) -> Result<Attempt, ClusterError> {
        let failed = |error: io::Error| cannot_use(&state.path, error);
        let held = Held::try_new(&state.path).or_else(|error| self.root.check().and(Err(failed(error))))?;
        let Some(mut held) = held else { return Ok(Attempt::Busy) };
        self.root.check()?;
        let (last, why) = match self.history(state, &held).map_err(failed)? {
            History::Led(record) => (Last::Known(record.term), why(&record)),
            History::New => (Last::Known(0), "nobody led it before".to_owned()),
            History::Unknown => (Last::Unknown, "its file is new".to_owned()),
            History::Unsettled(rest) => return Ok(Attempt::Unsettled(rest)),
        };
        held.signal(&state.path).map_err(failed)?;
        let term = self.terms.take(last, self.board.locks()).await?;
        let record = LeaderRecord::starting(&state.lock, term, &why, &self.local, held.inode());
        held.write(&record).map_err(failed)?;
        let grant = Grant { state: Arc::clone(state), held, record };
        // A number may have taken its time: nobody may lead because of a lock that was sound before.
        if self.unsound(&grant).is_some() {
            return Ok(Attempt::Busy);
        }
        state.lead(grant.record.leader());
        Ok(Attempt::Granted(Box::new(Granted { grant, term, why })))
    }

    fn history(&self, state: &LockState, held: &Held) -> io::Result<History> {
        let alone = || self.members().iter().all(|member| *member == self.local);
        let witness = Witness {
            watch: &self.watch,
            board: &self.board,
            joined_alone: self.joined_alone,
            alone: &alone,
        };
        witness.history(state, held)
    }

    /// Why the grant protects no more, if so.
    fn unsound(&self, grant: &Grant) -> Option<String> {
        let path = grant.state.path.display();
        match grant.held.is_current(&grant.state.path) {
            // The directory comes first in the answer, it explains more.
            Ok(true) => self.root.lost(),
            Ok(false) => Some(
                self.root
                    .lost()
                    .unwrap_or_else(|| format!("its file `{path}` was deleted, moved or replaced")),
            ),
            Err(error) => Some(format!("its file `{path}` is out of reach: {error}")),
        }
    }
}

#[async_trait]
impl Arbiter for FileArbiter {
    type Grant = Grant;

    async fn acquire(&self, lock: &LockName) -> Result<Granted<Grant>, ClusterError> {
        let state = self.board.state(lock);
        let mut events = state.events.subscribe();
        let mut retries = RETRIES[..0].iter();
        let mut told = false;
        loop {
            let mut pause = self.watch.recheck();
            match self.attempt(&state).await? {
                Attempt::Granted(granted) => return Ok(*granted),
                Attempt::Unsettled(rest) => {
                    if !std::mem::replace(&mut told, true) {
                        info!(%lock, "`{lock}` waits up to {rest:.1?}: its file is new, and an earlier one may have a leader");
                    }
                    pause = pause.min(rest);
                }
                Attempt::Busy => {
                    if !self.watch.has_events() || state.leader.borrow().is_none() {
                        state.look(false);
                    }
                    pause = retries.next().filter(|_| !state.is_taken()).copied().unwrap_or(pause);
                }
            }
            tokio::select! {
                biased;
                () = worth_a_try(&state, &mut events) => retries = RETRIES.iter(),
                () = sleep(pause) => {}
            }
        }
    }

    async fn revoked(&self, grant: &mut Grant) -> Revoked {
        let mut events = grant.state.events.subscribe();
        loop {
            if let Some(why) = self.unsound(grant) {
                return Revoked { why, drain: DRAIN };
            }
            tokio::select! {
                biased;
                _ = events.changed() => {}
                () = sleep(RECHECK) => {}
            }
        }
    }

    async fn release(&self, mut grant: Grant) {
        grant.record.leading = false;
        if let Err(error) = grant.held.write(&grant.record) {
            warn!("cannot write to `{}`: {error}", grant.state.path.display());
        }
    }

    fn states(&self, grant: &Grant, term: u64) -> Arc<dyn StateKeeper> {
        let LockState { lock, path, .. } = &*grant.state;
        Arc::new(TermStates::new(self.root.path(), lock, term, path))
    }

    fn asked(&self, lock: &LockName) -> watch::Receiver<Asked> {
        self.board.state(lock).asked.subscribe()
    }

    fn leader(&self, lock: &LockName) -> watch::Receiver<Option<Leader>> {
        self.board.state(lock).leader.subscribe()
    }

    fn members(&self) -> Vec<Member> {
        members::list(&self.root.members())
    }
}

/// Waits for an event after which the lock may be free. When many locks change hands at once, others have
/// often taken it before our turn comes, and said so.
async fn worth_a_try(state: &LockState, events: &mut watch::Receiver<u64>) {
    // The sender lives in `state`: this does not fail.
    while events.changed().await.is_ok() && state.is_taken() {}
}

/// Keeps numbers at hand for the locks we stand by for; never returns.
async fn keep_numbers(terms: Arc<TermNumbers>, board: Arc<Board>) {
    loop {
        sleep(RECHECK).await;
        let (locks, highest) = board.not_led();
        if locks > 0
            && let Err(error) = terms.prepare(highest, locks).await
        {
            // Whoever needs a number tries again, and says more loudly why there is none.
            debug!("no numbers for terms at hand: {error}");
        }
    }
}

fn why(last: &LeaderRecord) -> String {
    let LeaderRecord { member, term, .. } = last;
    if last.leading {
        format!("{member}, which led in term {term}, ended")
    } else {
        why_released(member, *term)
    }
}

/// What the next leader tells of one that has released the lock.
pub(crate) fn why_released(member: &str, term: u64) -> String {
    format!("{member} released it after term {term}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::SETTLE;

    async fn polling(root: &std::path::Path, id: &str) -> FileArbiter {
        let root = Root::open(root).unwrap();
        let local = Member::new(id);
        let membership = Membership::join(&root.members(), &local).await.unwrap();
        let board = Arc::new(Board::new(root.path(), &local));
        let watch = Arc::new(Watch::without_events(Arc::clone(&board)));
        FileArbiter::watched(root, local, membership, board, watch).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn without_events_everything_takes_a_little_longer_and_goes_on() {
        let root = tempfile::tempdir().unwrap();
        let lock: LockName = "lock1".parse().unwrap();
        let a = polling(root.path(), "a").await;
        let start = tokio::time::Instant::now();
        let first = a.acquire(&lock).await.unwrap();
        assert!(start.elapsed() < RECHECK, "the first one waits for nobody");

        let b = polling(root.path(), "b").await;
        let mut leader = b.leader(&lock);
        let second = b.acquire(&lock);
        tokio::pin!(second);
        assert!(tokio::time::timeout(RECHECK, &mut second).await.is_err());
        assert_eq!(leader.borrow_and_update().as_ref().unwrap().member.id, "a");
        a.release(first.grant).await;
        let start = tokio::time::Instant::now();
        let mut second = second.await.unwrap();
        assert!(second.term > first.term && start.elapsed() < RECHECK);

        std::fs::remove_file(root.path().join("lock1.lock")).unwrap();
        let start = tokio::time::Instant::now();
        let third = a.acquire(&lock);
        tokio::pin!(third);
        tokio::select! {
            biased;
            revoked = b.revoked(&mut second.grant) => assert!(revoked.why.contains("lock1.lock"), "{}", revoked.why),
            _ = &mut third => panic!("two lead"),
        }
        third.await.unwrap();
        assert!(start.elapsed() >= SETTLE, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_no_lock_behind() {
        let root = tempfile::tempdir().unwrap();
        let lock: LockName = "lock1".parse().unwrap();
        let a = polling(root.path(), "a").await;
        drop(a.acquire(&lock).await.unwrap());
        assert_eq!(*a.leader(&lock).borrow(), None);
        assert!(Held::try_new(&root.path().join("lock1.lock")).unwrap().is_some());
    }
}
