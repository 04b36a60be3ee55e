//! Events about leadership on the object of the lock, as `kubectl describe` shows them.
//!
//! They are for humans. The election never waits for them: it puts them into a queue, and what does not fit
//! is dropped. Each term is an event of its own; of one term the same is counted up.

use std::time::Duration;

use cluster_lease::{Transition, TransitionKind};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use router_core::cluster::Member;
use router_core::error::Chain;
use router_core::source::floor_char_boundary;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use crate::clients::Clients;
use crate::names::MANAGED_BY;
use crate::rules::EVENTS;

/// More changes of leadership than these are not waiting to be told.
const QUEUE: usize = 64;
/// How long one event may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often one event is tried.
const TRIES: u32 = 30;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_secs(5);

/// The way to the queue; it ends with the last one who knows the way.
#[derive(Clone)]
pub(crate) struct Events(mpsc::Sender<Told>);

enum Told {
    Change(Transition),
    /// Whoever closes waits for what is before it in the queue.
    Flush(oneshot::Sender<()>),
}

/// The task behind the queue.
pub(crate) struct Publisher {
    clients: Clients,
    member: Member,
    /// The object of a lock.
    regarding: Box<dyn Fn(&Transition) -> ObjectReference + Send + Sync>,
    queue: mpsc::Receiver<Told>,
}

impl Events {
    pub(crate) fn new(
        clients: Clients,
        member: Member,
        regarding: impl Fn(&Transition) -> ObjectReference + Send + Sync + 'static,
    ) -> (Self, Publisher) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let publisher = Publisher { clients, member, regarding: Box::new(regarding), queue };
        (Self(sender), publisher)
    }

    /// Returns at once.
    pub(crate) fn tell(&self, transition: Transition) {
        if self.0.try_send(Told::Change(transition)).is_err() {
            debug!("an event is dropped, because there are too many or nobody writes them");
        }
    }

    /// Returns when what was told is written, or `time` has passed.
    pub(crate) async fn flush(&self, time: Duration) {
        let (done, flushed) = oneshot::channel();
        if self.0.try_send(Told::Flush(done)).is_ok() {
            // An error means that nobody writes any more.
            let _ = timeout(time, flushed).await;
        }
    }
}

impl Publisher {
    /// Runs until nobody tells any more, or until this member turns out to have no right to.
    pub(crate) async fn run(mut self) {
        let mut recorder = None;
        while let Some(told) = self.queue.recv().await {
            let transition = match told {
                Told::Change(transition) => transition,
                Told::Flush(done) => {
                    // Whoever waited may have given up.
                    let _ = done.send(());
                    continue;
                }
            };
            if !self.publish(&mut recorder, &transition).await {
                return;
            }
        }
    }

    /// Tries for a while, because a term that is lost is often lost together with the API server. Says whether
    /// to go on.
    async fn publish(&self, recorder: &mut Option<Recorder>, transition: &Transition) -> bool {
        let mut regarding = (self.regarding)(transition);
        // It also keeps the events of different terms apart.
        regarding.resource_version = Some(transition.term.to_string());
        let event = event(transition, &self.member);
        for attempt in 0..TRIES {
            if attempt > 0 {
                sleep(PAUSE).await;
            }
            let Some(open) = recorder.take().or_else(|| self.recorder()) else { continue };
            match timeout(PATIENCE, open.publish(&event, &regarding)).await {
                Ok(Ok(())) => {
                    *recorder = Some(open);
                    return true;
                }
                Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                    let namespace = regarding.namespace.unwrap_or_default();
                    info!("{}; the API server: {}", without(&namespace, EVENTS.verbs), status.message);
                    return false;
                }
                // The next try takes a new connection.
                Ok(Err(error)) => debug!("an event cannot be written: {}", Chain(&error)),
                Err(_) => debug!("an event cannot be written: the API server did not answer in time"),
            }
        }
        true
    }

    fn recorder(&self) -> Option<Recorder> {
        let client = self.clients.another().ok()?;
        let instance = Some(self.member.id.to_string());
        Some(Recorder::new(client, Reporter { controller: MANAGED_BY.into(), instance }))
    }
}

/// The one line about a right that is missing.
pub(crate) fn without(namespace: &str, missing: &[&str]) -> String {
    format!(
        "changes of leadership are not told as Events: for these, this member's Role in the namespace \
         {namespace} needs the rule {}",
        EVENTS.yaml(missing)
    )
}

fn event(transition: &Transition, member: &Member) -> Event {
    let Transition { lock, term, kind, why } = transition;
    let (type_, reason, action, does) = match kind {
        TransitionKind::Elected => (EventType::Normal, "LeaderElected", "Elect", "leads"),
        TransitionKind::Released => (EventType::Normal, "LeaderReleased", "Release", "gives up"),
        TransitionKind::Lost => (EventType::Warning, "LeaderLost", "Lose", "has lost"),
    };
    let mut note = format!("{member} {does} `{lock}`, term {term}: {why}");
    // The API takes 1024 bytes, and a lock alone may have as many.
    note.truncate(floor_char_boundary(&note, 1000));
    Event { type_, reason: reason.into(), note: Some(note), action: action.into(), secondary: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_who_which_term_and_why() {
        let lock = "ü".repeat(510).parse().unwrap();
        let lost = Transition { lock, term: 7, kind: TransitionKind::Lost, why: "why".into() };
        let note = event(&lost, &Member::new("clock-0_1")).note.unwrap();
        assert!(note.starts_with("clock-0_1 has lost `ü") && note.len() <= 1000);
        let elected = Transition { lock: "lock1".parse().unwrap(), kind: TransitionKind::Elected, ..lost };
        let event = event(&elected, &Member::new("clock-0_1"));
        assert_eq!(event.note.as_deref(), Some("clock-0_1 leads `lock1`, term 7: why"));
        assert_eq!((event.type_, event.reason.as_str()), (EventType::Normal, "LeaderElected"));
    }
}
