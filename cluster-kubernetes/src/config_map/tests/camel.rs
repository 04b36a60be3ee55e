//! A member that does as Camel 2.20 does: it looks at the ConfigMap and at the pods every so often, takes a lock
//! that has no leader at once, and one whose leader is no member after its wait. Also included by the tests
//! with a real API server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

/// `leaseDurationMillis`, `renewDeadlineMillis` and `retryPeriodMillis`.
#[derive(Clone, Copy)]
pub(super) struct Periods {
    pub(super) lease: Duration,
    pub(super) renew: Duration,
    pub(super) retry: Duration,
}

pub(super) struct Camel {
    /// The version of its claim, and until when it leads, by its own clock.
    leads: Mutex<Option<(u64, Instant)>>,
    client: Client,
    namespace: String,
    pod: String,
    periods: Periods,
}

const LEADER: &str = "leader.pod.lock1";

impl Camel {
    pub(super) fn new(client: Client, namespace: &str, pod: &str, periods: Periods) -> Arc<Self> {
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        Arc::new(Self { leads: Mutex::default(), client, namespace, pod, periods })
    }

    /// The version of its claim, while it leads.
    pub(super) fn leads(&self) -> Option<u64> {
        self.leads.lock().unwrap().filter(|(_, until)| Instant::now() < *until).map(|(claim, _)| claim)
    }

    pub(super) async fn run(self: Arc<Self>) {
        loop {
            if let Some(claim) = self.stand_by().await {
                self.lead(claim).await;
            }
            sleep(self.periods.retry).await;
        }
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The ConfigMap and the names of the pods that run and are ready.
    async fn look(&self) -> Option<(Option<ConfigMap>, Vec<String>)> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let look = async {
            let config_map = self.config_maps().get_opt("leaders").await.ok()?;
            Some((config_map, pods.list(&ListParams::default()).await.ok()?))
        };
        let (config_map, pods) = timeout(self.periods.renew / 3, look).await.ok()??;
        let members = pods.items.into_iter().filter(is_ready).filter_map(|pod| pod.metadata.name);
        Some((config_map, members.collect()))
    }

    /// The version of the claim under which it leads now.
    async fn stand_by(&self) -> Option<u64> {
        let (config_map, members) = self.look().await?;
        let named = config_map.as_ref().and_then(|config_map| config_map.data.as_ref()?.get(LEADER)).cloned();
        match named {
            None => self.acquire(config_map, &members).await,
            Some(leader) if !members.contains(&leader) => {
                let claim = self.acquire(config_map, &members).await?;
                sleep(self.periods.lease).await;
                Some(claim)
            }
            Some(leader) if leader == self.pod => {
                sleep(self.periods.lease).await;
                version(&config_map?)
            }
            Some(_) => None,
        }
    }

    async fn acquire(&self, config_map: Option<ConfigMap>, members: &[String]) -> Option<u64> {
        if !members.contains(&self.pod) {
            return None;
        }
        let exists = config_map.is_some();
        let new = || {
            let labels = [("provider", "camel"), ("kind", "locks")];
            let mut config_map = ConfigMap::default();
            config_map.metadata.name = Some("leaders".into());
            config_map.metadata.labels = Some(labels.map(|(key, value)| (key.into(), value.into())).into());
            config_map
        };
        let mut config_map = config_map.unwrap_or_else(new);
        let data = config_map.data.get_or_insert_default();
        data.insert(LEADER.into(), self.pod.clone());
        data.insert("leader.local.timestamp.lock1".into(), "2026-01-31T09:00:00Z".into());
        let params = PostParams::default();
        let written = match exists {
            true => self.config_maps().replace("leaders", &params, &config_map).await,
            false => self.config_maps().create(&params, &config_map).await,
        };
        version(&written.ok()?)
    }

    async fn lead(&self, claim: u64) {
        loop {
            let before = Instant::now();
            if let Some((config_map, members)) = self.look().await {
                let data = config_map.and_then(|config_map| config_map.data);
                let named = data.and_then(|data| data.get(LEADER).cloned()).unwrap_or_default();
                let leads = named == self.pod && members.contains(&self.pod);
                *self.leads.lock().unwrap() = leads.then(|| (claim, before + self.periods.renew));
                if !leads {
                    return;
                }
            }
            sleep(self.periods.retry).await;
        }
    }
}

fn version(config_map: &ConfigMap) -> Option<u64> {
    config_map.metadata.resource_version.as_deref()?.parse().ok()
}

fn is_ready(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && status.phase.as_deref() == Some("Running")
}
