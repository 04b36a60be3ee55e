//! One member's access to a [`MemoryStore`](super::MemoryStore).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use router_core::cluster::LockName;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::Hub;
use super::faults::{Fate, Link};
use super::watch::MemoryWatch;
use crate::record::Version;
use crate::store::{Attempt, LeaseStore, LeaseWatch, Listing, LockEntry, StoreError, StoreKey, Write};

/// One member's access to a [`MemoryStore`](super::MemoryStore), over a link that may have faults.
#[derive(Clone)]
pub struct MemoryHandle {
    hub: Arc<Hub>,
    link: Link,
}

impl fmt::Debug for MemoryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryHandle").finish_non_exhaustive()
    }
}

impl MemoryHandle {
    pub(super) fn new(hub: Arc<Hub>, link: Link) -> Self {
        Self { hub, link }
    }

    /// The link, to be tampered with.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Carries a request over the link. It is a task of its own, so that it is applied even if its
    /// caller is gone.
    async fn carry<T: Send + 'static>(
        &self,
        request: impl Fn(&Hub) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let fate = self.link.draw();
        let fails_early = fate.fails_early;
        let (sender, answer) = oneshot::channel();
        let (hub, link) = (Arc::clone(&self.hub), self.link.clone());
        self.hub.under_way.spawn(under_way(hub, link, fate, request, sender));
        if fails_early {
            return Err(StoreError::unknown("the connection was reset"));
        }
        match answer.await {
            Ok(result) => result,
            // Whoever has no answer to wait for waits for ever, as on a connection that is half open.
            Err(_) => std::future::pending().await,
        }
    }
}

async fn under_way<T>(
    hub: Arc<Hub>,
    link: Link,
    fate: Fate,
    request: impl Fn(&Hub) -> Result<T, StoreError>,
    answer: oneshot::Sender<Result<T, StoreError>>,
) {
    if !fate.arrives {
        return;
    }
    // Even a delay of nothing would let time pass, which counts when requests are measured.
    if !fate.request_delay.is_zero() {
        sleep(fate.request_delay).await;
    }
    let result = request(&hub);
    if !fate.answer_delay.is_zero() {
        sleep(fate.answer_delay).await;
    }
    if fate.answered && !link.is_cut() {
        // The caller may have given up.
        let _ = answer.send(result);
    }
    if let Some(delay) = fate.repeated_after {
        sleep(delay).await;
        let _ = request(&hub);
    }
}

#[async_trait]
impl LeaseStore for MemoryHandle {
    fn why_unsent(&self) -> Option<String> {
        self.link.unsent()
    }

    async fn list(&self) -> Result<Listing, StoreError> {
        self.link.count(|requests| requests.lists += 1);
        self.carry(|hub| Ok(hub.list())).await
    }

    async fn read(&self, lock: &LockName) -> Result<Option<LockEntry>, StoreError> {
        self.link.count(|requests| requests.reads += 1);
        let lock = lock.clone();
        self.carry(move |hub| Ok(hub.read(&lock))).await
    }

    async fn write(&self, write: Write, attempt: Attempt) -> Result<Version, StoreError> {
        self.link.count(|requests| {
            requests.writes += 1;
            requests.fresh_connections += u64::from(attempt.fresh_connection);
        });
        self.carry(move |hub| hub.apply(write.clone())).await
    }

    async fn delete(&self, key: StoreKey, version: Version) -> Result<(), StoreError> {
        self.link.count(|requests| requests.writes += 1);
        self.carry(move |hub| hub.delete(&key, version)).await
    }

    async fn watch(&self, version: Version) -> Result<Box<dyn LeaseWatch>, StoreError> {
        self.link.count(|requests| requests.watches += 1);
        let watch = MemoryWatch::new(Arc::clone(&self.hub), self.link.clone(), version);
        let opened: Result<(), StoreError> = self.carry(|_| Ok(())).await;
        opened.map(|()| Box::new(watch) as Box<dyn LeaseWatch>)
    }
}
