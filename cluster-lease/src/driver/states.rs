//! [`TermStates`]: the states of the routes under a lock, kept with its record.
//!
//! They are part of the record, so comparing terms and writing are the one compare-and-swap that the
//! election rests on anyway: a store names a version at which the record was known to be of this very
//! claim (see [`Tenure`]), and whoever claims, settles or releases the lock makes another version. Each
//! such write leaves the states as it finds them at the version that it names, so none is lost.
//!
//! The routes of one lock take turns. What has gathered meanwhile goes along in one write.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use router_core::cluster::backend::Authority;
use router_core::cluster::{LeadershipLost, LockName};
use router_core::error::{BoxError, Chain};
use router_core::state::{StateError, StateKeeper};
use serde_json::Value;
use smol_str::SmolStr;
use tokio::sync::MutexGuard as Turn;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;

use crate::record::{Precondition, Version};
use crate::settings::Settings;
use crate::store::{Attempt, LeaseStore, LockEntry, StoreError, StoreKey, StoreRecord, Write};
use crate::tenure::Tenure;

/// The most that the states of one lock may come to, as JSON text. The API server of Kubernetes takes
/// 256 KiB of annotations, and others put some there too.
const MAX_BYTES: usize = 240 * 1024;

type States = BTreeMap<String, Value>;
/// What waits, by route, with its ticket.
type Batch = BTreeMap<String, (u64, Value)>;

/// Where states are kept, and for which term.
pub(crate) struct Place {
    pub(crate) lock: LockName,
    pub(crate) term: u64,
    /// The name of the member, as the record has it.
    pub(crate) holder: SmolStr,
    pub(crate) tenure: Tenure,
    pub(crate) store: Arc<dyn LeaseStore>,
}

/// The states of one lock, for one term.
pub(crate) struct TermStates {
    place: Place,
    authority: Arc<dyn Authority>,
    /// How long one request may take.
    patience: Duration,
    /// How long a load or a store may take, with all its requests.
    limit: Duration,
    /// The pause after a request that failed.
    pause: Duration,
    waiting: Mutex<Waiting>,
    /// The record as of the last read or write, in the hand of whose turn it is.
    turn: tokio::sync::Mutex<Option<Known>>,
}

/// The record at a version at which it was of this term.
struct Known {
    version: Version,
    /// The term that it says.
    term: u64,
    states: States,
    /// Read just now, so that what it contains is stored for certain.
    fresh: bool,
}

/// What is to be stored.
#[derive(Default)]
struct Waiting {
    tickets: u64,
    values: Batch,
    /// By route, the newest ticket whose value is stored. Tickets before it were replaced by it.
    stored: BTreeMap<String, u64>,
}

/// One value on its way. If it is given up, it waits no more.
struct Ticket<'a> {
    states: &'a TermStates,
    route: String,
    number: u64,
    value: &'a Value,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut waiting = self.states.waiting();
        if waiting.values.get(&self.route).is_some_and(|(number, _)| *number == self.number) {
            waiting.values.remove(&self.route);
        }
    }
}

impl Ticket<'_> {
    /// All that waits, this value included, unless a newer one has replaced it.
    fn batch(&self) -> Batch {
        let mut waiting = self.states.waiting();
        waiting.values.entry(self.route.clone()).or_insert_with(|| (self.number, self.value.clone()));
        waiting.values.clone()
    }

    fn is_stored(&self) -> bool {
        self.states.waiting().stored.get(&self.route).is_some_and(|stored| *stored >= self.number)
    }
}

#[async_trait]
impl StateKeeper for TermStates {
    async fn load(&self, route: &str) -> Result<Option<Value>, StateError> {
        let until = Instant::now() + self.limit;
        loop {
            let failure = match self.read().await {
                Ok(Some((known, _))) => {
                    let state = known.states.get(route).cloned();
                    return Ok(state);
                }
                Ok(None) => return Ok(None),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(error)) => error,
            };
            self.rest(failure, until).await?;
        }
    }

    async fn store(&self, route: &str, value: &Value) -> Result<(), StateError> {
        let until = Instant::now() + self.limit;
        let ticket = self.ticket(route, value);
        let mut known = timeout_at(until, self.turn.lock())
            .await
            .map_err(|_| self.unusable("other routes of the lock are waiting for the store too".into()))?;
        while !ticket.is_stored() {
            match self.write(&ticket, &mut known).await {
                Ok(()) if ticket.is_stored() || Instant::now() < until => {}
                Ok(()) => return Err(self.unusable("others go on changing it".into())),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(error)) => self.rest(error, until).await?,
            }
        }
        Ok(())
    }
}

/// Why an attempt did not do what was asked.
enum Trouble {
    Passing(BoxError),
    Final(StateError),
}

