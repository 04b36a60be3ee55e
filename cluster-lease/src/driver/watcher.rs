//! The one watch of a process: lists the group, watches it from there, and begins anew after a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use router_core::backoff::Backoff;
use router_core::error::Chain;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::warn_limiter::{Operation, WarnLimiter};
use crate::record::Version;
use crate::store::{Change, LeaseStore, LeaseWatch, Listing, StoreError};

/// What the watcher tells the election's loop, in order.
#[expect(clippy::large_enum_variant, reason = "changes are what there are most of")]
pub(crate) enum Seen {
    /// And what was known when it was asked for.
    Listed(Listing, Version),
    Changed(Change),
    /// The watch is open, from the last list or the last change.
    Open,
    /// The watch is not open, and changes may be missed until the next list.
    Lost,
}

pub(crate) struct Watcher {
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) warnings: Arc<WarnLimiter>,
    pub(crate) seen: mpsc::Sender<Seen>,
    /// Somebody knows of changes that the watch has not delivered.
    pub(crate) distrusted: Arc<Notify>,
    /// The newest version that the election knows.
    pub(crate) known: Arc<AtomicU64>,
    /// How long a request may take.
    pub(crate) patience: Duration,
    /// The pause after the first failure. It grows up to `patience`.
    pub(crate) pause: Duration,
}

impl Watcher {
    /// Runs until nobody listens any more.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new(self.pause, self.patience).steady();
        while self.seen.send(Seen::Lost).await.is_ok() {
            let before = tokio::time::Instant::now();
            match self.list_and_watch(backoff.failures() > 0).await {
                Ok(()) => return,
                Err(error) => debug!("the watch of the election failed: {}", Chain(&error)),
            }
            // A watch that held for a while was sound: the next failure is a first one.
            if before.elapsed() > self.patience * 4 {
                backoff.reset();
            }
            sleep(backoff.next(None)).await;
        }
    }

    /// `Ok`: nobody listens any more. `again`: the watch has just failed, too.
    async fn list_and_watch(&self, again: bool) -> Result<(), StoreError> {
        let asked = self.known.load(Ordering::Relaxed);
        let listing = self.list().await.inspect_err(|error| {
            self.warnings.say(Operation::List, &Chain(error));
        })?;
        self.warnings.works(Operation::List);
        let mut version = listing.version;
        if self.seen.send(Seen::Listed(listing, asked)).await.is_err() {
            return Ok(());
        }
        if let Some(period) = self.store.poll_period() {
            return self.poll(period).await;
        }
        loop {
            let watch = self.within(self.patience, self.store.watch(version)).await.inspect_err(|error| {
                // Once is nothing: the changes after `version` may not be kept.
                if again {
                    self.warnings.say(Operation::Watch, &Chain(error));
                }
            })?;
            self.warnings.works(Operation::Watch);
            if self.seen.send(Seen::Open).await.is_err() || !self.follow(watch, &mut version).await? {
                return Ok(());
            }
            // It ended in good order. Some servers do that often; none may make us spin.
            sleep(self.pause).await;
        }
    }

    /// Lists the group again and again, for a store that has no watch. To the core the watch stays lost, so
    /// it asks for a list of its own after each heartbeat.
    async fn poll(&self, period: Duration) -> Result<(), StoreError> {
        loop {
            tokio::select! {
                biased;
                () = self.seen.closed() => return Ok(()),
                () = sleep(period) => {}
            }
            let asked = self.known.load(Ordering::Relaxed);
            let listing = self.list().await.inspect_err(|error| {
                self.warnings.say(Operation::List, &Chain(error));
            })?;
            self.warnings.works(Operation::List);
            if self.seen.send(Seen::Listed(listing, asked)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Delivers changes until the watch ends. Says whether anybody still listens.
    async fn follow(
        &self,
        mut watch: Box<dyn LeaseWatch>,
        version: &mut Version,
    ) -> Result<bool, StoreError> {
        loop {
            let change = tokio::select! {
                biased;
                () = self.seen.closed() => return Ok(false),
                () = self.distrusted.notified() => {
                    return Err(StoreError::unknown("it did not deliver changes that a list contains"));
                }
                change = watch.next() => change?,
            };
            let Some(change) = change else { return Ok(true) };
            *version = change.version();
            if self.seen.send(Seen::Changed(change)).await.is_err() {
                return Ok(false);
            }
        }
    }

    async fn list(&self) -> Result<Listing, StoreError> {
        self.within(self.store.list_patience(self.patience), self.store.list()).await
    }

    async fn within<T>(
        &self,
        patience: Duration,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match timeout(patience, request).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::unknown("the store did not answer in time")),
        }
    }
}
