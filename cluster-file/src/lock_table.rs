//! [`LockTable`]: what this process has seen of each lock, for candidates, leaders and views.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use router_core::cluster::backend::OperatorRequest;
use router_core::cluster::{Leader, LockName, Member};
use smol_str::SmolStr;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::escape::escape;
use crate::inotify::Change;
use crate::kernel_locks::{self, Snapshot};
use crate::lock_file::{FileVersion, open};
use crate::record::{LOCK_SUFFIX, LeaderRecord};
use crate::requests;
use crate::roster::Roster;
use crate::timing::LONGEST_END;

/// All locks that this process takes part in, by the name of their file.
pub(crate) struct LockTable {
    root: PathBuf,
    /// The id of this member.
    local: SmolStr,
    /// Whether an operator has drained this member.
    pub(crate) drained: watch::Sender<bool>,
    /// Why this member could not lead now, though it stands by.
    pub(crate) unable: Mutex<Option<String>>,
    locks: Mutex<HashMap<String, Arc<LockState>>>,
    deletions: Mutex<Deletions>,
    memory: Arc<Memory>,
    /// The live members.
    pub(crate) roster: Roster,
    /// What the kernel last told, and when.
    kernel_locks: Mutex<Option<(Instant, Arc<Snapshot>)>>,
}

/// How old it may be: candidates for many locks ask at the same time, and the answer is long then.
const KERNEL_LOCKS_AGE: Duration = Duration::from_millis(500);

/// What this process has seen of all members, and does not forget.
#[derive(Default)]
pub(crate) struct Memory {
    /// The highest term of any lock.
    term: AtomicU64,
    /// The longest time that any leader needed to end, in milliseconds.
    ends_within: AtomicU64,
}

impl Memory {
    pub(crate) fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    pub(crate) fn ends_within(&self) -> Duration {
        Duration::from_millis(self.ends_within.load(Ordering::Relaxed))
    }

    /// A leader says in the file or folder at `path` how long it needs to end.
    pub(crate) fn note_ends_within(&self, milliseconds: Option<u64>, path: &Path) {
        let said = Duration::from_millis(milliseconds.unwrap_or(0));
        let believed = u64::try_from(said.min(LONGEST_END).as_millis()).unwrap_or(u64::MAX);
        let before = self.ends_within.fetch_max(believed, Ordering::Relaxed);
        if said > LONGEST_END && before < believed {
            warn!(
                "`{}` says that a leader needs {} ms to end, which no member has written: {LONGEST_END:?} are waited for \
                 at most",
                path.display(),
                said.as_millis()
            );
        }
    }

    fn note_term(&self, term: u64) {
        self.term.fetch_max(term, Ordering::Relaxed);
    }
}

/// When files were last seen to go. Also those of locks that we do not know yet: we may want them later.
#[derive(Default)]
struct Deletions {
    files: HashMap<String, Instant>,
    /// When all were seen to go, with the directory.
    all: Option<Instant>,
    /// When any file may have gone unseen.
    unseen: Option<Instant>,
}

/// One lock.
pub(crate) struct LockState {
    pub(crate) lock: LockName,
    pub(crate) file_name: String,
    pub(crate) path: PathBuf,
    /// Counts the events after which candidates try again and leaders look whether they still lead.
    pub(crate) events: watch::Sender<u64>,
    /// Who leads, as far as known.
    pub(crate) leader: watch::Sender<Option<Leader>>,
    /// Set when the leader may have ended and nobody has said that it leads since.
    doubtful: AtomicBool,
    /// Set when somebody has written that it leads since the last leader closed the file.
    taken: AtomicBool,
    /// Set when the record has changed and was not read since.
    unread: AtomicBool,
    /// Set while this process leads, and so needs no file to know who does.
    leading: AtomicBool,
    /// Set when the file was seen to go. Also if it is back: meanwhile another one may have been led.
    gone: AtomicBool,
    /// Set when the file may have gone unseen.
    blind: AtomicBool,
    /// The highest term of this lock that was seen.
    term: AtomicU64,
    memory: Arc<Memory>,
    /// The last file without a history, as it was, and since when we know it.
    pub(crate) unsettled: Mutex<Option<(FileVersion, Instant)>>,
    /// What keeps this member from leading beside another leader.
    pub(crate) obstacle: watch::Sender<Option<String>>,
    /// What operators ask about it.
    pub(crate) asked: watch::Sender<OperatorRequest>,
}

