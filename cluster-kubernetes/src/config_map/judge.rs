//! What the words of the ConfigMap mean to this member.

use std::collections::BTreeSet;

use cluster_lease::{LockRecord, SessionId};
use router_core::cluster::LockName;

use super::layout::{Claim, LeaderState, Words};
use super::rivals::{Rivals, Sign};
use crate::names::hash;
use crate::pods::Pods;

/// The generation of the session that a pod is given here. Sessions of processes count from 0.
const OF_A_POD: u32 = u32::MAX;

/// A member that is Camel's has no session, and those of other members are not in the ConfigMap: to the
/// election, each member that leads has one, which lives for as long as its pod is ready.
pub(crate) fn session_of(member: &str) -> SessionId {
    let incarnation = u128::from_str_radix(&hash(member, 32), 16).unwrap_or_default();
    SessionId { incarnation, generation: OF_A_POD }
}

pub(crate) fn is_of_a_pod(session: SessionId) -> bool {
    session.generation == OF_A_POD
}

/// What a member is called that has made a claim: as it calls itself.
fn member_of(pod: &str, claim: Option<Claim>) -> String {
    match claim.and_then(|claim| claim.record.holder) {
        Some(holder) => format!("{pod}_{:08x}", holder.incarnation >> 96),
        None => pod.to_owned(),
    }
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
    pub(crate) rivals: &'a Rivals,
}

/// What a lock's record is to the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// `None`: it may be claimed, but whoever held it before may still work, so it is led only when the
    /// takeover wait is over that begins when the claim is seen. All weak evidence comes to this: no look at
    /// pods says that a process has ended.
    pub(crate) record: Option<LockRecord>,
    /// The number of the holder's term, where it is written down.
    pub(crate) term: Option<u64>,
    /// The member that leads, where it is another.
    pub(crate) other: Option<String>,
    /// The session that has made the claim, where it is of another process with the name of this pod.
    pub(crate) rival: Option<SessionId>,
    /// Why there is no record.
    pub(crate) why: String,
}

impl Judge<'_> {
    /// `appeared`: this process has seen the lock without these words before.
    pub(crate) fn judge(&self, lock: &LockName, words: &Words, appeared: bool) -> Judgement {
        let (pod, claim) = match words.said(lock) {
            LeaderState::Released(term) => {
                return Judgement::record(LockRecord { term, ..LockRecord::RELEASED }, None);
            }
            // The listing says it in its own way; here it is only not to be taken for an absent one.
            LeaderState::Newer(_) => return Judgement::record(LockRecord::UNKNOWN, None),
            LeaderState::Vacant => {
                return Judgement::open(
                    "the ConfigMap names no leader, and an entry that is missing, or was saved and applied again, \
                     cannot be told from a deleted one"
                        .into(),
                );
            }
            LeaderState::Pod(pod, claim) => (pod, claim),
        };
        let rival = match claim {
            // Not even its own member goes by it.
            Some(Claim { is_copy: true, .. }) => {
                return Judgement::open(
                    "the ConfigMap was deleted and made again with what it had said before, and another member may \
                     have led since"
                        .into(),
                );
            }
            Some(Claim { record, term, is_of_this_object: true, .. })
                if pod == self.pod && self.is_own(record) =>
            {
                return Judgement::record(record, term);
            }
            Some(claim) if pod == self.pod => match self.rival(lock, claim) {
                Ok(rival) => Some(rival),
                Err(why) => return Judgement::open(why),
            },
            None if pod == self.pod && !appeared => {
                return Judgement::open(
                    "the ConfigMap names this pod, and no claim of a member says more".into(),
                );
            }
            _ => None,
        };
        // What is not known of pods is no evidence.
        if self.pods.known && !self.pods.is_ready(pod) {
            return Judgement::open(format!("the pod {pod} that leads it is gone or not ready"));
        }
        let member = member_of(pod, claim);
        let said = claim.map_or(LockRecord::RELEASED, |claim| claim.record);
        let record = LockRecord { holder: Some(session_of(&member)), ..said };
        // Whether a process leads that is being asked is not known.
        let settled =
            record.settled && rival.is_none_or(|rival| self.rivals.sign(lock, rival) != Sign::Unknown);
        Judgement {
            record: Some(LockRecord { settled, ..record }),
            term: claim.and_then(|claim| claim.term),
            other: Some(member),
            rival,
            why: String::new(),
        }
    }

    /// The session of another process with the name of this pod, as far as is known; or why it cannot lead.
    fn rival(&self, lock: &LockName, claim: Claim) -> Result<SessionId, String> {
        let holder = claim.record.holder.ok_or_else(String::new)?;
        let why = if !claim.is_of_this_object {
            "the ConfigMap names this pod, and its claim does not say that it was written into this ConfigMap"
        } else if self.incarnations.contains(&holder.incarnation) {
            "the ConfigMap names an earlier session of this process"
        } else if self.pods.has_ended(holder.incarnation) {
            "the process before this one in the same pod has ended without giving it up"
        } else if self.rivals.sign(lock, holder) == Sign::Silent {
            "the ConfigMap names this pod, by a claim of another process, which does not answer"
        } else {
            return Ok(holder);
        };
        Err(why.into())
    }

    fn is_own(&self, record: LockRecord) -> bool {
        record.holder.is_some_and(|holder| self.sessions.contains(&holder))
    }
}

impl Judgement {
    fn record(record: LockRecord, term: Option<u64>) -> Self {
        Self { record: Some(record), term, other: None, rival: None, why: String::new() }
    }

    fn open(why: String) -> Self {
        Self { record: None, term: None, other: None, rival: None, why }
    }
}
