//! A process that stands for one lock, on the store in memory and under paused time.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::Duration;

use cluster_lease::{LeaseCluster, LeaseClusterSettings, MemoryHandle, MemoryStore, TokioClock};
use router_core::cluster::{ClusterService, ClusterView, LeaderScope, LockName, Member};
use tokio::time::timeout;

pub(crate) fn lock() -> LockName {
    "lock1".parse().unwrap()
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A store with a free lock.
pub(crate) fn store() -> MemoryStore {
    let store = MemoryStore::new();
    store.create_free(&lock());
    store
}

pub(crate) struct Process {
    pub(crate) cluster: Arc<LeaseCluster>,
    pub(crate) clock: Arc<TokioClock>,
    pub(crate) handle: MemoryHandle,
}

impl Process {
    pub(crate) fn start(store: &MemoryStore, name: &str) -> Self {
        Self::start_as(store, Member::new(name), |settings| settings)
    }

    pub(crate) fn start_as(
        store: &MemoryStore,
        member: Member,
        adjust: impl FnOnce(LeaseClusterSettings) -> LeaseClusterSettings,
    ) -> Self {
        let clock = Arc::new(TokioClock::default());
        // These tests hold scopes for longer than is allowed, and want to live.
        let settings = adjust(LeaseClusterSettings::new(member).clock(clock.clone()).strict(false));
        let handle = store.handle(1);
        Self { cluster: LeaseCluster::start(handle.clone(), settings).unwrap(), clock, handle }
    }

    pub(crate) async fn view(&self) -> ClusterView {
        self.cluster.view(&lock()).await.unwrap()
    }

    pub(crate) async fn lead(&self) -> LeaderScope {
        timeout(seconds(60), self.view().await.lead()).await.expect("nobody leads").unwrap()
    }
}
