//! [`KubernetesCluster`]: the cluster service.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cluster_lease::{LeaseCluster, LeaseClusterSettings};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Config;
use router_core::cluster::{ClusterError, ClusterService, ClusterView, Leadership, LockName, Member};
use router_core::error::Chain;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info};

use crate::access::{self, LEASE_VERBS, POD_VERBS};
use crate::clients::Clients;
use crate::codec::Codec;
use crate::errors::{LEASES, PODS};
use crate::identity::PodIdentity;
use crate::last_words;
use crate::pods::PodWatch;
use crate::settings::KubernetesClusterSettings;
use crate::store::{KubernetesStore, Shared};

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
/// - All members of a group have the same timing.
/// - The Leases of locks are created in advance before the first member is started, or not at all: a Lease
///   that is deleted and made anew by hand, both while a leader is cut off, looks as if nobody had led to
///   members that were started since.
/// - Nobody writes the record of a Lease together with its seal but this crate.
/// - The file of the container's last words is not overwritten with those of another container.
///
/// It needs a Tokio runtime with I/O and time enabled.
pub struct KubernetesCluster {
    cluster: Arc<LeaseCluster>,
    shared: Arc<Shared>,
    may_delete: bool,
    closed: AtomicBool,
    _pods: DropGuard,
}

impl KubernetesCluster {
    /// Joins the group `settings.group`.
    ///
    /// An API server that does not answer is no error: the member stands by until it does.
    ///
    /// # Errors
    /// [`ClusterError::Unusable`] when there is no way to an API server, when the member has no name, when
    /// the timing is not safe, or when the API server says that rights are missing; the text says which.
    pub async fn open(settings: KubernetesClusterSettings) -> Result<Arc<Self>, ClusterError> {
        let config = match settings.api_server.clone() {
            Some(config) => config,
            None => Config::infer().await.map_err(|error| {
                let text = "there is no API server of Kubernetes to be found: this is no pod with a service \
                            account, and neither KUBECONFIG nor ~/.kube/config names one";
                ClusterError::Unusable(text.into(), Some(error.into()))
            })?,
        };
        let identity = settings.identity.clone().unwrap_or_else(PodIdentity::of_process);
        let of_pod = identity.namespace.as_ref().map(ToString::to_string).filter(|name| !name.is_empty());
        let namespace =
            settings.namespace.clone().or(of_pod).unwrap_or_else(|| config.default_namespace.clone());
        Self::start(settings, Clients::of_config(config), identity, namespace).await
    }

    pub(crate) async fn start(
        settings: KubernetesClusterSettings,
        clients: Clients,
        identity: PodIdentity,
        namespace: String,
    ) -> Result<Arc<Self>, ClusterError> {
        let timing = settings.timing.settings();
        let timing = timing
            .map_err(|error| ClusterError::Unusable("the timing is refused".into(), Some(error.into())))?;
        let incarnation = draw_incarnation()?;
        let member = identity.member(incarnation)?;
        let seconds = timing.takeover_wait().as_secs_f64().ceil();
        let codec = Codec {
            group: settings.group.clone(),
            owner: identity.name.as_deref().zip(identity.uid.as_deref()).map(|(name, uid)| owner(name, uid)),
            #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and it is for humans")]
            takeover_wait_seconds: seconds as i32,
        };
        let shared = Arc::new(Shared::new(clients, namespace, codec));
        let may_delete = check_access(&shared).await?;
        let log = settings.termination_log.as_deref().unwrap_or(Path::new(last_words::TERMINATION_LOG));
        let election = LeaseClusterSettings::new(member.clone())
            .timing(timing)
            .incarnations(incarnations(incarnation, log));
        let cluster = LeaseCluster::start(KubernetesStore::new(Arc::clone(&shared)), election)?;
        info!(member = %member.id, namespace = %shared.namespace, group = %shared.codec.group, "joined the cluster");
        let quit = CancellationToken::new();
        if let Some(labels) = settings.pod_labels.filter(|labels| !labels.is_empty()) {
            watch_pods(&shared, &cluster, labels, &quit).await;
        }
        Ok(Arc::new(Self {
            cluster,
            shared,
            may_delete,
            closed: AtomicBool::new(false),
            _pods: quit.drop_guard(),
        }))
    }

