//! [`ErrorHandlerDefinition`] and [`ErrorHandler`]: what happens when a step fails.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{ConfigError, ConfigErrors};
use crate::exchange::Exchange;
use crate::failure::{ErrorKind, Failure};
use crate::outcome::{Exception, RouteError};
use crate::processor::{Processor, process};
use crate::source::SourceText;
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
    /// The kinds of errors that are tried again, by their names. `None`: all but `rejected` and `data`.
    pub retry_on: Option<Vec<SourceText>>,
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
            retry_on: None,
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

    /// Tries only errors of these kinds again.
    #[must_use]
    #[track_caller]
    pub fn retry_on(mut self, kinds: impl IntoIterator<Item = ErrorKind>) -> Self {
        let mut named = Vec::new();
        for kind in kinds {
            named.push(SourceText::from_code(kind.name()));
        }
        self.retry_on = Some(named);
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
    retried: Vec<ErrorKind>,
    dead_letter: Option<Arc<dyn Processor>>,
}

impl ErrorHandler {
    /// Compiles a definition; the dead letter endpoint was compiled already.
    pub(crate) fn compile(
        redelivery: ErrorHandlerDefinition,
        dead_letter: Option<Arc<dyn Processor>>,
    ) -> Result<Self, ConfigErrors> {
        let retried = retried(&redelivery)?;
        Ok(Self { policy: Some(Box::new(Policy { redelivery, retried, dead_letter })) })
    }

    /// The pause before the step is tried again, or `None` when it is not.
    pub(crate) fn delay_before_retry(&self, failure: &Failure, redeliveries: u32) -> Option<Duration> {
        let Policy { redelivery: policy, retried, .. } = &**self.policy.as_ref()?;
        if redeliveries >= policy.maximum_redeliveries || !retried.contains(&failure.kind) {
            return None;
        }
        let exponent = i32::try_from(redeliveries).unwrap_or(i32::MAX);
        let seconds = policy.redelivery_delay.as_secs_f64() * policy.back_off_multiplier.powi(exponent);
        let delay = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let asked_for = failure.retry_after.unwrap_or_default();
        Some(delay.max(asked_for).min(policy.maximum_redelivery_delay))
    }

    /// Sends a failed exchange to the dead letter endpoint, with the error as its exception; `false`: there is
    /// none, or the exchange must not go there.
    pub(crate) async fn send_dead_letter(
        &self,
        error: &RouteError,
        exchange: &mut Exchange,
    ) -> Result<bool, Box<Failure>> {
        let dead_letter = self.policy.as_ref().and_then(|policy| policy.dead_letter.as_ref());
        let Some(dead_letter) = dead_letter.filter(|_| !error.is_leadership_lost()) else { return Ok(false) };
        exchange.check_terms()?;
        let handled = exchange.handle(Exception::of(error));
        process(&**dead_letter, handled.exchange).await.map_err(Failure::of)?;
        Ok(true)
    }
}

/// The kinds that are tried again.
fn retried(definition: &ErrorHandlerDefinition) -> Result<Vec<ErrorKind>, ConfigErrors> {
    let Some(named) = &definition.retry_on else {
        return Ok(ErrorKind::HANDLEABLE.iter().copied().filter(|kind| kind.is_retried()).collect());
    };
    let (mut kinds, mut errors) = (Vec::new(), ConfigErrors::default());
    if let (Some(first), 0) = (named.first(), definition.maximum_redeliveries) {
        let error = ConfigError::in_text(first, "`retry_on` without redeliveries: nothing is tried again");
        errors.push(error.help("say how often: `maximum_redeliveries = 3`"));
    }
    if named.is_empty() {
        let error = ConfigError::new("`retry_on` names no kind of errors");
        errors.push(error.help("without redeliveries, leave it out"));
    }
    for name in named {
        if let Some(kind) = errors.collect(handleable(name)) {
            kinds.push(kind);
        }
    }
    errors.into_result()?;
    Ok(kinds)
}

/// The kind of errors that is named where errors are handled.
pub(crate) fn handleable(name: &SourceText) -> Result<ErrorKind, ConfigError> {
    let written = name.as_str();
    if let Some(kind) = ErrorKind::from_name(written) {
        return Ok(kind);
    }
    let error = |message: String| ConfigError::in_text(name, message);
    if written == ErrorKind::LeadershipLost.name() {
        let error = error(format!("`{written}` cannot be handled"));
        return Err(error.help(
            "another member may do the work already: nothing is tried again, sent elsewhere or confirmed then",
        ));
    }
    let names = || ErrorKind::HANDLEABLE.iter().map(|kind| kind.name());
    let list = names().collect::<Vec<_>>().join("`, `");
    let error = error(format!("unknown kind of errors `{written}`"));
    Err(error.suggest(written, names()).help(format!("the kinds are `{list}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_what_the_other_side_asks_for_within_the_longest_one() {
        let definition = ErrorHandlerDefinition::default().maximum_redeliveries(2);
        let handler = ErrorHandler::compile(definition, None).unwrap_or_default();
        let seconds = Duration::from_secs;
        let pause = |asked_for: u64| {
            let failure = Failure::unavailable("busy").retry_after(seconds(asked_for));
            handler.delay_before_retry(&failure, 0)
        };
        assert_eq!(pause(0), Some(seconds(1)));
        assert_eq!(pause(30), Some(seconds(30)));
        assert_eq!(pause(3600), Some(seconds(60)));
    }

    #[test]
    fn what_is_tried_again_follows_from_the_kind_or_is_named() {
        let retried = |definition: ErrorHandlerDefinition| {
            let handler = ErrorHandler::compile(definition.maximum_redeliveries(1), None).unwrap_or_default();
            let kinds = ErrorKind::HANDLEABLE.iter().chain([&ErrorKind::LeadershipLost]);
            let retried = |kind| handler.delay_before_retry(&Failure::new(kind, "no"), 0).is_some();
            kinds.copied().filter(|kind| retried(*kind)).collect::<Vec<_>>()
        };
        use ErrorKind::{Data, Other, Panicked, Rejected, Timeout, Unavailable};
        let definition = ErrorHandlerDefinition::default;
        assert_eq!(retried(definition()), [Timeout, Unavailable, Panicked, Other]);
        assert_eq!(retried(definition().retry_on([Rejected, Data])), [Rejected, Data]);
    }

    #[test]
    fn the_loss_of_leadership_cannot_be_handled_and_other_names_are_errors() {
        let definition = ErrorHandlerDefinition::default().retry_on([ErrorKind::LeadershipLost]);
        let definition = definition.maximum_redeliveries(1);
        let printed = ErrorHandler::compile(definition, None).err().unwrap().to_string();
        assert!(printed.contains("`leadership_lost` cannot be handled"), "{printed}");
        assert!(printed.contains("router-core/src/error_handler.rs:"), "{printed}");
        assert!(printed.contains("another member may do the work already"), "{printed}");
        let retry_on = Some(vec![SourceText::from_code("timeuot")]);
        let definition = ErrorHandlerDefinition { retry_on, ..ErrorHandlerDefinition::default() };
        let printed = ErrorHandler::compile(definition, None).err().unwrap().to_string();
        assert!(printed.contains("did you mean `timeout`?"), "{printed}");
        assert!(printed.contains("`retry_on` without redeliveries"), "{printed}");
    }
}
