//! [`ErrorHandler`]: what happens when a step fails.

use std::sync::Arc;
use std::time::Duration;

use crate::component::Processor;
use crate::definition::ErrorHandlerDefinition;
use crate::error::{Cause, Chain, RouteError};
use crate::exchange::Exchange;
use crate::pipeline::{check_term, failure};

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
        let hopeless = is_leadership_lost(cause) || redeliveries >= policy.maximum_redeliveries;
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
        check_term(exchange)?;
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
        Cause::Panicked(_) => false,
    }
}
