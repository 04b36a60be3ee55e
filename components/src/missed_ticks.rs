//! [`Missed`]: what becomes of times at which nothing could fire, for `cron:` and `timer:`.

use std::time::Duration;

use router_core::error::ConfigError;
use router_core::metrics::Counter;
use router_core::options::{OptionDescription, OptionKind, Options, option};
#[cfg(any(feature = "cron", feature = "http"))]
use router_core::state::RouteState;
use router_core::uri::EndpointUri;
use tracing::{info, warn};

use crate::in_sum::InSum;
use crate::metrics::MISSED_TICKS;

/// How many missed times fire, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    Skip,
    Once,
    All { max: u64 },
}

/// The words of the option `missed`.
pub(crate) const WORDS: &[&str] = &["skip", "once", "all"];

pub(crate) const MAX_OPTION: OptionDescription = option(
    "missed_max",
    OptionKind::Integer,
    Some("100"),
    "how many missed times fire with `missed=all`: the latest",
);

pub(crate) const STATE_OPTION: OptionDescription = option(
    "state",
    OptionKind::StateFile,
    None,
    "a file for the position of a route without a lock; below `master:` it travels with the lock",
);

impl Missed {
    /// The policy in the options `missed` and `missed_max`, if there is one.
    pub(crate) fn read(uri: &EndpointUri, options: &Options) -> Result<Option<Self>, ConfigError> {
        let policy = options.text("missed");
        if policy.as_deref() != Some("all") && options.are_right(&["missed"]) {
            uri.refuse_without("missed_max", "missed=all")?;
        }
        Ok(policy.map(|policy| match policy.as_str() {
            "once" => Self::Once,
            "all" => Self::All { max: options.integer("missed_max").unwrap_or(0) },
            _ => Self::Skip,
        }))
    }

    /// How many of so many missed times fire. They are the latest ones, in their order.
    pub(crate) fn fires(self, missed: u64) -> u64 {
        missed.min(match self {
            Self::Skip => 0,
            Self::Once => 1,
            Self::All { max } => max,
        })
    }
}

/// Counts the times that a route has missed, and says what becomes of them.
pub(crate) struct Missing<'a> {
    route: &'a str,
    counter: Counter,
    policy: Missed,
    untold: InSum,
    why: &'static str,
}

impl<'a> Missing<'a> {
    /// None was missed yet.
    pub(crate) fn new(route: &'a str, policy: Missed) -> Self {
        let counter = MISSED_TICKS.counter(&[route]);
        Self { route, counter, policy, untold: InSum::default(), why: "" }
    }

    /// So many were missed. To be called with 0 as well, because a line may have had to wait.
    pub(crate) fn note(&mut self, missed: u64, why: &'static str) {
        if missed > 0 {
            self.counter.increment(missed);
            self.why = why;
        }
        let Some(missed) = self.untold.note(missed) else { return };
        let (route, why) = (self.route, self.why);
        let rule = match self.policy {
            Missed::Skip => "none of them fires".to_owned(),
            Missed::Once => "of those that were missed together, the latest one fires".to_owned(),
            Missed::All { max } => {
                format!("of those that were missed together, the latest {max} at most fire")
            }
        };
        info!(route, missed, "route `{route}` missed {missed} times, {why}: {rule}");
    }
}

/// How far apart the clocks of hosts may be before somebody should look.
const AHEAD: Duration = Duration::from_secs(60);

/// Says that a route waits because an earlier leader has fired times that are still to come here.
pub(crate) fn warn_if_ahead(route: &str, ahead: Duration) {
    if ahead > AHEAD {
        warn!(
            route,
            "route `{route}` fires nothing for {ahead:.0?}: up to then, an earlier leader has fired. Is the clock \
             of a host wrong?"
        );
    }
}

/// The state, and what is in it; no state at all where the cluster service keeps none and it was not
/// asked for by name.
#[cfg(any(feature = "cron", feature = "http"))]
pub(crate) async fn load_if_kept(
    state: RouteState,
    required: bool,
) -> Result<(Option<RouteState>, serde_json::Value), router_core::error::BoxError> {
    use router_core::state::StateError;

    match state.load().await {
        Ok(value) => Ok((Some(state), value.unwrap_or_default())),
        Err(StateError::NotKept) if !required => Ok((None, serde_json::Value::Null)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_fires_none_one_or_some() {
        for (policy, expected) in
            [(Missed::Skip, [0, 0, 0]), (Missed::Once, [0, 1, 1]), (Missed::All { max: 3 }, [0, 2, 3])]
        {
            assert_eq!([0, 2, 9].map(|missed| policy.fires(missed)), expected, "{policy:?}");
        }
    }
}