    /// Gives up all locks and takes none, until [`undrain`](Self::undrain). Returns when none is held.
    pub async fn drain(&self) {
        self.cluster.drain().await;
    }

    /// Stands for election again after [`drain`](Self::drain).
    pub fn undrain(&self) {
        self.cluster.undrain();
    }

    /// The namespace of the Leases.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.shared.namespace
    }

    /// Sessions of pods are deleted with their pods; those of others, and all where it is allowed, here.
    async fn delete_sessions(&self) {
        if !self.may_delete || self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let names = self.shared.own.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        for name in names {
            match timeout(CLEAN_UP, self.shared.delete(&name)).await {
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
        self.cluster.view(lock).await
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
    }
}

/// Refuses to start without the rights that every election needs. Returns whether sessions may be deleted,
/// which is optional.
async fn check_access(shared: &Shared) -> Result<bool, ClusterError> {
    // Without a client every request fails, says why, and is tried again.
    let Ok(client) = shared.clients.ordinary() else { return Ok(false) };
    let missing = access::missing(&client, &shared.namespace, &LEASES, LEASE_VERBS).await;
    if !missing.is_empty() {
        let text = format!(
            "this member may not {} Leases in the namespace {}; its Role needs the rule {}",
            missing.join(", "),
            shared.namespace,
            LEASES.yaml(&missing)
        );
        return Err(ClusterError::Unusable(text, None));
    }
    Ok(access::is_allowed(&client, &shared.namespace, &LEASES, "delete").await)
}

async fn watch_pods(
    shared: &Arc<Shared>,
    cluster: &Arc<LeaseCluster>,
    labels: String,
    quit: &CancellationToken,
) {
    if let Ok(client) = shared.clients.ordinary() {
        let missing = access::missing(&client, &shared.namespace, &PODS, POD_VERBS).await;
        if !missing.is_empty() {
            info!(
                "pods are not watched, so a takeover after a crash takes the whole takeover wait: for more speed, \
                 this member's Role needs the rule {}",
                PODS.yaml(&missing)
            );
            return;
        }
    }
    let watch = PodWatch { shared: Arc::clone(shared), cluster: Arc::clone(cluster), labels };
    let quit = quit.clone();
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends when the cluster is dropped, and holds nothing to join"
    )]
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = quit.cancelled() => {}
            () = watch.run() => {}
        }
    });
}

/// Not the controller of the session, and no reason to keep the pod: only who it goes with.
fn owner(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: name.into(),
        uid: uid.into(),
        ..OwnerReference::default()
    }
}

/// The numbers of the incarnations of this process. There is one, unless the election panics and begins
/// anew. Each is left as last words, where there is a place for them.
fn incarnations(first: u128, log: &Path) -> impl Fn() -> u128 + Send + Sync + 'static {
    let (used, log) = (AtomicBool::new(false), log.to_owned());
    move || {
        let incarnation =
            if used.swap(true, Ordering::Relaxed) { draw_incarnation().unwrap_or(first) } else { first };
        if let Err(error) = last_words::write(&log, incarnation) {
            debug!(
                "no last words, so the end of this container will be no proof: {}: {error}",
                log.display()
            );
        }
        incarnation
    }
}

/// The bits of a version 4 UUID.
fn draw_incarnation() -> Result<u128, ClusterError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        ClusterError::Unusable(
            "there are no random numbers to tell this process from others by".into(),
            Some(error.into()),
        )
    })?;
    let bits = u128::from_be_bytes(bytes);
    Ok(bits & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62))
}
