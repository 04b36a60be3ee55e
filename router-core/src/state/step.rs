//! [`StepState`]: what a step of a route keeps, apart from the route's consumer.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use smol_str::{SmolStr, format_smolstr};

use super::{RouteState, StateError};

/// The place of a step's state. A step has one, for as long as its route exists.
pub(crate) struct StateSlot {
    key: SmolStr,
    newest: Mutex<Newest>,
    /// Held by the store that writes.
    turn: tokio::sync::Mutex<()>,
}

/// The value that was given to the store last.
#[derive(Default)]
struct Newest {
    value: Value,
    number: u64,
    /// The number of the newest value that is stored.
    stored: u64,
}

impl StateSlot {
    /// Ids have no control characters, so the keys of steps, of two routes or of a route and a step are never the same.
    const SEPARATOR: char = '\u{1f}';

    /// The place of the step `step` of `route`, by the id that the author gave it.
    pub(crate) fn new(route: &str, step: &str) -> Self {
        Self {
            key: format_smolstr!("{route}{}{step}", Self::SEPARATOR),
            newest: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn key(&self) -> &SmolStr {
        &self.key
    }

    fn newest(&self) -> std::sync::MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of one step.
pub(crate) struct StepState {
    keeper: RouteState,
    slot: Arc<StateSlot>,
}

#[cfg_attr(not(test), allow(dead_code, reason = "not every kind of step has been written"))]
impl StepState {
    pub(crate) fn new(keeper: RouteState, slot: Arc<StateSlot>) -> Self {
        Self { keeper, slot }
    }

    /// As [`RouteState::load`].
    pub(crate) async fn load(&self) -> Result<Option<Value>, StateError> {
        self.keeper.load().await
    }

    /// As [`RouteState::store`]. Of the values that gather while one is being written, the last one alone is written,
    /// for all who wait.
    pub(crate) async fn store(&self, value: Value) -> Result<(), StateError> {
        let number = {
            let mut newest = self.slot.newest();
            newest.number += 1;
            newest.value = value;
            newest.number
        };
        let _turn = self.slot.turn.lock().await;
        let (value, newest) = {
            let newest = self.slot.newest();
            if newest.stored >= number {
                return Ok(());
            }
            (newest.value.clone(), newest.number)
        };
        self.keeper.store(&value).await?;
        self.slot.newest().stored = newest;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::state::{MemoryState, StateKeeper};

    /// Waits with each store until it may go on, and counts them.
    struct Slow {
        may: Semaphore,
        stores: AtomicUsize,
        inner: MemoryState,
    }

    #[async_trait]
    impl StateKeeper for Slow {
        async fn load(&self, key: &str) -> Result<Option<Value>, StateError> {
            self.inner.load(key).await
        }

        async fn store(&self, key: &str, value: &Value) -> Result<(), StateError> {
            self.may.acquire().await.unwrap().forget();
            self.stores.fetch_add(1, Ordering::Relaxed);
            self.inner.store(key, value).await
        }
    }

    #[tokio::test]
    async fn values_that_gather_while_one_is_written_are_one_store() {
        let keeper = Arc::new(Slow {
            may: Semaphore::new(0),
            stores: AtomicUsize::new(0),
            inner: MemoryState::default(),
        });
        let slot = Arc::new(StateSlot::new("a", "count"));
        let state = || {
            StepState::new(RouteState::new(slot.key().clone(), Arc::clone(&keeper) as _), Arc::clone(&slot))
        };
        let states = (0..10).map(|_| state()).collect::<Vec<_>>();
        let mut stores = tokio_test_join(&states);
        assert!(futures_poll(&mut stores), "the first one waits for the keeper");
        keeper.may.add_permits(2);
        for store in stores {
            store.await.unwrap();
        }
        assert_eq!(keeper.stores.load(Ordering::Relaxed), 2);
        assert_eq!(state().load().await.unwrap(), Some(Value::from(9)));
    }

    type Store<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), StateError>> + 'a>>;

    fn tokio_test_join(states: &[StepState]) -> Vec<Store<'_>> {
        states
            .iter()
            .enumerate()
            .map(|(number, state)| Box::pin(state.store(number.into())) as Store<'_>)
            .collect()
    }

    /// Polls each once; whether none is ready.
    fn futures_poll(stores: &mut [Store<'_>]) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        !stores.iter_mut().any(|store| store.as_mut().poll(&mut context).is_ready())
    }

    #[test]
    fn keys_of_steps_and_routes_are_never_the_same() {
        let key = |route: &str, step: &str| StateSlot::new(route, step).key().to_string();
        assert_ne!(key("a/b", "c"), key("a", "b/c"));
        assert_ne!(key("a", "b"), "a/b");
    }
}
