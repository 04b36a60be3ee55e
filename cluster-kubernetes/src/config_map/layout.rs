//! What stands in the ConfigMap.
//!
//! ```yaml
//! metadata:
//!   name: leaders
//!   labels: {provider: camel, kind: locks}
//!   annotations:
//!     bactrian/claim-0123456789abcdef: lock=lock1 v=2 holder=... epoch=101 claim=1 settled=true term=105 uid=...
//!     bactrian/states-0123456789abcdef: lock=lock1 {"orders":{"cursor":"1042"}}
//!     bactrian/asked-0123456789abcdef: lock=lock1 of=... number=7 answered=6
//! data:
//!   leader.pod.lock1: clock-0
//!   leader.local.timestamp.lock1: "2026-01-31T09:00:00Z"
//! ```
//!
//! The two entries are Camel's, which knows a member by the name of its pod alone. The annotations are ours. The
//! claim tells the processes that a pod has had, and the claims of one process, apart. Camel leaves it where
//! it is, and it counts only while the entry names the pod that wrote it. When the lock is given up, it stays and says
//! so. It names the uid of the ConfigMap that it was written into: in another one, which was saved and applied again,
//! it says nothing. The states are those of the routes under the lock. What is asked is in [`rivals`](super::rivals).

use cluster_lease::{LockRecord, SessionId};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use router_core::cluster::{ClusterError, LockName};
use smol_str::SmolStr;

use super::rivals::Question;
use crate::codec::{is_of_this_object, lock_text, newer_format, parse_lock_record, parse_number};
use crate::fields::fields;
use crate::names::{hash, parse_session};

/// The name of the ConfigMap when nobody has said otherwise; as in Camel.
pub(crate) const RESOURCE_NAME: &str = "leaders";
const LEADER: &str = "leader.pod.";
const TIMESTAMP: &str = "leader.local.timestamp.";
const CLAIM: &str = "bactrian/claim-";
const STATES: &str = "bactrian/states-";
const ASKED: &str = "bactrian/asked-";

/// The time of a lock that was given up gracefully. It is a time to Camel, which does not read it, and no
/// claim has it. When a claim is removed by hand its time stays, or goes too, so neither looks like this.
const RELEASED: &str = "1970-01-01T00:00:00Z";
/// Nobody, but not no entry: Camel leads a lock without an entry at once, and one whose leader is no member
/// after its wait. No pod is called this.
const NO_LEADER: &str = "-";
/// The most that the states of all locks may come to. Kubernetes takes 256 KiB of annotations, and claims are
/// annotations too.
const MAX_STATES: usize = 192 * 1024;
/// The longest key of a ConfigMap.
const LONGEST_KEY: usize = 253;

/// What the ConfigMap says of one lock, word by word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    leader: Option<String>,
    timestamp: Option<String>,
    claim: Option<String>,
    /// Of the ConfigMap.
    uid: Option<String>,
}

/// A claim of a member of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) record: LockRecord,
    /// The number of the term, once its leader has written it down.
    pub(crate) term: Option<u64>,
    /// Whether it is known to have been written into this very ConfigMap.
    pub(crate) is_of_this_object: bool,
    /// Whether it says that it was written into another one.
    pub(crate) is_copy: bool,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaderState<'a> {
    /// Nothing, or that somebody gave the lock up who still owed a wait.
    Vacant,
    /// That it was given up gracefully, and the term that is above.
    Released(u64),
    /// The pod that leads, and the claim, where it is one of ours.
    Pod(&'a str, Option<Claim>),
    /// A claim of a format that only a newer version of this program knows.
    Newer(SmolStr),
}