impl LockTable {
    pub(crate) fn new(root: &Path, local: &Member) -> Self {
        Self {
            root: root.to_owned(),
            local: local.id.clone(),
            drained: watch::Sender::new(false),
            unable: Mutex::default(),
            locks: Mutex::default(),
            deletions: Mutex::default(),
            memory: Arc::default(),
            roster: Roster::new(root),
            kernel_locks: Mutex::default(),
        }
    }

    /// The state of `lock`, the same each time.
    pub(crate) fn state(&self, lock: &LockName) -> Arc<LockState> {
        let file_name = escape(lock.as_str()) + LOCK_SUFFIX;
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = locks.get(&file_name) {
            return Arc::clone(state);
        }
        locks.retain(|_, state| Arc::strong_count(state) > 1 || state.leader.receiver_count() > 0);
        let state = Arc::new(LockState {
            lock: lock.clone(),
            path: self.root.join(&file_name),
            events: watch::Sender::new(0),
            leader: watch::Sender::new(None),
            doubtful: AtomicBool::new(false),
            taken: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            leading: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            blind: AtomicBool::new(false),
            term: AtomicU64::new(0),
            memory: Arc::clone(&self.memory),
            unsettled: Mutex::default(),
            obstacle: watch::Sender::new(None),
            asked: watch::Sender::new(self.asked(lock)),
            file_name: file_name.clone(),
        });
        locks.insert(file_name, Arc::clone(&state));
        state
    }

    /// How many locks this process takes part in.
    pub(crate) fn locks(&self) -> usize {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What this process remembers of all members.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Who has which files locked.
    pub(crate) fn kernel_locks(&self) -> Arc<Snapshot> {
        let mut known = self.kernel_locks.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((at, snapshot)) if at.elapsed() < KERNEL_LOCKS_AGE => Arc::clone(snapshot),
            _ => Arc::clone(&known.insert((Instant::now(), Arc::new(kernel_locks::snapshot()))).1),
        }
    }

    /// When the file of a lock was last seen to go.
    pub(crate) fn deleted_at(&self, file_name: &str) -> Option<Instant> {
        let deletions = self.deletions.lock().unwrap_or_else(PoisonError::into_inner);
        deletions.files.get(file_name).copied().max(deletions.all)
    }

    /// When any file may last have gone unseen.
    pub(crate) fn blind_at(&self) -> Option<Instant> {
        self.deletions.lock().unwrap_or_else(PoisonError::into_inner).unseen
    }

    /// Takes note of a change. Wakes whom it concerns; returns a lock whose record is to be read, which
    /// the caller does later, and once for many changes, so that candidates are not kept waiting.
    pub(crate) fn note(&self, change: Change<'_>) -> Option<Arc<LockState>> {
        match change {
            Change::Appeared(name) | Change::Gone(name) if requests::is_one(name) => self.heed_requests(),
            Change::Written(name) => {
                let state = self.get(name)?;
                state.taken.store(true, Ordering::Relaxed);
                return Some(state).filter(|state| !state.unread.swap(true, Ordering::Relaxed));
            }
            Change::Closed(name) => {
                let state = self.get(name)?;
                state.taken.store(false, Ordering::Relaxed);
                state.doubtful.store(true, Ordering::Relaxed);
                state.wake();
            }
            Change::Gone(name) if name.ends_with(LOCK_SUFFIX) => {
                let mut deletions = self.deletions.lock().unwrap_or_else(PoisonError::into_inner);
                deletions.files.insert(name.to_owned(), Instant::now());
                drop(deletions);
                let state = self.get(name)?;
                state.gone.store(true, Ordering::Release);
                state.replaced();
            }
            Change::Appeared(name) => self.get(name)?.replaced(),
            Change::Members => self.roster.suspected.notify_one(),
            Change::Gone(_) => {}
            Change::Away => {
                self.deletions.lock().unwrap_or_else(PoisonError::into_inner).all = Some(Instant::now());
                for state in self.all() {
                    state.gone.store(true, Ordering::Release);
                    state.replaced();
                }
            }
            Change::Anything => {
                self.heed_requests();
                self.deletions.lock().unwrap_or_else(PoisonError::into_inner).unseen = Some(Instant::now());
                for state in self.all() {
                    state.blind.store(true, Ordering::Release);
                    state.taken.store(false, Ordering::Relaxed);
                    state.doubtful.store(true, Ordering::Relaxed);
                    state.wake();
                }
            }
        }
        None
    }

    /// Reads what operators ask.
    pub(crate) fn heed_requests(&self) {
        let drained = requests::is_drained(&self.root, &self.local);
        let changed = self.drained.send_if_modified(|present| std::mem::replace(present, drained) != drained);
        if changed && drained {
            info!(member = %self.local, "drained at the request of an operator: it gives up its locks and takes none");
        } else if changed {
            info!(member = %self.local, "no longer drained at the request of an operator");
        }
        for state in self.all() {
            let asked = self.asked(&state.lock);
            state.asked.send_if_modified(|present| std::mem::replace(present, asked) != asked);
        }
    }

