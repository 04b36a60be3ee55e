//! [`FileArbiter`]: the kernel, as an [`Arbiter`].

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use router_core::cluster::backend::{Arbiter, Granted, Look, OperatorRequest, Revoked};
use router_core::cluster::{ClusterError, Leader, LockName, Member};
use router_core::state::StateKeeper;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::footing::{Footing, Loss};
use crate::history::{History, Witness};
use crate::lock_file::{FileVersion, Held};
use crate::lock_table::{LockState, LockTable};
use crate::members::{self, Ends};
use crate::obstacles::{Obstacles, keep_ready};
use crate::record::LeaderRecord;
use crate::root::{Root, cannot_use};
use crate::seat::{Joining, Seat};
use crate::settings::FileClusterSettings;
use crate::states::{self, TermStates};
use crate::terms::{Last, TermNumbers};
use crate::timing::Timing;

/// After an event, how long to wait before each further try. The event comes just before the kernel
/// frees the lock of a leader that died, and others hold it for a moment when they look.
const RETRIES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(20)];

/// Grants a lock to the member that has the lock on its file.
pub(crate) struct FileArbiter {
    settings: FileClusterSettings,
    local: Member,
    table: Arc<LockTable>,
    terms: Arc<TermNumbers>,
    seat: Mutex<Arc<Seat>>,
    /// Held while this member joins another directory.
    joining: tokio::sync::Mutex<()>,
    /// The task that keeps this member ready to lead; it ends with us.
    _preparing: JoinSet<()>,
}

/// A lock that this member holds.
pub(crate) struct Grant {
    footing: Arc<Footing>,
    held: Held,
    record: LeaderRecord,
    /// This member is a member of the directory as long as it holds a lock in it.
    _seat: Arc<Seat>,
}

impl Drop for Grant {
    fn drop(&mut self) {
        // Also when the grant is not given back in order: others may lead from now on.
        self.footing.state.lead(None);
    }
}

/// What came of an attempt to get a lock.
enum Attempt {
    Granted(Box<Granted<Grant>>),
    /// Another process has it.
    Busy,
    /// No member may have it for so long, because of something.
    Unsettled(Duration, String),
    /// No member may have it while there are others, and it is not known how long that is.
    LeftBehind(String),
    /// It could be had, but there is no number for a term above this one at hand.
    NoNumber(Last),
}

impl FileArbiter {
    /// Joins the members of the root as `local`.
    pub(crate) async fn join(settings: FileClusterSettings, local: Member) -> Result<Self, ClusterError> {
        let path = std::path::absolute(&settings.root).map_err(|error| cannot_use(&settings.root, error))?;
        let table = Arc::new(LockTable::new(&path, &local));
        let joining = joining(&settings, &local, &table);
        let open = || Root::open(&path, settings.share_with_group);
        let seat = Mutex::new(Arc::new(Seat::first(open, joining).await?));
        table.forget_drained();
        table.heed_requests();
        let terms = Arc::new(TermNumbers::new(&path));
        let mut preparing = JoinSet::new();
        preparing.spawn(keep_ready(Arc::clone(&terms), Arc::clone(&table), settings.timing.recheck));
        let joining = tokio::sync::Mutex::default();
        Ok(Self { settings, local, table, terms, seat, joining, _preparing: preparing })
    }

    /// Whether an operator has drained this member.
    pub(crate) fn drained(&self) -> watch::Receiver<bool> {
        self.table.drained.subscribe()
    }