impl Words {
    pub(crate) fn of(config_map: Option<&ConfigMap>, lock: &LockName) -> Self {
        let data = config_map.and_then(|config_map| config_map.data.as_ref());
        let annotations = config_map.and_then(|config_map| config_map.metadata.annotations.as_ref());
        let entry = |prefix: &str| data?.get(&format!("{prefix}{lock}")).cloned();
        let claim = annotations.and_then(|annotations| annotations.get(&key_of(CLAIM, lock))).cloned();
        let uid = config_map.and_then(|config_map| config_map.metadata.uid.clone());
        Self { leader: entry(LEADER), timestamp: entry(TIMESTAMP), claim, uid }
    }

    pub(crate) fn said(&self, lock: &LockName) -> LeaderState<'_> {
        if let Some(format) = self.claim_text(lock).and_then(newer_format) {
            return LeaderState::Newer(format);
        }
        let claim = self.claim(lock);
        match (self.leader.as_deref(), self.timestamp.as_deref()) {
            (None, Some(RELEASED)) => match claim {
                Some(Claim { record, is_of_this_object: true, .. })
                    if record.settled && record.holder.is_none() =>
                {
                    LeaderState::Released(record.term)
                }
                _ => LeaderState::Vacant,
            },
            (None | Some(NO_LEADER | ""), _) => LeaderState::Vacant,
            (Some(pod), _) => LeaderState::Pod(pod, claim.filter(|claim| claim.record.holder.is_some())),
        }
    }

    fn claim(&self, lock: &LockName) -> Option<Claim> {
        let text = self.claim_text(lock)?;
        let (record, fields) = (parse_lock_record(text)?, fields(text));
        let term = fields.get("term").and_then(|term| parse_number(term));
        let is_of_this_object = is_of_this_object(text, self.uid.as_deref());
        let is_copy = fields.get("uid").is_some_and(|uid| Some(*uid) != self.uid.as_deref());
        Some(Claim { record, term, is_of_this_object, is_copy })
    }

    fn claim_text(&self, lock: &LockName) -> Option<&str> {
        self.claim.as_deref()?.strip_prefix("lock=")?.strip_prefix(lock.as_str())?.strip_prefix(' ')
    }
}

/// The locks that the ConfigMap says anything about.
pub(crate) fn locks(config_map: &ConfigMap) -> Vec<LockName> {
    let keys = config_map.data.iter().flatten().map(|(key, _)| key.as_str());
    let names = keys.filter_map(|key| key.strip_prefix(LEADER).or_else(|| key.strip_prefix(TIMESTAMP)));
    let mut locks = names.filter_map(|name| name.parse().ok()).collect::<Vec<LockName>>();
    locks.sort();
    locks.dedup();
    locks
}

/// The ConfigMap that a write makes of the one before. All but the entries of the lock stays.
pub(crate) fn encode(
    before: Option<&ConfigMap>,
    (name, pod): (&str, &str),
    lock: &LockName,
    (record, term, states): (LockRecord, Option<u64>, Option<&str>),
    now: Timestamp,
) -> ConfigMap {
    let mut config_map = before.cloned().unwrap_or_default();
    if before.is_none() {
        config_map.metadata.name = Some(name.to_owned());
        let labels = [("provider", "camel"), ("kind", "locks")];
        config_map.metadata.labels =
            Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }
    // The server keeps its own account of who wrote which field.
    config_map.metadata.managed_fields = None;
    let words = Words::of(before, lock);
    let same_claim = matches!(words.said(lock), LeaderState::Pod(leader, Some(claim))
        if leader == pod && (claim.record.holder, claim.record.claim) == (record.holder, record.claim));
    let term = term.map(|term| format!(" term={term}")).unwrap_or_default();
    // A ConfigMap has a uid once it exists.
    let uid = config_map.metadata.uid.as_ref().map(|uid| format!(" uid={uid}")).unwrap_or_default();
    let claim = format!("lock={lock} {}{term}{uid}", lock_text(record));
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let data = config_map.data.get_or_insert_default();
    let (leader, timestamp) = (format!("{LEADER}{lock}"), format!("{TIMESTAMP}{lock}"));
    let annotations = config_map.metadata.annotations.get_or_insert_default();
    if let Some(states) = states {
        annotations.insert(key_of(STATES, lock), format!("lock={lock} {states}"));
    }
    if !same_claim {
        annotations.remove(&key_of(ASKED, lock));
    }
    if record.holder.is_some() {
        data.insert(leader, pod.to_owned());
        if !same_claim {
            data.insert(timestamp, now);
        }
        annotations.insert(key_of(CLAIM, lock), claim);
        return config_map;
    }
    if record.settled {
        annotations.insert(key_of(CLAIM, lock), claim);
        data.remove(&leader);
        data.insert(timestamp, RELEASED.to_owned());
    } else {
        annotations.remove(&key_of(CLAIM, lock));
        data.insert(leader, NO_LEADER.to_owned());
        data.insert(timestamp, now);
    }
    config_map
}