impl TermStates {
    pub(crate) fn new(place: Place, authority: Arc<dyn Authority>, timing: &Settings) -> Self {
        Self {
            place,
            authority,
            patience: timing.attempt_timeout(),
            limit: timing.deadline(),
            pause: timing.retry_pause(),
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::new(None),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ticket<'a>(&'a self, route: &str, value: &'a Value) -> Ticket<'a> {
        let (mut waiting, route) = (self.waiting(), route.to_owned());
        waiting.tickets += 1;
        let number = waiting.tickets;
        waiting.values.insert(route.clone(), (number, value.clone()));
        Ticket { states: self, route, number, value }
    }

    /// The record as it is now, and whether it is of this term; `None`: there is none.
    async fn read(&self) -> Result<Option<(Known, bool)>, Trouble> {
        let entry = match timeout(self.patience, self.place.store.read(&self.place.lock)).await {
            Ok(Ok(entry)) => entry,
            Ok(Err(error)) => return Err(Trouble::Passing(error.into())),
            Err(_) => return Err(Trouble::Passing("the store did not answer in time".into())),
        };
        let Some(entry) = entry else { return Ok(None) };
        let states = entry.states.as_deref().map_or(Ok(States::new()), serde_json::from_str);
        let states = states.map_err(|error| {
            let text = format!("the states that are kept with the lock `{}` are damaged", self.place.lock);
            Trouble::Final(StateError::Unusable(text, Some(error.into())))
        })?;
        let ours = self.place.tenure.is_named_by(entry.version, &entry.record);
        let LockEntry { version, record, .. } = entry;
        Ok(Some((Known { version, term: record.term, states, fresh: true }, ours)))
    }

    /// One write, with what waits.
    async fn write(&self, ticket: &Ticket<'_>, turn: &mut Turn<'_, Option<Known>>) -> Result<(), Trouble> {
        if self.authority.until_fence().is_zero() {
            return Err(self.deposed());
        }
        let known = match turn.take() {
            Some(known) => known,
            None => match self.read().await? {
                Some((known, true)) => known,
                Some((_, false)) | None => return Err(self.deposed()),
            },
        };
        let batch = ticket.batch();
        if known.fresh && batch.iter().all(|(route, (_, value))| known.states.get(route) == Some(value)) {
            // An earlier write came through, though nobody said so.
            self.stored(batch);
            **turn = Some(Known { fresh: false, ..known });
            return Ok(());
        }
        let (batch, states, text) = self.fitting(ticket, &known.states, batch)?;
        let record = self.place.tenure.record(known.term);
        let write = Write {
            key: StoreKey::Lock(self.place.lock.clone()),
            expect: Precondition::Version(known.version),
            record: StoreRecord::Lock {
                record,
                holder: Some(self.place.holder.clone()),
                term: Some(self.place.term),
            },
            states: Some(text),
        };
        match timeout(self.patience, self.place.store.write(write, Attempt::default())).await {
            Ok(Ok(version)) => {
                self.stored(batch);
                **turn = Some(Known { version, term: record.term, states, fresh: false });
                Ok(())
            }
            // The next attempt reads who has changed it: the core that settles, an earlier copy of the same
            // write, somebody who edits, or the next holder.
            Ok(Err(StoreError::Conflict)) => Ok(()),
            Ok(Err(error)) => Err(Trouble::Passing(error.into())),
            Err(_) => Err(Trouble::Passing("the store did not answer in time".into())),
        }
    }

    /// The states with all that waits, or, if that is too much, with that of the one who writes.
    fn fitting(
        &self,
        ticket: &Ticket<'_>,
        present: &States,
        mut batch: Batch,
    ) -> Result<(Batch, States, String), Trouble> {
        loop {
            let mut states = present.clone();
            states.extend(batch.iter().map(|(route, (_, value))| (route.clone(), value.clone())));
            let text = serde_json::to_string(&states).map_err(|error| Trouble::Passing(error.into()))?;
            if text.len() <= MAX_BYTES {
                return Ok((batch, states, text));
            }
            if batch.len() == 1 {
                let text = format!(
                    "the states of all routes under `{}` may have {MAX_BYTES} bytes together, not {}: give some \
                     routes another lock",
                    self.place.lock,
                    text.len()
                );
                return Err(Trouble::Final(StateError::Unusable(text, None)));
            }
            batch.retain(|route, _| *route == ticket.route);
        }
    }

    fn stored(&self, batch: Batch) {
        let mut waiting = self.waiting();
        for (route, (number, _)) in batch {
            if waiting.values.get(&route).is_some_and(|(present, _)| *present == number) {
                waiting.values.remove(&route);
            }
            waiting.stored.insert(route, number);
        }
    }

    /// Before the next attempt, if there is time for one.
    async fn rest(&self, failure: BoxError, until: Instant) -> Result<(), StateError> {
        debug!(lock = %self.place.lock, "a state was not kept, trying again: {}", Chain(&*failure));
        if Instant::now() + self.pause >= until {
            return Err(self.unusable(failure));
        }
        sleep(self.pause).await;
        Ok(())
    }

    fn deposed(&self) -> Trouble {
        let Place { lock, term, .. } = &self.place;
        Trouble::Final(StateError::Deposed(LeadershipLost { lock: lock.clone(), term: *term }))
    }

    fn unusable(&self, why: BoxError) -> StateError {
        let text = format!(
            "the record of the lock `{}` could not be reached for its states within {:?}",
            self.place.lock, self.limit
        );
        StateError::Unusable(text, Some(why))
    }
}
