//! [`RouteState`]: a small value that a consumer leaves for the next one: how far it has come.
//!
//! Below `master:` the value travels with the lock: whoever leads next finds what the last leader stored,
//! and a leader that was deposed cannot store any more, whatever it believes. Elsewhere the value lives as
//! long as the route, or in a file.
//!
//! # What is promised
//! A position that is stored when the work up to it is done gives *at least once*: after a crash, the next
//! consumer repeats what was done and not stored. A position that is stored before the work gives *at most
//! once*. There is no exactly once for effects outside: a receiver that must not act twice needs a key to
//! recognise repetitions by, and the term to refuse leaders of the past by.

mod file;
mod file_lock;
mod step;

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use smol_str::SmolStr;

pub use file::{FileState, replace_file};
pub use file_lock::FileLock;
pub(crate) use step::{StateSlot, StepState};

use crate::error::BoxError;
use crate::lock::LeadershipLost;

/// Where the states of routes are kept.
///
/// Implementations for a lock are made for one term of it.
#[async_trait]
pub trait StateKeeper: Send + Sync {
    /// What was stored last for `route`, by whomever.
    ///
    /// # Errors
    /// When it cannot be known.
    async fn load(&self, route: &str) -> Result<Option<Value>, StateError>;

    /// Replaces what is stored for `route`. When this returns, the value is as durable as the keeper can
    /// make it, and every later `load` finds it.
    ///
    /// # Errors
    /// [`StateError::Deposed`] when the keeper's term is no longer the newest one of its lock. Comparing
    /// and writing are one step: no store of an earlier term comes after a load of a later one.
    ///
    /// # Cancellation
    /// The value may be stored or not.
    async fn store(&self, route: &str, value: &Value) -> Result<(), StateError>;
}

/// Why a state cannot be loaded or stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A newer term of the lock has begun, or this one was given up.
    #[error("the state was not stored, because {0}")]
    Deposed(LeadershipLost),
    /// The value is too large.
    #[error("the state of a route has at most {max} bytes, not {0}", max = RouteState::MAX_BYTES)]
    TooLarge(usize),
    /// The cluster service has no place for states.
    #[error("this cluster service keeps no states")]
    NotKept,
    /// The place is out of order; the text says which and what to do.
    #[error("{0}")]
    Unusable(String, #[source] Option<BoxError>),
}

/// The state of one route.
#[derive(Clone)]
pub struct RouteState {
    route: SmolStr,
    keeper: Arc<dyn StateKeeper>,
}

impl fmt::Debug for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteState").finish_non_exhaustive()
    }
}

impl RouteState {
    /// The largest value, as JSON text: it is replaced as a whole each time.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// The state of `route` that `keeper` keeps.
    #[must_use]
    pub fn new(route: impl Into<SmolStr>, keeper: Arc<dyn StateKeeper>) -> Self {
        Self { route: route.into(), keeper }
    }

    /// The state of `route` in the file at `path`, which it shares with no other route.
    #[must_use]
    pub fn in_file(route: impl Into<SmolStr>, path: &Path) -> Self {
        Self::new(route, Arc::new(FileState::new(path)))
    }

    /// What was stored last, by this consumer or an earlier one.
    ///
    /// # Errors
    /// When it cannot be known. To go on as if there were nothing would be an error.
    pub async fn load(&self) -> Result<Option<Value>, StateError> {
        self.keeper.load(&self.route).await
    }

    /// Replaces what is stored.
    ///
    /// # Errors
    /// [`StateError::Deposed`] when somebody else leads, or may: stop then.
    ///
    /// # Cancellation
    /// The value may be stored or not.
    pub async fn store(&self, value: &Value) -> Result<(), StateError> {
        let size = value.to_string().len();
        if size > Self::MAX_BYTES {
            return Err(StateError::TooLarge(size));
        }
        self.keeper.store(&self.route, value).await
    }
}

/// Keeps the states of one route, and of its steps, for as long as the route exists.
#[derive(Default)]
pub(crate) struct MemoryState {
    values: Mutex<BTreeMap<SmolStr, Value>>,
    memories: Mutex<HashMap<(TypeId, SmolStr), Arc<dyn Any + Send + Sync>>>,
}

impl MemoryState {
    /// What is remembered of `about`, the same each time.
    pub(crate) fn memory<T: Any + Default + Send + Sync>(&self, about: &str) -> Arc<T> {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = memories.entry((TypeId::of::<T>(), about.into())).or_insert_with(|| Arc::<T>::default());
        Arc::clone(memory).downcast().unwrap_or_default()
    }
}

#[async_trait]
impl StateKeeper for MemoryState {
    async fn load(&self, key: &str) -> Result<Option<Value>, StateError> {
        Ok(self.values.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    async fn store(&self, key: &str, value: &Value) -> Result<(), StateError> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).insert(key.into(), value.clone());
        Ok(())
    }
}

/// What a cluster service has that keeps no states.
pub(crate) struct NoStates;

#[async_trait]
impl StateKeeper for NoStates {
    async fn load(&self, _: &str) -> Result<Option<Value>, StateError> {
        Err(StateError::NotKept)
    }

    async fn store(&self, _: &str, _: &Value) -> Result<(), StateError> {
        Err(StateError::NotKept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_state_that_is_too_large_is_refused() {
        let state = RouteState::new("a", Arc::new(MemoryState::default()));
        let large = Value::from("x".repeat(RouteState::MAX_BYTES));
        assert!(
            matches!(state.store(&large).await, Err(StateError::TooLarge(size)) if size > large.as_str().unwrap().len())
        );
        assert_eq!(state.load().await.unwrap(), None);
        state.store(&Value::from(7)).await.unwrap();
        assert_eq!(state.load().await.unwrap(), Some(Value::from(7)));
    }
}