/// What was asked of the process that has made a claim.
pub(crate) fn question(config_map: &ConfigMap, lock: &LockName, of: SessionId) -> Question {
    let text = || {
        let text = config_map.metadata.annotations.as_ref()?.get(&key_of(ASKED, lock))?;
        let fields = fields(text);
        let number = |key: &str| parse_number(fields.get(key)?);
        (*fields.get("lock")? == lock.as_str() && parse_session(fields.get("of")?)? == of)
            .then_some(Question { of, number: number("number")?, answered: number("answered")? })
    };
    text().unwrap_or(Question::none(of))
}

/// Asks, or answers.
pub(crate) fn put_question(config_map: &mut ConfigMap, lock: &LockName, question: Question) {
    let Question { of, number, answered } = question;
    let text = format!("lock={lock} of={of} number={number} answered={answered}");
    let annotations = config_map.metadata.annotations.get_or_insert_default();
    annotations.insert(key_of(ASKED, lock), text);
}

/// The states of the routes under a lock.
pub(crate) fn states<'a>(config_map: Option<&'a ConfigMap>, lock: &LockName) -> Option<&'a str> {
    let text = config_map?.metadata.annotations.as_ref()?.get(&key_of(STATES, lock))?;
    text.strip_prefix("lock=")?.strip_prefix(lock.as_str())?.strip_prefix(' ')
}

/// Refuses a write of states that would leave too little room for claims. All locks are in one object, and
/// one that is full could be neither claimed nor given up by anybody.
pub(crate) fn check_room(before: Option<&ConfigMap>, after: &ConfigMap) -> Result<(), String> {
    let (before, after) = (before.map_or(0, bytes_of_states), bytes_of_states(after));
    if after <= MAX_STATES || after <= before {
        return Ok(());
    }
    Err(format!(
        "the states under all locks of one ConfigMap may have {MAX_STATES} bytes together, not {after}: keep less, or \
         use `cluster.kubernetes.resource = \"lease\"`, where each lock has room of its own"
    ))
}

fn bytes_of_states(config_map: &ConfigMap) -> usize {
    let annotations = config_map.metadata.annotations.iter().flatten();
    annotations.filter(|(key, _)| key.starts_with(STATES)).map(|(key, text)| key.len() + text.len()).sum()
}

fn key_of(kind: &str, lock: &LockName) -> String {
    format!("{kind}{}", hash(lock.as_str(), 16))
}

/// Locks have the same names as in Camel, so they must be able to stand in a key as they are.
pub(crate) fn check_lock(lock: &LockName) -> Result<(), ClusterError> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let longest = LONGEST_KEY - TIMESTAMP.len();
    if lock.as_str().len() <= longest && lock.as_str().bytes().all(sound) {
        return Ok(());
    }
    let text = format!(
        "the lock `{lock}` cannot stand in a ConfigMap: there, a lock has up to {longest} of the characters a-z, \
         A-Z, 0-9, `-`, `_` and `.`; rename it, or use `cluster.kubernetes.resource = \"lease\"`"
    );
    Err(ClusterError::Unusable(text, None))
}
