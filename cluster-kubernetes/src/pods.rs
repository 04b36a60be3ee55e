//! The watch over the pods of the members: which there are, which are ready, and what has ended in them.
//!
//! With Leases it only makes a takeover faster and members known, and the election does without it: whatever
//! goes wrong here is one line in the log and another try.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::time::Duration;

use cluster_lease::StoreError;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, WatchParams};
use kube::core::WatchEvent;
use router_core::cluster::Member;
use router_core::error::Chain;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info};

use crate::clients::Clients;
use crate::errors::{self, RequestContext, Who};
use crate::rules::PODS;
use crate::termination_message;

/// How long a list, or the beginning of a watch, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after the first failure, and after a watch that the server ended.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The server is asked to end each watch after this time; then pods are listed again. What a connection that
/// died without a word has missed is known by then.
const LONGEST_WATCH: Duration = Duration::from_secs(60);
/// How much later the end may arrive.
const LATE: Duration = Duration::from_secs(5);
/// More ended incarnations are forgotten, oldest first. Their sessions are long gone.
const MOST_ENDED: usize = 1024;

/// The pods of the members, as they were last seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pods {
    /// Whether they were seen at all.
    pub(crate) known: bool,
    standing: BTreeMap<String, Standing>,
    /// The incarnations that have ended, newest last.
    ended: VecDeque<u128>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    ready: bool,
    /// It is being deleted.
    leaving: bool,
}

impl Pods {
    /// Whether the pod is there and ready. That is who counts as a member in Camel, too.
    pub(crate) fn is_ready(&self, name: &str) -> bool {
        self.standing.get(name).is_some_and(|pod| pod.ready)
    }

    /// Whether it is known of this process that it has ended.
    pub(crate) fn has_ended(&self, incarnation: u128) -> bool {
        self.ended.contains(&incarnation)
    }

    /// The ready pods as members: what one is called that has no session.
    pub(crate) fn members(&self) -> Vec<Member> {
        let ready = self.standing.iter().filter(|(_, pod)| pod.ready);
        let member = |name: &String| Member { host: Some(name.into()), ..Member::new(name) };
        ready.map(|(name, _)| member(name)).collect()
    }

