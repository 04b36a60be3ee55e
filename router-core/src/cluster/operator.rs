//! [`Operator`]: what can be asked of the members of a cluster from outside.

use std::time::Duration;

use async_trait::async_trait;
use smol_str::SmolStr;

use super::{ClusterError, LockName};

/// Whoever looks after a cluster without taking part in it.
///
/// # Guarantees
/// What is asked is done by the members themselves, in their own good order: they stop, finish what runs, and
/// release. No record of an election is touched, so nothing that is asked can make two members lead.
#[async_trait]
pub trait Operator: Send + Sync {
    /// Asks the member that leads `lock` to give it up, and waits until another one has taken it. The former
    /// leader takes it back only when nobody else does. What is asked is void once the present term has ended.
    ///
    /// # Errors
    /// [`OperatorError`]; after all but [`OperatorError::NotAsked`] the lock may still change hands later.
    ///
    /// # Cancellation
    /// The request may stay, which is void after the term.
    async fn hand_over(&self, lock: &LockName, patience: Duration) -> Result<Handover, OperatorError>;

    /// Asks a member to give up all its locks and to take none, and waits until it has none. It stays so until
    /// [`undrain`](Self::undrain). Without a name, the one member that there is.
    ///
    /// # Errors
    /// [`OperatorError`]; after all but [`OperatorError::NotAsked`] the member is still being drained.
    ///
    /// # Cancellation
    /// The member may be drained or not.
    async fn drain(&self, member: Option<&str>, patience: Duration) -> Result<SmolStr, OperatorError>;

    /// Lets a member that was drained take locks again. Without a name, the one that is drained.
    ///
    /// # Errors
    /// [`OperatorError::NotAsked`] when no such member is drained.
    async fn undrain(&self, member: Option<&str>) -> Result<SmolStr, OperatorError>;
}

/// A lock has changed hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The member that led.
    pub from: SmolStr,
    /// Its last term.
    pub from_term: u64,
    /// The member that leads now.
    pub to: SmolStr,
    /// Its term.
    pub to_term: u64,
    /// From the release to the claim, as it was seen from here. `None`: it was not released; its member ended, or was
    /// silent for the whole takeover wait, and was replaced.
    pub after: Option<Duration>,
}

/// What was asked was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// There was nothing to ask, or nobody to ask it of; the text says what there is.
    #[error("{0}")]
    NotAsked(String),
    /// It was asked, and did not happen; the text says how far it came.
    #[error("{0}")]
    NotDone(String),
    /// The cluster cannot be reached.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Which of the members `there` is meant by `wanted`.
///
/// # Errors
/// [`OperatorError::NotAsked`], with those that there are, when it is not clear.
pub fn select_member<'a, T>(
    wanted: Option<&str>,
    there: &'a [T],
    name: impl Fn(&T) -> String,
    is_called: impl Fn(&T, &str) -> bool,
    what: &str,
) -> Result<&'a T, OperatorError> {
    let meant = there.iter().filter(|member| wanted.is_none_or(|wanted| is_called(member, wanted)));
    match meant.collect::<Vec<_>>()[..] {
        [one] => Ok(one),
        _ => {
            let mut names = there.iter().map(name).collect::<Vec<_>>();
            names.sort();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let asked = wanted.map_or("it is not clear which member is meant".to_owned(), |wanted| {
                format!("`{wanted}` is not one of them")
            });
            Err(OperatorError::NotAsked(format!("{asked}; {what}: {names}")))
        }
    }
}
