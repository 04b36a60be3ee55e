//! [`Rivals`]: other processes with the name of this pod.
//!
//! Camel's ConfigMap knows a member by the name of its pod. A claim with the own name that this process has not made
//! is of the process before it in the same container, which has ended, or of one that lives beside it. Nothing that
//! stands there tells the two apart, because a leader writes nothing while it leads. So it is asked: the one that stands
//! by puts a number beside the claim, and the process that has made the claim repeats the number when it looks. An
//! answer is a sign of life, and no answer within some looks is what a process that has ended gives. No safety rests
//! on it: who takes the lock then waits, as always, from when its own claim was seen.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cluster_lease::SessionId;
use router_core::cluster::LockName;
use tokio::time::Instant;

/// How many periods of looking an answer may take: a look of the one that is asked, one of the one that asks, and
/// one for slow requests.
const ANSWER_LOOKS: u32 = 3;
/// How many periods after an answer the next question is asked.
const REST_LOOKS: u32 = 5;

/// What stands beside a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The session that has made the claim.
    pub(crate) of: SessionId,
    pub(crate) number: u64,
    /// The last number that was repeated.
    pub(crate) answered: u64,
}

impl Question {
    /// Nothing was asked of it yet.
    pub(crate) fn none(of: SessionId) -> Self {
        Self { of, number: 0, answered: 0 }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.number > self.answered
    }
}

/// What is known of a process with the name of this pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It is being asked.
    Unknown,
    /// It has answered.
    Alive,
    /// It has not answered.
    Silent,
}

struct Rival {
    sign: Sign,
    /// When it was asked or has answered; `None`: neither.
    since: Option<Instant>,
    /// The last answer that was seen.
    answered: u64,
}

/// The processes that have claimed a lock with the name of this pod.
pub(crate) struct Rivals {
    known: BTreeMap<(LockName, SessionId), Rival>,
    period: Duration,
}

impl Rivals {
    /// They look this often.
    pub(crate) fn new(period: Duration) -> Self {
        Self { known: BTreeMap::new(), period }
    }

    pub(crate) fn sign(&self, lock: &LockName, of: SessionId) -> Sign {
        self.known.get(&(lock.clone(), of)).map_or(Sign::Unknown, |rival| rival.sign)
    }

    /// Takes what stands beside a claim into account. Returns what is known of its process from now on, where that
    /// has changed, and the question that is to be asked now.
    pub(crate) fn look(&mut self, lock: &LockName, said: Question) -> (Option<Sign>, Option<Question>) {
        let now = Instant::now();
        let key = (lock.clone(), said.of);
        let before = self.known.get(&key).map(|rival| rival.sign);
        let new = || Rival { sign: Sign::Unknown, since: None, answered: said.answered };
        let rival = self.known.entry(key).or_insert_with(new);
        let has_passed = |since: Instant, looks: u32| now - since >= self.period * looks;
        if said.answered > rival.answered {
            (rival.sign, rival.since, rival.answered) = (Sign::Alive, Some(now), said.answered);
        }
        let asks = match (rival.sign, rival.since) {
            (Sign::Unknown, Some(since)) if has_passed(since, ANSWER_LOOKS) => {
                rival.sign = Sign::Silent;
                false
            }
            (Sign::Alive, Some(since)) if has_passed(since, REST_LOOKS + ANSWER_LOOKS) => {
                rival.sign = Sign::Silent;
                false
            }
            (Sign::Alive, Some(since)) => has_passed(since, REST_LOOKS),
            (Sign::Unknown, None) => {
                rival.since = Some(now);
                true
            }
            _ => false,
        };
        let sign = Some(rival.sign).filter(|sign| before != Some(*sign));
        // One that is open is as good as an own one, and the next look asks again if it is lost.
        let lost = rival.sign == Sign::Unknown;
        let question = Question { number: said.number + 1, ..said };
        (sign, (!said.is_open() && (asks || lost)).then_some(question))
    }

    /// Forgets those that claim no lock any more.
    pub(crate) fn retain(&mut self, still: impl Fn(&LockName, SessionId) -> bool) {
        self.known.retain(|(lock, of), _| still(lock, *of));
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unknown => "it is asked whether it is alive, and this one stands by meanwhile",
            Self::Alive => "it is alive, so this one stands by",
            Self::Silent => "it does not answer, so this one takes the lock",
        })
    }
}
