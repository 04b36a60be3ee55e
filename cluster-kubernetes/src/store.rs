//! [`KubernetesStore`]: the records of the election as Leases.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use cluster_lease::{
    Attempt, LeaseStore, LeaseWatch, Listing, LockEntry, StoreError, StoreKey, StoreRecord, Version, Write,
};
use kube::api::WatchParams;
use router_core::cluster::LockName;

use crate::codec::{self, parse_version};
use crate::errors::{self};
use crate::list;
use crate::shared::Shared;
use crate::watch::{GroupWatch, LONGEST_WATCH};

/// How many times as long as another request a list may take.
const SLOW_LIST: u32 = 20;

/// The Leases of one group in one namespace, as [`LeaseStore`] has it.
///
/// # Guarantees
///
/// 1. *Compare and swap.* A record that must be absent is created by POST, which the server refuses when
///    the object exists. All other writes are PUT with the resourceVersion and the uid of the object as it
///    was seen: the server refuses them when the object has changed, was deleted, or was deleted and made
///    again. Nothing is ever patched or forced.
/// 2. *Consistent reads.* GET and LIST carry no resourceVersion, for which the server reads from a quorum
///    of etcd, or from a cache that it has made sure is as new.
/// 3. *One ordered watch.* One request with a label selector covers locks and sessions. A server sends the
///    changes of one watch in the order of their versions, and answers 410 when some are no longer kept;
///    then the group is listed again.
/// 4. *Versions order everything.* The resourceVersion of every Lease is the revision of one etcd. That
///    they are numbers that can be compared is documented since Kubernetes 1.35 and was true before.
/// 5. *Deletion is a change.* The event of a deletion carries the version of the deletion.
/// 6. *States stay with their lock.* They are an annotation of its Lease. A write starts from the whole
///    object at the version that it names, so an annotation that it does not set goes along unchanged.
pub(crate) struct KubernetesStore {
    shared: Arc<Shared>,
}

impl KubernetesStore {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    #[cfg(test)]
    pub(crate) fn allow_deletion(&self) {
        self.shared.may_delete.store(true, Ordering::Relaxed);
    }

    /// One of the few turns for requests that are no heartbeats.
    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, StoreError> {
        let turn = self.shared.requests.acquire().await;
        turn.map_err(|_| StoreError::unknown("requests are no longer sent"))
    }
}

#[async_trait]
impl LeaseStore for KubernetesStore {
    fn why_unsent(&self) -> Option<String> {
        self.shared.clients.why_unsent()
    }

    async fn list(&self) -> Result<Listing, StoreError> {
        let shared = &self.shared;
        let _turn = self.turn().await?;
        let client = shared.client(shared.clients.ordinary())?;
        let labels = shared.codec.group.selector();
        let (list, _) =
            list::leases(&client, shared.asked("list"), &labels, shared.clients.patience()).await?;
        if list.metadata.continue_.as_ref().is_some_and(|token| !token.is_empty()) {
            return Err(StoreError::unknown("the API server has cut the list of Leases short"));
        }
        let at = parse_version(list.metadata.resource_version.as_deref().unwrap_or_default())?;
        let entries = shared.cache.note_list(&shared.codec, at, &list.items)?;
        shared.report_left_over();
        Ok(Listing { version: at, entries })
    }

    /// A list that stands still ends by itself; one of a large group over a slow line only takes its time.
    fn list_patience(&self, patience: Duration) -> Duration {
        patience.saturating_mul(SLOW_LIST)
    }

    async fn read(&self, lock: &LockName) -> Result<Option<LockEntry>, StoreError> {
        let shared = &self.shared;
        let _turn = self.turn().await?;
        let api = shared.api(shared.clients.ordinary())?;
        let name = shared.codec.group.lock_lease(lock);
        let lease = api.get_opt(&name).await.map_err(|error| errors::error(shared.asked("get"), error))?;
        let Some(lease) = lease else { return Ok(None) };
        let decoded = shared.cache.note(&shared.codec, &lease)?;
        Ok(decoded.and_then(|decoded| match decoded.record {
            Some(StoreRecord::Lock { record, .. }) => {
                Some(LockEntry { version: decoded.version, record, states: codec::states(&lease) })
            }
            _ => None,
        }))
    }

    async fn write(&self, write: Write, attempt: Attempt) -> Result<Version, StoreError> {
        let shared = &self.shared;
        if attempt.heartbeat {
            let api = shared.api(shared.clients.heartbeat(attempt.fresh_connection))?;
            return shared.send(&write, &api).await;
        }
        let _turn = self.turn().await?;
        let api = shared.api(shared.clients.ordinary())?;
        shared.send(&write, &api).await
    }

    /// Requests are deleted by the operators that made them. Of the sessions of one pod only the last ones are
    /// left, as long as it lives. With it, all of them go.
    async fn delete(&self, key: StoreKey, version: Version) -> Result<(), StoreError> {
        let shared = &self.shared;
        let name = shared.name(&key);
        let Some(lease) = shared.cache.lease(&name, Some(version)) else { return Err(StoreError::Conflict) };
        if !matches!(key, StoreKey::Request(_)) && !shared.may_delete.load(Ordering::Relaxed) {
            return Ok(());
        }
        let _turn = self.turn().await?;
        shared.delete(&name, Some(lease)).await
    }

    fn forget(&self) {
        self.shared.cache.forget();
    }

    async fn watch(&self, version: Version) -> Result<Box<dyn LeaseWatch>, StoreError> {
        let shared = &self.shared;
        let api = shared.api(shared.clients.another())?;
        // The server ends the watch after some minutes, and it goes on from the last version. Lists are rare.
        shared.report_left_over();
        let seconds = u32::try_from(LONGEST_WATCH.as_secs()).unwrap_or(u32::MAX);
        let params = WatchParams::default().labels(&shared.codec.group.selector()).timeout(seconds);
        let events = api.watch(&params, &version.to_string()).await;
        let events = events.map_err(|error| errors::error(shared.asked("watch"), error))?;
        Ok(Box::new(GroupWatch { shared: Arc::clone(shared), events: Box::pin(events) }))
    }
}
