//! [`Survey`]: who leads, for people and tools that take no part in the election.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::pin;
use std::time::Duration;

use cluster_lease::{Limits, LockRecord, Request, SessionId, Settings, StoreError, StoreKey, StoreRecord};
use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, WatchParams};
use kube::core::{ObjectList, WatchEvent};
use router_core::cluster::{ClusterError, LockName, MemberTiming, Timing};
use tokio::time::timeout;

use crate::clients::Clients;
use crate::codec::{Codec, Decoded};
use crate::config_map::RESOURCE_NAME;
use crate::errors::{self, RequestContext, Who};
use crate::list;
use crate::names::{GROUP_LABEL, KIND_LABEL, ROUTES_ANNOTATION};
use crate::place::place_of;
use crate::rules::{LEASES, PODS, Rule};
use crate::settings::{KubernetesClusterSettings, Resource};
use crate::unlisted::Unlisted;

/// How long an answer of the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A watch that says nothing for this long may have died without a word.
const LONGEST_WATCH: Duration = Duration::from_secs(60);

/// What a record of a newer format is.
const NEWER: &str = "which only a newer version of this program reads; its writer counts as alive";

/// Looks at the locks of a group. It writes nothing, and needs the rights to list and watch its Leases;
/// with that to list pods it also sees members that have never led.
pub struct Survey {
    clients: Clients,
    namespace: String,
    codec: Codec,
    cluster_labels: String,
}

impl fmt::Debug for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Survey").finish_non_exhaustive()
    }
}

/// What was seen at one time.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The locks, by name.
    pub locks: BTreeMap<LockName, LockStatus>,
    /// The live members that are drained, by pod or host: they hold nothing, or are about to.
    pub drained: BTreeSet<String>,
    /// What the members live by whose sessions are alive. Where they differ, takeovers take as long as the slowest of
    /// them says.
    pub timings: Vec<MemberTiming>,
    /// Why pods were not seen, so that members which have never led are missing among the standbys.
    pub without_pods: Option<String>,
    /// Where no pod was seen: what keeps members that hold nothing out of sight, in one clause.
    pub without_trace: Option<String>,
    /// How many sessions have ended and stay, because no pod owns them.
    pub left_over: usize,
    version: String,
    /// When a holder that lives now counts as silent, if nothing is heard of it until then.
    silent_in: Option<Duration>,
}

/// One lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockStatus {
    /// Who holds it.
    pub holder: Option<LockHolder>,
    /// The live members of the group that do not hold it: pods that run, and sessions with a heartbeat.
    pub standbys: BTreeSet<String>,
    /// The routes that use it, as the manifest had it that made the lock.
    pub routes: Vec<String>,
    /// Why it is not known who holds it: a newer version of this program has written what would say so.
    pub unreadable: Option<String>,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockHolder {
    /// The member: pod and incarnation.
    pub member: String,
    /// Its pod or host.
    pub host: String,
    /// The number of the term. A Lease that somebody edits while it is held shows too high a number until
    /// the next term: the store knows the version of its last change only.
    pub term: u64,
    /// Whether the wait that a claim may owe is known to be over.
    pub settled: bool,
    /// When it took the lock, by the clock of the API server, to about a second. Where its session is gone,
    /// by its own clock.
    pub since: Option<Timestamp>,
    /// How long ago that was.
    pub held: Option<Duration>,
    /// How long ago it sent its last heartbeat, to about a second; `None`: its session is gone.
    ///
    /// No two clocks are compared: it is the time since the session was made, by the clock of the API
    /// server, less the time from then to the heartbeat, by the clock of the member. How far the member's
    /// clock is off does not matter; a step of it since the session was made does.
    pub heartbeat_age: Option<Duration>,
    /// What it lives by, where its records say it.
    pub timing: Option<Timing>,
    /// Whether its session lives: nobody has ended it, and the last heartbeat is younger than the takeover
    /// wait.
    pub alive: bool,
}

struct SessionStatus {
    member: String,
    host: String,
    /// How far the clock of the API server is before that of the member.
    ahead: SignedDuration,
    age: Duration,
    alive: bool,
    /// When it counts as silent.
    silent_in: Duration,
    timing: Option<Timing>,
}

impl SessionStatus {
    fn timing(&self) -> Option<MemberTiming> {
        let (host, member) = (self.host.clone(), self.member.clone());
        self.timing.map(|timing| MemberTiming { host, member, timing })
    }
}

