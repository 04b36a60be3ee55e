//! [`KubernetesCluster`]: the cluster service.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cluster_lease::LeaseCluster;
use router_core::cluster::{ClusterError, ClusterService, ClusterView, Leadership, LockName, Member};
use router_core::error::Chain;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use crate::config_map::check_lock;
use crate::events::Events;
use crate::shared::Shared;

/// How long the sessions of a member that leaves may take to be deleted.
const CLEAN_UP: Duration = Duration::from_secs(2);

/// A cluster of pods, or of any processes that reach one API server of Kubernetes. Each lock is a Lease,
/// and so is each session of a member that holds or takes one; `kubectl get lease` shows who leads.
///
/// # Guarantees
/// - At most one member works under a lock, and its term numbers rise with every term, also when Leases are
///   deleted: they are resourceVersions. How, is told in `cluster_lease`.
/// - A member that loses the API server ends its work by itself, before anybody else may begin.
/// - A lock that is given up is led by another member within some round trips. After a crash it is led
///   after the takeover wait, or at once when the kubelet says that the container has terminated.
/// - A Lease that is deleted or edited by hand is noticed, and costs the takeover wait.
/// - A standby sends no requests but its one watch. A member that holds anything sends one request per
///   heartbeat, whatever the number of locks.
///
/// # Assumptions
/// - Those of [`cluster_lease`]: the API server is one store whose history is not rolled back, clock *rates*
///   err by less than 1 % (what the clocks show does not matter), and work under a term ends when the term
///   says so.
/// - Members may have different timings, because each says in its records what it lives by. Only where all records
///   of a leader with a longer timing are deleted while it is cut off, a member that is started afterwards knows
///   nothing of it, and waits for its own takeover wait.
/// - Nobody writes the record of a Lease together with its seal but this crate.
/// - The file of the container's last words is not overwritten with those of another container.
///
/// # Members
/// [`ClusterView::members`] is this member, those that lead or take something, which have a session, and, with
/// `cluster_labels`, the ready pods of the group that have none: as in Camel, a ready pod is a member, whatever it
/// does. Who has a session is shown with the id of its process, who has none with the name of its pod. Neither
/// has a vote: who leads is decided by records alone.
///
/// # The compatibility mode
/// With [`Resource::ConfigMap`](crate::Resource::ConfigMap) the locks are entries of one ConfigMap, in the layout
/// of Apache Camel since 2.20, and members of Camel take part. Then:
///
/// ## Guarantees
/// - At most one member of ours works under a lock, and none while a member of Camel does that keeps to its
///   numbers. Term numbers rise.
/// - A lock that is given up in good order is led by another member at its next look, which is within two
///   seconds. One whose leader's pod is gone or not ready is led after the takeover wait, counted from when the
///   new claim was seen. A pod that is ready keeps its lock, whatever its process does.
///
/// ## Assumptions
/// - Those above on clocks, on the history of the server, and on work under a term.
/// - The members of Camel have the timing of [`CamelTiming`](crate::CamelTiming), and stop their work within nine
///   tenths of the time between their two numbers.
/// - Pods have one member each: Camel knows no more of a member than the name of its pod.
/// - What Camel does not guarantee among its own members stays so: it leads a lock at once whose entry was
///   deleted; it does not end exchanges in flight when it loses a lock; it counts by the wall clock; and after a
///   renewal that failed it may be named without leading.
///
/// It needs a Tokio runtime with I/O and time enabled.
pub struct KubernetesCluster {
    cluster: Arc<LeaseCluster>,
    namespace: String,
    records: Records,
    events: Option<Events>,
    closed: AtomicBool,
    /// Ends what runs beside the election.
    _beside: DropGuard,
}

impl fmt::Debug for KubernetesCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesCluster").finish_non_exhaustive()
    }
}

/// What the records are kept in.
pub(crate) enum Records {
    Leases(Arc<Shared>),
    ConfigMap,
}

impl KubernetesCluster {
    pub(crate) fn new(
        cluster: Arc<LeaseCluster>,
        namespace: String,
        records: Records,
        events: Option<Events>,
        beside: CancellationToken,
    ) -> Self {
        let closed = AtomicBool::new(false);
        Self { cluster, namespace, records, events, closed, _beside: beside.drop_guard() }
    }

    /// Gives up all locks and takes none, until [`undrain`](Self::undrain). Returns when none is held.
    pub async fn drain(&self) {
        self.cluster.drain().await;
    }

    /// Stands for election again after [`drain`](Self::drain).
    pub fn undrain(&self) {
        self.cluster.undrain();
    }

    /// The namespace of the records.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Sessions of pods are deleted with their pods; those of others, and all where it is allowed, here.
    async fn delete_sessions(&self) {
        let Records::Leases(shared) = &self.records else { return };
        if !shared.may_delete.load(Ordering::Relaxed) || self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        // What is in a slot now may be the session of another container of the pod.
        let own = shared.own().keys().copied().collect::<Vec<_>>();
        let leases = own.into_iter().filter_map(|session| {
            let name = shared.cache.session_lease(session)?;
            let lease = shared.cache.lease(&name, None)?;
            Some((name, lease))
        });
        for (name, lease) in leases.collect::<Vec<_>>() {
            match timeout(CLEAN_UP, shared.delete(&name, Some(lease))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!("the session {name} stays: {}", Chain(&error)),
                Err(_) => return debug!("the sessions stay: the API server does not answer"),
            }
        }
    }
}

#[async_trait]
impl ClusterService for KubernetesCluster {
    fn local(&self) -> &Member {
        self.cluster.local()
    }

    async fn view(&self, lock: &LockName) -> Result<ClusterView, ClusterError> {
        if matches!(self.records, Records::ConfigMap) {
            check_lock(lock)?;
        }
        self.cluster.view(lock).await
    }

    fn drained(&self) -> watch::Receiver<bool> {
        self.cluster.drained()
    }

    fn leaderships(&self) -> Vec<(LockName, Leadership)> {
        self.cluster.leaderships()
    }

    async fn check_alive(&self) -> Result<(), String> {
        self.cluster.check_alive().await
    }

    /// Waits for the work under all locks, however long that takes, and for the answers of the API server.
    async fn close(&self) {
        self.cluster.close().await;
        self.delete_sessions().await;
        if let Some(events) = &self.events {
            events.flush(CLEAN_UP).await;
        }
    }
}
