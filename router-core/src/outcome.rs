//! How an exchange ends: an [`Outcome`], or a [`RouteError`] that says where and why it failed. While an error is
//! handled, the exchange has an [`Exception`].

use std::error::Error;
use std::fmt;
use std::time::Duration;

use smol_str::{SmolStr, ToSmolStr};

use crate::error::{BoxError, Chain};
use crate::failure::{ErrorKind, Failure};
use crate::lock::LeadershipLost;
use crate::panic::Panicked;

/// How an exchange was done. Its source may be told so in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It has passed all its steps.
    Completed,
    /// A `filter` of the route, not of a block in it, has ended it.
    Filtered,
    /// A `stop` has ended it.
    Stopped,
    /// A step failed, and the dead letter endpoint took it.
    DeadLettered,
}

impl Outcome {
    /// The name, as in the metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Filtered => "filtered",
            Self::Stopped => "stopped",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// Which step failed, and why.
#[derive(Debug)]
pub struct StepError {
    pub(crate) place: String,
    pub(crate) failure: Box<Failure>,
}

impl StepError {
    pub(crate) fn new(place: impl Into<String>, failure: impl Into<Box<Failure>>) -> Self {
        Self { place: place.into(), failure: failure.into() }
    }

    /// The step, as in `step 2 (to direct:b)`.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Of which kind the error is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.failure.kind
    }

    /// What the other side calls it: the status of HTTP, the SQLSTATE of a database.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.failure.code.as_deref()
    }

    /// For how long the other side asks to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.failure.retry_after
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.place)?;
        formatter.write_str(match self.kind() {
            ErrorKind::Panicked => " panicked",
            ErrorKind::LeadershipLost => " was not run to its end",
            _ => " failed",
        })
    }
}

impl Error for StepError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.failure)
    }
}

/// Why an exchange ended without success, and where: the innermost route and step, if routes call each other.
#[derive(Debug)]
pub struct RouteError {
    /// Boxed, so that the result of an exchange is as small where nothing fails.
    details: Box<Details>,
}

#[derive(Debug)]
struct Details {
    route_id: SmolStr,
    error: StepError,
    /// Whether it stands in the log.
    is_logged: bool,
}

impl RouteError {
    /// The error of the route that failed: this one, or the one that it has called, which has named the place.
    pub(crate) fn of(route_id: &SmolStr, StepError { place, mut failure }: StepError) -> Self {
        if failure.error.is::<Self>() {
            match failure.error.downcast() {
                Ok(error) => return *error,
                Err(error) => failure.error = error,
            }
        }
        let error = StepError { place, failure };
        Self { details: Box::new(Details { route_id: route_id.clone(), error, is_logged: false }) }
    }

    /// Notes that it stands in the log; whether it did already.
    pub(crate) fn set_logged(&mut self) -> bool {
        std::mem::replace(&mut self.details.is_logged, true)
    }

    /// The route in which the exchange failed.
    #[must_use]
    pub fn route_id(&self) -> &str {
        &self.details.route_id
    }

    /// The step in which it failed, and why.
    #[must_use]
    pub fn step(&self) -> &StepError {
        &self.details.error
    }

    /// Of which kind the error is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.step().kind()
    }

    /// Whether the exchange was ended because its member no longer leads. Its source must not be told
    /// that it was processed.
    #[must_use]
    pub fn is_leadership_lost(&self) -> bool {
        self.kind() == ErrorKind::LeadershipLost
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "route `{}`, {}", self.route_id(), self.step())
    }
}

impl Error for RouteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.step().source()
    }
}

/// What is known of an error while it is handled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exception {
    /// The error and its sources, in one line.
    pub message: SmolStr,
    /// Of which kind it is.
    pub kind: ErrorKind,
    /// The route in which it happened.
    pub route_id: SmolStr,
    /// The step in which it happened, as in `step 2 (to direct:b)`.
    pub step: SmolStr,
    /// What the other side calls it: the status of HTTP, the SQLSTATE of a database.
    pub code: Option<SmolStr>,
    /// For how long the other side asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl Exception {
    pub(crate) fn of(RouteError { details }: &RouteError) -> Self {
        let Details { route_id, error: StepError { place, failure }, .. } = &**details;
        Self {
            message: Chain(&**failure).to_smolstr(),
            kind: failure.kind,
            route_id: route_id.clone(),
            step: place.as_str().into(),
            code: failure.code.clone(),
            retry_after: failure.retry_after,
        }
    }
}

/// Why a step has not done its work.
#[derive(Debug)]
pub(crate) enum Cause {
    /// It failed.
    Failed(Box<Failure>),
    /// A step of a block in it has failed: its error was logged, and the error handler was asked.
    Ended(RouteError),
    /// A step of a block in it has failed, and the step did not handle that: the error handler was not asked, and
    /// nothing is tried again.
    #[cfg_attr(not(test), allow(dead_code, reason = "not every kind of step has been written"))]
    Uncaught(RouteError),
}

/// A step has put another exchange in the place of the one that it was given.
pub(crate) fn replaced() -> Failure {
    let text =
        "another exchange was put in the place of this one: set its `message` and `properties` instead";
    Failure::rejected(text)
}

/// Any error of a step, with what is known of it.
pub(crate) fn failure(error: impl Into<BoxError>) -> Cause {
    Cause::Failed(Failure::of(error.into()))
}

impl<E: Into<Box<Failure>>> From<E> for Cause {
    fn from(failure: E) -> Self {
        Self::Failed(failure.into())
    }
}

impl From<LeadershipLost> for Box<Failure> {
    fn from(lost: LeadershipLost) -> Self {
        Box::new(Failure::new(ErrorKind::LeadershipLost, lost))
    }
}

impl From<Panicked> for Box<Failure> {
    fn from(panicked: Panicked) -> Self {
        Box::new(Failure::new(ErrorKind::Panicked, panicked.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_each_error_once() {
        let inner =
            || StepError::new("step 1 (to `x:y`)", Failure::of(std::io::Error::other("disk on fire").into()));
        let error = RouteError::of(&"r".into(), inner());
        assert_eq!(Chain(&error).to_string(), "route `r`, step 1 (to `x:y`) failed: disk on fire");
        let around = StepError::new("step 7 (to `direct:r`)", Failure::of(error.into()));
        let error = RouteError::of(&"caller".into(), around);
        assert_eq!(Chain(&error).to_string(), "route `r`, step 1 (to `x:y`) failed: disk on fire");
        assert_eq!((error.route_id(), error.step().place()), ("r", "step 1 (to `x:y`)"));
    }

    #[test]
    fn what_a_called_route_says_of_an_error_is_known_of_it() {
        let refused = Failure::rejected("no").code("409").retry_after(Duration::from_secs(3));
        let error = RouteError::of(&"r".into(), StepError::new("step 1 (to `x:y`)", refused));
        let error = StepError::new("step 7 (to `direct:r`)", Failure::of(error.into()));
        assert_eq!(
            (error.kind(), error.code(), error.retry_after()),
            (ErrorKind::Rejected, Some("409"), Some(Duration::from_secs(3)))
        );
    }
}