impl Survey {
    /// Finds the API server and the namespace as [`KubernetesCluster`](crate::KubernetesCluster) does.
    ///
    /// # Errors
    /// When there is no way to an API server, and in the compatibility mode with Camel.
    pub async fn open(settings: &KubernetesClusterSettings) -> Result<Self, ClusterError> {
        if settings.resource == Resource::ConfigMap {
            let name = settings.resource_name.as_deref().unwrap_or(RESOURCE_NAME);
            let text = format!(
                "in the compatibility mode with Camel the locks are entries of the ConfigMap: `kubectl get configmap \
                 {name} -o yaml` shows them"
            );
            return Err(ClusterError::Unusable(text, None));
        }
        let (config, _, namespace) = place_of(settings).await?;
        let group = settings.group.clone();
        // The labels that a manifest gives to pods.
        let cluster_labels = settings.cluster_labels.clone().unwrap_or_else(|| group.selector());
        let codec = Codec { group, owner: None, takeover_wait_seconds: i32::MAX };
        Ok(Self {
            // A person waits for it.
            clients: Clients::of_config(config, &Settings::default()).beside(),
            namespace,
            codec,
            cluster_labels,
        })
    }

    /// The namespace of the Leases.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Looks once.
    ///
    /// # Errors
    /// When the API server cannot be asked or refuses; the text names a right that is missing.
    pub async fn look(&self) -> Result<Seen, StoreError> {
        let (leases, now) = self.leases().await?;
        let (pods, without_pods) = match self.pods().await {
            Ok(pods) => (pods, None),
            Err(error) => (BTreeSet::new(), Some(error.to_string())),
        };
        let sessions = leases.items.iter().filter_map(|lease| self.session(lease, now));
        let sessions = sessions.collect::<BTreeMap<_, _>>();
        let hosts = sessions.values().filter(|session| session.alive).map(|session| session.host.clone());
        let asked = leases.items.iter().filter_map(|lease| self.drained(lease)).collect::<BTreeSet<_>>();
        let without_trace = pods.is_empty().then(|| self.why_without_pods(without_pods.as_deref()));
        // Where no pod is seen, only the request tells of a member that holds nothing because it is drained.
        let (drained, members) = hosts.chain(pods).partition::<BTreeSet<_>, _>(|host| asked.contains(host));
        let drained = if without_trace.is_some() { asked } else { drained };
        let timings = sessions.values().filter(|session| session.alive);
        let timings = timings.filter_map(SessionStatus::timing).collect();
        let newer = leases.items.iter().filter_map(|lease| self.newer_session(lease)).collect();
        let locks =
            leases.items.iter().filter_map(|lease| self.lock(lease, now, (&sessions, &newer), &members));
        let locks = locks.collect::<BTreeMap<_, _>>();
        let left_over = leases.items.iter().filter(|lease| self.codec.is_left_over(lease)).count();
        let version = leases.metadata.resource_version.unwrap_or_default();
        let silent_in =
            sessions.values().filter(|session| session.alive).map(|session| session.silent_in).min();
        Ok(Seen { locks, drained, timings, without_pods, without_trace, left_over, version, silent_in })
    }

    /// Waits until a lock has changed since `seen`, until a holder may have become silent, or for a minute: looking
    /// again tells. Heartbeats are no changes.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    ///
    /// # Cancellation
    /// Safe.
    pub async fn changed(&self, seen: &Seen) -> Result<(), StoreError> {
        let asked = self.asked("watch", &LEASES);
        let client = self.clients.another().map_err(|error| errors::error(asked, error))?;
        let api = Api::<Lease>::namespaced(client, &self.namespace);
        let labels = format!("{},{KIND_LABEL}=lock", self.codec.group.selector());
        let params = WatchParams::default().labels(&labels).disable_bookmarks();
        let next = async {
            let events = api.watch(&params, &seen.version).await;
            let mut events = pin!(events.map_err(|error| errors::error(asked, error))?);
            match events.next().await {
                // It is no longer known what has changed since.
                Some(Ok(WatchEvent::Error(status))) if status.code == 410 => Ok(()),
                Some(Ok(WatchEvent::Error(status))) => Err(errors::refusal(asked, &status)),
                Some(Err(error)) => Err(errors::error(asked, error)),
                Some(Ok(_)) | None => Ok(()),
            }
        };
        let patience = seen.silent_in.map_or(LONGEST_WATCH, |silent_in| silent_in.min(LONGEST_WATCH));
        timeout(patience, next).await.unwrap_or(Ok(()))
    }