    /// The names of the pods that may take locks: those that will stay.
    pub(crate) fn candidates(&self) -> Vec<String> {
        let staying = self.standing.iter().filter(|(_, pod)| pod.ready && !pod.leaving);
        staying.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn replace(&mut self, pods: &[Pod]) {
        self.known = true;
        self.standing.clear();
        for pod in pods {
            self.note(pod);
        }
    }

    fn note(&mut self, pod: &Pod) {
        self.note_ended(pod);
        if let Some(name) = pod.metadata.name.clone() {
            let standing =
                Standing { ready: is_ready(pod), leaving: pod.metadata.deletion_timestamp.is_some() };
            self.standing.insert(name, standing);
        }
    }

    /// The last status of a pod that is gone still counts: what has terminated does not come back.
    fn note_gone(&mut self, pod: &Pod) {
        self.note_ended(pod);
        if let Some(name) = &pod.metadata.name {
            self.standing.remove(name);
        }
    }

    fn note_ended(&mut self, pod: &Pod) {
        for incarnation in termination_message::ended(pod) {
            if !self.ended.contains(&incarnation) {
                self.ended.push_back(incarnation);
            }
        }
        let superfluous = self.ended.len().saturating_sub(MOST_ENDED);
        self.ended.drain(..superfluous);
    }
}

fn is_ready(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let running = status.phase.as_deref() == Some("Running");
    let conditions = status.conditions.as_deref().unwrap_or_default();
    running && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The watch. It ends when it is dropped.
pub(crate) struct PodWatch {
    pub(crate) clients: Clients,
    pub(crate) namespace: String,
    /// The label selector of the members' pods; empty: all pods.
    pub(crate) labels: String,
    /// What does not work without it, for the log.
    pub(crate) without: &'static str,
    pub(crate) seen: watch::Sender<Pods>,
}

impl PodWatch {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut pause = PAUSE;
        let mut quiet = false;
        loop {
            let began = Instant::now();
            let Err(error) = self.list_and_watch().await else {
                (pause, quiet) = (PAUSE, false);
                // Some servers end watches at once; none may make us spin.
                sleep(PAUSE.saturating_sub(began.elapsed())).await;
                continue;
            };
            if quiet {
                debug!("the pods of the members cannot be watched: {}", Chain(&error));
            } else {
                info!("the pods of the members cannot be watched, so {}: {}", self.without, Chain(&error));
            }
            quiet = true;
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn asked(&self, verb: &'static str) -> RequestContext<'_> {
        RequestContext { verb, rule: &PODS, namespace: &self.namespace, object: None, by: Who::Member }
    }

    /// `Ok`: the server ended the watch in good order.
    async fn list_and_watch(&self) -> Result<(), StoreError> {
        let client = self.clients.another().map_err(|error| errors::error(self.asked("list"), error))?;
        let api = Api::<Pod>::namespaced(client, &self.namespace);
        let late = |_| StoreError::unknown("the API server did not answer in time");
        let params = ListParams::default().labels(&self.labels);
        let list = timeout(PATIENCE, api.list(&params)).await.map_err(late)?;
        let list = list.map_err(|error| errors::error(self.asked("list"), error))?;
        self.seen.send_modify(|pods| pods.replace(&list.items));
        let version = list.metadata.resource_version.unwrap_or_default();
        let seconds = u32::try_from(LONGEST_WATCH.as_secs()).unwrap_or(u32::MAX);
        let params = WatchParams::default().labels(&self.labels).timeout(seconds);
        let watch = timeout(PATIENCE, api.watch(&params, &version)).await.map_err(late)?;
        let mut watch = pin!(watch.map_err(|error| errors::error(self.asked("watch"), error))?);
        let end = Instant::now() + LONGEST_WATCH + LATE;
        while let Some(event) = timeout_at(end, watch.next()).await.map_err(late)? {
            match event.map_err(|error| errors::error(self.asked("watch"), error))? {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    self.seen.send_modify(|pods| pods.note(&pod));
                }
                WatchEvent::Deleted(pod) => self.seen.send_modify(|pods| pods.note_gone(&pod)),
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => return Err(errors::refusal(self.asked("watch"), &status)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) fn pod(name: &str, phase: &str, ready: bool) -> Pod {
    let status = if ready { "True" } else { "False" };
    let json = serde_json::json!({"metadata": {"name": name},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": status}]}});
    serde_json::from_value(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_api_server::{FakeServer, Fault};

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_died_without_a_word_is_opened_anew() {
        let server = FakeServer::new();
        server.put("pods", &pod("clock-0", "Running", true));
        server.script(|_| Fault::Deaf);
        let (seen, mut pods) = watch::channel(Pods::default());
        let (clients, namespace) = (server.clients(), "shop".to_owned());
        let watching = PodWatch { clients, namespace, labels: String::new(), without: "", seen };
        let gone = async {
            pods.wait_for(|pods| pods.is_ready("clock-0")).await.unwrap();
            server.put("pods", &pod("clock-0", "Failed", true));
            timeout(Duration::from_secs(90), pods.wait_for(|pods| !pods.is_ready("clock-0"))).await.is_ok()
        };
        let gone = tokio::select! {
            biased;
            gone = gone => gone,
            () = watching.run() => unreachable!("it runs until it is dropped"),
        };
        assert!(gone, "it is never seen");
        assert!(server.seen.lock().unwrap().len() < 10, "and it does not spin");
    }

    #[test]
    fn a_pod_counts_while_it_runs_and_is_ready() {
        let mut pods = Pods::default();
        assert!(!pods.known);
        let failed = pod("clock-2", "Failed", true);
        pods.replace(&[pod("clock-0", "Running", true), pod("clock-1", "Running", false), failed]);
        assert!(pods.known && pods.is_ready("clock-0"));
        assert!(!pods.is_ready("clock-1") && !pods.is_ready("clock-2") && !pods.is_ready("clock-3"));
        let mut leaving = pod("clock-0", "Running", true);
        assert_eq!(pods.candidates(), ["clock-0"]);
        leaving.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        pods.note(&leaving);
        assert!(pods.candidates().is_empty() && pods.is_ready("clock-0"));
        pods.note_gone(&leaving);
        assert!(pods.members().is_empty());
    }
}
