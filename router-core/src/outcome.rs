//! How an exchange ends: [`Done`], or a [`RouteError`] that says where and why it failed.

use std::error::Error;
use std::fmt;

use smol_str::SmolStr;

use crate::error::BoxError;
use crate::lock::LeadershipLost;
use crate::panic::Panicked;

/// How an exchange was done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Done {
    /// It has gone all its way.
    Completed,
    /// A `filter` ended it.
    Filtered,
    /// A `stop` ended it.
    Stopped,
    /// The dead letter endpoint took it.
    DeadLetter,
}

/// Why an exchange ended without success, and where.
#[derive(Debug)]
pub struct RouteError {
    pub(crate) route_id: SmolStr,
    pub(crate) step: String,
    pub(crate) cause: Cause,
}

/// What went wrong in a step.
#[derive(Debug)]
pub(crate) enum Cause {
    /// The step returned an error.
    Failed(BoxError),
    /// The step panicked; the text is the panic's message.
    Panicked(String),
    /// The exchange's term ended before a side effect, which therefore did not happen.
    LeadershipLost(LeadershipLost),
    /// A step of a block in the step ended the exchange: its error was logged, and the error handler was asked.
    Ended(Box<RouteError>),
}

impl RouteError {
    /// The route in which the exchange failed.
    #[must_use]
    pub fn route_id(&self) -> &str {
        &self.route_id
    }

    /// Whether the exchange was ended because its member no longer leads. Its source must not be told
    /// that it was processed.
    #[must_use]
    pub fn is_leadership_lost(&self) -> bool {
        matches!(self.cause, Cause::LeadershipLost(_))
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "route `{}`, {} ", self.route_id, self.step)?;
        match &self.cause {
            Cause::Failed(_) => formatter.write_str("failed"),
            Cause::Panicked(message) => write!(formatter, "panicked: {message}"),
            Cause::LeadershipLost(_) => formatter.write_str("was not run to its end"),
            Cause::Ended(error) => error.fmt(formatter),
        }
    }
}

impl Error for RouteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::Failed(error) => Some(&**error),
            Cause::Panicked(_) => None,
            Cause::LeadershipLost(lost) => Some(lost),
            Cause::Ended(error) => error.source(),
        }
    }
}

impl From<Panicked> for Cause {
    fn from(Panicked(message): Panicked) -> Self {
        Self::Panicked(message)
    }
}

/// An error of a step. The loss of leadership stays what it is on its way through `direct:` and user
/// code: nobody may retry it or acknowledge it away.
pub(crate) fn failure(error: BoxError) -> Cause {
    match error.downcast::<LeadershipLost>() {
        Ok(lost) => Cause::LeadershipLost(*lost),
        Err(error) => Cause::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Chain;

    #[test]
    fn a_chain_names_each_error_once() {
        let inner = std::io::Error::other("disk on fire");
        let error = RouteError {
            route_id: "r".into(),
            step: "step 1 (to `x:y`)".into(),
            cause: Cause::Failed(inner.into()),
        };
        assert_eq!(Chain(&error).to_string(), "route `r`, step 1 (to `x:y`) failed: disk on fire");
    }
}
