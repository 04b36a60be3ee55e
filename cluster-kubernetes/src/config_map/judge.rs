//! What the words of the ConfigMap mean to this member.

use std::collections::BTreeSet;

use cluster_lease::{LockRecord, SessionId};
use router_core::cluster::LockName;

use super::layout::{Said, Words};
use crate::names::hash;
use crate::pods::Pods;

/// The generation of the session that a pod is given here. Sessions of processes count from 0.
const OF_A_POD: u32 = u32::MAX;

/// A member that is Camel's has no session, and those of other members are not in the ConfigMap: to the
/// election, each pod that leads has one, which lives for as long as the pod is ready.
pub(crate) fn session_of_pod(pod: &str) -> SessionId {
    let incarnation = u128::from_str_radix(&hash(pod, 32), 16).unwrap_or_default();
    SessionId { incarnation, generation: OF_A_POD }
}

pub(crate) fn is_of_a_pod(session: SessionId) -> bool {
    session.generation == OF_A_POD
}

/// Who judges.
pub(crate) struct Judge<'a> {
    /// The own pod.
    pub(crate) pod: &'a str,
    pub(crate) pods: &'a Pods,
    /// The own sessions.
    pub(crate) sessions: &'a BTreeSet<SessionId>,
    /// The incarnations that this process has had.
    pub(crate) incarnations: &'a BTreeSet<u128>,
}

/// What a lock's record is to the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// `None`: it may be claimed, but whoever held it before may still work, so it is led only when the
    /// takeover wait is over that begins when the claim is seen. All weak evidence comes to this: no look at
    /// pods says that a process has ended.
    pub(crate) record: Option<LockRecord>,
    /// The pod that leads, where it is another.
    pub(crate) other: Option<String>,
    /// Why there is no record.
    pub(crate) why: String,
}

impl Judge<'_> {
    /// `appeared`: this process has seen the lock without these words before.
    pub(crate) fn judge(&self, lock: &LockName, words: &Words, appeared: bool) -> Judgement {
        match words.said(lock) {
            Said::GivenUp => Judgement::record(LockRecord::RELEASED),
            // The listing says it in its own way; here it is only not to be taken for an absent one.
            Said::Newer(_) => Judgement::record(LockRecord::UNKNOWN),
            Said::Nobody => Judgement::open(
                "the ConfigMap names no leader, and an entry that is missing cannot be told from a deleted one".into(),
            ),
            Said::Pod(pod, Some(record)) if pod == self.pod && self.is_own(record) => {
                Judgement::record(record)
            }
            // An earlier process in this pod, as far as is known.
            Said::Pod(pod, record) if pod == self.pod && !(appeared && self.is_rival(record)) => {
                Judgement::open("the ConfigMap names this pod, by a claim that is not of this process".into())
            }
            // What is not known of pods is no evidence.
            Said::Pod(pod, _) if !self.pods.known || self.pods.is_ready(pod) => Judgement {
                record: Some(LockRecord { holder: Some(session_of_pod(pod)), ..LockRecord::RELEASED }),
                other: Some(pod.to_owned()),
                why: String::new(),
            },
            Said::Pod(pod, _) => Judgement::open(format!("the pod {pod} that leads it is gone or not ready")),
        }
    }

    /// Whether another process has made this claim, if it came while this one looked: it lives beside this one, with
    /// the same name. Both claiming, they would take the lock from one another for ever.
    fn is_rival(&self, record: Option<LockRecord>) -> bool {
        let Some(holder) = record.and_then(|record| record.holder) else { return true };
        !self.incarnations.contains(&holder.incarnation) && !self.pods.has_ended(holder.incarnation)
    }

    fn is_own(&self, record: LockRecord) -> bool {
        record.holder.is_some_and(|holder| self.sessions.contains(&holder))
    }
}

impl Judgement {
    fn record(record: LockRecord) -> Self {
        Self { record: Some(record), other: None, why: String::new() }
    }

    fn open(why: String) -> Self {
        Self { record: None, other: None, why }
    }
}
