//! [`TermStates`]: the states of the routes under a lock, beside its file.
//!
//! They are one file of JSON per lock, `states/<lock>.json`, with the number of the term that wrote it.
//! Nobody but the leader writes, and "the leader" is decided while the lock on `states/.<lock>.lock` is
//! held, for each write anew: the file of the lock must hold the record of just this term, still leading.
//! Why a leader that was deposed cannot move a state back:
//! - It released the lock, or was killed, and somebody else leads: there is another record in the file.
//! - Its file was deleted or replaced: at the path there is no file, or one that does not have the record.
//! - It had looked, and was then held up before it wrote: it has the lock on the states, and whoever leads
//!   next waits for that lock before it reads or writes them. It waits for as long as the old leader is
//!   paused, which is what it does for the lock itself.
//! - All of that was deleted under it, or put back again: a state that has the number of a later term is
//!   still refused.
//!
//! A state is synced to the disk before `store` returns. It is not in the directory that members watch: a
//! store wakes nobody.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use router_core::cluster::{ClusterError, LeadershipLost, LockName};
use router_core::state::{FileLock, StateError, StateKeeper, replace_file};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::escape::escape;
use crate::kernel_locks;
use crate::lock_file::{create, is_at, make_folder, open, read};
use crate::lock_table::LockState;
use crate::record::{FORMAT, LeaderRecord, Refusal, first_format};
use crate::root::cannot_use;

/// The folder of the states in the root directory.
pub(crate) const FOLDER: &str = "states";
/// How the files of states end.
const SUFFIX: &str = ".json";
/// The lock on a state is held for the time of a write. It is not waited for in a thread: the holder may
/// be paused, and a thread that waits cannot be dropped.
const RETRY: Duration = Duration::from_millis(2);
/// After how long a wait for it is said, at first; then the pauses double.
const SAY_AFTER: Duration = Duration::from_secs(2);

/// The states of one lock, for one term.
pub(crate) struct TermStates {
    places: Arc<Places>,
    /// Routes of one lock take turns here, and not by trying for the lock on the file all at once.
    turn: tokio::sync::Mutex<()>,
}

struct Places {
    /// The lock, whose file has the record of who leads.
    state: Arc<LockState>,
    term: u64,
    states: PathBuf,
    states_lock: PathBuf,
}

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct States {
    #[serde(default = "first_format")]
    format: u32,
    term: u64,
    routes: BTreeMap<String, Value>,
}

impl Default for States {
    fn default() -> Self {
        Self { format: FORMAT, term: 0, routes: BTreeMap::new() }
    }
}

/// The number of the term that stored the states of `lock`; 0 where there are none, or none that have one.
///
/// # Errors
/// When they cannot be read, or a newer program stored them, or their number is none of a term.
pub(crate) fn term_of(root: &Path, lock: &LockName) -> Result<u64, ClusterError> {
    term_in(&root.join(FOLDER).join(escape(lock.as_str()) + SUFFIX))
}

/// The highest of these numbers.
///
/// # Errors
/// As [`term_of`].
pub(crate) fn highest_term(root: &Path) -> Result<u64, ClusterError> {
    let Ok(entries) = fs::read_dir(root.join(FOLDER)) else { return Ok(0) };
    let paths = entries.flatten().map(|entry| entry.path());
    let states = paths.filter(|path| path.to_string_lossy().ends_with(SUFFIX));
    states.map(|path| term_in(&path)).try_fold(0, |highest, term| Ok(highest.max(term?)))
}

fn term_in(path: &Path) -> Result<u64, ClusterError> {
    #[derive(Deserialize)]
    struct Term {
        term: u64,
    }
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(cannot_use(path, error)),
    };
    match Refusal::of(&text) {
        Some(refusal) => Err(ClusterError::Unusable(refusal.about(path), None)),
        None => Ok(serde_json::from_slice(&text).map_or(0, |Term { term }| term)),
    }
}

impl TermStates {
    /// The states of the lock `state`, whose file is in the directory `root`.
    pub(crate) fn new(root: &Path, state: &Arc<LockState>, term: u64) -> Self {
        let folder = root.join(FOLDER);
        let name = escape(state.lock.as_str());
        let places = Places {
            state: Arc::clone(state),
            term,
            states: folder.join(name.clone() + SUFFIX),
            states_lock: folder.join(format!(".{name}.lock")),
        };
        Self { places: Arc::new(places), turn: tokio::sync::Mutex::default() }
    }

