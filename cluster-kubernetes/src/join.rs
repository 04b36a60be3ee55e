//! Joining the cluster: what is checked, and what is started beside the election.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster_lease::{LeaseCluster, LeaseClusterSettings, Settings};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use router_core::cluster::{ClusterError, Member};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::access;
use crate::clients::Clients;
use crate::cluster::{KubernetesCluster, Records};
use crate::codec::Codec;
use crate::config_map::{self, ConfigMapStore};
use crate::events::{self, Events};
use crate::identity::PodIdentity;
use crate::place::{place_of, timing_of};
use crate::pod_observer::follow;
use crate::pods::{PodWatch, Pods};
use crate::rules::{CONFIG_MAPS, DELETE_LEASES, EVENTS, LEASES, PODS, PODS_OF_CAMEL, Rule};
use crate::settings::{KubernetesClusterSettings, Resource};
use crate::shared::Shared;
use crate::store::KubernetesStore;
use crate::termination_message;

impl KubernetesCluster {
    /// Joins the group `settings.group`.
    ///
    /// An API server that does not answer is no error: the member stands by until it does.
    ///
    /// # Errors
    /// [`ClusterError::Unusable`] when there is no way to an API server, when the member has no name, when
    /// the timing is not safe, or when the API server says that rights are missing; the text says which.
    pub async fn open(settings: KubernetesClusterSettings) -> Result<Arc<Self>, ClusterError> {
        let (config, identity, namespace) = place_of(&settings).await?;
        let clients = Clients::of_config(config, &timing_of(&settings)?);
        Self::start(settings, clients, identity, namespace).await
    }

    pub(crate) async fn start(
        settings: KubernetesClusterSettings,
        clients: Clients,
        identity: PodIdentity,
        namespace: String,
    ) -> Result<Arc<Self>, ClusterError> {
        Ok(Arc::new(Candidate::new(settings, clients, identity, namespace)?.join().await?))
    }
}

/// What is known of this member before it joins.
pub(crate) struct Candidate {
    pub(crate) clients: Clients,
    pub(crate) namespace: String,
    settings: KubernetesClusterSettings,
    timing: Settings,
    identity: PodIdentity,
    incarnation: u128,
    member: Member,
    /// Ends what runs beside the election.
    quit: CancellationToken,
}

impl Candidate {
    pub(crate) fn new(
        settings: KubernetesClusterSettings,
        clients: Clients,
        identity: PodIdentity,
        namespace: String,
    ) -> Result<Self, ClusterError> {
        let timing = timing_of(&settings)?;
        let incarnation = draw_incarnation()?;
        let member = identity.member(incarnation)?;
        let quit = CancellationToken::new();
        Ok(Self { clients, namespace, settings, timing, identity, incarnation, member, quit })
    }

    /// # Errors
    /// When rights are missing without which there is no election.
    pub(crate) async fn join(self) -> Result<KubernetesCluster, ClusterError> {
        match self.settings.resource {
            Resource::Lease => self.join_with_leases().await,
            Resource::ConfigMap => self.join_with_config_map().await,
        }
    }

    async fn join_with_leases(self) -> Result<KubernetesCluster, ClusterError> {
        let seconds = self.timing.takeover_wait().as_secs_f64().ceil();
        let codec = Codec {
            group: self.settings.group.clone(),
            owner: self.owner(),
            #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and it is for humans")]
            takeover_wait_seconds: seconds as i32,
        };
        self.require(&LEASES, None).await?;
        let may_delete = self.missing(&DELETE_LEASES, None).await.is_some_and(|missing| missing.is_empty());
        let shared = Arc::new(Shared::new(self.clients.clone(), self.namespace.clone(), codec));
        shared.may_delete.store(may_delete, Ordering::Relaxed);
        if shared.codec.owner.is_none() && !may_delete {
            info!(
                "the session of a member that crashes stays in the namespace {}, because no pod there owns it: \
                 set POD_NAME, POD_NAMESPACE and POD_UID and keep the records in the namespace of the pods, or \
                 add the rule {} to this member's Role",
                self.namespace,
                DELETE_LEASES.yaml(DELETE_LEASES.verbs)
            );
        }
        let regarding = Arc::clone(&shared);
        let events = self.events(move |transition| regarding.reference(&transition.lock)).await;
        let election = self.election(events.as_ref());
        let cluster = LeaseCluster::start(KubernetesStore::new(Arc::clone(&shared)), election)?;
        let (member, group) = (&self.member.id, &shared.codec.group);
        info!(%member, namespace = %self.namespace, %group, "joined the cluster");
        if let Some(labels) = self.settings.cluster_labels.clone().filter(|labels| !labels.is_empty()) {
            let without = "a takeover after a crash takes the whole takeover wait, and members that stand by are not known";
            match self.missing(&PODS, None).await {
                Some(missing) if !missing.is_empty() => info!(
                    "pods are not watched, so {without}: for these, this member's Role needs the rule {}",
                    PODS.yaml(&missing)
                ),
                _ => {
                    let pods = self.watch_pods(labels, without);
                    self.spawn(follow(pods, Arc::clone(&cluster), true));
                }
            }
        }
        Ok(KubernetesCluster::new(
            cluster,
            self.namespace.clone(),
            Records::Leases(shared),
            events,
            self.quit,
        ))
    }

