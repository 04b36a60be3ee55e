//! The watch over the pods of the members, for proof that a process has ended.
//!
//! It only makes a takeover faster. The election does without it, so whatever goes wrong here is one line
//! in the log and another try.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cluster_lease::{Death, LeaseCluster, SessionId};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, WatchParams};
use kube::core::WatchEvent;
use router_core::error::Chain;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use crate::errors::{self, Asked, PODS};
use crate::last_words;
use crate::store::Shared;

/// How long a list, or the beginning of a watch, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(crate) struct PodWatch {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cluster: Arc<LeaseCluster>,
    /// The label selector of the members' pods.
    pub(crate) labels: String,
}

/// The incarnations that have ended, newest last.
#[derive(Default)]
struct Ended(VecDeque<u128>);

/// More are forgotten, oldest first. Their sessions are long gone.
const MOST_ENDED: usize = 1024;

impl Ended {
    fn note(&mut self, pod: &Pod) {
        for incarnation in last_words::ended(pod) {
            if !self.0.contains(&incarnation) {
                self.0.push_back(incarnation);
            }
        }
        let superfluous = self.0.len().saturating_sub(MOST_ENDED);
        self.0.drain(..superfluous);
    }
}

impl PodWatch {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut pause = Duration::from_secs(1);
        let mut quiet = false;
        loop {
            let Err(error) = self.list_and_watch().await else {
                pause = Duration::from_secs(1);
                quiet = false;
                continue;
            };
            if quiet {
                debug!("the pods of the members cannot be watched: {}", Chain(&error));
            } else {
                info!(
                    "the pods of the members cannot be watched, so a takeover after a crash takes the whole \
                     takeover wait: {}",
                    Chain(&error)
                );
            }
            quiet = true;
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn asked(&self, verb: &'static str) -> Asked<'_> {
        Asked { verb, rule: &PODS, namespace: &self.shared.namespace }
    }

    /// `Ok`: the server ended the watch in good order.
    async fn list_and_watch(&self) -> Result<(), cluster_lease::StoreError> {
        let client = self.shared.clients.watch().map_err(|error| errors::error(self.asked("list"), error))?;
        let api = Api::<Pod>::namespaced(client, &self.shared.namespace);
        let late = |_| cluster_lease::StoreError::unknown("the API server did not answer in time");
        let params = ListParams::default().labels(&self.labels);
        let list = timeout(PATIENCE, api.list(&params)).await.map_err(late)?;
        let list = list.map_err(|error| errors::error(self.asked("list"), error))?;
        let mut ended = Ended::default();
        for pod in &list.items {
            ended.note(pod);
        }
        let mut sessions = self.cluster.sessions();
        sessions.mark_changed();
        let version = list.metadata.resource_version.unwrap_or_default();
        let params = WatchParams::default().labels(&self.labels);
        let watch = timeout(PATIENCE, api.watch(&params, &version)).await.map_err(late)?;
        let mut watch = pin!(watch.map_err(|error| errors::error(self.asked("watch"), error))?);
        loop {
            tokio::select! {
                biased;
                // Evidence of a session that the election does not know yet is lost, so it is repeated.
                changed = sessions.changed() => if changed.is_err() { return std::future::pending().await },
                event = watch.next() => {
                    let Some(event) = event else { return Ok(()) };
                    match event.map_err(|error| errors::error(self.asked("watch"), error))? {
                        WatchEvent::Added(pod) | WatchEvent::Modified(pod) => ended.note(&pod),
                        // The last status still counts: what has terminated does not come back.
                        WatchEvent::Deleted(pod) => ended.note(&pod),
                        WatchEvent::Bookmark(_) => {}
                        WatchEvent::Error(status) => return Err(errors::refusal(self.asked("watch"), &status)),
                    }
                }
            }
            let present =
                sessions.borrow_and_update().iter().map(|(session, _)| *session).collect::<Vec<_>>();
            self.report(&ended, &present);
        }
    }

    fn report(&self, ended: &Ended, sessions: &[SessionId]) {
        for session in sessions.iter().filter(|session| ended.0.contains(&session.incarnation)) {
            info!(%session, "its container has terminated, says the kubelet");
            self.cluster.report(*session, Death::Proof);
        }
    }
}
