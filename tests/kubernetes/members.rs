//! What is known of members beside who leads: by their pods and their sessions, and what is forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bactrian::cluster_kubernetes::{KubernetesClusterSettings, PodIdentity, Timing};
use bactrian::prelude::*;
use kube::api::DeleteParams;
use serde_json::json;
use tokio::runtime::Runtime;

use super::config_map::make_pod;
use super::pods::patch_status;
use super::stage::{Stage, VERBS};

/// A short takeover wait, so that what is long over is soon long over.
fn timing() -> Timing {
    Timing {
        profile: None,
        takeover_wait: Some(Duration::from_millis(1_500)),
        deadline: Some(Duration::from_millis(1_000)),
        stop: Some(Duration::from_millis(300)),
        heartbeat: Some(Duration::from_millis(300)),
        rate_error_ppm: None,
    }
}

/// A member in this process, on a runtime of its own: it crashes when that is shut down.
struct Known {
    runtime: Runtime,
    cluster: Arc<KubernetesCluster>,
    view: ClusterView,
}

fn join(stage: &Stage, pod: &str, cluster_labels: Option<&str>) -> Known {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let settings = KubernetesClusterSettings {
        namespace: Some(stage.namespace.clone()),
        timing: timing(),
        cluster_labels: cluster_labels.map(str::to_owned),
        identity: Some(PodIdentity { name: Some(pod.into()), ..PodIdentity::default() }),
        api_server: Some(stage.server.admin()),
        ..KubernetesClusterSettings::default()
    };
    let (cluster, view) = runtime.block_on(async {
        let cluster = KubernetesCluster::open(settings).await.unwrap();
        let view = cluster.view(&"lock1".parse().unwrap()).await.unwrap();
        (cluster, view)
    });
    Known { runtime, cluster, view }
}

impl Known {
    /// The hosts of all members that it knows of.
    fn hosts(&self) -> Vec<String> {
        let mut hosts = self
            .view
            .members()
            .into_iter()
            .map(|member| member.host.unwrap().to_string())
            .collect::<Vec<_>>();
        hosts.sort();
        hosts
    }

    fn leads(&self) {
        let lead = async { tokio::time::timeout(Duration::from_secs(20), self.view.lead()).await };
        drop(self.runtime.block_on(lead).unwrap().unwrap());
    }

    fn crash(self) {
        let Self { runtime, cluster, view } = self;
        // What is dropped while the runtime still runs would be given up in good order.
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop((cluster, view));
    }
}

fn wait<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, mut look: impl FnMut() -> T) {
    let patience = Instant::now() + Duration::from_secs(40);
    loop {
        let found = look();
        if found == *wanted {
            return;
        }
        assert!(Instant::now() < patience, "waited 40 s for {what} {wanted:?}, found {found:?}");
        super::pause();
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn members_that_stand_by_are_known_by_their_pods() {
    let stage = Stage::new("known");
    for pod in ["clock-0", "clock-1", "clock-2"] {
        make_pod(&stage, pod);
    }
    let leader = join(&stage, "clock-0", Some("app=clock"));
    leader.leads();
    let standby = join(&stage, "clock-1", Some("app=clock"));
    let blind = join(&stage, "clock-2", None);
    wait("all pods", &names(&["clock-0", "clock-1", "clock-2"]), || standby.hosts());
    assert_eq!(leader.hosts(), names(&["clock-0", "clock-1", "clock-2"]));
    let ids = standby.view.members().into_iter().map(|member| member.id).collect::<Vec<_>>();
    assert!(ids.contains(&leader.cluster.local().id), "who has a session is known by it: {ids:?}");
    assert!(ids.contains(&"clock-2".into()), "who has none is known by its pod: {ids:?}");
    wait("sessions", &names(&["clock-0", "clock-2"]), || blind.hosts());
    // Not ready is no member, and gone is none either; but whoever holds a lock is one.
    patch_status(&stage, "clock-2", &json!({"conditions": [{"type": "Ready", "status": "False"}]}));
    let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    stage.block(async { stage.pods().delete("clock-0", &params).await }).unwrap();
    wait("those that are left", &names(&["clock-0", "clock-1"]), || standby.hosts());
}

#[test]
#[ignore = "needs an API server; `tests/run` brings one"]
fn the_sessions_of_a_container_that_crashes_again_and_again_do_not_pile_up() {
    let stage = Stage::new("piles");
    stage.allow(&[VERBS, &["delete"]].concat());
    for _ in 0..4 {
        let one = join(&stage, "clock-0", None);
        one.leads();
        one.crash();
    }
    let last = join(&stage, "clock-0", None);
    last.leads();
    assert_eq!(stage.sessions().len(), 5);
    wait("one session", &1, || stage.sessions().len());
    last.leads();
    last.runtime.block_on(last.cluster.close());
    assert!(stage.sessions().is_empty());
}