    /// Withdraws what was asked of this member: it ends, or it begins and an earlier one of its id was asked.
    pub(crate) fn forget_drained(&self) {
        // Whatever is left is for a member that is not there.
        let _ = requests::withdraw(&requests::drain_file(&self.root, &self.local));
    }

    /// Another directory is the root now: nothing is known of it.
    pub(crate) fn reread(&self) {
        self.note(Change::Anything);
    }

    fn asked(&self, lock: &LockName) -> OperatorRequest {
        OperatorRequest { hand_over: requests::hand_over(&self.root, lock), drained: *self.drained.borrow() }
    }

    /// Looks whether the leaders that may have ended are still there.
    pub(crate) fn resolve_doubts(&self) {
        // What the kernel told before a lock changed hands would name the former holder.
        self.kernel_locks.lock().unwrap_or_else(PoisonError::into_inner).take();
        for state in self.all() {
            if state.doubtful.swap(false, Ordering::Relaxed) && state.leader.borrow().is_some() {
                state.look(Some(self));
            }
        }
    }

    /// How many locks we do not lead, and the highest of their terms, as far as known.
    pub(crate) fn not_led(&self) -> (usize, u64) {
        let others = self.all().into_iter().filter(|state| !state.leading.load(Ordering::Relaxed));
        others.fold((0, 0), |(count, highest), state| (count + 1, highest.max(state.highest_term())))
    }

    fn get(&self, file_name: &str) -> Option<Arc<LockState>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).get(file_name).cloned()
    }

    fn all(&self) -> Vec<Arc<LockState>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl LockState {
    /// What was written to an earlier file says nothing about this one.
    fn replaced(&self) {
        self.taken.store(false, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        self.events.send_modify(|count| *count += 1);
    }

    /// A candidate begins to look at the file that is there now.
    pub(crate) fn look_anew(&self) {
        self.gone.store(false, Ordering::Release);
        self.blind.store(false, Ordering::Release);
    }

    /// Whether the file was seen to go since [`look_anew`](Self::look_anew).
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Whether it may have gone unseen since then.
    pub(crate) fn is_blind(&self) -> bool {
        self.blind.load(Ordering::Acquire)
    }

    /// The highest term that was seen.
    pub(crate) fn highest_term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    /// Remembers what a record says.
    pub(crate) fn remember(&self, record: &LeaderRecord) {
        self.term.fetch_max(record.term, Ordering::Relaxed);
        self.memory.note_term(record.term);
        self.memory.note_ends_within(record.ends_within_ms, &self.path);
    }

    /// A later term than that of the present leader is known: it ends if it has not yet, and the next one is above.
    pub(crate) fn outlast(&self, term: u64) {
        self.term.fetch_max(term, Ordering::Relaxed);
        self.memory.note_term(term);
        self.wake();
    }

    /// Whether another member was faster after the last event, so that there is no hurry to try.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }

    /// This process leads from now on, or `None`: no more.
    pub(crate) fn lead(&self, leader: Option<Leader>) {
        self.leading.store(leader.is_some(), Ordering::Release);
        self.leader.send_replace(leader);
    }

    /// Reads who leads. With the `table` it also asks the kernel whether that one does, which takes the lock
    /// for a microsecond if it is free: not to be done when candidates are about to try. Without, that is left
    /// for [`resolve_doubts`](LockTable::resolve_doubts): a leader that was killed, or an old file that was put in
    /// the place of another one, says that it leads.
    pub(crate) fn look(&self, table: Option<&LockTable>) {
        // First, so that what happens while we read is looked at again.
        self.unread.store(false, Ordering::Relaxed);
        self.doubtful.store(false, Ordering::Relaxed);
        if self.leading.load(Ordering::Acquire) {
            return;
        }
        let look = || {
            let file = open(&self.path).ok()?;
            let record = LeaderRecord::read(&file).ok()?.record_at(&self.path)?;
            self.remember(&record);
            let leader = record.leader().filter(|leader| leader.term >= self.highest_term())?;
            let leads = match table {
                Some(table) => record.is_led(&file, || table.kernel_locks()).ok()?,
                None => true,
            };
            leads.then_some(leader)
        };
        let leader = look();
        if table.is_none() && leader.is_some() {
            self.doubtful.store(true, Ordering::Relaxed);
        }
        self.leader.send_if_modified(|present| {
            let news = *present != leader;
            *present = leader;
            news
        });
    }
}