    async fn join_with_config_map(self) -> Result<KubernetesCluster, ClusterError> {
        let name = self.settings.resource_name.as_deref().unwrap_or(config_map::RESOURCE_NAME).to_owned();
        self.require(&CONFIG_MAPS, Some(&name)).await?;
        self.require(&PODS_OF_CAMEL, None).await?;
        // The member has been made of it, so there is a name.
        let pod = self.identity.name.as_deref().unwrap_or_default().to_owned();
        let pods =
            self.watch_pods(self.settings.cluster_labels.clone().unwrap_or_default(), "no lock is taken");
        let place = (self.namespace.clone(), name.clone(), pod);
        let store = ConfigMapStore::new(self.clients.clone(), place, self.timing.heartbeat(), pods.clone());
        let (namespace, resource) = (self.namespace.clone(), name.clone());
        let events = self
            .events(move |_| ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("ConfigMap".into()),
                name: Some(resource.clone()),
                namespace: Some(namespace.clone()),
                ..ObjectReference::default()
            })
            .await;
        let cluster = LeaseCluster::start(store, self.election(events.as_ref()))?;
        let (member, namespace) = (&self.member.id, &self.namespace);
        warn!(
            %member, %namespace, config_map = %name,
            "joined the cluster in the compatibility mode with Camel: what Camel does not promise, this mode cannot; \
             with no members of Camel left, use `cluster.kubernetes.resource = \"lease\"`"
        );
        self.spawn(follow(pods, Arc::clone(&cluster), false));
        Ok(KubernetesCluster::new(cluster, self.namespace.clone(), Records::ConfigMap, events, self.quit))
    }

    /// The pod that owns the sessions, and with which they go. Kubernetes deletes what has an owner in another
    /// namespace, so there they have none.
    fn owner(&self) -> Option<OwnerReference> {
        let identity = &self.identity;
        let here = identity.namespace.as_deref() == Some(self.namespace.as_str());
        let (name, uid) = identity.name.as_deref().zip(identity.uid.as_deref()).filter(|_| here)?;
        Some(owner(name, uid))
    }

    /// Where the locks are, for the log.
    fn place(&self) -> String {
        let (namespace, settings) = (&self.namespace, &self.settings);
        match settings.resource {
            Resource::Lease => format!("in the namespace {namespace}, group {}", settings.group),
            Resource::ConfigMap => {
                let name = settings.resource_name.as_deref().unwrap_or(config_map::RESOURCE_NAME);
                format!("in the namespace {namespace}, ConfigMap {name}")
            }
        }
    }

    fn election(&self, events: Option<&Events>) -> LeaseClusterSettings {
        let log = self.settings.termination_log.as_deref();
        let log = log.unwrap_or(Path::new(termination_message::TERMINATION_LOG));
        let settings = LeaseClusterSettings::new(self.member.clone())
            .timing(self.timing)
            .incarnations(incarnations(self.incarnation, log))
            .place(self.place())
            // By which the pods of all members are known.
            .ranked_as(self.identity.name.clone().unwrap_or_default());
        match events.cloned() {
            Some(events) => settings.observer(move |transition| events.tell(transition)),
            None => settings,
        }
    }

    /// Those verbs of a rule that this member may not use; `None`: there is no client to ask with. Then every
    /// request fails, says why, and is tried again.
    async fn missing(&self, rule: &Rule, object: Option<&str>) -> Option<Vec<&'static str>> {
        let client = self.clients.ordinary().ok()?;
        Some(access::missing(&client, &self.namespace, rule, object).await)
    }

    /// Refuses to start without the rights that every election needs.
    async fn require(&self, rule: &Rule, object: Option<&str>) -> Result<(), ClusterError> {
        let missing = self.missing(rule, object).await.unwrap_or_default();
        if missing.is_empty() {
            return Ok(());
        }
        let text = format!(
            "this member may not {} {} in the namespace {}; its Role needs the rule {}",
            missing.join(", "),
            rule.resource,
            self.namespace,
            rule.yaml_of(&missing, object)
        );
        Err(ClusterError::Unusable(text, None))
    }

    async fn events(
        &self,
        regarding: impl Fn(&cluster_lease::Transition) -> ObjectReference + Send + Sync + 'static,
    ) -> Option<Events> {
        let missing = self.missing(&EVENTS, None).await?;
        if !missing.is_empty() {
            info!("{}", events::without(&self.namespace, &missing));
            return None;
        }
        let (events, publisher) = Events::new(self.clients.beside(), self.member.clone(), regarding);
        self.spawn(publisher.run());
        Some(events)
    }

    fn watch_pods(&self, labels: String, without: &'static str) -> watch::Receiver<Pods> {
        let (seen, pods) = watch::channel(Pods::default());
        let (clients, namespace) = (self.clients.beside(), self.namespace.clone());
        self.spawn(PodWatch { clients, namespace, labels, without, seen }.run());
        pods
    }

    /// Runs beside the election, until the cluster is dropped.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let quit = self.quit.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends when the cluster is dropped, and holds nothing to join"
        )]
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = quit.cancelled() => {}
                () = task => {}
            }
        });
    }
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
        if let Err(error) = termination_message::write(&log, incarnation) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_api_server::FakeServer;

    #[test]
    fn sessions_are_owned_by_a_pod_of_their_own_namespace_alone() {
        let owner = |of_pod: Option<&str>, of_records: &str| {
            let identity = PodIdentity {
                name: Some("clock-0".into()),
                namespace: of_pod.map(Into::into),
                uid: Some("u".into()),
            };
            let clients = FakeServer::new().clients();
            let settings = KubernetesClusterSettings::default();
            Candidate::new(settings, clients, identity, of_records.into()).unwrap().owner()
        };
        assert_eq!(owner(Some("shop"), "shop").unwrap().uid, "u");
        assert_eq!(owner(Some("shop"), "locks"), None, "Kubernetes would delete them");
        assert_eq!(owner(None, "shop"), None, "it may be another namespace");
    }
}