    /// Does `work` while the states are locked.
    async fn locked<T: Send + 'static>(
        &self,
        work: impl Fn(&Places) -> Result<T, StateError> + Clone + Send + 'static,
    ) -> Result<T, StateError> {
        let _turn = self.turn.lock().await;
        let begun = Instant::now();
        let mut say_after = SAY_AFTER;
        loop {
            let (places, work) = (Arc::clone(&self.places), work.clone());
            // In a thread, because it syncs; it ends in its own time, also when nobody waits any more.
            let attempt = spawn_blocking(move || {
                let guard = places.try_lock().map_err(|error| places.unusable(error))?;
                guard.map(|_guard| work(&places)).transpose()
            });
            match attempt.await.map_err(|error| self.places.unusable(error))?? {
                Some(done) => return Ok(done),
                None => sleep(RETRY).await,
            }
            if begun.elapsed() >= say_after {
                say_after *= 2;
                self.places.say_who_is_in_the_way(begun.elapsed());
            }
        }
    }
}

#[async_trait]
impl StateKeeper for TermStates {
    async fn load(&self, route: &str) -> Result<Option<Value>, StateError> {
        let route = route.to_owned();
        self.locked(move |places| {
            let mut states = places.read()?;
            Ok(states.routes.remove(&route))
        })
        .await
    }

    async fn store(&self, route: &str, value: &Value) -> Result<(), StateError> {
        let (route, value) = (route.to_owned(), value.clone());
        self.locked(move |places| places.store(&route, &value)).await
    }
}

impl Places {
    fn say_who_is_in_the_way(&self, waited: Duration) {
        let holders = fs::metadata(&self.states_lock).map(|file| kernel_locks::snapshot().of(&file));
        warn!(
            lock = %self.state.lock,
            "the states of `{}` have been waited for {waited:.0?}: `{}` is locked by {}",
            self.state.lock,
            self.states_lock.display(),
            kernel_locks::named(&holders.unwrap_or_default())
        );
    }

    /// The lock on the states; `None`: somebody has it.
    fn try_lock(&self) -> io::Result<Option<FileLock>> {
        let open = || create(&self.states_lock).and_then(|()| open(&self.states_lock));
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = self.states_lock.parent() {
                    make_folder(folder)?;
                }
                open()?
            }
            other => other?,
        };
        let lock = FileLock::try_new(file)?;
        // A lock on a file that was deleted meanwhile keeps no other process away.
        Ok(lock.filter(|lock| is_at(lock, &self.states_lock)))
    }

    fn store(&self, route: &str, value: &Value) -> Result<(), StateError> {
        // The term ends if it has not yet, so that the next one can store: this member may still have the lock.
        let deposed = |stored: u64| {
            self.state.outlast(stored);
            StateError::Deposed(LeadershipLost { lock: self.state.lock.clone(), term: self.term })
        };
        if !self.leads().map_err(|error| self.unusable(error))? {
            return Err(deposed(0));
        }
        let mut states = self.read()?;
        if states.term > self.term {
            return Err(deposed(states.term));
        }
        states.format = FORMAT;
        states.term = self.term;
        states.routes.insert(route.to_owned(), value.clone());
        let mut text = serde_json::to_vec(&states).map_err(|error| self.unusable(error))?;
        text.push(b'\n');
        replace_file(&self.states, &text).map_err(|error| self.unusable(error))
    }

    /// Whether the record of this term is in the file of the lock.
    fn leads(&self) -> io::Result<bool> {
        let file = match open(&self.state.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let record = LeaderRecord::read(&file)?.record();
        let metadata = file.metadata()?;
        let ours =
            |record: &LeaderRecord| record.is_of(&self.state.lock, &metadata) && record.term == self.term;
        Ok(record.is_some_and(|record| record.leading && ours(&record)))
    }

    fn read(&self) -> Result<States, StateError> {
        let text = match read(&self.states) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(States::default()),
            Err(error) => return Err(self.unusable(error)),
        };
        match Refusal::of(&text) {
            Some(refusal) => Err(StateError::Unusable(refusal.about(&self.states), None)),
            None => serde_json::from_slice(&text).map_err(|error| self.unusable(error)),
        }
    }

    fn unusable(&self, error: impl Into<router_core::error::BoxError>) -> StateError {
        let text = format!("the states in `{}` cannot be used", self.states.display());
        StateError::Unusable(text, Some(error.into()))
    }
}
