//! [`ErrorHandlerDefinition`] and [`ErrorHandler`]: what happens when a step fails.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Chain;
use crate::exchange::Exchange;
use crate::outcome::{Cause, RouteError, failure};
use crate::processor::Processor;
use crate::written::{EndpointDefinition, IntoEndpoint};

/// What happens when a step fails: it is tried again, and when that does not help, the exchange goes to
/// a dead letter endpoint. The defaults are Camel's.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorHandlerDefinition {
    /// How often a failed step is tried again.
    pub maximum_redeliveries: u32,
    /// The pause before the first new try.
    pub redelivery_delay: Duration,
    /// By how much each further pause is longer; 1 keeps it.
    pub back_off_multiplier: f64,
    /// The longest pause.
    pub maximum_redelivery_delay: Duration,
    /// Where exchanges go that still fail; their source then sees a success.
    pub dead_letter: Option<EndpointDefinition>,
}

impl Default for ErrorHandlerDefinition {
    fn default() -> Self {
        Self {
            maximum_redeliveries: 0,
            redelivery_delay: Duration::from_secs(1),
            back_off_multiplier: 1.0,
            maximum_redelivery_delay: Duration::from_secs(60),
            dead_letter: None,
        }
    }
}

impl ErrorHandlerDefinition {
    /// Tries a failed step again, this often.
    #[must_use]
    pub fn maximum_redeliveries(mut self, count: u32) -> Self {
        self.maximum_redeliveries = count;
        self
    }

    /// Sends exchanges that still fail to this endpoint.
    #[must_use]
    #[track_caller]
    pub fn dead_letter(mut self, endpoint: impl IntoEndpoint) -> Self {
        self.dead_letter = Some(endpoint.into_endpoint());
        self
    }
}

/// A compiled [`ErrorHandlerDefinition`]; the default one does nothing.
#[derive(Default)]
pub(crate) struct ErrorHandler {
    /// Boxed: most routes have none, and ten thousand routes should be small.
    policy: Option<Box<Policy>>,
}

struct Policy {
    redelivery: ErrorHandlerDefinition,
    dead_letter: Option<Arc<dyn Processor>>,
}

impl ErrorHandler {
    pub(crate) fn new(redelivery: ErrorHandlerDefinition, dead_letter: Option<Arc<dyn Processor>>) -> Self {
        Self { policy: Some(Box::new(Policy { redelivery, dead_letter })) }
    }

    /// The pause before the step is tried again, or `None` when it is not.
    pub(crate) fn delay_before_retry(&self, cause: &Cause, redeliveries: u32) -> Option<Duration> {
        let policy = &self.policy.as_ref()?.redelivery;
        let ended = matches!(cause, Cause::Ended(_)) || is_leadership_lost(cause);
        let hopeless = ended || redeliveries >= policy.maximum_redeliveries;
        if hopeless {
            return None;
        }
        let exponent = i32::try_from(redeliveries).unwrap_or(i32::MAX);
        let seconds = policy.redelivery_delay.as_secs_f64() * policy.back_off_multiplier.powi(exponent);
        let delay = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        Some(delay.min(policy.maximum_redelivery_delay))
    }

    /// Sends a failed exchange to the dead letter endpoint; `false`: there is none, or the exchange must
    /// not go there. Properties tell the endpoint what happened.
    pub(crate) async fn send_dead_letter(
        &self,
        error: &RouteError,
        exchange: &mut Exchange,
    ) -> Result<bool, Cause> {
        let dead_letter = self.policy.as_ref().and_then(|policy| policy.dead_letter.as_ref());
        let Some(dead_letter) = dead_letter.filter(|_| !error.is_leadership_lost()) else { return Ok(false) };
        exchange.check_terms().map_err(Cause::LeadershipLost)?;
        exchange.properties.set("failure.message", Chain(error).to_string());
        exchange.properties.set("failure.route_id", error.route_id.clone());
        exchange.properties.set("failure.step", error.step.as_str());
        dead_letter.process(exchange).await.map_err(failure)?;
        Ok(true)
    }
}

/// Whether the failure, here or in a route that was called, is the loss of leadership.
fn is_leadership_lost(cause: &Cause) -> bool {
    match cause {
        Cause::LeadershipLost(_) => true,
        Cause::Failed(error) => error.downcast_ref().is_some_and(RouteError::is_leadership_lost),
        Cause::Ended(error) => error.is_leadership_lost(),
        Cause::Panicked(_) => false,
    }
}