    fn asked(&self, verb: &'static str, rule: &'static Rule) -> RequestContext<'_> {
        RequestContext { verb, rule, namespace: &self.namespace, object: None, by: Who::Person }
    }

    /// The Leases of the group, and the time of the API server.
    async fn leases(&self) -> Result<(ObjectList<Lease>, Timestamp), StoreError> {
        let asked = self.asked("list", &LEASES);
        let client = self.clients.ordinary().map_err(|error| errors::error(asked, error))?;
        let (leases, now) = list::leases(&client, asked, &self.codec.group.selector(), PATIENCE).await?;
        Ok((leases, now.unwrap_or_else(Timestamp::now)))
    }

    fn why_without_pods(&self, refused: Option<&str>) -> String {
        match refused {
            Some(_) => {
                "no member has a session, and pods cannot be listed, so standbys may be alive".to_owned()
            }
            None => format!(
                "no member has a session, and no pod runs that has the labels {} (of the group {}; the file of the \
                 routes names others)",
                self.cluster_labels, self.codec.group
            ),
        }
    }

    /// Why no list shows a lock that routes name.
    pub async fn why_missing(&self, lock: &LockName) -> String {
        let absent = "it has no Lease: no member has led it yet, or it was deleted".to_owned();
        let name = self.codec.group.lock_lease(lock);
        let Ok(client) = self.clients.ordinary() else { return absent };
        let api = Api::<Lease>::namespaced(client, &self.namespace);
        match timeout(PATIENCE, api.get_opt(&name)).await {
            Ok(Ok(Some(lease))) => match Unlisted::of(&self.codec, &lease, &self.namespace) {
                Unlisted::Listed => "it has a Lease by now".into(),
                Unlisted::Adopt => format!(
                    "the Lease {name} has not the label {GROUP_LABEL}={}: the next leader gives it to it",
                    self.codec.group
                ),
                Unlisted::Foreign(text) => text,
            },
            Ok(Ok(None)) => absent,
            Ok(Err(_)) | Err(_) => format!("the list of Leases does not show it, and {name} cannot be read"),
        }
    }

    /// The names of the members' pods that run and are not asked to stop.
    async fn pods(&self) -> Result<BTreeSet<String>, StoreError> {
        let asked = self.asked("list", &PODS);
        let client = self.clients.ordinary().map_err(|error| errors::error(asked, error))?;
        let api = Api::<Pod>::namespaced(client, &self.namespace);
        let params = ListParams::default().labels(&self.cluster_labels);
        let late = |_| StoreError::unknown("the API server did not answer in time");
        let pods = timeout(PATIENCE, api.list(&params)).await.map_err(late)?;
        let pods = pods.map_err(|error| errors::error(asked, error))?;
        let runs = |pod: &Pod| {
            let status = pod.status.as_ref();
            let containers = status.and_then(|status| status.container_statuses.as_ref());
            let running = containers.into_iter().flatten().filter_map(|container| container.state.as_ref());
            pod.metadata.deletion_timestamp.is_none()
                && status.and_then(|status| status.phase.as_deref()) == Some("Running")
                && running.into_iter().any(|state| state.running.is_some())
        };
        Ok(pods.items.into_iter().filter(runs).filter_map(|pod| pod.metadata.name).collect())
    }

    fn session(&self, lease: &Lease, now: Timestamp) -> Option<(SessionId, SessionStatus)> {
        let Decoded { key: StoreKey::Session(id), record, .. } = self.codec.record_of(lease).ok()?? else {
            return None;
        };
        let Some(StoreRecord::Session { record, member }) = record else { return None };
        let spec = lease.spec.as_ref()?;
        let (ahead, heartbeat) = (ahead(lease)?, spec.renew_time.as_ref()?.0);
        let wait = spec.lease_duration_seconds?;
        let age = between(saturating(heartbeat, ahead), now);
        let wait = Duration::from_secs(u64::try_from(wait).unwrap_or(0));
        let alive = record.dead.is_none() && age.as_secs() <= wait.as_secs();
        let silent_in = wait.saturating_sub(age) + Duration::from_secs(1);
        let timing = record.limits.map(timing);
        let host = member.host.as_deref().unwrap_or(&member.id).to_owned();
        Some((
            id,
            SessionStatus { member: member.id.to_string(), host, ahead, age, alive, silent_in, timing },
        ))
    }

    /// A session whose record has a format that this program does not read.
    fn newer_session(&self, lease: &Lease) -> Option<SessionId> {
        match self.codec.record_of(lease).ok()?? {
            Decoded { key: StoreKey::Session(id), record: Some(StoreRecord::Newer { .. }), .. } => Some(id),
            _ => None,
        }
    }

    /// The host that an operator has drained, if that is what the Lease asks for.
    fn drained(&self, lease: &Lease) -> Option<String> {
        let record = self.codec.record_of(lease).ok()??.record;
        let Some(StoreRecord::Request(Request::Drain { member, .. })) = record else { return None };
        Some(host_of(&member).to_owned())
    }

    fn lock(
        &self,
        lease: &Lease,
        now: Timestamp,
        (sessions, newer): (&BTreeMap<SessionId, SessionStatus>, &BTreeSet<SessionId>),
        members: &BTreeSet<String>,
    ) -> Option<(LockName, LockStatus)> {
        let Decoded { version, key: StoreKey::Lock(lock), record } = self.codec.record_of(lease).ok()??
        else {
            return None;
        };
        let routes = lease.metadata.annotations.as_ref().and_then(|notes| notes.get(ROUTES_ANNOTATION));
        let routes = routes.into_iter().flat_map(|routes| routes.split(", ")).map(str::to_owned).collect();
        if let Some(StoreRecord::Newer { format }) = &record {
            let unreadable = Some(format!("its record has the format {format}, {NEWER}"));
            return Some((lock, LockStatus { holder: None, standbys: members.clone(), routes, unreadable }));
        }
        let Some(StoreRecord::Lock {
            record: LockRecord { holder, term: floor, settled, limits, .. },
            term,
            ..
        }) = record
        else {
            return None;
        };
        let unreadable = holder.filter(|holder| newer.contains(holder));
        let unreadable = unreadable.map(|_| format!("the session of its holder has a format {NEWER}"));
        let spec = lease.spec.as_ref();
        let shown = spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let since = spec.and_then(|spec| spec.acquire_time.as_ref()).map(|time| time.0);
        let holder = holder.map(|session| {
            let session = sessions.get(&session);
            let since = since.map(|since| session.map_or(since, |session| saturating(since, session.ahead)));
            let member = session.map_or(shown, |session| session.member.clone());
            let host = host_of(&member).to_owned();
            LockHolder {
                host: session.map_or(host, |session| session.host.clone()),
                member,
                // Until its leader has written it down, it is the version of the claim.
                term: term.unwrap_or(version.max(floor)),
                settled,
                since,
                held: since.map(|since| between(since, now)),
                heartbeat_age: session.map(|session| session.age),
                timing: limits.map(timing).or_else(|| session?.timing),
                alive: session.is_some_and(|session| session.alive),
            }
        });
        let mut standbys = members.clone();
        if let Some(holder) = &holder {
            standbys.remove(&holder.host);
        }
        Some((lock, LockStatus { holder, standbys, routes, unreadable }))
    }
}