    /// Why this member could not lead now, though it stands by.
    pub(crate) fn unable(&self) -> Option<String> {
        self.table.unable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows the others that this member is gone. To be called when no lock is held.
    pub(crate) fn leave(&self) {
        self.table.forget_drained();
        self.present_seat().leave();
    }

    fn present_seat(&self) -> Arc<Seat> {
        Arc::clone(&self.seat.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// This member's place in the directory that is at the path now. Where that is another one than before,
    /// or none, it joins anew.
    async fn seat(&self) -> Result<Arc<Seat>, ClusterError> {
        let seat = self.present_seat();
        if seat.root.place().lost().is_none() {
            return Ok(seat);
        }
        let _joining = self.joining.lock().await;
        let seat = self.present_seat();
        let Some(why) = seat.root.place().lost() else { return Ok(seat) };
        seat.end_membership();
        let root = Root::open(&self.settings.root, self.settings.share_with_group)?;
        let joining = joining(&self.settings, &self.local, &self.table);
        let seat = Arc::new(Seat::instead_of(&seat, root, joining).await?);
        warn!(
            "{why}: this member joins the directory that is there now; it leads only when those of the former one \
             have left, and positions of routes that were stored in the former one are not known here"
        );
        *self.seat.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&seat);
        self.table.reread();
        Ok(seat)
    }

    /// Tries to get the lock; `fetched`: a number was brought for it just now.
    async fn attempt(
        &self,
        seat: &Arc<Seat>,
        state: &Arc<LockState>,
        fetched: bool,
    ) -> Result<Attempt, ClusterError> {
        let failed = |error: io::Error| cannot_use(&state.path, error);
        seat.watch.catch_up();
        state.look_anew();
        let Some(mut held) = Held::try_new(&state.path).map_err(failed)? else { return Ok(Attempt::Busy) };
        if let Some(left) = seat.left_behind() {
            let why = format!(
                "the root is another directory than before, and processes have the lock on the former one: {left}"
            );
            return Ok(Attempt::LeftBehind(why));
        }
        let (last, why) = match self.history(seat, state, &held)? {
            History::Led(record) => (Last::Known(record.term), why(&record)),
            History::New | History::Unknown => {
                (Last::AtLeast(0), "its file is new or was replaced".to_owned())
            }
            History::Unsettled(rest) => {
                let path = state.path.display();
                let why = format!("`{path}` is new or was replaced, and an earlier file may have a leader");
                return Ok(Attempt::Unsettled(rest, why));
            }
            History::Refused(refusal) => {
                return Err(ClusterError::Unusable(refusal.about(&state.path), None));
            }
        };
        let stored = states::term_of(seat.root.path(), &state.lock)?;
        let last = last.and_above(stored.max(state.highest_term()));
        // A number that is not at hand may take its time. The lock is not held meanwhile: its file would name the
        // last leader as if that one lived, and a member that has a number can lead at once. Where numbers do come,
        // members that bring one at the same time must not make those of each other useless for ever.
        let term = match self.terms.at_hand(last)? {
            Some(term) => term,
            None if fetched => self.terms.take(last, self.table.locks()).await?,
            None => return Ok(Attempt::NoNumber(last)),
        };
        held.signal(&state.path).map_err(failed)?;
        let metadata = held.metadata().map_err(failed)?;
        let ends_within = self.settings.timing.ends_within();
        let mut record = LeaderRecord::starting(&state.lock, term, &why, &self.local, &metadata, ends_within);
        held.write(&mut record).map_err(failed)?;
        state.remember(&record);
        let file = FileVersion::of(&held.metadata().map_err(failed)?);
        let footing = Footing::new(seat, state, file, record.clone(), self.settings.timing);
        let grant = Grant { footing: Arc::new(footing), held, record, _seat: Arc::clone(seat) };
        // No member may lead because of a lock that was sound before.
        if grant.footing.lost().is_some() {
            return Ok(Attempt::Busy);
        }
        state.lead(grant.record.leader());
        Ok(Attempt::Granted(Box::new(Granted { grant, term, why })))
    }

    fn history(&self, seat: &Seat, state: &LockState, held: &Held) -> Result<History, ClusterError> {
        let memory = self.table.memory();
        let look = |settle| {
            let Seat { watch, joined, .. } = seat;
            let write_bound = self.settings.timing.write_bound();
            let witness = Witness { watch, table: &self.table, joined, settle, write_bound };
            witness.history(state, held).map_err(|error| cannot_use(&state.path, error))
        };
        let timing: Timing = self.settings.timing;
        match look(timing.settle(memory.ends_within()))? {
            History::Unsettled(_) | History::Unknown => {}
            known => return Ok(known),
        }
        // It is a matter of waiting: then also for those of whom only their own files tell.
        let folder = seat.root.members();
        match members::ends(&folder).map_err(|error| cannot_use(&folder, error))? {
            Ends::Within(longest) => memory.note_ends_within(longest, &folder),
            Ends::Unknown { member, format } => {
                let text = format!(
                    "`{}` has no history that counts, and the member {member} is of a newer version of this program \
                     (format {format}), of which it is not known how long it needs to end: this member stands by",
                    state.path.display()
                );
                return Err(ClusterError::Unusable(text, None));
            }
        }
        look(timing.settle(memory.ends_within()))
    }
}

fn joining<'a>(settings: &FileClusterSettings, local: &'a Member, table: &'a Arc<LockTable>) -> Joining<'a> {
    Joining { local, table, timing: settings.timing, without_events: settings.without_events }
}

#[async_trait]
impl Arbiter for FileArbiter {
    type Grant = Grant;

    async fn acquire(&self, lock: &LockName) -> Result<Granted<Grant>, ClusterError> {
        let state = self.table.state(lock);
        let mut events = state.events.subscribe();
        let mut retries = RETRIES[..0].iter();
        let (mut told, mut fetched) = (false, false);
        let mut obstacles = Obstacles::new(&state, self.settings.timing.recheck);
        loop {
            let seat = self.seat().await?;
            let mut pause = seat.watch.recheck();
            match self.attempt(&seat, &state, std::mem::take(&mut fetched)).await? {
                Attempt::Granted(granted) => {
                    state.obstacle.send_replace(None);
                    return Ok(*granted);
                }
                Attempt::Unsettled(rest, why) => {
                    if !std::mem::replace(&mut told, true) {
                        info!(%lock, "`{lock}` waits up to {rest:.1?}: {why}");
                    }
                    obstacles.wait(rest, &why);
                    pause = pause.min(rest);
                }
                Attempt::LeftBehind(why) => {
                    obstacles.wait_for_members(&why);
                    pause = pause.min(self.settings.timing.recheck);
                }
                Attempt::NoNumber(last) => {
                    self.terms.fetch(last, self.table.locks()).await?;
                    fetched = true;
                    continue;
                }
                Attempt::Busy => {
                    if !seat.watch.has_events() || state.leader.borrow().is_none() {
                        state.look(Some(&self.table));
                    }
                    obstacles.look(&seat.root, &self.table)?;
                    pause = retries.next().filter(|_| !state.is_taken()).copied().unwrap_or(pause);
                }
            }
            tokio::select! {
                biased;
                () = worth_a_try(&state, &mut events) => {
                    retries = RETRIES.iter();
                    obstacles.suspect();
                }
                () = sleep(pause) => {}
            }
        }
    }

    async fn revoked(&self, grant: &mut Grant) -> Revoked {
        let footing = &grant.footing;
        let mut events = footing.state.events.subscribe();
        loop {
            if let Some(loss) = footing.lost() {
                return Revoked { why: loss.why(), drain: footing.drain() };
            }
            tokio::select! {
                biased;
                _ = events.changed() => {}
                () = sleep(self.settings.timing.recheck) => {}
            }
        }
    }

    fn look(&self, grant: &Grant) -> Option<Arc<Look>> {
        let footing = Arc::clone(&grant.footing);
        Some(Arc::new(move || footing.holds()))
    }

    async fn release(&self, mut grant: Grant) {
        // What is written vouches for the file. A leader that lost it cannot: another may have been led. One whose
        // record was overwritten can, and has to: what stands there now may name a lower term.
        if let Some(Loss::Gone(_)) = grant.footing.lost() {
            return;
        }
        grant.record.leading = false;
        if let Err(error) = grant.held.write(&mut grant.record) {
            warn!("cannot write to `{}`: {error}", grant.footing.state.path.display());
        }
    }

    fn states(&self, grant: &Grant, term: u64) -> Arc<dyn StateKeeper> {
        Arc::new(TermStates::new(self.present_seat().root.path(), &grant.footing.state, term))
    }

    fn asked(&self, lock: &LockName) -> watch::Receiver<OperatorRequest> {
        self.table.state(lock).asked.subscribe()
    }

    fn obstacle(&self, lock: &LockName) -> watch::Receiver<Option<String>> {
        self.table.state(lock).obstacle.subscribe()
    }

    fn place(&self) -> Option<String> {
        // The default root is a relative path: members that were started in different directories are in different
        // clusters. Without a current directory there is no absolute one, and no member starts.
        let root = std::path::absolute(&self.settings.root).ok()?;
        Some(format!("in {}", root.display()))
    }

    fn leader(&self, lock: &LockName) -> watch::Receiver<Option<Leader>> {
        self.table.state(lock).leader.subscribe()
    }

    fn members(&self) -> watch::Receiver<Vec<Member>> {
        self.table.roster.look();
        self.table.roster.members.subscribe()
    }
}

/// Waits for an event after which the lock may be free. When many locks change hands at once, others have
/// often taken it before our turn comes, and said so.
async fn worth_a_try(state: &LockState, events: &mut watch::Receiver<u64>) {
    // The sender lives in `state`: this does not fail.
    while events.changed().await.is_ok() && state.is_taken() {}
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