fn timing(limits: Limits) -> Timing {
    let Limits { deadline, stop, rate_error_ppm } = limits;
    Timing { deadline, stop, clock_error_ppm: rate_error_ppm }
}

/// A member is called by its pod and the beginning of its incarnation, a pod by itself.
fn host_of(name: &str) -> &str {
    name.rsplit_once('_').map_or(name, |(host, _)| host)
}

/// How far the clock of the API server is before that of the member, from the one moment that both have noted:
/// when the session was made.
fn ahead(session: &Lease) -> Option<SignedDuration> {
    let server = session.metadata.creation_timestamp.as_ref()?.0;
    let member = session.spec.as_ref()?.acquire_time.as_ref()?.0;
    Some(server.duration_since(member))
}

/// Times of a Lease are not under its seal, so they may be any.
fn saturating(time: Timestamp, later: SignedDuration) -> Timestamp {
    let end = if later.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    time.checked_add(later).unwrap_or(end)
}

/// The time between two of one clock; nothing where they are in the wrong order.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session that was made at noon, and whose last heartbeat was 40 s later, by a member whose clock is
    /// off by so many hours.
    fn session(hours: i64, dead: &str) -> Lease {
        let time = |seconds: i64| {
            let noon = "2026-01-01T12:00:00Z".parse::<Timestamp>().unwrap();
            (noon + SignedDuration::from_hours(hours) + SignedDuration::from_secs(seconds)).to_string()
        };
        let name = "bactrian.session.00000000000000000000000000000007-1";
        let record = format!("seq=13{dead}");
        let seal = crate::names::hash(&format!("{name}\n{record}\npod_00000000"), 8);
        let lease = serde_json::json!({
            "metadata": {
                "name": name, "resourceVersion": "9", "creationTimestamp": "2026-01-01T12:00:00Z",
                "annotations": {"bactrian/record": record, "bactrian/seal": seal, "bactrian/host": "pod"},
            },
            "spec": {
                "holderIdentity": "pod_00000000", "leaseDurationSeconds": 15,
                "acquireTime": time(0), "renewTime": time(40),
            },
        });
        serde_json::from_value(lease).unwrap()
    }

    fn survey() -> Survey {
        Survey {
            clients: Clients::new(&Settings::default(), || unreachable!("nothing is asked")),
            namespace: "time".into(),
            codec: Codec { group: crate::Group::default(), owner: None, takeover_wait_seconds: i32::MAX },
            cluster_labels: String::new(),
        }
    }

    #[tokio::test]
    async fn in_the_compatibility_mode_the_config_map_that_shows_the_locks_is_named() {
        for (resource_name, shown) in [(None, "leaders"), (Some("locks".to_owned()), "locks")] {
            let settings = KubernetesClusterSettings {
                resource: Resource::ConfigMap,
                resource_name,
                ..KubernetesClusterSettings::default()
            };
            let Err(error) = Survey::open(&settings).await else { panic!("it has no survey") };
            let text = error.to_string();
            assert!(text.contains(&format!("`kubectl get configmap {shown} -o yaml` shows them")), "{text}");
        }
    }

    #[test]
    fn a_wrong_clock_makes_no_heartbeat_older_or_younger() {
        let now = |seconds: i64| {
            "2026-01-01T12:00:40Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
        };
        for hours in [-1, 0, 24] {
            let session = session(hours, "");
            let (_, status) = survey().session(&session, now(9)).unwrap();
            assert_eq!((status.age, status.alive), (Duration::from_secs(9), true), "{hours} h");
            let (_, status) = survey().session(&session, now(16)).unwrap();
            assert!(!status.alive, "it was silent for longer than it may be; {hours} h");
        }
    }

    #[test]
    fn times_that_somebody_edited_are_odd_and_no_panic() {
        let now = "2026-01-01T12:00:41Z".parse().unwrap();
        for (made, renewed) in [(-24, Timestamp::MAX), (24, Timestamp::MIN)] {
            let mut session = session(made, "");
            session.spec.as_mut().unwrap().renew_time =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(renewed));
            assert!(survey().session(&session, now).is_some());
        }
    }

    #[test]
    fn a_session_says_what_its_member_lives_by_if_its_format_does() {
        let now = "2026-01-01T12:00:41Z".parse().unwrap();
        let said = |said: &str| survey().session(&session(0, said), now).unwrap().1.timing;
        assert_eq!(said(""), None);
        let own = cluster_lease::Settings::default().limits();
        assert_eq!(said(" v=2 y=12500 stop=2000 rho=10000"), Some(timing(own)));
    }

    #[test]
    fn what_a_newer_version_has_written_is_neither_free_nor_silent() {
        let now = "2026-01-01T12:00:41Z".parse().unwrap();
        let id = SessionId { incarnation: 7, generation: 1 };
        let lock = |record: &str| {
            let name = "bactrian.lock.lock1";
            let seal = crate::names::hash(&format!("{name}\n{record}\npod_00000000"), 8);
            let annotations = serde_json::json!({"bactrian/record": record, "bactrian/seal": seal, "bactrian/lock": "lock1"});
            let lease = serde_json::json!({
                "metadata": {"name": name, "resourceVersion": "9", "uid": "u", "annotations": annotations},
                "spec": {"holderIdentity": "pod_00000000"},
            });
            let lease = serde_json::from_value::<Lease>(lease).unwrap();
            let (sessions, newer) = (BTreeMap::new(), [id].into());
            survey().lock(&lease, now, (&sessions, &newer), &BTreeSet::new()).unwrap().1.unreadable.unwrap()
        };
        assert!(lock("v=3 anything").starts_with("its record has the format 3, which only a newer version"));
        let held = lock(&format!("v=2 holder={id} epoch=1 claim=1 settled=true uid=u"));
        assert!(
            held.starts_with("the session of its holder has a format which only a newer version"),
            "{held}"
        );
    }

    #[test]
    fn a_session_that_was_ended_lives_no_more() {
        let now = "2026-01-01T12:00:41Z".parse().unwrap();
        for dead in ["weak", "expired", "proof"] {
            let (_, status) = survey().session(&session(0, &format!(" dead={dead}")), now).unwrap();
            assert!(!status.alive, "{dead}");
        }
    }
}
